//! [`Codec`]: JSON-RPC messages to WebSocket messages and back, within limits and without I/O.

use std::{collections::VecDeque, marker::PhantomData};

use rmcp::{
    ErrorData,
    model::{ErrorCode, JsonRpcError, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use crate::{
    close::CloseReason,
    decode::{
        PendingMethods, Unbuffered,
        size::{DecodedSize, count_decoded_size, estimate_decoded_size},
    },
    error::MessageError,
    framing::{Framing, decode_error::DecodeError},
    link::PeerLimits,
    message::Message,
    role::McpRole,
    stats::Stats,
    warn_limit::WarnLimit,
};

/// Limits of the messages that a [`Framed`](super::Framed) encodes and decodes.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) max_decoded_size: Option<usize>,
    pub(crate) max_message_size: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_decoded_size: None, max_message_size: 16 << 20 }
    }
}

impl Config {
    /// Sets the most that an inbound message may take once it is decoded, in bytes: by default 32
    /// MiB for an MCP server and 128 MiB for a client, which is eight times the size that they
    /// accept.
    ///
    /// The estimate is made from the JSON, before anything is decoded, by what the worst JSON
    /// takes: 144 bytes for each value in a list, 192 for each member of an object, 704 for an
    /// object, and twice that for a message of an unusual form, which rmcp buffers. A request that
    /// would take more is answered with `-32600`, a call whose answer would ends so; the error has
    /// both numbers.
    #[must_use]
    pub fn max_decoded_size(mut self, bytes: usize) -> Self {
        self.max_decoded_size = Some(bytes);
        self
    }

    /// Sets the largest outbound message in bytes: 16 MiB, or less where the peer has told that it
    /// takes less. A larger one fails alone.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }
}

/// Default of [`Config::max_decoded_size`] for an MCP client.
pub(crate) const DEFAULT_DECODED_SIZE_OF_CLIENT: usize = 128 << 20;

/// Encoder and decoder of a [`Framing`] for the MCP role `R`.
///
/// What cannot be read is answered, or ends the call that it answers; what cannot be sent fails
/// alone. After each call that may make them, the messages of [`next_reply`](Self::next_reply) are
/// to be sent.
#[derive(Debug)]
pub(super) struct Codec<R, F> {
    framing: F,
    config: Config,
    peer: PeerLimits,
    stats: Stats,
    /// Messages that this side sends by itself, ready to be sent.
    replies: VecDeque<Message>,
    /// Size of the largest that was taken since that was last asked, in bytes.
    largest_reply: usize,
    /// Calls, with their errors, that one unreadable message ends together.
    failed: VecDeque<(RequestId, ErrorData)>,
    last: LastDecoded,
    warnings: WarnLimit,
    role: PhantomData<fn() -> R>,
}

/// Number and size of the message that was decoded last, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastDecoded {
    /// Number of messages so far, those that could not be read included.
    pub(super) number: u64,
    /// Size on the wire.
    pub(super) size: usize,
    /// Estimated size in memory.
    pub(super) decoded_size: usize,
}

impl<R: McpRole, F: Framing<R>> Codec<R, F> {
    pub(super) fn new(framing: F, config: Config, stats: Stats) -> Self {
        Self {
            framing,
            config,
            peer: PeerLimits::default(),
            stats,
            replies: VecDeque::new(),
            largest_reply: 0,
            failed: VecDeque::new(),
            last: LastDecoded::default(),
            warnings: WarnLimit::default(),
            role: PhantomData,
        }
    }

    /// Keeps to the limits of this `peer`.
    pub(super) fn within(mut self, peer: PeerLimits) -> Self {
        self.peer = peer;
        self
    }

    /// Returns the limits of the peer.
    pub(super) fn peer(&self) -> &PeerLimits {
        &self.peer
    }

    /// Returns what is known of the message that was decoded last.
    pub(super) fn last_decoded(&self) -> LastDecoded {
        self.last
    }

    /// Encodes `item`, without a limit and not in order to send it now.
    pub(super) fn encode(
        &mut self,
        item: &TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, MessageError> {
        self.framing.encode(item)
    }

    /// Encodes `item` to be sent now; `None` if it is sent later, as a reply. A response that
    /// cannot be sent is replaced by an error.
    pub(super) fn encode_to_send(
        &mut self,
        item: TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, MessageError> {
        let encoded = self.encode_within(self.limit(), &item);
        let encoded = match encoded {
            Err(error) => match answered_id(item) {
                Some(id) => self.replace_response(id, &error),
                None => Err(error),
            },
            encoded => encoded,
        };
        self.queue_framing_replies();
        encoded
    }

    fn replace_response(
        &mut self,
        id: RequestId,
        error: &MessageError,
    ) -> Result<Option<Message>, MessageError> {
        tracing::debug!(%error, %id, "response not sent");
        if let Some(suppressed) = self.warnings.admit() {
            tracing::warn!(%error, suppressed, "response not sent");
        }
        let error = JsonRpcMessage::error(unsendable_response(error), Some(id));
        self.encode_within(Limit::NONE, &error)
    }

    fn encode_within(
        &mut self,
        limit: Limit,
        item: &TxJsonRpcMessage<R>,
    ) -> Result<Option<Message>, MessageError> {
        let Some(message) = self.framing.encode(item)? else { return Ok(None) };
        limit.check(message.len())?;
        Ok(self.framing.enqueue_in_order(message))
    }

    /// Returns `message`, which was encoded for a former session, as the present one needs it.
    pub(super) fn reencode(&self, message: &Message) -> Message {
        match self.framing.properties().session_id {
            Some(session_id) => session_id.replace_in(message.clone()),
            None => message.clone(),
        }
    }

    /// Returns an error if a message of this many bytes is too large to be sent.
    pub(super) fn check_size(&self, size: usize) -> Result<(), MessageError> {
        self.limit().check(size)
    }

    fn limit(&self) -> Limit {
        Limit { own: self.config.max_message_size, peer: self.peer.max_message() }
    }

    /// Records that the request of ours with this id, which was encoded, is not sent after all.
    pub(super) fn on_withdrawn(&mut self, id: &RequestId) {
        self.framing.on_withdrawn(id);
    }

    /// Records that the request of ours with this id is sent again, as it was encoded.
    pub(super) fn on_resent(&mut self, id: &RequestId) {
        self.framing.on_resent(id);
    }

    /// Records that the peer is another from now on, which is to answer these `calls`.
    pub(super) fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        self.framing.on_new_peer(calls);
    }

    /// Queues a message that nobody waits for. One that cannot be sent fails alone.
    pub(super) fn queue_reply(&mut self, item: &TxJsonRpcMessage<R>) {
        match self.encode_within(self.limit(), item) {
            Ok(message) => self.replies.extend(message),
            Err(error) => {
                tracing::debug!(%error, "answer not sent");
                if let JsonRpcMessage::Error(JsonRpcError { id: Some(id), .. }) = item
                    && let Err(reason) = self.framing.on_unanswered(id)
                {
                    // The request keeps its place in the order, and closes the link when too many
                    // wait.
                    tracing::debug!(%reason, "the answers after it wait");
                }
            }
        }
        self.queue_framing_replies();
    }

    /// Queues what the framing has to say by itself.
    fn queue_framing_replies(&mut self) {
        while let Some(message) = self.framing.next_reply() {
            self.replies.push_back(message);
        }
    }

    /// Returns the next message that this side sends by itself.
    pub(super) fn next_reply(&mut self) -> Option<Message> {
        let reply = self.replies.pop_front()?;
        self.largest_reply = self.largest_reply.max(reply.len());
        Some(reply)
    }

    /// Takes the size of the largest of those messages since the last call, in bytes.
    pub(super) fn take_largest_reply(&mut self) -> usize {
        std::mem::take(&mut self.largest_reply)
    }

    /// Returns the error that ends the next call whose answer came with others, unreadable.
    pub(super) fn next_failed(&mut self) -> Option<RxJsonRpcMessage<R>> {
        let (id, error) = self.failed.pop_front()?;
        Some(JsonRpcMessage::error(error, Some(id)))
    }

    /// Decodes `message` with the help of the requests in flight. A request that cannot be read is
    /// answered if `replies`, and so is what the framing answers by itself.
    ///
    /// # Errors
    /// The reason with which the link is to be closed.
    pub(super) fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
        replies: bool,
    ) -> Result<Option<RxJsonRpcMessage<R>>, CloseReason> {
        let limit = if R::IS_CLIENT { DEFAULT_DECODED_SIZE_OF_CLIENT } else { 32 << 20 };
        let limit = self.config.max_decoded_size.unwrap_or(limit);
        let estimate = match R::IS_TEXT {
            true => DecodedSize::of_text::<RxJsonRpcMessage<R>>(message.len()),
            false => estimate_decoded_size(json_of(&message), limit),
        };
        let DecodedSize { usual, buffered } = estimate;
        let number = self.last.number + 1;
        self.last = LastDecoded { number, size: message.len(), decoded_size: usual };
        let rough = estimate.is_rough(message.len()).then(|| message.clone());
        let decoded = match (too_large(usual, limit), too_large(buffered, limit)) {
            (Some(error), _) => Err(self.framing.attribute_error(&message, calls, error)),
            (None, Some(error)) => self.framing.decode(message, &Unbuffered { calls, error }),
            (None, None) => self.framing.decode(message, calls),
        };
        if replies {
            self.queue_framing_replies();
        } else {
            while self.framing.next_reply().is_some() {}
        }
        if let Some(message) = rough
            && let Ok(Some(JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_))) = decoded
        {
            self.last.decoded_size = count_decoded_size(json_of(&message));
        }
        decoded.or_else(|unreadable| self.handle_undecodable(unreadable, replies))
    }

    /// Deals with what could not be read. Returns what is for the layer above.
    fn handle_undecodable(
        &mut self,
        unreadable: DecodeError,
        replies: bool,
    ) -> Result<Option<RxJsonRpcMessage<R>>, CloseReason> {
        self.stats.record_malformed();
        self.log_undecodable(&unreadable);
        match unreadable {
            // A server is not told of an unreadable message that is no answer.
            DecodeError::Request { id: None, .. } if R::IS_CLIENT => {}
            DecodeError::Request { id, error } if replies => {
                self.queue_reply(&JsonRpcMessage::error(error, id));
            }
            DecodeError::Request { id: Some(id), .. } => self.framing.on_unanswered(&id)?,
            DecodeError::Request { .. } | DecodeError::Dropped { .. } => {}
            // Without an id too: the layer that knows the calls in flight decides whose it is.
            DecodeError::Response { id, error } => {
                return Ok(Some(JsonRpcMessage::error(error, id)));
            }
            DecodeError::Responses { ids, error, reply } => {
                self.failed.extend(ids.into_iter().map(|id| (id, error.clone())));
                if let Some(reply) = reply.filter(|_| replies && !R::IS_CLIENT) {
                    self.queue_reply(&JsonRpcMessage::error(*reply, None));
                }
            }
            DecodeError::Unacceptable(reason) => return Err(reason),
        }
        Ok(None)
    }

    /// Logs that a message could not be read, without its content: at WARN, but not each time.
    fn log_undecodable(&mut self, unreadable: &DecodeError) {
        let code = match unreadable {
            DecodeError::Request { error, .. }
            | DecodeError::Response { error, .. }
            | DecodeError::Responses { error, .. }
            | DecodeError::Dropped { error } => error.code.0,
            DecodeError::Unacceptable(reason) => u16::from(reason.code).into(),
        };
        let what = unreadable.cause();
        match self.warnings.admit() {
            Some(suppressed) => {
                tracing::warn!(code, what, suppressed, "a message of the peer cannot be read");
            }
            None => tracing::debug!(code, what, "a message of the peer cannot be read"),
        }
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

fn json_of(message: &Message) -> &[u8] {
    match message {
        Message::Text(json) => json.as_bytes(),
        Message::Binary(json) => json,
        _ => &[],
    }
}

/// Returns the id of the request that `item` answers.
fn answered_id<A, B, C>(item: JsonRpcMessage<A, B, C>) -> Option<RequestId> {
    match item {
        JsonRpcMessage::Response(response) => Some(response.id),
        JsonRpcMessage::Error(error) => error.id,
        _ => None,
    }
}

/// Builds the error that replaces a response which cannot be sent: no call is lost in silence.
fn unsendable_response(error: &MessageError) -> ErrorData {
    let message = format!("the response was not sent: {error}");
    ErrorData::new(ErrorCode::INTERNAL_ERROR, message, None)
}

/// Returns the error for a message that would take `size` bytes decoded, if that is too much.
pub(crate) fn too_large(size: usize, limit: usize) -> Option<ErrorData> {
    let data = || json!({ "reason": "too_large", "decoded_bytes": size, "limit_bytes": limit });
    let why =
        || format!("decoded, the message may take {size} bytes, more than the limit of {limit}");
    (size > limit).then(|| ErrorData::invalid_request(why(), Some(data())))
}
