//! [`SessionEntry`]: one session in the store, and who may attach to it.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    id::{RequestedId, ReturnsBy},
    new_link::NewLink,
};
use crate::{
    close::{CloseCode, CloseReason},
    error::LinkError,
    layer::{
        correlation::slots::HandlerSlots,
        reconnect::ReconnectHandle,
        resume::{
            frame::SessionFrame,
            receive_count::{ReceiveCount, SessionStart},
            secret::{Secret, Secrets, SessionId},
        },
        shared_link::SharedLink,
    },
    link::LinkUp,
    role::McpRole,
    server::{
        auth::Identity,
        registry::{Registry, connection::Connection},
    },
};

use tokio::time::Instant;

/// Number of takeovers by session id within [`TAKEOVER_WINDOW`] that are allowed.
const MAX_TAKEOVERS: u32 = 5;
const TAKEOVER_WINDOW: Duration = Duration::from_secs(10);

/// Session in the store, as clients find it that ask for one.
pub(in crate::server) struct SessionEntry<R: McpRole> {
    pub(super) id: SessionId,
    pub(super) identity: Option<Identity>,
    pub(super) receive_count: ReceiveCount,
    /// `true` if its client comes back by the id. Else it takes the secret.
    has_known_id: bool,
    /// Notified when there is something for the source of its links.
    pub(super) notify: ReconnectHandle,
    attachment: Mutex<Attachment>,
    owner: OnceLock<Owner<R>>,
}

/// Listed connection that has the session.
pub(in crate::server) struct Owner<R: McpRole> {
    pub(in crate::server) registry: Registry<R>,
    pub(in crate::server) connection: Connection,
    pub(in crate::server) shared: SharedLink,
    /// Slots of what is being handled, or waits for it.
    pub(in crate::server) slots: Arc<HandlerSlots>,
    /// Memory that each message takes up by the upgrade request that comes with it, in bytes.
    pub(in crate::server) head_bytes: usize,
}

impl<R: McpRole> Owner<R> {
    fn bytes(&self) -> usize {
        self.shared.queued_bytes() + self.slots.bytes(self.head_bytes)
    }
}

/// Return of a client.
pub(super) struct Reattach {
    pub(super) new_link: NewLink,
    pub(super) up: LinkUp,
    /// Start of its session, if it does not resume.
    pub(super) start: Option<SessionStart>,
    /// Reason that its former connection is closed with.
    pub(super) superseded_reason: CloseReason,
}

struct Attachment {
    secrets: Secrets,
    next: Option<Reattach>,
    connected: bool,
    /// Address of the last connection.
    address: Option<IpAddr>,
    returns_by: ReturnsBy,
    /// Start of the current takeover window, and the takeovers counted in it.
    taken_over: Option<(Instant, u32)>,
    dismissed: bool,
    /// `true` once nobody takes in a link any more.
    closed: bool,
}

impl Attachment {
    /// Returns `true` if no link is taken in. One that is there already was not to be dismissed.
    fn is_closed(&self) -> bool {
        self.closed || self.dismissed && !self.connected
    }
}

/// What the source of the links does next.
pub(super) enum Next {
    Link(Reattach),
    Dismissed,
    Nothing,
}

impl<R: McpRole> SessionEntry<R> {
    pub(super) fn new(
        id: SessionId,
        identity: Option<Identity>,
        receive_count: ReceiveCount,
        has_known_id: bool,
        address: Option<IpAddr>,
    ) -> Self {
        let attachment = Mutex::new(Attachment {
            secrets: Secrets::default(),
            next: None,
            connected: true,
            address,
            returns_by: ReturnsBy::Secret,
            taken_over: None,
            dismissed: false,
            closed: false,
        });
        let (notify, owner) = (ReconnectHandle::default(), OnceLock::new());
        Self { id, identity, receive_count, has_known_id, notify, attachment, owner }
    }

    /// Returns `true` if `identity` may attach by the session's id.
    pub(super) fn may_attach(&self, identity: Option<&Identity>) -> bool {
        self.has_known_id && self.identity.as_ref() == identity
    }

    /// Sets the listed connection that has the session from now on.
    pub(in crate::server) fn set_owner(&self, owner: Owner<R>) {
        let attachment = self.lock();
        if let Some(next) = &attachment.next {
            owner.connection.stats().follow(next.new_link.stats.clone());
        }
        let _ = self.owner.set(owner);
    }

    /// Returns the address that the client last came from.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.lock().address
    }

    pub(super) fn secret(&self) -> Secret {
        self.lock().secrets.given().clone()
    }

    /// Takes `new_link` in, if the client has the secret.
    pub(super) fn resume(
        &self,
        secret: &Secret,
        received: u64,
        mut new_link: NewLink,
        describe: impl FnOnce(Secret) -> SessionFrame,
    ) -> Result<(), NewLink> {
        let mut attachment = self.lock();
        if attachment.is_closed() {
            return Err(new_link);
        }
        if self.receive_count.is_heard() {
            attachment.secrets.confirm();
        }
        let Some(given) = attachment.secrets.rotate(secret).cloned() else { return Err(new_link) };
        let frozen = self.receive_count.freeze();
        new_link.send_session(describe(given).resumed(frozen.received()));
        let up = frozen.resumed(received);
        let superseded_reason = LinkError::taken_over().close_reason();
        self.attach(attachment, Reattach { new_link, up, start: None, superseded_reason });
        Ok(())
    }

    /// Takes `new_link` in, whose client knows the id of the session and no more: whether it is the one
    /// that was here before shows by what it says. It is told of the session where it speaks the
    /// extension. An id from a cookie supersedes no link.
    pub(super) fn return_to(
        &self,
        mut new_link: NewLink,
        requested: &RequestedId,
        describe: Option<&dyn Fn(Secret) -> SessionFrame>,
    ) -> Result<(), NewLink> {
        let mut attachment = self.lock();
        if attachment.is_closed() || requested.from_cookie && attachment.connected {
            return Err(new_link);
        }
        // What was counted before counts no more.
        attachment.secrets = Secrets::default();
        let start = match describe {
            Some(describe) => {
                new_link.send_session(describe(attachment.secrets.given().clone()));
                SessionStart::Open
            }
            None => SessionStart::Plain,
        };
        let (start, superseded_reason) = (Some(start), requested.superseded_reason());
        self.attach(
            attachment,
            Reattach { new_link, up: LinkUp::Unverified, start, superseded_reason },
        );
        Ok(())
    }

    fn attach(&self, mut attachment: MutexGuard<'_, Attachment>, new: Reattach) {
        if attachment.connected {
            let now = Instant::now();
            let (since, times) = attachment.taken_over.get_or_insert((now, 0));
            if now - *since > TAKEOVER_WINDOW {
                (*since, *times) = (now, 0);
            }
            *times += 1;
        }
        attachment.connected = true;
        attachment.address = new.new_link.address();
        if let Some(owner) = self.owner.get() {
            owner.connection.stats().follow(new.new_link.stats.clone());
        }
        attachment.returns_by = match new.start {
            Some(SessionStart::Plain) => ReturnsBy::KnownId,
            _ => ReturnsBy::Secret,
        };
        let superseded_reason = new.superseded_reason.clone();
        let earlier = attachment.next.replace(new);
        // Whoever finds it there has been asked to look.
        self.notify.reconnect();
        drop(attachment);
        if let Some(earlier) = earlier {
            // The client has come again since, on another connection.
            earlier.new_link.close_with(superseded_reason);
        }
    }

    /// Begins the session of a client that does not speak the extension, and may or may not know the id.
    pub(super) fn begin_without_extension(&self, returns_by: ReturnsBy) {
        self.lock().returns_by = returns_by;
        self.receive_count.begin(SessionStart::Plain);
    }

    /// Returns how a client that loses its link now can come back.
    pub(super) fn returns_by(&self) -> ReturnsBy {
        self.lock().returns_by
    }

    pub(super) fn is_initialized(&self) -> bool {
        self.owner.get().is_some_and(|owner| owner.connection.is_initialized())
    }

    /// Returns `true` if there is a link, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().connected
    }

    /// Returns `true` if it is taken over too often, as by two clients that reconnect whatever happens.
    pub(super) fn is_taken_over_too_often(&self) -> bool {
        let taken_over = self.lock().taken_over;
        taken_over.is_some_and(|(since, times)| {
            times >= MAX_TAKEOVERS && since.elapsed() <= TAKEOVER_WINDOW
        })
    }

    /// Records that the link is lost.
    pub(super) fn detach(&self) {
        let mut attachment = self.lock();
        attachment.connected = attachment.next.is_some();
    }

    /// Returns what the source of the links does next. A session that is not `detached` was dismissed
    /// too late.
    pub(super) fn take_next(&self, detached: bool) -> Next {
        let mut attachment = self.lock();
        if attachment.next.is_some() || !detached {
            attachment.dismissed = false;
        }
        match attachment.next.take() {
            Some(new) => Next::Link(new),
            None if attachment.dismissed => Next::Dismissed,
            None => Next::Nothing,
        }
    }

    /// Ends the session before its time is over.
    pub(super) fn dismiss(&self) {
        self.lock().dismissed = true;
        self.notify.reconnect();
    }

    /// Closes the session, unless a link waits to be taken. Returns `true` if it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let mut attachment = self.lock();
        attachment.closed |= attachment.next.is_none();
        attachment.closed
    }

    /// Returns `true` if no link is taken in.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Closes the session. A client whose link waits to be taken may come again, and begin anew.
    pub(super) fn close(&self) {
        let mut attachment = self.lock();
        attachment.closed = true;
        let next = attachment.next.take();
        drop(attachment);
        if let Some(next) = next {
            let reason = CloseReason::new(CloseCode::SessionGone, "the session has just ended");
            next.new_link.close_with(reason);
        }
    }

    /// Returns how much memory is taken by what waits for the client, and by what it has asked.
    pub(super) fn bytes(&self) -> usize {
        self.receive_count.kept_bytes() + self.owner.get().map_or(0, Owner::bytes)
    }

    pub(super) fn set_detached(&self, detached: bool) {
        if let Some(owner) = self.owner.get() {
            owner.registry.set_detached(&owner.connection, detached);
        }
    }

    /// Records that the client did not come back.
    pub(super) fn end_detached(&self) {
        if let Some(owner) = self.owner.get() {
            owner.registry.forget_detached(&owner.connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Attachment> {
        self.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
