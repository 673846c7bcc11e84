//! How a new link finds its session, or gets a new one.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::time::{Sleep, timeout};

use super::{
    entry::SessionEntry,
    id::RequestedId,
    links::SessionLinks,
    new_link::NewLink,
    store::{NOT_YOURS, SessionStore, TAKEN_OVER_TOO_OFTEN},
};
use crate::{
    close::{CloseCode, CloseReason},
    layer::resume::frame::{Frame, OpenFrame},
    message::Message,
    role::McpRole,
    server::auth::Identity,
    transport::{WebSocketTransport, builder::Builder},
};

/// Time that closing the link of a client may take that gets no session.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl<R: McpRole> SessionStore<R> {
    /// Attaches `new_link` to the session that its client asks for, or returns the transport of a new
    /// session. A client that `speaks` the extension has until the `timer` fires to ask.
    pub(in crate::server) async fn attach(
        self: &Arc<Self>,
        builder: Builder<R>,
        mut new_link: NewLink,
        (identity, requested, speaks): (Option<Identity>, Option<RequestedId>, bool),
        timer: Pin<&mut Sleep>,
    ) -> Option<(WebSocketTransport<R>, Arc<SessionEntry<R>>)> {
        let mut unknown = false;
        if speaks {
            match read_open(&mut new_link, timer).await {
                Ok(OpenFrame::New) => {}
                Ok(OpenFrame::Resume { session, secret, received }) => {
                    unknown = true;
                    let asked = (&session, &secret, received);
                    match self.resume(asked, identity.as_ref(), new_link) {
                        Ok(()) => return None,
                        Err(back) => new_link = back,
                    }
                }
                Err(reason) => {
                    close_link(new_link, reason).await;
                    return None;
                }
            }
        }
        let mut has_known_id = requested.is_some();
        // Without a name, no other has this one.
        let mut requested = requested.unwrap_or_else(RequestedId::issue);
        let entry = loop {
            let (entry, is_new) = self.get_or_insert(
                &requested.id,
                identity.as_ref(),
                has_known_id,
                new_link.address(),
            );
            if is_new {
                break entry;
            }
            // What was found at the door need not be so any more.
            let rejection = match entry.may_attach(identity.as_ref()) {
                false => Some((CloseCode::Forbidden, NOT_YOURS)),
                true if entry.is_taken_over_too_often() => {
                    Some((CloseCode::TryAgainLater, TAKEN_OVER_TOO_OFTEN))
                }
                true => None,
            };
            if let Some((code, what)) = rejection {
                close_link(new_link, CloseReason::new(code, what)).await;
                return None;
            }
            let describe = |given| self.describe(requested.id.clone(), given);
            match entry.return_to(new_link, &requested, speaks.then_some(&describe as _)) {
                Ok(()) => return None,
                Err(back) => new_link = back,
            }
            if entry.is_closed() {
                // It has just ended, and is about to be forgotten.
                self.forget(&entry);
            } else {
                // It is too late to tell the client of another name.
                requested = RequestedId::issue();
                has_known_id = !speaks;
            }
        };
        if speaks {
            let session = self.describe(requested.id.clone(), entry.secret());
            new_link.send_session(if unknown { session.unknown() } else { session });
        } else {
            entry.begin_without_extension(requested.returns_by());
        }
        // It is an MCP server that names sessions.
        if has_known_id
            && !R::IS_CLIENT
            && let Some(session) = builder.session()
        {
            session.set(Some(requested.id.as_str().to_owned()));
        }
        entry.receive_count.peer().set(new_link.limits());
        let source = SessionLinks::new(self.clone(), entry.clone());
        let transport = builder.over_session(new_link, source, entry.receive_count.clone());
        Some((transport, entry))
    }
}

/// Reads what a client asks for that speaks the extension.
async fn read_open(
    new_link: &mut NewLink,
    timer: Pin<&mut Sleep>,
) -> Result<OpenFrame, CloseReason> {
    let first = tokio::select! {
        first = new_link.next() => match first {
            Some(Ok(Message::Text(text))) => Frame::parse(&text),
            Some(Ok(_)) => Ok(None),
            Some(Err(_)) | None => return Err(CloseCode::Abnormal.into()),
        },
        () = timer => {
            return Err(CloseReason::new(CloseCode::Policy, "resume: no @open in time"));
        }
    };
    let violation = match first {
        Ok(Some(Frame::Open(open, limits))) => {
            new_link.update_limits(limits);
            return Ok(open);
        }
        Ok(_) => "resume: the first message is not @open".to_owned(),
        Err(malformed) => malformed.to_string(),
    };
    Err(CloseReason::new(CloseCode::Protocol, violation))
}

async fn close_link(mut new_link: NewLink, reason: CloseReason) {
    tracing::debug!(%reason, "no session");
    let closing = async {
        new_link.send(Message::Close(Some(reason))).await?;
        new_link.close().await
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
