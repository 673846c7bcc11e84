//! [`Socket`]: RFC 6455 over a byte stream, after the opening handshake.
//!
//! Items are [`Message`]s. Pings are answered here and passed on; a message that breaks a rule ends
//! the stream with an error after the peer was told why. Nothing beyond this module knows the
//! WebSocket library.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), mcp_ws_transport::Error> {
//! use futures::{SinkExt, StreamExt};
//! use mcp_ws_transport::{Message, layer::socket::{Config, Side, Socket}};
//!
//! let (near, far) = tokio::io::duplex(1024);
//! let mut client = Socket::new(near, Side::Client, Config::default());
//! let mut server = Socket::new(far, Side::Server, Config::default());
//! client.send(Message::text("hello")).await?;
//! assert_eq!(server.next().await.transpose()?, Some(Message::text("hello")));
//! # Ok(()) }
//! ```

pub(crate) mod config;
#[cfg(feature = "deflate")]
#[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
pub mod deflate;
mod ending;
mod filter;
mod frames;
mod pace;
pub(crate) mod side;
mod small_messages;
mod stall;
mod stream;
#[cfg(any(test, feature = "server"))]
mod unauthenticated;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{Sink, Stream, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
    time::{Sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message as WsMessage,
        protocol::{
            Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

pub use self::{config::Config, side::Side};
use self::{
    ending::{close_frame, ended, link_error},
    filter::{Filter, Filtered},
    pace::Pace,
    small_messages::{STEP, TooBig},
    stall::Stall,
    stream::{Counted, LIBRARY},
};
use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, LinkError},
    message::{Message, Text},
    stats::Stats,
    time::deadline_in,
};

/// Most pings that are read before their pongs have been written.
const MAX_PONGS_OWED: usize = 16;

/// Phase of a connection between open and closed.
///
/// | phase | inbound | outbound | left when |
/// |---|---|---|---|
/// | `Open` | messages | messages | a Close is sent or received, or a rule is broken |
/// | `Closing` | messages | our Close is out | the peer's Close or the end arrives |
/// | `PeerClosed` | – | our answer to its Close | that is flushed; as client, when the server cut |
/// | `Failed` | discarded unread | a Close that names the cause | the peer's end arrives |
/// | `Shutdown` | – | end of stream | it is written |
/// | `Closed` | – | – | – |
///
/// `poll_close` leads from each to `Closed`, within the close timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    PeerClosed,
    Failed,
    Shutdown,
    Closed,
}

/// A WebSocket connection as a duplex of [`Message`]s.
#[derive(Debug)]
#[must_use = "a layer does nothing unless polled"]
pub struct Socket<S> {
    websocket: WebSocketStream<Filtered<S>>,
    side: Side,
    config: Config,
    phase: Phase,
    /// Pings read since the last flush that `poll_next` made for their pongs.
    pongs_owed: usize,
    /// Rate check of what waits to be written.
    stall: Option<Stall>,
    /// Rate check of the message that is arriving.
    pace: Option<Pace>,
    deadline: Option<Pin<Box<Sleep>>>,
    #[cfg(feature = "deflate")]
    compressor: Option<Box<deflate::Compressor>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Creates a socket over `stream`, on which the opening handshake is done.
    pub fn new(stream: S, side: Side, config: Config) -> Self {
        Self::with_leftover(stream, Bytes::new(), side, config, Stats::default())
    }

    /// Creates a socket with `leftover`, which was read behind the handshake, and with counters.
    pub fn with_leftover(
        stream: S,
        leftover: Bytes,
        side: Side,
        config: Config,
        stats: Stats,
    ) -> Self {
        stats.record_bytes_received(leftover.len());
        let mut stream = Counted::new(stream, stats, config.buffer_size);
        stream.frames.follow(&leftover);
        // A copy, since the bytes share the buffer of the whole handshake.
        let ahead = leftover.to_vec();
        Self::assemble(Filtered::new(stream, Filter::None), ahead, side, config)
    }

    fn assemble(stream: Filtered<S>, ahead: Vec<u8>, side: Side, config: Config) -> Self {
        let (read_size, write_size, limit) = match &stream.filter {
            Filter::SmallMessages(small) => (STEP, STEP, small.limit()),
            _ => (config.buffer_size.min(LIBRARY), config.buffer_size, config.limit(side)),
        };
        let websocket_config = WebSocketConfig::default()
            .read_buffer_size(read_size)
            .write_buffer_size(write_size)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let role = match side {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let websocket =
            WebSocketStream::from_partially_read(stream, ahead, role, Some(websocket_config));
        Self {
            websocket: ready_now(websocket),
            side,
            config,
            phase: Phase::Open,
            pongs_owed: 0,
            stall: None,
            pace: None,
            deadline: None,
            #[cfg(feature = "deflate")]
            compressor: None,
        }
    }

    /// Creates a socket with permessage-deflate, as agreed on in the handshake.
    #[cfg(feature = "deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
    pub fn deflating(
        stream: S,
        leftover: Bytes,
        side: Side,
        config: Config,
        stats: Stats,
        agreement: deflate::Agreement,
    ) -> Self {
        stats.record_bytes_received(leftover.len());
        let inflater = deflate::Inflater::new(&agreement, side, &leftover, config.limit(side));
        let mut socket = Self::with_leftover(stream, Bytes::new(), side, config, stats);
        let filtered = socket.websocket.get_mut();
        filtered.stream.frames.follow(&leftover);
        filtered.filter = Filter::Inflate(Box::new(inflater));
        socket.compressor = deflate::Compressor::new(&agreement, side).map(Box::new);
        socket
    }

    /// Returns the byte stream below.
    pub fn get_ref(&self) -> &S {
        &self.counted().stream
    }

    fn counted(&self) -> &Counted<S> {
        &self.websocket.get_ref().stream
    }

    fn stats(&self) -> &Stats {
        &self.counted().stats
    }

    /// Ends the connection for `error`: tells the peer, where it is the peer's doing.
    fn fail(&mut self, cx: &mut Context<'_>, error: WsError) -> Error {
        let error = link_error(error);
        self.fail_link(cx, error)
    }

    fn fail_link(&mut self, cx: &mut Context<'_>, error: LinkError) -> Error {
        let told = matches!(
            error,
            LinkError::TooBig { .. }
                | LinkError::TooSlow { .. }
                | LinkError::Utf8
                | LinkError::Deflate(_)
                | LinkError::Protocol(_)
        );
        if told {
            let mut reason = error.close_reason();
            if let (LinkError::TooBig { .. }, Filter::SmallMessages(small)) =
                (&error, &self.websocket.get_ref().filter)
            {
                reason.reason = TooBig { size: 0, limit: small.limit() }.to_string();
            }
            let close = WsMessage::Close(Some(close_frame(&reason)));
            if Pin::new(&mut self.websocket).start_send(close).is_ok() {
                let _ = Pin::new(&mut self.websocket).poll_flush(cx);
            }
            self.phase = Phase::Failed;
        } else {
            self.phase = Phase::Closed;
        }
        error.into()
    }

    /// Fails once the peer was too slow to take what waits to be written.
    fn check_stall(&mut self, cx: &mut Context<'_>, pending: bool) -> Result<(), Error> {
        if !pending {
            if let Some(stall) = &mut self.stall {
                stall.pause();
            }
            return Ok(());
        }
        let written = self.counted().written;
        let stall = self.stall.get_or_insert_with(|| Stall::new(written, &self.config));
        if let Err(error) = stall.wait(cx, written, &self.config) {
            self.phase = Phase::Closed;
            return Err(error.into());
        }
        Ok(())
    }

    /// Checks as [`check_stall`](Self::check_stall) does, after an attempt to write everything.
    fn check_flush(&mut self, cx: &mut Context<'_>, pending: bool) -> Result<(), Error> {
        if !pending {
            self.stall = None;
        }
        self.check_stall(cx, pending)
    }

    /// Fails if the peer was too slow for a whole window with the message that is arriving.
    fn check_pace(&mut self, cx: &mut Context<'_>, waits: bool) -> Result<(), LinkError> {
        let Some(rate) = self.config.min_receive_rate else { return Ok(()) };
        let (frames, window) =
            (&self.websocket.get_ref().stream.frames, self.config.receive_window);
        if self.pace.is_none() && !(waits && frames.is_unfinished()) {
            return Ok(());
        }
        let pace = self.pace.get_or_insert_with(|| Pace::new(window, frames));
        match pace.poll(cx, frames, rate, waits) {
            Poll::Pending => {}
            Poll::Ready(true) => self.pace = None,
            Poll::Ready(false) => return Err(LinkError::TooSlow { rate, window }),
        }
        Ok(())
    }

    /// Reads and discards until the end of the stream. The kernel answers unread data with a reset,
    /// which would overtake our Close.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        let stream = &mut self.websocket.get_mut().stream;
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(stream.poll_wire(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Builds a message of one frame, compressed where that is agreed on and of use.
    fn data(&mut self, data: Bytes, kind: Data) -> WsMessage {
        #[cfg(feature = "deflate")]
        if let Some(compressor) = &mut self.compressor
            && let Some(compressed) = compressor.compress(&data)
        {
            let mut frame = Frame::message(compressed, OpCode::Data(kind), true);
            frame.header_mut().rsv1 = true;
            return WsMessage::Frame(frame);
        }
        WsMessage::Frame(Frame::message(data, OpCode::Data(kind), true))
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.phase {
                Phase::Open => {
                    let normal = close_frame(&CloseCode::Normal.into());
                    let close = WsMessage::Close(Some(normal));
                    self.phase = match Pin::new(&mut self.websocket).start_send(close) {
                        Ok(()) => Phase::Closing,
                        Err(_) => Phase::Shutdown,
                    };
                }
                Phase::Closing => {
                    let _ = Pin::new(&mut self.websocket).poll_flush(cx);
                    while let Some(Ok(_)) = ready!(self.websocket.poll_next_unpin(cx)) {}
                    self.phase = Phase::Shutdown;
                }
                Phase::PeerClosed => {
                    let _ = ready!(Pin::new(&mut self.websocket).poll_flush(cx));
                    if self.side == Side::Client {
                        ready!(self.poll_discard(cx));
                    }
                    self.phase = Phase::Shutdown;
                }
                Phase::Failed => {
                    let flushed = Pin::new(&mut self.websocket).poll_flush(cx);
                    if flushed.is_ready() {
                        let _ = Pin::new(self.websocket.get_mut()).poll_shutdown(cx);
                    }
                    ready!(self.poll_discard(cx));
                    self.phase = Phase::Shutdown;
                }
                Phase::Shutdown => {
                    let _ = ready!(Pin::new(self.websocket.get_mut()).poll_shutdown(cx));
                    self.phase = Phase::Closed;
                }
                Phase::Closed => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Socket<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if matches!(this.phase, Phase::Failed | Phase::Shutdown | Phase::Closed) {
            return Poll::Ready(None);
        }
        // tungstenite buffers pongs without a bound: a peer that pings but does not read is read
        // no further.
        if this.pongs_owed >= MAX_PONGS_OWED {
            let flushed = Pin::new(&mut this.websocket).poll_flush(cx);
            this.check_flush(cx, flushed.is_pending())?;
            let _ = ready!(flushed);
            this.pongs_owed = 0;
        }
        // A reader may take many small messages out of one large step; other tasks have a turn too.
        let turn = ready!(poll_proceed(cx));
        this.websocket.get_mut().is_reading = true;
        let polled = this.websocket.poll_next_unpin(cx);
        this.websocket.get_mut().is_reading = false;
        if let Err(error) = this.check_pace(cx, polled.is_pending()) {
            return Poll::Ready(Some(Err(this.fail_link(cx, error))));
        }
        let next = ready!(polled);
        turn.made_progress();
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Some(Err(this.fail(cx, error)))),
            None => {
                this.phase = Phase::Shutdown;
                return Poll::Ready(None);
            }
        };
        let message = match message {
            WsMessage::Text(text) => Message::Text(Text::from_validated(text.into())),
            WsMessage::Binary(bytes) => Message::Binary(bytes),
            WsMessage::Ping(payload) => {
                this.pongs_owed += 1;
                Message::Ping(payload)
            }
            WsMessage::Pong(payload) => Message::Pong(payload),
            WsMessage::Close(frame) => {
                this.phase = Phase::PeerClosed;
                let _ = Pin::new(&mut this.websocket).poll_flush(cx);
                Message::Close(frame.map(|frame| {
                    CloseReason::new(u16::from(frame.code).into(), frame.reason.as_str())
                }))
            }
            WsMessage::Frame(frame) => Message::Binary(frame.into_payload()),
        };
        if message.is_data() {
            this.stats().record_message_received();
        }
        Poll::Ready(Some(Ok(message)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<Message> for Socket<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.phase != Phase::Open {
            return Poll::Ready(Err(ended()));
        }
        let polled = Pin::new(&mut self.websocket).poll_ready(cx);
        self.check_stall(cx, polled.is_pending())?;
        polled.map_err(|error| link_error(error).into())
    }

    fn start_send(mut self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        if self.phase != Phase::Open {
            return Err(ended());
        }
        if item.is_data() {
            self.stats().record_message_sent();
        }
        let message = match item {
            Message::Text(data) => self.data(data.into(), Data::Text),
            Message::Binary(data) => self.data(data, Data::Binary),
            Message::Ping(payload) => WsMessage::Ping(payload),
            Message::Pong(payload) => WsMessage::Pong(payload),
            Message::Close(reason) => {
                self.phase = Phase::Closing;
                WsMessage::Close(reason.as_ref().map(close_frame))
            }
        };
        Pin::new(&mut self.websocket).start_send(message).map_err(|error| link_error(error).into())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !matches!(self.phase, Phase::Open | Phase::Closing) {
            return Poll::Ready(Err(ended()));
        }
        let polled = Pin::new(&mut self.websocket).poll_flush(cx);
        self.check_flush(cx, polled.is_pending())?;
        polled.map_err(|error| link_error(error).into())
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = &mut *self;
        let timeout = this.config.close_timeout;
        let deadline =
            this.deadline.get_or_insert_with(|| Box::pin(sleep_until(deadline_in(timeout))));
        if deadline.as_mut().poll(cx).is_ready() {
            this.phase = Phase::Closed;
        }
        this.poll_closing(cx).map(Ok)
    }
}

/// Returns the result of a future that is `async` in name only.
fn ready_now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return value;
        }
    }
}

#[cfg(test)]
mod tests;
