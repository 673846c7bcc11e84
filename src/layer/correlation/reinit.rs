//! [`Reinit`]: the session of MCP, opened again where a link leads to a peer that knows nothing of
//! it.

mod repeats;
mod stopping;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rmcp::{
    ErrorData,
    model::{GetMeta, InitializeResult, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use tokio::time::{Instant, Sleep, sleep};

use self::{repeats::Repeats, stopping::Stopping};
use super::{
    config::Replay,
    pending::{Call, MAX_ATTEMPTS, PendingCalls},
};
use crate::{
    close::{CloseCode, CloseReason},
    decode::method::Method,
    error::{Error, LinkError, MessageError},
    event::{ConnectionEvents, Event},
    framing::Framing,
    layer::{codec::Codec, reconnect::ReconnectHandle, shared_link::SharedLink},
    link::{Down, Resumed},
    message::Message,
    role::McpRole,
};

/// Time within which a peer that claims to be the former one must say something readable.
const VERIFICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Time within which a repeated `initialize` is to be answered, before another connection is asked
/// for, again and again. It doubles with each of these connections.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest such time.
const MAX_ANSWER_TIMEOUT: Duration = Duration::from_secs(320);

/// Id of an `initialize` that is repeated. The layers above may use the id of their own again, and
/// this one too: their requests wait until the peer has answered.
const REPEATED: RequestId = RequestId::Number((1 << 53) - 1);

/// Most characters of each text of the peer's that is logged.
const MAX_LOGGED_CHARS: usize = 100;

/// State of the session, and what has to be said again to another peer.
#[derive(Debug)]
pub(super) struct Reinit {
    events: ConnectionEvents,
    reconnect_handle: ReconnectHandle,
    phase: Phase,
    /// Time within which a repeated `initialize` is to be answered on this connection.
    answer_timeout: Duration,
    /// Time within which it is to be answered on the next connection.
    next_answer_timeout: Duration,
    /// Request `initialize` of the layers above, until it has ended.
    opening: Option<Opening>,
    /// Request with which this side opened its session, as it is [repeated](REPEATED), and the
    /// notification that follows it.
    initialize: Option<Message>,
    initialized: Option<Message>,
    repeats: Repeats,
    /// State of a peer that may be stopping.
    stopping: Stopping,
}

/// Request `initialize` that the layers above await the answer to.
#[derive(Debug)]
struct Opening {
    id: RequestId,
    message: Message,
    /// `message` with the id [`REPEATED`].
    repeated: Message,
}

impl Opening {
    /// Encodes `request` with either id, its own last: a framing may record the id of what it has
    /// encoded last.
    fn encode<R: McpRole, F: Framing<R>>(
        request: &JsonRpcRequest<R::Req>,
        codec: &mut Codec<R, F>,
    ) -> Result<Option<Self>, MessageError> {
        let mut encode = |id| codec.encode(&JsonRpcMessage::request(request.request.clone(), id));
        let (repeated, message) = (encode(REPEATED)?, encode(request.id.clone())?);
        let id = request.id.clone();
        let both = message.zip(repeated);
        Ok(both.map(|(message, repeated)| Self { id, message, repeated }))
    }
}

/// State of the session, over the present link, or over one that was lost and may be resumed.
///
/// | phase | side | ends by |
/// |---|---|---|
/// | `Uninitialized`: none was opened, on this number of `attempts` | both | the answer to `initialize`: `Initialized`; `notifications/initialized` of the peer: `PeerInitialized`; five lost connections: `Failed` |
/// | `Initialized`, as agreed | client | another peer: `Repeating` |
/// | `Repeating`: `initialize` was sent again, and is answered within the time, or another link asked for | client | its answer: `Initialized`, or `Failed`; another peer: begins anew |
/// | `PeerInitialized` | server | another peer: `AwaitingPeer`; perhaps the same: `Verifying` |
/// | `AwaitingPeer`: what is queued waits for another peer to initialize its session | server | `notifications/initialized`: `PeerInitialized`; a request of the lifecycle without: `Uninitialized` |
/// | `Verifying`: the peer claims to be the former one, and has said nothing yet that can be read | server | its first message: `PeerInitialized`, or `AwaitingPeer`; 10 s after the first that cannot be read: closed with 1008 |
/// | `Failed`: there is no way to go on | both | |
#[derive(Debug)]
enum Phase {
    Uninitialized {
        attempts: u32,
    },
    Initialized(Agreed),
    Repeating {
        agreed: Agreed,
        timer: Option<Pin<Box<Sleep>>>,
        /// `true` if the peer has refused it for now: the next link is sent it anew.
        is_refused: bool,
    },
    PeerInitialized,
    AwaitingPeer,
    Verifying {
        was_initialized: bool,
        said: Said,
    },
    Failed(Error),
}

/// Answer of the peer to `initialize`; `None` if a relay has passed on one that rmcp does not know.
type Agreed = Option<Box<InitializeResult>>;

/// Messages that a peer has sent so far while it is verified.
#[derive(Debug)]
enum Said {
    /// No message over this link yet: `decoded` messages had come before it. The peer may have
    /// nothing to say.
    Nothing { decoded: u64 },
    /// Something that cannot be read. When this ends, so does the link.
    Unreadable(Pin<Box<Sleep>>),
    /// Nothing, and nothing can follow: the link is lost.
    Lost,
}

impl Phase {
    const NEW: Self = Self::Uninitialized { attempts: 0 };

    /// Creates the phase in which the answer to a repeated `initialize` is awaited on this link.
    fn repeating(agreed: Agreed, timeout: Duration) -> Self {
        Self::Repeating { agreed, timer: Some(Box::pin(sleep(timeout))), is_refused: false }
    }
}

impl Reinit {
    pub(super) fn new(events: ConnectionEvents, reconnect_handle: ReconnectHandle) -> Self {
        Self {
            events,
            reconnect_handle,
            phase: Phase::NEW,
            answer_timeout: ANSWER_TIMEOUT,
            next_answer_timeout: ANSWER_TIMEOUT,
            opening: None,
            initialize: None,
            initialized: None,
            repeats: Repeats::default(),
            stopping: Stopping::default(),
        }
    }

    /// Sends the application an event for an error that names no request.
    pub(super) fn announce_unmatched(&self, error: &ErrorData) {
        self.events.announce(|| Event::UnmatchedError(error.clone()));
    }

    /// Returns `true` if this request of ours outlives its connection: it is repeated on the next.
    /// So is an `initialize` as long as none has been answered.
    pub(super) fn keeps(&self, id: &RequestId) -> bool {
        matches!(self.phase, Phase::Uninitialized { .. }) && self.is_opening(id)
            || self.repeats.contains(id)
    }

    /// Returns `true` if this is the id of an `initialize` that has not ended.
    fn is_opening(&self, id: &RequestId) -> bool {
        self.opening.as_ref().is_some_and(|opening| opening.id == *id)
    }

    /// Returns `true` if the next message of the peer shows who it is.
    pub(super) fn is_verifying(&self) -> bool {
        matches!(self.phase, Phase::Verifying { .. })
    }

    /// Keeps what has to be said again. Returns `false` if it will be, and need not be said now.
    pub(super) fn remember<R: McpRole, F: Framing<R>>(
        &mut self,
        item: &TxJsonRpcMessage<R>,
        replay: Replay,
        codec: &mut Codec<R, F>,
    ) -> Result<bool, MessageError> {
        match item {
            JsonRpcMessage::Request(request) => {
                if R::method_of(&request.request) == Method::Initialize {
                    self.opening = Opening::encode(request, codec)?;
                }
                self.repeats.remember(item, replay, codec)?;
                Ok(true)
            }
            JsonRpcMessage::Notification(notification)
                if R::is_initialized(&notification.notification) =>
            {
                self.initialized = codec.encode(item)?;
                Ok(!matches!(self.phase, Phase::Repeating { .. }))
            }
            _ => Ok(true),
        }
    }

    /// Forgets a request of ours that has ended.
    pub(super) fn forget(&mut self, id: &RequestId) {
        self.opening.take_if(|opening| opening.id == *id);
        self.repeats.forget(id);
    }

    /// Records the loss of a connection.
    pub(super) fn note_lost(&mut self, down: &Down) {
        self.events.ensure_lost_announced(&down.cause);
        self.stopping.note_lost();
        match &mut self.phase {
            // Without a link the time to answer does not pass. The session may be resumed, and the
            // answer still come.
            Phase::Repeating { timer, .. } => *timer = None,
            Phase::Verifying { said, .. } => *said = Said::Lost,
            Phase::Uninitialized { attempts } if self.opening.is_some() => {
                *attempts += 1;
                if *attempts >= MAX_ATTEMPTS {
                    self.phase = Phase::Failed(down.cause.clone());
                }
            }
            _ => {}
        }
    }

    /// Records the loss of the requests that were sent. The last message that the connection took
    /// was number `handed`.
    pub(super) fn note_requests_lost(&mut self, pending: &PendingCalls, handed: u64) {
        if !matches!(self.phase, Phase::Uninitialized { .. }) {
            // A second `initialize` is a request like any other: the next peer is sent the first.
            self.opening
                .take_if(|opening| pending.get(&opening.id).is_some_and(|call| call.seq <= handed));
        }
        self.repeats.note_lost(pending, handed);
    }

    /// Begins with a peer that knows nothing of what was before.
    pub(super) fn begin_peer<R: McpRole, F: Framing<R>>(
        &mut self,
        pending: &mut PendingCalls,
        codec: &Codec<R, F>,
        link: &SharedLink,
    ) {
        self.stopping = Stopping::No;
        if let Some(initialize) = &self.initialize {
            match std::mem::replace(&mut self.phase, Phase::NEW) {
                Phase::Initialized(agreed) | Phase::Repeating { agreed, .. } => {
                    pending.insert_own(REPEATED, Method::Initialize);
                    link.send_first(initialize.clone());
                    self.answer_timeout = self.next_answer_timeout;
                    self.phase = Phase::repeating(agreed, self.answer_timeout);
                    return;
                }
                phase => self.phase = phase,
            }
        }
        if let Some(Opening { id, message, .. }) = &self.opening {
            if pending.get(id).is_some_and(|call| call.seq <= link.began()) {
                link.send_first(message.clone());
            }
        } else {
            if !R::IS_CLIENT {
                self.phase = Phase::AwaitingPeer;
            }
            self.repeats.send_again(pending, codec, link);
        }
        self.events.announce_back(|| Event::Restarted { changed: None });
    }

    /// Begins to check whether a client that returns with the session id of the former one is that
    /// client: its first message tells. `decoded` is the number of messages decoded before.
    pub(super) fn verify(&mut self, decoded: u64) {
        self.stopping = Stopping::No;
        let was_initialized = match self.phase {
            Phase::Verifying { was_initialized, .. } => was_initialized,
            Phase::PeerInitialized => true,
            _ => false,
        };
        self.phase = Phase::Verifying { was_initialized, said: Said::Nothing { decoded } };
    }

    /// Ready with the reason of a Close, when nothing that the peer has said for a while shows who
    /// it is. `decoded` is the number of messages decoded by now.
    pub(super) fn poll_unrecognized(
        &mut self,
        decoded: u64,
        cx: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        let Phase::Verifying { said, .. } = &mut self.phase else { return Poll::Pending };
        if matches!(said, Said::Nothing { decoded: before } if decoded > *before) {
            *said = Said::Unreadable(Box::pin(sleep(VERIFICATION_TIMEOUT)));
        }
        let Said::Unreadable(timer) = said else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        let reason = format!("no message could be read within {VERIFICATION_TIMEOUT:?}");
        Poll::Ready(CloseReason::new(CloseCode::Policy, reason))
    }

    /// Decides by the first message of a peer that is [verified](Self::is_verifying) whether it is
    /// the former one. Another peer initializes its session, or belongs to the lifecycle without
    /// `initialize`. It would take answers to its predecessor for its own.
    pub(super) fn recognizes<R: McpRole>(&mut self, message: &RxJsonRpcMessage<R>) -> bool {
        let is_another = match message {
            JsonRpcMessage::Request(request) => {
                let method = R::method_of_peer(&request.request);
                // In the lifecycle without `initialize` each request says which version it speaks.
                let version = request.request.get_meta().protocol_version();
                matches!(method, Method::Initialize | Method::Discover) || version.is_some()
            }
            _ => false,
        };
        let is_same =
            matches!(self.phase, Phase::Verifying { was_initialized: true, .. }) && !is_another;
        self.phase = if is_same { Phase::PeerInitialized } else { Phase::NEW };
        is_same
    }

    /// Goes on with the same peer, over another link. Where `initialize` was repeated, its answer
    /// says whether the peer is back.
    pub(super) fn resume(&mut self, resumed: &Resumed, link: &SharedLink) {
        let was_held = self.stopping.end();
        if let Phase::Repeating { timer, is_refused, .. } = &mut self.phase {
            *timer = Some(Box::pin(sleep(self.answer_timeout)));
            if std::mem::take(is_refused)
                && let Some(initialize) = &self.initialize
            {
                link.send_first(initialize.clone());
            }
            return;
        }
        if was_held && !matches!(self.phase, Phase::AwaitingPeer) {
            link.release();
        }
        let replayed = resumed.replayed;
        self.events.announce_back(|| Event::Resumed { replayed });
    }

    /// Records that the peer has refused a repeated `initialize` for now, without executing it.
    pub(super) fn note_refused(&mut self) {
        if let Phase::Repeating { is_refused, .. } = &mut self.phase {
            *is_refused = true;
        }
    }

    /// Records the answer to a request of ours. Returns `true` if it is for the layers above, and
    /// not for this one, which has repeated the request.
    pub(super) fn on_response<R: McpRole, F: Framing<R>>(
        &mut self,
        id: &RequestId,
        result: Result<Option<&InitializeResult>, &ErrorData>,
        pending: &PendingCalls,
        codec: &Codec<R, F>,
        link: &SharedLink,
    ) -> bool {
        let repeated = match &mut self.phase {
            Phase::Repeating { agreed, .. } if *id == REPEATED => Some(agreed.take()),
            _ => None,
        };
        let Some(agreed) = repeated else {
            // An `initialize` of the layers above waits in the queue while the repeated one is in
            // flight.
            let was_sent = !matches!(self.phase, Phase::Repeating { .. });
            let opening = self.opening.take_if(|opening| was_sent && opening.id == *id);
            self.forget(id);
            if let (Some(opening), Ok(answer)) = (opening, result) {
                self.initialize = Some(opening.repeated);
                self.phase = Phase::Initialized(answer.cloned().map(Box::new));
                link.hold_on_restart();
            }
            return true;
        };
        match result {
            Ok(answer) => {
                self.next_answer_timeout = ANSWER_TIMEOUT;
                let changed = answer.filter(|answer| agreed.as_deref() != Some(*answer));
                if let Some(answer) = changed {
                    warn_of_change(answer);
                }
                self.events
                    .announce_back(|| Event::Restarted { changed: changed.cloned().map(Box::new) });
                self.phase = Phase::Initialized(answer.cloned().map(Box::new).or(agreed));
                if let Some(initialized) = &self.initialized {
                    link.send_first(codec.reencode(initialized));
                }
                self.repeats.send_again(pending, codec, link);
                link.release();
            }
            Err(error) => {
                let reason = format!("initialize was refused after a restart: {}", error.message);
                let reason = CloseReason::new(CloseCode::SessionGone, reason);
                self.phase = Phase::Failed(LinkError::Closed(reason).into());
            }
        }
        false
    }

    /// Records that the peer, an MCP client, has initialized its session.
    pub(super) fn on_peer_initialized(&mut self, link: &SharedLink) {
        self.phase = Phase::PeerInitialized;
        link.hold_on_restart();
        link.release();
    }

    /// Records a request of the peer. A client of the lifecycle without `initialize` says by it
    /// that it is there.
    pub(super) fn on_request(&mut self, method: Method, link: &SharedLink) {
        if matches!(self.phase, Phase::AwaitingPeer)
            && !matches!(method, Method::Initialize | Method::Ping)
        {
            self.phase = Phase::NEW;
            link.release();
        }
    }

    /// Returns why there is no way to go on, once.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        if !matches!(self.phase, Phase::Failed(_)) {
            return None;
        }
        match std::mem::replace(&mut self.phase, Phase::NEW) {
            Phase::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Requests another connection again and again while the peer does not answer on this one.
    /// Resumes sending to a peer that announced a stop and did not close.
    pub(super) fn poll(&mut self, link: &SharedLink, cx: &mut Context<'_>) {
        while let Phase::Repeating { timer: Some(timer), .. } = &mut self.phase
            && timer.as_mut().poll(cx).is_ready()
        {
            tracing::warn!(after = ?self.answer_timeout, "no answer to a repeated initialize");
            self.reconnect_handle.reconnect();
            self.next_answer_timeout = (self.answer_timeout * 2).min(MAX_ANSWER_TIMEOUT);
            timer.as_mut().reset(Instant::now() + ANSWER_TIMEOUT);
        }
        // Messages that wait for the peer to initialize wait on.
        if self.stopping.poll(cx) && !self.awaits_initialize() {
            link.release();
        }
    }

    /// Returns `true` if a request that the peer refuses since it stops is kept for the next.
    pub(super) fn believes_stop(&self) -> bool {
        self.stopping.is_believed()
    }

    /// Records that the peer has refused a request since it stops. The message with the number
    /// `before` was queued last.
    pub(super) fn on_stopping(&mut self, before: u64) {
        self.stopping.begin(before);
    }

    /// Returns `true` if requests have been sent again to a peer that said that it stops.
    pub(super) fn was_asked_again(&self) -> bool {
        self.stopping.was_asked_again()
    }

    /// Records an answer to `call` by which the peer has not refused it.
    pub(super) fn on_executed(&mut self, call: &Call, link: &SharedLink) {
        if self.stopping.disprove(call.seq) && !self.awaits_initialize() {
            link.release();
        }
    }

    /// Returns `true` if all that is queued waits until the peer is initialized.
    fn awaits_initialize(&self) -> bool {
        matches!(self.phase, Phase::AwaitingPeer | Phase::Repeating { .. })
    }

    #[cfg(test)]
    pub(super) fn repeats(&self) -> usize {
        self.repeats.len()
    }
}

/// Warns that the server is not as it was before.
fn warn_of_change(now: &InitializeResult) {
    let shortened = |text: &str| text.chars().take(MAX_LOGGED_CHARS).collect::<String>();
    let name = shortened(&now.server_info.name);
    let version = shortened(&now.server_info.version);
    let protocol_version = shortened(now.protocol_version.as_str());
    tracing::warn!(?name, ?version, ?protocol_version, "the server came back as another");
}

#[cfg(test)]
mod tests;
