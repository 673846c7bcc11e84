//! [`Inflater`]: inflates inbound messages before the WebSocket library reads them.

use std::{
    cell::Cell,
    fmt, io, mem,
    task::{Context, Poll, ready},
};

use flate2::{Decompress, FlushDecompress, Status};
use tokio::{
    io::{AsyncRead, ReadBuf},
    task::coop::poll_proceed,
};

use super::{
    super::{frames::header_length, side::Side, stream::Counted},
    negotiate::Agreement,
};

/// Most bytes of a message that are passed on at once: a length of two bytes, and the size of a
/// cache.
const PIECE: usize = 16 << 10;

/// Bytes read at once.
const STEP: usize = 8 << 10;

/// Room for the header of a piece: two bytes, two of length, a mask.
const HEAD: usize = 8;

/// The end that the sender leaves out, and an empty final block behind it. Only where the message
/// was whole does that end it.
const TAIL: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
const LEFT_OUT: usize = 4;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

thread_local! {
    /// The inflater of the last message that stood for itself, for the next one.
    static SPARE: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// Reason why nothing more can be read.
#[derive(Debug)]
pub(in super::super) enum Fault {
    /// A message does not inflate.
    Corrupt(&'static str),
    /// A rule of RFC 6455 or RFC 7692 is broken.
    Protocol(&'static str),
    /// A message takes more bytes than it may have, compressed as it is.
    TooBig { size: usize, limit: usize },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(what) | Self::Protocol(what) => f.write_str(what),
            Self::TooBig { .. } => f.write_str("too many bytes of a compressed message"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}

/// Position of the next byte.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The header of a frame, of which this number of bytes has been read.
    Header(usize),
    /// The header of a frame that passes as it is, of which `passed` bytes have. Then `payload`
    /// bytes follow.
    Verbatim { passed: usize, length: usize, payload: u64 },
    /// The rest, in bytes, of a payload that passes as it is.
    Plain(u64),
    /// The payload of a frame of a compressed message.
    Compressed { left: u64, mask: [u8; 4], is_last: bool },
    /// The end of a compressed message, of which this number of bytes has been fed.
    Tail(usize),
}

/// The message to which the next continuation belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    None,
    Plain,
    /// The opcode of the next piece: that of the message, then continuation.
    Compressed(u8),
}

/// Turns the frames of compressed messages into frames of what was compressed.
pub(in super::super) struct Inflater {
    takeover: bool,
    /// `true` if the peer masks its frames; then pieces have a mask too, of zeros.
    masked: bool,
    state: State,
    message: Message,
    header: [u8; 14],
    /// Present with context takeover from the first compressed message on, else within one.
    inflate: Option<Decompress>,
    /// A final block has just ended, or nothing of the message has begun.
    at_start: bool,
    /// The last piece took what there was room for; there may be more.
    is_full: bool,
    /// Bytes to be read above, from `sent` on. While a piece grows, `HEAD` bytes are left free for
    /// its header.
    piece: Vec<u8>,
    sent: usize,
    is_growing: bool,
    /// Bytes read that did not fit above, from `taken` on.
    ahead: Vec<u8>,
    taken: usize,
    /// Fault behind bytes that are read first.
    fault: Option<Fault>,
    /// Bytes of the present message that have arrived.
    came: u64,
    /// Most bytes that the present message may have.
    max_came: u64,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Inflater {
    /// Creates the inflater; `leftover` is what was read behind the handshake. No compressed
    /// message is so much larger than the `limit` of what it stands for, unless it stands for less
    /// than it takes.
    pub(in super::super) fn new(
        agreement: &Agreement,
        side: Side,
        leftover: &[u8],
        limit: usize,
    ) -> Self {
        let limit = limit as u64;
        Self {
            takeover: agreement.inbound(side).takeover,
            masked: side == Side::Server,
            state: State::Header(0),
            message: Message::None,
            header: [0; 14],
            inflate: None,
            at_start: true,
            is_full: false,
            piece: Vec::new(),
            sent: 0,
            is_growing: false,
            ahead: leftover.to_vec(),
            taken: 0,
            fault: None,
            came: 0,
            max_came: limit.saturating_add(limit / 16).saturating_add(64 << 10),
        }
    }

    /// Reads `stream` until there is something for `buffer`.
    pub(in super::super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut Counted<S>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        // One step of the socket may be many of the library's, each some work.
        let turn = ready!(poll_proceed(cx));
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Err(fault.into()));
        }
        let before = buffer.filled().len();
        if self.taken < self.ahead.len() {
            let ahead = mem::take(&mut self.ahead);
            let rest = self.inflate_until_fault(&ahead[self.taken..], buffer)?;
            self.taken = ahead.len() - rest;
            if rest > 0 {
                self.ahead = ahead;
            }
        } else {
            self.inflate_until_fault(&[], buffer)?;
        }
        while buffer.filled().len() == before {
            let mut step = [mem::MaybeUninit::uninit(); STEP];
            let mut step = ReadBuf::uninit(&mut step);
            ready!(stream.poll_wire(cx, &mut step))?;
            let read = step.filled();
            if read.is_empty() {
                break;
            }
            let rest = self.inflate_until_fault(read, buffer)?;
            self.ahead = read[read.len() - rest..].to_vec();
            self.taken = 0;
        }
        turn.made_progress();
        Poll::Ready(Ok(()))
    }

    /// Inflates as [`inflate`](Self::inflate) does, but keeps a fault until the bytes before it are
    /// read.
    fn inflate_until_fault(
        &mut self,
        input: &[u8],
        buffer: &mut ReadBuf<'_>,
    ) -> Result<usize, Fault> {
        let before = buffer.filled().len();
        self.inflate(input, buffer).or_else(|fault| match buffer.filled().len() > before {
            true => {
                self.fault = Some(fault);
                Ok(0)
            }
            false => Err(fault),
        })
    }

    /// Consumes `input` as far as there is room in `buffer`. Returns the number of bytes left.
    fn inflate(&mut self, mut input: &[u8], buffer: &mut ReadBuf<'_>) -> Result<usize, Fault> {
        loop {
            if !self.is_growing && self.sent < self.piece.len() {
                let ready = &self.piece[self.sent..];
                let taken = ready.len().min(buffer.remaining());
                buffer.put_slice(&ready[..taken]);
                self.sent += taken;
                if self.sent < self.piece.len() {
                    return Ok(input.len());
                }
                self.piece.clear();
                self.sent = 0;
                if self.message == Message::None {
                    self.piece = Vec::new();
                }
            }
            match self.state {
                // The end of a message needs no input.
                State::Tail(fed) => self.finish(fed)?,
                State::Verbatim { passed, length, payload } => {
                    let rest = &self.header[passed..length];
                    let taken = rest.len().min(buffer.remaining());
                    buffer.put_slice(&rest[..taken]);
                    let passed = passed + taken;
                    self.state = match (passed == length, payload) {
                        (false, _) => State::Verbatim { passed, length, payload },
                        (true, 0) => State::Header(0),
                        (true, _) => State::Plain(payload),
                    };
                    if passed < length {
                        return Ok(input.len());
                    }
                }
                _ if input.is_empty() => return Ok(0),
                State::Header(read) => {
                    self.header[read] = input[0];
                    input = &input[1..];
                    self.state = State::Header(read + 1);
                    if header_length(&self.header[..=read]) == Some(read + 1) {
                        self.begin_frame(read + 1)?;
                    }
                }
                State::Plain(left) => {
                    let taken = limited(left, input.len().min(buffer.remaining()));
                    buffer.put_slice(&input[..taken]);
                    input = &input[taken..];
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::Header(0) } else { State::Plain(left) };
                    if taken == 0 {
                        return Ok(input.len());
                    }
                }
                State::Compressed { left, mask, is_last } => {
                    let mut plain = [0; 1024];
                    let taken = limited(left, input.len().min(plain.len()));
                    let plain = &mut plain[..taken];
                    for (at, (to, from)) in plain.iter_mut().zip(input).enumerate() {
                        *to = from ^ mask[at % 4];
                    }
                    let taken = self.feed(plain)?;
                    input = &input[taken..];
                    self.state = next(left - taken as u64, rotated(mask, taken), is_last);
                }
            }
        }
    }

    /// Decides on the frame with this header.
    fn begin_frame(&mut self, length: usize) -> Result<(), Fault> {
        let (first, second) = (self.header[0], self.header[1]);
        let mut mask = [0; 4];
        let masked = second & MASKED != 0;
        let end = if masked { length - 4 } else { length };
        mask[..length - end].copy_from_slice(&self.header[end..length]);
        let payload = match &self.header[2..end] {
            [] => u64::from(second & !MASKED),
            extended => extended.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        let opcode = first & 0x0f;
        let is_last = first & FIN != 0;
        let compressed = match opcode {
            1 | 2 if self.message != Message::None => {
                return Err(Fault::Protocol("a message within another"));
            }
            1 | 2 if first & RSV1 != 0 => {
                self.came = 0;
                self.message = Message::Compressed(opcode);
                true
            }
            1 | 2 => {
                self.message = if is_last { Message::None } else { Message::Plain };
                false
            }
            0 => match self.message {
                Message::Compressed(_) => true,
                _ if is_last => {
                    self.message = Message::None;
                    false
                }
                _ => false,
            },
            _ => false,
        };
        if !compressed {
            self.state = State::Verbatim { passed: 0, length, payload };
            return Ok(());
        }
        let reserved = if opcode == 0 { 0x70 } else { 0x30 };
        if first & reserved != 0 {
            return Err(Fault::Protocol("a reserved bit is set"));
        }
        if masked != self.masked {
            return Err(Fault::Protocol("a frame is masked, or not, where it must be otherwise"));
        }
        if payload > u64::MAX >> 1 {
            return Err(Fault::Protocol("the length of a frame has more than 63 bits"));
        }
        self.came = self.came.saturating_add(payload);
        if self.came > self.max_came {
            let [size, limit] = [self.came, self.max_came]
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
            return Err(Fault::TooBig { size, limit });
        }
        self.state = next(payload, mask, is_last);
        Ok(())
    }

    /// Inflates some of a message. Returns the number of bytes of `input` that were taken.
    fn feed(&mut self, input: &[u8]) -> Result<usize, Fault> {
        if self.piece.is_empty() {
            self.piece.reserve_exact(HEAD + PIECE);
            self.piece.resize(HEAD, 0);
        }
        self.is_growing = true;
        let inflate = self.inflate.get_or_insert_with(|| {
            let spare = SPARE.try_with(Cell::take).ok().flatten();
            spare.unwrap_or_else(|| Decompress::new_with_window_bits(false, 15))
        });
        let (before, length) = (inflate.total_in(), self.piece.len());
        let status = inflate
            .decompress_vec(input, &mut self.piece, FlushDecompress::Sync)
            .map_err(|_| Fault::Corrupt("not deflate data"))?;
        let taken = usize::try_from(inflate.total_in() - before).unwrap_or(input.len());
        self.at_start &= taken == 0;
        if status == Status::StreamEnd {
            // More blocks may follow a final one (RFC 7692, section 7.2.3.4).
            inflate.reset(false);
            self.at_start = true;
        } else if taken == 0 && self.piece.len() == length && !input.is_empty() {
            return Err(Fault::Corrupt("not deflate data"));
        }
        self.is_full = self.piece.len() == self.piece.capacity();
        if self.is_full {
            self.hand_on(false);
        }
        Ok(taken)
    }

    /// Ends a message whose payload has all been fed.
    fn finish(&mut self, fed: usize) -> Result<(), Fault> {
        let tail = if self.takeover { &TAIL[..LEFT_OUT] } else { &TAIL[..] };
        // Nothing was left out behind a final block.
        let is_whole = self.at_start && [0, LEFT_OUT, TAIL.len()].contains(&fed);
        if !is_whole && (fed < tail.len() || self.is_full) {
            let taken = self.feed(&tail[fed..])?;
            self.state = State::Tail(fed + taken);
            return Ok(());
        }
        if !is_whole && !self.takeover {
            return Err(Fault::Corrupt("the deflate data are cut off"));
        }
        if self.piece.is_empty() {
            self.piece.resize(HEAD, 0);
        }
        self.hand_on(true);
        self.message = Message::None;
        self.state = State::Header(0);
        if !self.takeover
            && let Some(mut inflate) = self.inflate.take()
        {
            inflate.reset(false);
            let _ = SPARE.try_with(|spare| spare.set(Some(inflate)));
        }
        self.at_start = true;
        self.is_full = false;
        Ok(())
    }

    /// Puts a header before the piece, which can be read then.
    fn hand_on(&mut self, is_last: bool) {
        let Message::Compressed(opcode) = self.message else { return };
        self.message = Message::Compressed(0);
        self.is_growing = false;
        let first = if is_last { FIN | opcode } else { opcode };
        let masked = if self.masked { MASKED } else { 0 };
        let mask_length = if self.masked { 4 } else { 0 };
        let length = self.piece.len() - HEAD;
        self.sent = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..126), _) => {
                let start = HEAD - mask_length - 2;
                self.piece[start..start + 2].copy_from_slice(&[first, masked | short]);
                start
            }
            (_, long) => {
                let [high, low] = long.unwrap_or(u16::MAX).to_be_bytes();
                let start = HEAD - mask_length - 4;
                self.piece[start..start + 4].copy_from_slice(&[first, masked | 126, high, low]);
                start
            }
        };
    }
}

/// Returns the state before the last `left` bytes of a frame of a compressed message.
fn next(left: u64, mask: [u8; 4], is_last: bool) -> State {
    match (left, is_last) {
        (0, true) => State::Tail(0),
        (0, false) => State::Header(0),
        _ => State::Compressed { left, mask, is_last },
    }
}

fn limited(left: u64, most: usize) -> usize {
    usize::try_from(left).map_or(most, |left| left.min(most))
}

/// Returns the mask for what follows `by` masked bytes.
fn rotated(mut mask: [u8; 4], by: usize) -> [u8; 4] {
    mask.rotate_left(by % 4);
    mask
}
