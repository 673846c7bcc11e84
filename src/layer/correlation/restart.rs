//! What a [`Correlation`](super::Correlation) does when a connection is lost and the next one leads
//! to a peer that knows nothing of it.

mod aliases;
mod stopping;

use std::{collections::HashMap, mem, pin::Pin, task::Context, time::Duration};

use rmcp::{
    ErrorData,
    model::{GetMeta, InitializeResult, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use tokio::time::{Instant, Sleep, sleep};

use self::{aliases::Aliases, stopping::Stopping};
use super::{Call, Correlation, Fate, Outbound, Overload, Replay, cancellation};
use crate::{
    decode::{Calls, Method, Role},
    error::{CloseCode, CloseReason, Error, LinkError, MessageError},
    event::{Event, Notices},
    framing::Framing,
    layer::{Framed, SharedLink, reconnect::ReconnectHandle},
    link::{Down, Resumed},
    message::Message,
};

/// On how many connections `initialize` is sent before it was ever answered, or a `server/discover`, or a
/// request that may run twice.
const ATTEMPTS: u32 = 5;

/// How long the peer may take to answer a repeated `initialize`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Characters of each word of the peer's that is logged, at most.
const MAX_WORDS: usize = 100;

/// What has to be said again to such a peer, and what is left over from before.
#[derive(Debug)]
pub(super) struct Restart {
    notices: Notices,
    reconnect_handle: ReconnectHandle,
    /// The request with which this side opened its session.
    pub(super) initialize: Option<(RequestId, Message)>,
    pub(super) initialized: Option<Message>,
    /// What the peer answered to that.
    pub(super) agreed: Option<Box<InitializeResult>>,
    /// The request by which this side learns what the peer speaks, and how many connections were lost
    /// since it was first sent. Those above would take an error for an answer.
    discover: Option<(RequestId, Message, u32)>,
    /// Other requests that are sent again, and how often at most: those that stay open for as long as
    /// they are wanted, and those that may run twice.
    repeats: HashMap<RequestId, (Message, Option<u32>)>,
    /// `initialize` has been repeated by this layer, and is not answered yet: over the present link, or
    /// over one that was lost and may be resumed.
    repeated: bool,
    /// How long that answer is still waited for, where there is a link.
    patience: Option<Pin<Box<Sleep>>>,
    pub(super) aliases: Aliases,
    /// How many connections were lost before this side had a session.
    attempts: u32,
    /// What was queued waits for the peer, an MCP client, to initialize its session.
    waits: bool,
    /// The peer, an MCP client, has initialized its session.
    is_initialized: bool,
    /// The peer has returned, by its name at least, and has said nothing yet.
    pub(super) returned: bool,
    /// State of a peer that may be stopping.
    stopping: Stopping,
    /// Why there is no way to go on.
    pub(super) over: Option<Error>,
}

impl Restart {
    pub(super) fn new(notices: Notices, reconnect_handle: ReconnectHandle) -> Self {
        Self {
            notices,
            reconnect_handle,
            initialize: None,
            initialized: None,
            agreed: None,
            discover: None,
            repeats: HashMap::new(),
            repeated: false,
            patience: None,
            aliases: Aliases::default(),
            attempts: 0,
            waits: false,
            is_initialized: false,
            returned: false,
            stopping: Stopping::default(),
            over: None,
        }
    }

    /// Sends the application an event for an error that names no request.
    pub(super) fn tell_unmatched(&self, error: &ErrorData) {
        self.notices.announce(|| Event::UnmatchedError(error.clone()));
    }

    /// Whether the loss of a connection is not the end of this request of ours: it is repeated on
    /// the next.
    pub(super) fn keeps(&self, id: &RequestId) -> bool {
        self.initialize.as_ref().is_some_and(|(initialize, _)| initialize == id)
            || self.discovers(id)
            || self.repeats.contains_key(id)
    }

    fn discovers(&self, id: &RequestId) -> bool {
        self.discover.as_ref().is_some_and(|(discover, ..)| discover == id)
    }

    /// Forgets what need not be said again.
    fn forget(&mut self, id: &RequestId) {
        if self.discovers(id) {
            self.discover = None;
        }
        if !self.repeats.is_empty() {
            self.repeats.remove(id);
        }
    }

    /// Whether this request is in flight for this layer alone, which has repeated it.
    pub(super) fn repeats(&self, id: &RequestId) -> bool {
        let initialize = self.initialize.as_ref().is_some_and(|(initialize, _)| initialize == id);
        initialize && self.repeated
    }

    /// There is a new peer.
    fn begin(&mut self) {
        self.aliases.restart();
        self.is_initialized = false;
        self.returned = false;
        self.stopping = Stopping::No;
    }

    /// Awaits the answer to a repeated `initialize`, over the present link.
    fn await_answer(&mut self) {
        self.repeated = true;
        self.patience = Some(Box::pin(sleep(PATIENCE)));
    }

    /// Whether that answer was awaited until now.
    fn take_repeated(&mut self) -> bool {
        self.patience = None;
        mem::take(&mut self.repeated)
    }

    /// Asks for another connection, time and again, while the peer does not answer on this one.
    pub(super) fn poll_patience(&mut self, cx: &mut Context<'_>) {
        while let Some(timer) = &mut self.patience
            && timer.as_mut().poll(cx).is_ready()
        {
            tracing::warn!("no answer to a repeated initialize");
            self.reconnect_handle.reconnect();
            timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }

    /// Repeats what was sent to a former peer and is still open. What was not sent waits in the queue.
    fn send_again<R: Role, F: Framing<R>>(
        &self,
        outbound: &Outbound,
        framed: &Framed<R, SharedLink, F>,
    ) {
        let shared = framed.get_ref();
        let handed = shared.began();
        let discover = self.discover.iter().map(|(id, discover, _)| (id, discover));
        let others = self.repeats.iter().map(|(id, (message, _))| (id, message));
        let mut sent: Vec<_> = discover
            .chain(others)
            .filter_map(|(id, message)| Some((outbound.get(id)?.ticket, message)))
            .filter(|(ticket, _)| *ticket <= handed)
            .collect();
        sent.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (_, message) in sent {
            shared.send_first(framed.again(message));
        }
    }

    /// Keeps what has to be said again. `false` if it will be, and need not be said now.
    pub(super) fn remember<R: Role, F: Framing<R>>(
        &mut self,
        item: &TxJsonRpcMessage<R>,
        replay: Replay,
        framed: &mut Framed<R, SharedLink, F>,
    ) -> Result<bool, Error> {
        match item {
            JsonRpcMessage::Request(request) => match R::method_of(&request.request) {
                Method::Initialize => {
                    self.initialize = framed.encoded(item)?.map(|item| (request.id.clone(), item));
                    // The peer is taken for one that knows no such thing.
                    self.discover = None;
                }
                Method::Discover => {
                    self.discover = framed.encoded(item)?.map(|item| (request.id.clone(), item, 0));
                }
                Method::SubscriptionsListen => {
                    let repeat =
                        framed.encoded(item)?.map(|item| (request.id.clone(), (item, None)));
                    self.repeats.extend(repeat);
                }
                _ if replay == Replay::Again => {
                    let times = Some(ATTEMPTS - 1);
                    let repeat =
                        framed.encoded(item)?.map(|item| (request.id.clone(), (item, times)));
                    self.repeats.extend(repeat);
                }
                _ => {}
            },
            JsonRpcMessage::Notification(notification)
                if R::is_initialized(&notification.notification) =>
            {
                self.initialized = framed.encoded(item)?;
                return Ok(!self.repeated);
            }
            _ => {}
        }
        Ok(true)
    }
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// A connection is lost, and the next may lead anywhere: what was handed to it is lost too.
    pub(super) fn lose(&mut self, mut down: Down) {
        self.overload.lose();
        let cause = down.cause.to_string();
        if let Some(read) = self.find_too_large(&down.cause, down.handed, true) {
            down.handed = read;
        }
        if let Some(restart) = &mut self.restart
            && let Some((id, _, attempts)) = &mut restart.discover
            && self.outbound.get(id).is_some_and(|call| call.ticket <= down.handed)
        {
            *attempts += 1;
            if *attempts >= ATTEMPTS {
                restart.discover = None;
            }
        }
        if let Some(restart) = &mut self.restart {
            restart.repeats.retain(|id, (_, times)| {
                let call = self.outbound.get(id).filter(|call| call.ticket <= down.handed);
                let (Some(_), Some(left)) = (call, times) else { return true };
                let again = *left > 0;
                *left = left.saturating_sub(1);
                again
            });
        }
        let restart = self.restart.as_deref();
        let lost = self.outbound.take(|id, call| {
            call.fate(down.handed) == Fate::OutcomeUnknown
                && !restart.is_some_and(|restart| restart.keeps(id))
        });
        let tell = |(id, call): (_, Call)| call.lost::<R>(id, Fate::OutcomeUnknown, Some(&cause));
        self.told.extend(lost.into_iter().map(tell));
        let Some(restart) = &mut self.restart else { return };
        restart.notices.is_lost(&down.cause);
        // A link that is not there has no time to answer in. But the session may be resumed, and the
        // answer still come.
        restart.patience = None;
        restart.stopping.lose();
        if restart.initialize.is_some() && !restart.repeated && restart.agreed.is_none() {
            restart.attempts += 1;
            if restart.attempts >= ATTEMPTS {
                restart.over = Some(down.cause);
            }
        }
    }

    /// There is a new connection, to a peer that knows nothing of what was before.
    pub(super) fn restart(&mut self) {
        self.deadlines.clear_suspicions();
        self.overload = Overload::No;
        for id in self.held.forget_requests() {
            self.inbound.remove(&id);
        }
        let reason = "the connection on which it came is lost";
        // Where a subscription of ours has this id, those above would take it for that one's.
        let outbound = &self.outbound;
        let is_ours = |id: &_| outbound.method(id) == Some(Method::SubscriptionsListen);
        let inbound = self.inbound.drain().filter(|id| !is_ours(id));
        let cancelled = inbound.map(|id| cancellation(id, reason.into()));
        self.told.extend(cancelled.map(|cancelled| JsonRpcMessage::notification(cancelled.into())));
        self.framed.restart();
        let Some(restart) = &mut self.restart else { return };
        restart.begin();
        let shared = self.framed.get_ref();
        let Some((id, initialize)) = restart.initialize.clone() else {
            restart.waits = !R::IS_CLIENT;
            restart.send_again(&self.outbound, &self.framed);
            restart.notices.is_back(|| Event::Restarted { changed: None });
            return;
        };
        if restart.agreed.is_some() {
            self.outbound.insert(id, Call::new(Method::Initialize, 0));
            restart.await_answer();
            shared.send_first(initialize);
            return;
        }
        if self.outbound.get(&id).is_some_and(|call| call.ticket <= shared.began()) {
            shared.send_first(initialize);
        }
        restart.notices.is_back(|| Event::Restarted { changed: None });
    }

    /// There is a new connection, to a peer that goes by the same name.
    pub(super) fn returned(&mut self) {
        if let Some(restart) = &mut self.restart
            && !R::IS_CLIENT
        {
            restart.returned = true;
            restart.stopping = Stopping::No;
            self.overload.resume();
            return;
        }
        // An MCP server waits to be initialized, be it another or the same.
        self.framed.get_ref().begin_anew();
        self.restart();
    }

    /// By the first that a peer says which has returned it shows whether it is another: then it
    /// initializes its session, or belongs to the era in which there is none. It would take answers to
    /// its predecessor for its own.
    pub(super) fn recognise(&mut self, message: &RxJsonRpcMessage<R>) {
        let Some(restart) = &mut self.restart else { return };
        restart.returned = false;
        let is_another = match message {
            JsonRpcMessage::Request(request) => {
                let method = R::method_of_peer(&request.request);
                // In the era without `initialize` each request says which version it speaks.
                let version = request.request.get_meta().protocol_version();
                matches!(method, Method::Initialize | Method::Discover) || version.is_some()
            }
            _ => false,
        };
        let shared = self.framed.get_ref();
        if restart.is_initialized && !is_another {
            shared.release();
        } else {
            shared.begin_anew();
            self.restart();
        }
    }

    /// There is a new connection, and nothing is lost. Where `initialize` was repeated, its answer says
    /// whether the peer is back.
    pub(super) fn resumed(&mut self, resumed: &Resumed) {
        self.overload.resume();
        let Some(restart) = &mut self.restart else { return };
        let was_held = restart.stopping.end();
        if restart.repeated {
            restart.await_answer();
            return;
        }
        if was_held && !restart.waits {
            self.framed.get_ref().release();
        }
        let replayed = resumed.replayed;
        restart.notices.is_back(|| Event::Resumed { replayed });
    }

    /// An answer to a request of ours. `true` if it is for those above, and not for this layer, which
    /// has repeated the request.
    pub(super) fn note_answer(
        &mut self,
        id: &RequestId,
        result: Result<Option<&InitializeResult>, &ErrorData>,
    ) -> bool {
        let Some(restart) = &mut self.restart else { return true };
        restart.forget(id);
        if restart.initialize.as_ref().is_none_or(|(initialize, _)| initialize != id) {
            return true;
        }
        if !restart.take_repeated() {
            restart.agreed = result.ok().flatten().cloned().map(Box::new);
            self.framed.get_ref().hold_on_restart();
            return true;
        }
        let shared = self.framed.get_ref();
        match result {
            Ok(answer) => {
                let changed = answer.filter(|answer| restart.agreed.as_deref() != Some(*answer));
                if let Some(answer) = changed {
                    warn_of_change(answer);
                }
                restart
                    .notices
                    .is_back(|| Event::Restarted { changed: changed.cloned().map(Box::new) });
                restart.agreed = answer.cloned().map(Box::new).or(restart.agreed.take());
                if let Some(initialized) = &restart.initialized {
                    shared.send_first(self.framed.again(initialized));
                }
                restart.send_again(&self.outbound, &self.framed);
                shared.release();
            }
            Err(error) => {
                let reason = format!("initialize was refused after a restart: {}", error.message);
                let reason = CloseReason::new(CloseCode::SessionGone, reason);
                restart.over = Some(LinkError::Closed(reason).into());
            }
        }
        false
    }

    /// Forgets a request of ours that nobody wants any more. The call, if it was in flight.
    pub(super) fn give_up(&mut self, id: &RequestId) -> Option<Call> {
        if let Some(restart) = &mut self.restart {
            restart.forget(id);
        }
        self.outbound.remove(id).map(|(_, call)| call).or_else(|| self.waiting.remove(id))
    }

    /// The peer, an MCP client, has initialized its session.
    pub(super) fn peer_is_ready(&mut self) {
        if let Some(restart) = &mut self.restart {
            restart.waits = false;
            restart.is_initialized = true;
            let shared = self.framed.get_ref();
            shared.hold_on_restart();
            shared.release();
        }
    }

    /// Gives a request of the peer another id, if one of a former peer may still be handled that has
    /// the same.
    pub(super) fn prepare(&mut self, request: &mut JsonRpcRequest<R::PeerReq>) {
        let Some(restart) = &mut self.restart else { return };
        if let Some(alias) = restart.aliases.inward(&request.id) {
            request.id = alias;
        }
        // A client of the era without `initialize` says by this that it is there.
        let method = R::method_of_peer(&request.request);
        if restart.waits && !matches!(method, Method::Initialize | Method::Ping) {
            restart.waits = false;
            self.framed.get_ref().release();
        }
    }

    /// Whether `id` is that of a request of the present peer. It is ended herewith, by an answer or a
    /// cancellation, and `id` is now the one that the peer gave it.
    pub(super) fn answers(&mut self, id: &mut RequestId) -> bool {
        self.inbound.remove(id);
        self.restart.as_mut().is_none_or(|restart| restart.aliases.end(id))
    }

    /// Whether a notification of ours is for the present peer. The subscription that it
    /// belongs to is now named as that peer has it.
    pub(super) fn is_subscribed(&self, notification: &mut R::Not) -> bool {
        let Some(restart) = self.restart.as_ref().filter(|restart| !restart.aliases.is_plain())
        else {
            return true;
        };
        let Some(meta) = R::meta(notification) else { return true };
        let Some(mut id) = meta.subscription_id() else { return true };
        let is_present = restart.aliases.resolve(&mut id);
        if is_present {
            meta.set_subscription_id(id);
        }
        is_present
    }

    /// There is no room for `item`, and no connection to send it on. If it is a call, that is its
    /// answer.
    pub(super) fn turn_away(&mut self, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let full = MessageError::QueueFull;
        match item {
            JsonRpcMessage::Request(request) => {
                let call = Call::unsent(R::method_of(&request.request));
                self.refuse_to_send(request.id, call, &full);
                Ok(())
            }
            // Whoever asked is gone.
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => Ok(()),
            JsonRpcMessage::Notification(_) => Err(full.into()),
        }
    }
}

/// Warns that the server is not as it was before.
fn warn_of_change(now: &InitializeResult) {
    let shortened = |text: &str| text.chars().take(MAX_WORDS).collect::<String>();
    let name = shortened(&now.server_info.name);
    let version = shortened(&now.server_info.version);
    let protocol_version = shortened(now.protocol_version.as_str());
    tracing::warn!(?name, ?version, ?protocol_version, "the server came back as another");
}

#[cfg(test)]
mod tests;
