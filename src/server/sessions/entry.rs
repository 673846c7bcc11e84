//! [`SessionEntry`]: one session in the store, and the attachment of links to it.

use std::{
    mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{id::RequestedId, new_link::NewLink, returns::ReturnsBy};
use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, LinkError},
    layer::{
        correlation::slots::HandlerSlots,
        reconnect::ReconnectHandle,
        resume::{
            frame::SessionFrame,
            receive_count::{ReceiveCount, SessionStart},
            secret::{Proof, Secret, Secrets, SessionId},
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

/// Number of takeovers within [`TAKEOVER_WINDOW`] that are allowed.
const MAX_TAKEOVERS: u32 = 5;

/// Time within which takeovers are counted.
const TAKEOVER_WINDOW: Duration = Duration::from_secs(10);

/// Session in the store.
pub(in crate::server) struct SessionEntry<R: McpRole> {
    pub(in crate::server) id: SessionId,
    pub(super) identity: Option<Identity>,
    pub(super) receive_count: ReceiveCount,
    /// `true` if its client may come back by the id. Else it takes the secret.
    has_known_id: bool,
    /// Notified when there is something for the source of its links.
    pub(super) notify: ReconnectHandle,
    inner: Mutex<Inner>,
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

/// Return of a client on a new link.
pub(super) struct Reattach {
    pub(super) new_link: NewLink,
    pub(super) up: LinkUp,
    /// Start of its session, if it does not resume.
    pub(super) start: Option<SessionStart>,
    /// Reason that its former connection is closed with.
    pub(super) superseded_reason: CloseReason,
}

/// Changing part of a session, behind one lock.
struct Inner {
    attachment: Attachment,
    returns_by: ReturnsBy,
    /// Address of the last connection.
    address: Option<IpAddr>,
    takeovers: Takeovers,
}

/// Attachment of a session to a link.
///
/// | from | to | when |
/// |---|---|---|
/// | `Attached` | `Detached` | the link is lost, and the session outlives it |
/// | `Attached`, `Detached` | `Waiting` | the client comes back on a new link |
/// | `Waiting` | `Waiting` | the client comes back once more; the earlier new link is closed |
/// | `Waiting` | `Attached` | the source takes the new link |
/// | `Detached` | `Dismissed` | the store has too many detached sessions, and chooses this one |
/// | any but `Waiting` | `Closed` | the session does not outlive its link, or is over |
/// | `Waiting` | `Closed` | the service has ended; the new link is closed with 4410 |
///
/// `Dismissed` and `Closed` take in no link any more.
enum Attachment {
    Attached,
    Waiting(Reattach),
    Detached,
    Dismissed,
    Closed,
}

impl Attachment {
    /// Returns `true` if there is a link, as far as is known.
    fn is_connected(&self) -> bool {
        matches!(self, Self::Attached | Self::Waiting(_))
    }

    /// Returns `true` if no link is taken in any more.
    fn is_closed(&self) -> bool {
        matches!(self, Self::Dismissed | Self::Closed)
    }
}

/// Count of the takeovers of a session, within a window of time.
#[derive(Debug, Default)]
struct Takeovers {
    since: Option<Instant>,
    count: u32,
}

impl Takeovers {
    fn record(&mut self) {
        let is_over = |since: &Instant| since.elapsed() > TAKEOVER_WINDOW;
        if self.since.as_ref().is_none_or(is_over) {
            *self = Self { since: Some(Instant::now()), count: 0 };
        }
        self.count += 1;
    }

    fn are_too_many(&self) -> bool {
        let is_recent = |since: Instant| since.elapsed() <= TAKEOVER_WINDOW;
        self.count >= MAX_TAKEOVERS && self.since.is_some_and(is_recent)
    }
}

impl<R: McpRole> SessionEntry<R> {
    /// Creates the entry of a session that has a link from `address`.
    pub(super) fn new(
        id: SessionId,
        identity: Option<Identity>,
        has_known_id: bool,
        returns_by: ReturnsBy,
        address: Option<IpAddr>,
    ) -> Self {
        let attachment = Attachment::Attached;
        let inner = Inner { attachment, returns_by, address, takeovers: Takeovers::default() };
        Self {
            id,
            identity,
            receive_count: ReceiveCount::default(),
            has_known_id,
            notify: ReconnectHandle::default(),
            inner: Mutex::new(inner),
            owner: OnceLock::new(),
        }
    }

    /// Returns `true` if `identity` may attach by the session's id.
    pub(super) fn may_attach(&self, identity: Option<&Identity>) -> bool {
        self.has_known_id && self.identity.as_ref() == identity
    }

    /// Sets the listed connection that has the session from now on.
    pub(in crate::server) fn set_owner(&self, owner: Owner<R>) {
        let inner = self.lock();
        if let Attachment::Waiting(new) = &inner.attachment {
            owner.connection.stats().follow(new.new_link.stats.clone());
        }
        let _ = self.owner.set(owner);
    }

    /// Returns the address that the client last came from.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.lock().address
    }

    /// Returns `true` if a client with this proof may resume the session.
    #[cfg(feature = "cluster")]
    pub(super) fn is_resumable(&self, proof: &Proof<'_>) -> bool {
        let mut inner = self.lock();
        if inner.attachment.is_closed() {
            return false;
        }
        let ReturnsBy::Secret(secrets) = &mut inner.returns_by else { return false };
        if self.receive_count.has_received() {
            secrets.confirm();
        }
        secrets.is_valid(proof)
    }

    /// Takes in `new_link` if its client has the secret. The client has `received` that many
    /// messages.
    pub(super) fn resume(
        &self,
        proof: &Proof<'_>,
        received: u64,
        mut new_link: NewLink,
        describe: impl FnOnce(Secret) -> SessionFrame,
    ) -> Result<(), NewLink> {
        let mut inner = self.lock();
        if inner.attachment.is_closed() {
            return Err(new_link);
        }
        let ReturnsBy::Secret(secrets) = &mut inner.returns_by else { return Err(new_link) };
        if self.receive_count.has_received() {
            secrets.confirm();
        }
        let Some(given) = secrets.rotate_for(proof).cloned() else { return Err(new_link) };
        let frozen = self.receive_count.freeze();
        new_link.send_session(describe(given).resumed(frozen.received()));
        let up = frozen.resumed(received);
        let superseded_reason = LinkError::taken_over().close_reason();
        self.attach(inner, Reattach { new_link, up, start: None, superseded_reason });
        Ok(())
    }

    /// Takes in `new_link`, whose client knows the session's id and no more.
    ///
    /// The first message shows whether the client goes on or begins anew. One that speaks the
    /// extension is sent what `describe` returns. An id from a cookie supersedes no link.
    pub(super) fn reattach_by_id(
        &self,
        mut new_link: NewLink,
        requested: &RequestedId,
        describe: Option<&dyn Fn(Secret) -> SessionFrame>,
    ) -> Result<(), NewLink> {
        let mut inner = self.lock();
        let attachment = &inner.attachment;
        if attachment.is_closed() || requested.is_from_cookie() && attachment.is_connected() {
            return Err(new_link);
        }
        // What was counted before counts no more, and no earlier secret is valid.
        let start = match describe {
            Some(describe) => {
                let secrets = Secrets::default();
                new_link.send_session(describe(secrets.given().clone()));
                inner.returns_by = ReturnsBy::Secret(secrets);
                SessionStart::Open
            }
            None => {
                inner.returns_by = ReturnsBy::KnownId;
                SessionStart::Plain
            }
        };
        let (start, superseded_reason) = (Some(start), requested.superseded_reason());
        let up = LinkUp::Unverified;
        self.attach(inner, Reattach { new_link, up, start, superseded_reason });
        Ok(())
    }

    fn attach(&self, mut inner: MutexGuard<'_, Inner>, new: Reattach) {
        if inner.attachment.is_connected() {
            inner.takeovers.record();
        }
        inner.address = new.new_link.address();
        if let Some(owner) = self.owner.get() {
            owner.connection.stats().follow(new.new_link.stats.clone());
        }
        let superseded_reason = new.superseded_reason.clone();
        let earlier = mem::replace(&mut inner.attachment, Attachment::Waiting(new));
        // Under the lock: a source that finds the link there has been notified of it.
        self.notify.reconnect();
        drop(inner);
        if let Attachment::Waiting(earlier) = earlier {
            earlier.new_link.close_with(superseded_reason);
        }
    }

    /// Returns the time for which the session is kept after the loss of a link for this `cause`.
    ///
    /// That is the `window` at most. `None` ends the session.
    pub(super) fn kept_for(&self, cause: &Error, window: Duration) -> Option<Duration> {
        let owner = self.owner.get();
        let is_initialized = owner.is_some_and(|owner| owner.connection.is_initialized());
        self.lock().returns_by.kept_for(cause, is_initialized, window)
    }

    /// Returns `true` if there is a link, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().attachment.is_connected()
    }

    /// Returns `true` if the session is taken over too often, as by two clients that always
    /// reconnect.
    pub(super) fn is_taken_over_too_often(&self) -> bool {
        self.lock().takeovers.are_too_many()
    }

    /// Records that the link is lost.
    pub(super) fn detach(&self) {
        let attachment = &mut self.lock().attachment;
        if matches!(attachment, Attachment::Attached) {
            *attachment = Attachment::Detached;
        }
    }

    /// Takes the new link that waits, if there is one.
    pub(super) fn take_new_link(&self) -> Option<Reattach> {
        let attachment = &mut self.lock().attachment;
        match mem::replace(attachment, Attachment::Attached) {
            Attachment::Waiting(new) => Some(new),
            other => {
                *attachment = other;
                None
            }
        }
    }

    /// Ends the session before its time is over, unless its client is back.
    pub(super) fn dismiss(&self) {
        let attachment = &mut self.lock().attachment;
        if matches!(attachment, Attachment::Detached) {
            *attachment = Attachment::Dismissed;
            self.notify.reconnect();
        }
    }

    /// Closes the session, unless a new link waits. Returns `true` if it is closed.
    pub(super) fn close_if_empty(&self) -> bool {
        let attachment = &mut self.lock().attachment;
        let is_empty = !matches!(attachment, Attachment::Waiting(_));
        if is_empty {
            *attachment = Attachment::Closed;
        }
        is_empty
    }

    /// Returns `true` if no link is taken in any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().attachment.is_closed()
    }

    /// Closes the session. A client whose new link waits may come again, and begin anew.
    pub(super) fn close(&self) {
        let before = mem::replace(&mut self.lock().attachment, Attachment::Closed);
        if let Attachment::Waiting(new) = before {
            let reason = CloseReason::new(CloseCode::SessionGone, "the session has just ended");
            new.new_link.close_with(reason);
        }
    }

    /// Returns the memory that is taken by what waits for the client, and by what it has asked, in
    /// bytes.
    pub(super) fn bytes(&self) -> usize {
        self.receive_count.kept_bytes() + self.owner.get().map_or(0, Owner::bytes)
    }

    /// Records in the registry whether the client is detached.
    pub(super) fn set_detached(&self, detached: bool) {
        if let Some(owner) = self.owner.get() {
            owner.registry.set_detached(&owner.connection, detached);
        }
    }

    /// Records in the registry that the client did not come back.
    pub(super) fn end_detached(&self) {
        if let Some(owner) = self.owner.get() {
            owner.registry.forget_detached(&owner.connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
