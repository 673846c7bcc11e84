//! [`Framed`]: JSON-RPC messages out of WebSocket messages, and back.
//!
//! Outbound items are rmcp's [`TxJsonRpcMessage`]s, inbound ones its [`RxJsonRpcMessage`]s. What
//! cannot be read is answered, or ends the call it answers, without harm to the link; what cannot
//! be sent fails alone.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use rmcp::{
    ErrorData,
    model::{ErrorCode, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use crate::{
    decode::{Calls, DecodedSize, Role, Unbuffered, estimate_decoded_size},
    duplex::{Duplex, forward_sink},
    error::{Error, LinkError, MessageError},
    framing::{Framing, Unreadable},
    link::{LinkEvent, PeerLimits},
    message::Message,
    stats::Stats,
    warn_limit::WarnLimit,
};

/// What a [`Framed`] lets out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The most that an inbound message may take once it is decoded, in bytes. By default 32 MiB
    /// for an MCP server and 128 MiB for a client, which is eight times the size that they accept.
    ///
    /// The estimate is made from the JSON, before anything is decoded, by what the worst JSON
    /// takes: 144 bytes for each value in a list, 192 for each member of an object, 704 for an
    /// object, and twice that for a message of an unusual form, which rmcp buffers. A request that
    /// would take more is answered with `-32600`, a call whose answer would ends so; the error has
    /// both numbers.
    pub max_decoded_size: Option<usize>,
    /// The largest outbound message in bytes: 16 MiB, or less where the peer has told that it takes
    /// less. A larger one fails alone.
    pub max_message_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_decoded_size: None, max_message_size: 16 << 20 }
    }
}

impl Config {
    /// Sets [`max_decoded_size`](Self::max_decoded_size).
    #[must_use]
    pub fn max_decoded_size(mut self, bytes: usize) -> Self {
        self.max_decoded_size = Some(bytes);
        self
    }

    /// Sets [`max_message_size`](Self::max_message_size).
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }
}

/// Default of [`Config::max_decoded_size`] for an MCP client.
pub(crate) const DEFAULT_DECODED_SIZE_OF_CLIENT: usize = 128 << 20;

/// How many bytes of answers of our own may wait in a sink without room before no more is read, so
/// that a peer which sends rubbish and reads nothing is not buffered for. Not none at all: two ends
/// that both refuse something would each wait for the other to read.
const MAX_OWED: usize = 1 << 20;

pin_project! {
    /// Encodes and decodes by a [`Framing`] for the MCP role `R`.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Framed<R, S, F> {
        framing: F,
        config: Config,
        peer: PeerLimits,
        stats: Stats,
        // An answer of our own is in the sink, and not flushed yet.
        replied: bool,
        // The size of such answers since there was last room in the sink.
        owed: usize,
        // What cannot be read is not answered: too many answers wait already, and nothing can be
        // written before more is read.
        is_mute: bool,
        // The size of the message decoded last, and what it may take now.
        last_size: usize,
        last_weight: usize,
        // Calls whose answers came as one message that cannot be read, and how they end.
        ended: VecDeque<(RequestId, ErrorData)>,
        warnings: WarnLimit,
        role: PhantomData<fn() -> R>,
        #[pin]
        inner: S,
    }
}

impl<R, S, I, F> Framed<R, S, F>
where
    R: Role,
    S: Duplex<Message, I> + Stream<Item = Result<I, Error>>,
    I: Into<LinkEvent<Message>>,
    F: Framing<R>,
{
    /// Speaks `framing` over `inner`.
    pub fn new(inner: S, framing: F, config: Config) -> Self {
        Self::with_stats(inner, framing, config, Stats::default())
    }

    /// The same, with the counters in which unreadable messages are noted.
    pub fn with_stats(inner: S, framing: F, config: Config, stats: Stats) -> Self {
        let role = PhantomData;
        Self {
            framing,
            config,
            peer: PeerLimits::default(),
            stats,
            replied: false,
            owed: 0,
            is_mute: false,
            last_size: 0,
            last_weight: 0,
            ended: VecDeque::new(),
            warnings: WarnLimit::default(),
            role,
            inner,
        }
    }

    /// Keeps to what the `peer` takes.
    pub fn within(mut self, peer: PeerLimits) -> Self {
        self.peer = peer;
        self
    }

    /// Returns the limits that the peer has told.
    pub(super) fn peer(&self) -> &PeerLimits {
        &self.peer
    }

    /// The layer below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The layer below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// `message` as it goes over the wire, without sending it.
    pub(super) fn encoded(
        &mut self,
        message: &TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, Error> {
        Ok(self.framing.encode(message)?)
    }

    /// The same of a `message` that was encoded for a former session.
    pub(super) fn again(&self, message: &Message) -> Message {
        self.framing.again(message.clone())
    }

    /// The request of ours with this id is sent again over the present link, as it was encoded.
    pub(super) fn asked_again(&mut self, id: &RequestId) {
        self.framing.asked_again(id);
    }

    /// Returns an error if a message of this many bytes is too large to be sent.
    pub(super) fn check(&self, size: usize) -> Result<(), MessageError> {
        limit(&self.config, &self.peer).check(size)
    }

    /// A request of ours that was handed down is not sent after all.
    pub(super) fn withdraw(&mut self, id: &RequestId) {
        self.framing.withdraw(id);
    }

    /// The peer is another from now on.
    pub(super) fn restart(&mut self) {
        self.framing.restart();
    }

    /// The size of the message that was decoded last, in bytes.
    pub(super) fn last_size(&self) -> usize {
        self.last_size
    }

    /// What that message may take now that it is decoded, in bytes.
    pub(super) fn last_weight(&self) -> usize {
        self.last_weight
    }

    /// The next message, decoded with the help of the requests in flight.
    pub fn poll_decode(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        calls: &dyn Calls,
    ) -> Poll<Option<Result<LinkEvent<RxJsonRpcMessage<R>>, Error>>> {
        self.poll_decode_unless(cx, calls, |_| false)
    }

    /// The same, where the layer below may say that nothing can be written before more is read:
    /// then reading goes on, and beyond [`MAX_OWED`] no unreadable message is answered.
    pub(super) fn poll_decode_unless(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        calls: &dyn Calls,
        is_stuck: impl Fn(&S) -> bool,
    ) -> Poll<Option<Result<LinkEvent<RxJsonRpcMessage<R>>, Error>>> {
        loop {
            let mut this = self.as_mut().project();
            if let Some((id, error)) = this.ended.pop_front() {
                let message = JsonRpcMessage::error(error, Some(id));
                return Poll::Ready(Some(Ok(LinkEvent::Item(message))));
            }
            let mut failed = None;
            if *this.replied {
                let flushed = this.inner.as_mut().poll_flush(cx);
                match (this.inner.as_mut().poll_ready(cx), &flushed) {
                    (Poll::Ready(Err(error)), _) => failed = Some(error),
                    (Poll::Ready(Ok(())), _) | (_, Poll::Ready(Ok(()))) => {
                        *this.owed = 0;
                        *this.is_mute = false;
                    }
                    _ if *this.owed < MAX_OWED => {}
                    _ if !is_stuck(&this.inner) => return Poll::Pending,
                    _ => *this.is_mute = true,
                }
                *this.replied = !matches!(flushed, Poll::Ready(Ok(())));
            }
            // What arrived before a write failed is not lost.
            let item = match (this.inner.as_mut().poll_next(cx), failed) {
                (Poll::Pending, Some(error)) => Some(Err(error)),
                (polled, _) => ready!(polled),
            };
            let message = match item.map(|item| item.map(Into::into)) {
                Some(Ok(LinkEvent::Item(Message::Close(reason)))) => {
                    return Poll::Ready(Some(Err(LinkError::closed_by_peer(reason).into())));
                }
                Some(Ok(LinkEvent::Item(message))) if message.is_data() => message,
                Some(Ok(LinkEvent::Item(_))) => continue,
                Some(Ok(LinkEvent::Down(down))) => {
                    return Poll::Ready(Some(Ok(LinkEvent::Down(down))));
                }
                Some(Ok(LinkEvent::Up(up))) => return Poll::Ready(Some(Ok(LinkEvent::Up(up)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            *this.last_size = message.len();
            let limit = if R::IS_CLIENT { DEFAULT_DECODED_SIZE_OF_CLIENT } else { 32 << 20 };
            let limit = this.config.max_decoded_size.unwrap_or(limit);
            let DecodedSize { usual, buffered } = match &message {
                Message::Text(json) => estimate_decoded_size(json.as_bytes(), limit),
                Message::Binary(json) => estimate_decoded_size(json, limit),
                _ => DecodedSize::default(),
            };
            *this.last_weight = usual;
            let decoded = match (too_large(usual, limit), too_large(buffered, limit)) {
                (Some(error), _) => Err(this.framing.refuse(&message, calls, error)),
                (None, Some(error)) => this.framing.decode(message, &Unbuffered { calls, error }),
                (None, None) => this.framing.decode(message, calls),
            };
            self.as_mut().say_owed();
            match decoded {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(LinkEvent::Item(message)))),
                Ok(None) => {}
                Err(unreadable) => {
                    self.stats.malformed();
                    self.as_mut().complain(&unreadable);
                    if let Some(item) = self.as_mut().take_in(cx, unreadable) {
                        return Poll::Ready(Some(item.map(LinkEvent::Item)));
                    }
                }
            }
        }
    }

    /// Sends an answer of this side's own. One that cannot be sent fails alone, and the end of the
    /// link is for the stream to tell, after all that had arrived before.
    pub(super) fn reply(mut self: Pin<&mut Self>, message: TxJsonRpcMessage<R>) {
        let this = self.as_mut().project();
        let limit = limit(this.config, this.peer);
        match Self::encode(this.framing, limit, &message) {
            Ok(Some(message)) => self.as_mut().say(message),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "answer not sent"),
        }
        self.say_owed();
    }

    /// Sends what the framing has to say by itself.
    fn say_owed(mut self: Pin<&mut Self>) {
        while let Some(message) = self.as_mut().project().framing.owed() {
            self.as_mut().say(message);
        }
    }

    /// Sends what nobody above waits for.
    fn say(self: Pin<&mut Self>, message: Message) {
        let this = self.project();
        *this.replied = true;
        *this.owed += message.len();
        if let Err(error) = this.inner.start_send(message) {
            tracing::debug!(%error, "answer not sent");
        }
    }

    /// Logs that a message could not be read, without its content: at WARN, but not each time.
    fn complain(self: Pin<&mut Self>, unreadable: &Unreadable) {
        let code = match unreadable {
            Unreadable::Request { error, .. }
            | Unreadable::Response { error, .. }
            | Unreadable::Responses { error, .. }
            | Unreadable::Dropped { error } => error.code.0,
            Unreadable::Unacceptable(reason) => u16::from(reason.code).into(),
        };
        let what = unreadable.cause();
        match self.project().warnings.admit() {
            Some(suppressed) => {
                tracing::warn!(code, what, suppressed, "a message of the peer cannot be read");
            }
            None => tracing::debug!(code, what, "a message of the peer cannot be read"),
        }
    }

    /// Deals with what could not be read; the result, if any, is for the layer above.
    fn take_in(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        unreadable: Unreadable,
    ) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        match unreadable {
            // A server that sends what nobody asked for and nobody can read is not told so.
            Unreadable::Request { id: None, .. } if R::IS_CLIENT => None,
            Unreadable::Request { .. } if self.is_mute => None,
            Unreadable::Request { id, error } => {
                self.as_mut().reply(JsonRpcMessage::error(error, id));
                None
            }
            // Without an id too: whose it is, those may know who know what is in flight.
            Unreadable::Response { id, error } => Some(Ok(JsonRpcMessage::error(error, id))),
            Unreadable::Responses { ids, error } => {
                self.project().ended.extend(ids.into_iter().map(|id| (id, error.clone())));
                None
            }
            Unreadable::Dropped { .. } => None,
            Unreadable::Unacceptable(reason) => {
                let mut inner = self.project().inner;
                let close = Message::Close(Some(reason.clone()));
                if inner.as_mut().start_send(close).is_ok() {
                    let _ = inner.poll_flush(cx);
                }
                Some(Err(LinkError::closed_here(&reason).into()))
            }
        }
    }
}

impl<R: Role, S, F: Framing<R>> Framed<R, S, F> {
    fn encode(
        framing: &mut F,
        limit: Limit,
        item: &TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, MessageError> {
        let Some(message) = framing.encode(item)? else { return Ok(None) };
        limit.check(message.len())?;
        Ok(framing.in_turn(message))
    }
}

/// The largest message that may be sent, by this side's limit and the peer's.
#[derive(Debug, Clone, Copy)]
struct Limit {
    own: usize,
    peer: usize,
}

impl Limit {
    const NONE: Self = Self { own: usize::MAX, peer: usize::MAX };

    fn check(self, size: usize) -> Result<(), MessageError> {
        let Self { own, peer } = self;
        match size {
            _ if size <= own.min(peer) => Ok(()),
            _ if peer < own => Err(MessageError::TooBigForPeer { size, limit: peer }),
            _ => Err(MessageError::TooBig { size, limit: own }),
        }
    }
}

fn limit(config: &Config, peer: &PeerLimits) -> Limit {
    Limit { own: config.max_message_size, peer: peer.max_message() }
}

/// The id of the request that `item` answers.
fn answered<A, B, C>(item: JsonRpcMessage<A, B, C>) -> Option<RequestId> {
    match item {
        JsonRpcMessage::Response(response) => Some(response.id),
        JsonRpcMessage::Error(error) => error.id,
        _ => None,
    }
}

/// What the peer is told in place of a response that cannot be sent: no call is lost in silence.
fn instead(id: RequestId, error: &MessageError) -> (ErrorData, Option<RequestId>) {
    (
        ErrorData::new(
            ErrorCode::INTERNAL_ERROR,
            format!("the response was not sent: {error}"),
            None,
        ),
        Some(id),
    )
}

impl<R, S, I, F> Stream for Framed<R, S, F>
where
    R: Role,
    S: Duplex<Message, I> + Stream<Item = Result<I, Error>>,
    I: Into<LinkEvent<Message>>,
    F: Framing<R>,
{
    type Item = Result<LinkEvent<RxJsonRpcMessage<R>>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_decode(cx, &())
    }
}

impl<R, S, F> Sink<TxJsonRpcMessage<R>> for Framed<R, S, F>
where
    R: Role,
    S: Sink<Message, Error = Error>,
    F: Framing<R>,
{
    type Error = Error;

    forward_sink!(inner, TxJsonRpcMessage<R>: poll_ready, poll_flush, poll_close);

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let message = self.as_mut().outgoing(item)?;
        let mut next = message.or_else(|| self.as_mut().next_owed());
        while let Some(message) = next {
            self.as_mut().project().inner.start_send(message)?;
            next = self.as_mut().next_owed();
        }
        Ok(())
    }
}

impl<R, S, F> Framed<R, S, F>
where
    R: Role,
    S: Sink<Message, Error = Error>,
    F: Framing<R>,
{
    /// Returns the message that `item` becomes on the wire: `None` if nothing is sent for it now.
    /// An error takes the place of a response that cannot be sent.
    pub(super) fn outgoing(
        self: Pin<&mut Self>,
        item: TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, Error> {
        let this = self.project();
        let limit = limit(this.config, this.peer);
        match Self::encode(this.framing, limit, &item) {
            Ok(message) => Ok(message),
            Err(error) => {
                let Some(id) = answered(item) else { return Err(error.into()) };
                tracing::debug!(%error, %id, "response not sent");
                if let Some(suppressed) = this.warnings.admit() {
                    tracing::warn!(%error, suppressed, "response not sent");
                }
                let (error, id) = instead(id, &error);
                let item = JsonRpcMessage::error(error, id);
                Ok(Self::encode(this.framing, Limit::NONE, &item)?)
            }
        }
    }

    /// Returns the next message that the framing sends by itself.
    pub(super) fn next_owed(self: Pin<&mut Self>) -> Option<Message> {
        self.project().framing.owed()
    }
}

/// The error for a message that would take `size` bytes decoded, if that is too much.
pub(crate) fn too_large(size: usize, limit: usize) -> Option<ErrorData> {
    let data = || json!({ "reason": "too_large", "decoded_bytes": size, "limit_bytes": limit });
    let why =
        || format!("decoded, the message may take {size} bytes, more than the limit of {limit}");
    (size > limit).then(|| ErrorData::invalid_request(why(), Some(data())))
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use rmcp::{RoleClient, RoleServer, model::CustomResult};
    use serde_json::{Value, json};
    use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task::spawn};

    use super::*;
    use crate::{
        error::CloseCode,
        framing::JsonRpc,
        layer::fake::{self, Peer},
    };

    fn framed<R: Role>(config: Config) -> (Framed<R, fake::Link, JsonRpc>, Peer) {
        let (link, peer) = fake::link();
        (Framed::new(link, JsonRpc::default(), config), peer)
    }

    fn sent(peer: &Peer) -> Vec<Value> {
        let json = |message| match message {
            Message::Text(text) => serde_json::from_slice(text.as_bytes()).unwrap(),
            other => panic!("{other:?} is no text"),
        };
        peer.sent().into_iter().map(json).collect()
    }

    #[test]
    fn a_server_answers_rubbish_and_reads_on() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        for (rubbish, code, id) in [
            ("{", -32700, Value::Null),
            ("[]", -32600, Value::Null),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, -32600, json!(7)),
        ] {
            peer.send(Message::text(rubbish));
            assert_pending!(framed.poll_next());
            let [answer] = &sent(&peer)[..] else { panic!("one answer to {rubbish}") };
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{rubbish}");
            assert!(answer.as_object().unwrap().contains_key("id"));
        }
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        assert!(assert_ready!(framed.poll_next()).unwrap().is_ok());
    }

    #[test]
    fn a_response_that_cannot_be_read_ends_its_call_and_is_not_answered() {
        let (framed, peer) = framed::<RoleClient>(Config::default());
        let mut framed = spawn(framed);
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":7,"error":"sorry"}"#));
        let item = assert_ready!(framed.poll_next()).unwrap().unwrap();
        assert!(
            matches!(item, LinkEvent::Item(JsonRpcMessage::Error(error)) if error.id == Some(RequestId::Number(7)))
        );
        // Whose it is without an id, the layer above may know.
        peer.send(Message::text(r#"{"jsonrpc":"2.0","error":"sorry"}"#));
        let item = assert_ready!(framed.poll_next()).unwrap().unwrap();
        assert!(
            matches!(item, LinkEvent::Item(JsonRpcMessage::Error(error)) if error.id.is_none())
        );
        peer.send(Message::text("rubbish"));
        assert_pending!(framed.poll_next());
        assert!(peer.sent().is_empty());
    }

    #[test]
    fn no_more_rubbish_is_read_than_answers_are_taken() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        peer.block(true);
        for _ in 0..MAX_OWED / 10 {
            peer.send(Message::text("rubbish"));
        }
        assert_pending!(framed.poll_next());
        let size = |sent: Vec<Message>| sent.iter().map(Message::len).sum::<usize>();
        assert!((MAX_OWED..MAX_OWED + 200).contains(&size(peer.sent())));
        assert_pending!(framed.poll_next());
        assert!(peer.sent().is_empty());
        peer.block(false);
        assert!(framed.is_woken());
        assert_pending!(framed.poll_next());
        assert!(size(peer.sent()) > MAX_OWED);
    }

    /// Else nobody would notice the end of a link whose peer says nothing else.
    #[test]
    fn rubbish_is_read_and_not_answered_without_end_where_nothing_can_be_written() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        let mut poll =
            |stuck: bool| framed.enter(|cx, framed| framed.poll_decode_unless(cx, &(), |_| stuck));
        peer.block(true);
        for _ in 0..MAX_OWED / 10 {
            peer.send(Message::text("rubbish"));
        }
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        assert!(assert_ready!(poll(true)).unwrap().is_ok());
        let size = peer.sent().iter().map(Message::len).sum::<usize>();
        assert!((MAX_OWED..MAX_OWED + 200).contains(&size), "{size}");
        peer.block(false);
        peer.send(Message::text("rubbish"));
        assert_pending!(poll(false));
        assert_eq!(peer.sent().len(), 1, "answered again as soon as there is room");
    }

    #[test]
    fn what_is_too_big_fails_alone_and_a_response_is_replaced() {
        let (framed, peer) = framed::<RoleServer>(Config::default().max_message_size(200));
        let mut framed = spawn(framed);
        let big = CustomResult::new(json!("x".repeat(200)));
        let response = JsonRpcMessage::response(big.into(), RequestId::Number(7));
        framed.start_send_unpin(response).unwrap();
        let [answer] = &sent(&peer)[..] else { panic!("an answer all the same") };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));

        let big = ErrorData::internal_error("x".repeat(200), None);
        let error = framed.start_send_unpin(JsonRpcMessage::error(big, None)).unwrap_err();
        assert!(matches!(error, Error::Message(MessageError::TooBig { limit: 200, .. })));
        assert!(peer.sent().is_empty());
        assert_ready_ok!(spawn(framed.flush()).poll());
    }

    #[test]
    fn a_close_is_the_end() {
        let (mut framed, peer) = framed::<RoleClient>(Config::default());
        peer.send(Message::Close(None));
        let error = assert_ready!(spawn(framed.next()).poll()).unwrap().unwrap_err();
        assert!(
            matches!(error, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::NoStatus)
        );
    }
}
