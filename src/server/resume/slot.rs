//! What is known of one session by those who come for it.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use super::Name;
use tokio::time::Instant;

use futures::{FutureExt, Sink, SinkExt, Stream};
use pin_project_lite::pin_project;

use crate::{
    decode::Role,
    duplex::{BoxLink, forward_sink},
    error::{CloseCode, CloseReason, Error, LinkError},
    layer::{
        SharedLink,
        correlation::HandlerSlots,
        reconnect::ReconnectHandle,
        resume::{Frame, ReceiveCount, Secret, Secrets, SessionFrame, SessionId, SessionStart},
    },
    link::{LinkUp, MessageLimits},
    message::Message,
    server::{
        auth::Identity,
        limit::{Permit, network},
        registry::{Connection, Registry},
    },
    stats::Stats,
};

/// So many times a session may be taken over in so short a time.
const FIGHT: u32 = 5;
const CALM: Duration = Duration::from_secs(10);

pin_project! {
    /// A connection on which a client has asked for a session. Its place is given back with it.
    pub(in crate::server) struct Arrival {
        #[pin]
        link: BoxLink,
        stats: Stats,
        permit: Option<Permit>,
        limits: MessageLimits,
        // Where it comes from, as far as addresses are told apart.
        address: Option<IpAddr>,
    }
}

impl Arrival {
    /// Creates the arrival of a `link` to a client, with the limits that it announced.
    pub(in crate::server) fn new(
        link: BoxLink,
        stats: Stats,
        permit: Option<Permit>,
        limits: MessageLimits,
        address: Option<IpAddr>,
    ) -> Self {
        Self { link, stats, permit, limits, address: address.map(network) }
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Updates the limits that the client announces again.
    pub(super) fn takes(&mut self, limits: MessageLimits) {
        self.limits = limits.or(self.limits);
    }

    /// Returns the limits of the client.
    pub(super) fn limits(&self) -> MessageLimits {
        self.limits
    }

    /// Tells the client of its session; written by whoever gets the link.
    pub(super) fn answer(&mut self, session: SessionFrame) {
        self.say(Frame::Session(session).encode());
    }

    /// It is not served after all.
    fn part(mut self, reason: CloseReason) {
        self.say(Message::Close(Some(reason)));
        let _ = self.link.flush().now_or_never();
    }

    /// There is room on a link on which nothing was said yet. One that is lost meanwhile is lost to whoever
    /// gets it.
    fn say(&mut self, message: Message) {
        let _ = self.link.feed(message).now_or_never();
    }
}

impl Stream for Arrival {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().link.poll_next(cx)
    }
}

impl Sink<Message> for Arrival {
    type Error = Error;

    forward_sink!(link, Message: poll_ready, start_send, poll_flush, poll_close);
}

/// One session, as those see it who come for it.
pub(in crate::server) struct Slot<R: Role> {
    pub(super) id: SessionId,
    pub(super) identity: Option<Identity>,
    pub(super) receive_count: ReceiveCount,
    /// Its id is a name by which its client comes back. Else it takes the secret.
    is_named: bool,
    /// Asked when there is something for the source of its links.
    pub(super) knock: ReconnectHandle,
    door: Mutex<Door>,
    tenant: OnceLock<Tenant<R>>,
}

/// Who has the session, once it is listed.
pub(in crate::server) struct Tenant<R: Role> {
    pub(in crate::server) registry: Registry<R>,
    pub(in crate::server) connection: Connection,
    pub(in crate::server) shared: SharedLink,
    /// Slots of what is being handled, or waits for it.
    pub(in crate::server) slots: Arc<HandlerSlots>,
    /// Memory that each message takes up by the upgrade request that comes with it, in bytes.
    pub(in crate::server) head_bytes: usize,
}

impl<R: Role> Tenant<R> {
    fn bytes(&self) -> usize {
        self.shared.queued_bytes() + self.slots.bytes(self.head_bytes)
    }
}

/// A client that has come back.
pub(super) struct Return {
    pub(super) arrival: Arrival,
    pub(super) up: LinkUp,
    /// How it goes on, where it does not resume.
    pub(super) start: Option<SessionStart>,
    /// What the connection is told that it had before.
    pub(super) parting: CloseReason,
}

struct Door {
    secrets: Secrets,
    next: Option<Return>,
    connected: bool,
    /// Address of the last connection.
    address: Option<IpAddr>,
    claim: Claim,
    /// Since when it was taken over how often.
    taken_over: Option<(Instant, u32)>,
    dismissed: bool,
    /// Nobody waits inside any more.
    closed: bool,
}

impl Door {
    /// Whether nobody is let in. Where somebody is there already, it was dismissed too late.
    fn is_shut(&self) -> bool {
        self.closed || self.dismissed && !self.connected
    }
}

/// By what the client can come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// It speaks the extension.
    Secret,
    /// It knows the name of its session.
    Name,
    /// It was told one, and has not yet shown that it took notice.
    Hearsay,
}

/// What is found at the door.
pub(super) enum Found {
    Link(Return),
    Dismissed,
    Nothing,
}

impl<R: Role> Slot<R> {
    pub(super) fn new(
        id: SessionId,
        identity: Option<Identity>,
        receive_count: ReceiveCount,
        is_named: bool,
        address: Option<IpAddr>,
    ) -> Self {
        let door = Mutex::new(Door {
            secrets: Secrets::default(),
            next: None,
            connected: true,
            address,
            claim: Claim::Secret,
            taken_over: None,
            dismissed: false,
            closed: false,
        });
        let (knock, tenant) = (ReconnectHandle::default(), OnceLock::new());
        Self { id, identity, receive_count, is_named, knock, door, tenant }
    }

    /// Whether `identity` may come by its name.
    pub(super) fn is_open_to(&self, identity: Option<&Identity>) -> bool {
        self.is_named && self.identity.as_ref() == identity
    }

    /// Tells who has the session from now on.
    pub(in crate::server) fn let_to(&self, tenant: Tenant<R>) {
        let door = self.lock();
        if let Some(next) = &door.next {
            tenant.connection.stats().follow(next.arrival.stats.clone());
        }
        let _ = self.tenant.set(tenant);
    }

    /// Returns the address that the client last came from.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.lock().address
    }

    pub(super) fn given(&self) -> Secret {
        self.lock().secrets.given().clone()
    }

    /// Takes `arrival` in, if the client has the secret.
    pub(super) fn resume(
        &self,
        secret: &Secret,
        received: u64,
        mut arrival: Arrival,
        describe: impl FnOnce(Secret) -> SessionFrame,
    ) -> Result<(), Arrival> {
        let mut door = self.lock();
        if door.is_shut() {
            return Err(arrival);
        }
        if self.receive_count.is_heard() {
            door.secrets.confirm();
        }
        let Some(given) = door.secrets.rotate(secret).cloned() else { return Err(arrival) };
        let frozen = self.receive_count.freeze();
        arrival.answer(describe(given).resumed(frozen.received()));
        let up = frozen.resumed(received);
        let parting = LinkError::taken_over().close_reason();
        self.take(door, Return { arrival, up, start: None, parting });
        Ok(())
    }

    /// Takes `arrival` in, whose client knows the name of the session and no more: whether it is the one
    /// that was here before shows by what it says. It is told of the session where it speaks the extension.
    /// One whose `name` is ambient drives out nobody.
    pub(super) fn return_to(
        &self,
        mut arrival: Arrival,
        name: &Name,
        describe: Option<&dyn Fn(Secret) -> SessionFrame>,
    ) -> Result<(), Arrival> {
        let mut door = self.lock();
        if door.is_shut() || name.ambient && door.connected {
            return Err(arrival);
        }
        // What was counted before counts no more.
        door.secrets = Secrets::default();
        let start = match describe {
            Some(describe) => {
                arrival.answer(describe(door.secrets.given().clone()));
                SessionStart::Open
            }
            None => SessionStart::Plain,
        };
        let (start, parting) = (Some(start), name.parting());
        self.take(door, Return { arrival, up: LinkUp::Unverified, start, parting });
        Ok(())
    }

    fn take(&self, mut door: MutexGuard<'_, Door>, new: Return) {
        if door.connected {
            let now = Instant::now();
            let (since, times) = door.taken_over.get_or_insert((now, 0));
            if now - *since > CALM {
                (*since, *times) = (now, 0);
            }
            *times += 1;
        }
        door.connected = true;
        door.address = new.arrival.address;
        if let Some(tenant) = self.tenant.get() {
            tenant.connection.stats().follow(new.arrival.stats.clone());
        }
        door.claim = match new.start {
            Some(SessionStart::Plain) => Claim::Name,
            _ => Claim::Secret,
        };
        let parting = new.parting.clone();
        let earlier = door.next.replace(new);
        // Whoever finds it there has been asked to look.
        self.knock.reconnect();
        drop(door);
        if let Some(earlier) = earlier {
            // The client has come again since, on another connection.
            earlier.arrival.part(parting);
        }
    }

    /// The client does not speak the extension on the first link, and may or may not know the name of
    /// the session.
    pub(super) fn begin_plain(&self, claim: Claim) {
        self.lock().claim = claim;
        self.receive_count.begin(SessionStart::Plain);
    }

    /// What of a session is left for a client that has lost its link, now.
    pub(super) fn claim(&self) -> Claim {
        self.lock().claim
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.tenant.get().is_some_and(|tenant| tenant.connection.is_initialized())
    }

    /// Whether there is a link, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().connected
    }

    /// Whether it is taken over time and again, as by two clients that reconnect whatever they are told.
    pub(super) fn is_fought_over(&self) -> bool {
        let taken_over = self.lock().taken_over;
        taken_over.is_some_and(|(since, times)| times >= FIGHT && since.elapsed() <= CALM)
    }

    /// The link is lost, and none has come since.
    pub(super) fn is_lost(&self) {
        let mut door = self.lock();
        door.connected = door.next.is_some();
    }

    /// What there is for a session that is `away`, or not: then it was dismissed too late.
    pub(super) fn look(&self, away: bool) -> Found {
        let mut door = self.lock();
        if door.next.is_some() || !away {
            door.dismissed = false;
        }
        match door.next.take() {
            Some(new) => Found::Link(new),
            None if door.dismissed => Found::Dismissed,
            None => Found::Nothing,
        }
    }

    /// Its time is over before it is.
    pub(super) fn dismiss(&self) {
        self.lock().dismissed = true;
        self.knock.reconnect();
    }

    /// Lets nobody in any more, unless somebody is there already. Whether it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut door = self.lock();
        door.closed |= door.next.is_none();
        door.closed
    }

    /// Whether nobody is let in.
    pub(super) fn is_shut(&self) -> bool {
        self.lock().is_shut()
    }

    /// Lets nobody in any more. Who is there already may come again, and begin anew.
    pub(super) fn close(&self) {
        let mut door = self.lock();
        door.closed = true;
        let next = door.next.take();
        drop(door);
        if let Some(next) = next {
            let reason = CloseReason::new(CloseCode::SessionGone, "the session has just ended");
            next.arrival.part(reason);
        }
    }

    /// Returns how much memory is taken by what waits for the client, and by what it has asked.
    pub(super) fn bytes(&self) -> usize {
        self.receive_count.kept_bytes() + self.tenant.get().map_or(0, Tenant::bytes)
    }

    pub(super) fn is_away(&self, away: bool) {
        if let Some(tenant) = self.tenant.get() {
            tenant.registry.is_away(&tenant.connection, away);
        }
    }

    /// It was away, and did not come back.
    pub(super) fn is_gone(&self) {
        if let Some(tenant) = self.tenant.get() {
            tenant.registry.is_gone(&tenant.connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
