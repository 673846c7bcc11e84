//! Opening a session on a new link (`mcp.resume.v1`, section 3).

use std::{future::poll_fn, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::time::timeout;

use crate::{
    close::{CloseCode, CloseReason},
    duplex::BoxLink,
    error::{Error, LinkError},
    layer::resume::{
        frame::{Frame, OpenFrame, SUBPROTOCOL, SessionFrame},
        receive_count::{FrozenCount, ReceiveCount, SessionStart},
        secret::SessionId,
    },
    link::{LinkUp, MessageLimits},
    message::Message,
};

/// Time that the peer has to answer the Close of a link that is given up.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason of the Close for a first message that does not answer which session is resumed.
const NO_SESSION: &str = "resume: the first message is not the @session that was asked for";

/// Outcome of opening a session on a new link.
#[derive(Debug)]
pub(super) enum SessionOpening {
    /// The server does not speak the extension.
    Unsupported,
    /// A new one was asked for.
    Requested,
    /// The server does not have the one that was asked for, and has opened another.
    Replaced(SessionFrame),
    /// The one that was asked for.
    Resumed(SessionFrame, FrozenCount),
}

impl SessionOpening {
    /// Returns the name of the outcome, for the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Unsupported => "none",
            Self::Requested | Self::Replaced(_) => "new",
            Self::Resumed(..) => "resumed",
        }
    }

    /// Starts or continues the count of `receive_count` on a new link. `limits` are those that the
    /// server announced in its handshake.
    pub(super) fn begin(self, receive_count: &ReceiveCount, limits: MessageLimits) -> LinkUp {
        receive_count.peer().set(limits);
        match self {
            Self::Unsupported => receive_count.begin(SessionStart::Plain),
            Self::Requested => receive_count.begin(SessionStart::Opening),
            Self::Replaced(session) => {
                receive_count.begin(SessionStart::Open);
                receive_count.note(session);
            }
            Self::Resumed(session, frozen) => {
                let received = session.received;
                receive_count.note(session);
                return frozen.resumed(received);
            }
        }
        LinkUp::NewPeer
    }
}

/// Opens the session of `receive_count` on `link`, or a new one if it has none. Announces this
/// client's limits. Waits for the answer only when a session is resumed.
pub(super) async fn open(
    link: &mut BoxLink,
    subprotocol: Option<&str>,
    receive_count: &ReceiveCount,
    limits: MessageLimits,
) -> Result<SessionOpening, Error> {
    if subprotocol != Some(SUBPROTOCOL) {
        return Ok(SessionOpening::Unsupported);
    }
    poll_fn(|cx| link.poll_ready_unpin(cx)).await?;
    let Some(SessionFrame { session, secret, .. }) = receive_count.session() else {
        link.start_send_unpin(Frame::Open(OpenFrame::New, limits).encode())?;
        return Ok(SessionOpening::Requested);
    };
    // A former link receives nothing from here on, even if it is still open: only the peer is
    // waited for.
    let frozen = receive_count.freeze();
    let asked = session.clone();
    let open = OpenFrame::Resume { session, secret, received: frozen.received() };
    link.start_send_unpin(Frame::Open(open, limits).encode())?;
    link.flush().await?;
    match answer(link, &asked).await? {
        Some(session) if session.resumed => Ok(SessionOpening::Resumed(session, frozen)),
        Some(session) => Ok(SessionOpening::Replaced(session)),
        None => Err(violation(link).await),
    }
}

/// Reads the answer of the peer; `None` if it is not the answer to that.
async fn answer(link: &mut BoxLink, asked: &SessionId) -> Result<Option<SessionFrame>, Error> {
    loop {
        let text = match link.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => return Ok(None),
            Some(Ok(Message::Close(reason))) => {
                return Err(LinkError::closed_by_peer(reason).into());
            }
            Some(Err(error)) => return Err(error),
            None => return Err(LinkError::Closed(CloseCode::Abnormal.into()).into()),
        };
        let Ok(Some(Frame::Session(session))) = Frame::parse(&text) else { return Ok(None) };
        let fits = !session.resumed || session.session == *asked;
        return Ok(fits.then_some(session));
    }
}

async fn violation(link: &mut BoxLink) -> Error {
    let reason = CloseReason::new(CloseCode::Protocol, NO_SESSION);
    close_with(link, reason.clone()).await;
    LinkError::closed_here(&reason).into()
}

/// Closes a link that is given up, so that the peer keeps nothing for it.
pub(super) async fn close_with(link: &mut BoxLink, reason: CloseReason) {
    let closing = async {
        link.send(Message::Close(Some(reason))).await?;
        link.close().await
    };
    // The peer may have broken the rules, and may do so again.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
}
