//! Attachment of a new link to the session that its client asks for, or to a new one.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::time::{Sleep, timeout};

use super::{
    entry::SessionEntry,
    id::RequestedId,
    links::SessionLinks,
    new_link::NewLink,
    returns::ReturnsBy,
    store::{NOT_YOURS, SessionStore, TAKEN_OVER_TOO_OFTEN},
};
#[cfg(feature = "cluster")]
use crate::server::cluster::relay::{carry::RelayedLink, resume::RelayOutcome};
use crate::{
    close::{CloseCode, CloseReason},
    layer::resume::{
        frame::{Frame, OpenFrame},
        receive_count::SessionStart,
        secret::{Proof, Secret, Secrets},
    },
    message::Message,
    role::McpRole,
    server::{auth::Identity, connection::in_band::reason_of, registry::event::RejectReason},
    transport::{WebSocketTransport, builder::Builder},
};

/// Time that closing a link without a session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl<R: McpRole> SessionStore<R> {
    /// Attaches `new_link` to the session that its client asks for, or builds the transport of a
    /// new one.
    ///
    /// A client that `speaks` the extension has to ask before the `timer` fires, and before the
    /// server stops, which ends its link with the `stop_reason`.
    pub(in crate::server) async fn attach(
        self: &Arc<Self>,
        builder: Builder<R>,
        mut new_link: NewLink,
        (identity, requested, speaks): (Option<Identity>, Option<RequestedId>, bool),
        timer: Pin<&mut Sleep>,
        stop_reason: &CloseReason,
    ) -> Attached<R> {
        let mut is_unknown = false;
        if speaks {
            let opened = tokio::select! {
                opened = read_open(&mut new_link, timer) => opened,
                () = self.stop.cancelled() => Err((RejectReason::Stopping, stop_reason.clone())),
            };
            match opened {
                Ok(OpenFrame::New) => {}
                Ok(OpenFrame::Resume { session, secret, received }) => {
                    is_unknown = true;
                    let asked = (&session, &Proof::Secret(&secret), received);
                    match self.resume(asked, identity.as_ref(), new_link) {
                        Ok(()) => return Attached::Over,
                        Err(back) => new_link = back,
                    }
                    #[cfg(feature = "cluster")]
                    match self
                        .resume_elsewhere(
                            (&session, &secret, received),
                            identity.as_ref(),
                            new_link,
                            stop_reason,
                        )
                        .await
                    {
                        RelayOutcome::Relayed(relayed) => return Attached::Relayed(relayed),
                        RelayOutcome::Unknown(back) => new_link = back,
                        RelayOutcome::Rejected(new_link, reason) => {
                            return Attached::Rejected(
                                new_link,
                                (cause_elsewhere(&reason, stop_reason), reason),
                            );
                        }
                        RelayOutcome::Left => return Attached::Over,
                    }
                }
                Err(rejection) => return Attached::Rejected(new_link, rejection),
            }
        }
        match self.find_or_create(new_link, identity.as_ref(), requested, speaks) {
            Found::Earlier => Attached::Over,
            Found::Rejected(new_link, reason) => {
                Attached::Rejected(new_link, (RejectReason::SessionId, reason))
            }
            Found::New(new) => {
                let (transport, entry) = self.begin(builder, new, is_unknown);
                Attached::New(Box::new(transport), entry)
            }
        }
    }

    /// Attaches `new_link` to the session of the `requested` id, or creates a new session for it.
    fn find_or_create(
        &self,
        mut new_link: NewLink,
        identity: Option<&Identity>,
        requested: Option<RequestedId>,
        speaks: bool,
    ) -> Found<R> {
        let mut has_known_id = requested.is_some();
        let mut requested = requested.unwrap_or_else(|| self.issue());
        let mut secrets = speaks.then(Secrets::default);
        let given = secrets.as_ref().map(|secrets| secrets.given().clone());
        loop {
            let (entry, is_new) = self.get_or_insert(&requested.id, || {
                let (id, identity) = (requested.id.clone(), identity.cloned());
                let by_id = || requested.returns_by();
                let returns_by = secrets.take().map_or_else(by_id, ReturnsBy::Secret);
                SessionEntry::new(id, identity, has_known_id, returns_by, new_link.address())
            });
            if is_new {
                return Found::New(NewSession { new_link, entry, given, has_known_id });
            }
            // The session may have changed since the request was authorized.
            if !entry.may_attach(identity) {
                let reason = CloseReason::new(CloseCode::Forbidden, NOT_YOURS);
                return Found::Rejected(new_link, reason);
            }
            if entry.is_taken_over_too_often() {
                let reason = CloseReason::new(CloseCode::TryAgainLater, TAKEN_OVER_TOO_OFTEN);
                return Found::Rejected(new_link, reason);
            }
            let describe = |given| self.describe(requested.id.clone(), given);
            match entry.reattach_by_id(new_link, &requested, speaks.then_some(&describe as _)) {
                Ok(()) => return Found::Earlier,
                Err(back) => new_link = back,
            }
            if entry.is_closed() {
                // It has just ended, and is about to be forgotten.
                self.forget(&entry);
            } else {
                // A cookie supersedes no link. It is too late to tell the client of another id.
                requested = self.issue();
                has_known_id = !speaks;
            }
        }
    }

    /// Begins a new session, in place of one that `is_unknown` if the client has asked for that.
    fn begin(
        self: &Arc<Self>,
        builder: Builder<R>,
        new: NewSession<R>,
        is_unknown: bool,
    ) -> (WebSocketTransport<R>, Arc<SessionEntry<R>>) {
        let NewSession { mut new_link, entry, given, has_known_id } = new;
        match given {
            Some(given) => {
                let session = self.describe(entry.id.clone(), given);
                new_link.send_session(if is_unknown { session.unknown() } else { session });
            }
            None => entry.receive_count.begin(SessionStart::Plain),
        }
        // Only an MCP server tells its peer the session's id.
        if has_known_id
            && !R::IS_CLIENT
            && let Some(session) = builder.session()
        {
            session.set(Some(entry.id.as_str().to_owned()));
        }
        entry.receive_count.peer().set(new_link.limits());
        let source = SessionLinks::new(self.clone(), entry.clone());
        let transport =
            builder.over_accepted_session(new_link, source, entry.receive_count.clone());
        (transport, entry)
    }
}

/// Outcome for a new link.
pub(in crate::server) enum Attached<R: McpRole> {
    /// The link carries a new session.
    New(Box<WebSocketTransport<R>>, Arc<SessionEntry<R>>),
    /// The link was attached to an earlier session, or its client has left.
    Over,
    /// The link has no session, and is to be closed with the reason.
    Rejected(NewLink, (RejectReason, CloseReason)),
    /// The link is to be carried to the session of its client at another instance.
    #[cfg(feature = "cluster")]
    Relayed(Box<RelayedLink>),
}

/// Outcome of the search for the session of a new link.
enum Found<R: McpRole> {
    /// Earlier session, to which the link was attached.
    Earlier,
    /// Session that the client may not have. The link is to be closed with the reason.
    Rejected(NewLink, CloseReason),
    /// New session.
    New(NewSession<R>),
}

/// New session, with its first link.
struct NewSession<R: McpRole> {
    new_link: NewLink,
    entry: Arc<SessionEntry<R>>,
    /// Secret for a client that speaks the extension.
    given: Option<Secret>,
    /// `true` if the client knows the id.
    has_known_id: bool,
}

/// Reads the `@open` of a client that speaks the extension.
///
/// # Errors
/// The reason to close the link with.
async fn read_open(
    new_link: &mut NewLink,
    timer: Pin<&mut Sleep>,
) -> Result<OpenFrame, (RejectReason, CloseReason)> {
    let session_id = |reason| (RejectReason::SessionId, reason);
    let first = tokio::select! {
        first = next_data(new_link) => first.map_err(session_id)?,
        () = timer => {
            let reason = CloseReason::new(CloseCode::Policy, "resume: no @open in time");
            return Err((RejectReason::TimedOut, reason));
        }
    };
    let first = match first {
        Message::Text(text) => Frame::parse(&text),
        _ => Ok(None),
    };
    let violation = match first {
        Ok(Some(Frame::Open(open, limits))) => {
            new_link.update_limits(limits);
            return Ok(open);
        }
        Ok(_) => "resume: the first message is not @open".to_owned(),
        Err(malformed) => malformed.to_string(),
    };
    Err(session_id(CloseReason::new(CloseCode::Protocol, violation)))
}

/// Returns the next text or binary message.
///
/// # Errors
/// The reason to close the link with, if there is none.
async fn next_data(new_link: &mut NewLink) -> Result<Message, CloseReason> {
    loop {
        match new_link.next().await {
            Some(Ok(Message::Close(_))) | None => return Err(CloseCode::Abnormal.into()),
            Some(Ok(message)) if message.is_data() => return Ok(message),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(reason_of(&error)),
        }
    }
}

/// Returns why a client was rejected whose session another instance has, by its Close.
#[cfg(feature = "cluster")]
fn cause_elsewhere(reason: &CloseReason, stop_reason: &CloseReason) -> RejectReason {
    match reason.code {
        _ if reason == stop_reason => RejectReason::Stopping,
        CloseCode::TryAgainLater => RejectReason::AtCapacity,
        CloseCode::GoingAway => RejectReason::Unavailable,
        _ => RejectReason::SessionId,
    }
}

/// Closes a link without a session, with this reason.
pub(in crate::server) async fn close_link(mut new_link: NewLink, reason: CloseReason) {
    let closing = async {
        new_link.send(Message::Close(Some(reason))).await?;
        new_link.close().await
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
