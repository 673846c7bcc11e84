//! Authentication within the connection, by the first message of a client.

use std::{io, sync::Arc};

use futures::{SinkExt, StreamExt};
use http::StatusCode;

use super::{refusal::MAX_BODY, session::close_with};
use crate::{
    close::{CloseCode, CloseReason},
    duplex::BoxLink,
    error::{Error, HandshakeError, LinkError, Refusal},
    framing::properties::InBandAuth,
    message::Message,
};

/// Sends `token` on a new `link`, and waits for the server's reply. A rejection is returned as if
/// it had come before the upgrade.
pub(super) async fn authenticate(
    link: &mut BoxLink,
    in_band_auth: InBandAuth,
    token: &str,
) -> Result<(), HandshakeError> {
    link.send((in_band_auth.request)(token)).await.map_err(refused)?;
    loop {
        let message = match link.next().await {
            Some(Ok(Message::Close(reason))) => {
                return Err(refused(LinkError::closed_by_peer(reason).into()));
            }
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(refused(error)),
            None => return Err(refused(LinkError::Closed(CloseCode::Abnormal.into()).into())),
        };
        match (in_band_auth.parse_reply)(&message) {
            Some(Ok(())) => return Ok(()),
            Some(Err(why)) => {
                close_with(link, CloseReason::new(CloseCode::Normal, "not authenticated")).await;
                // A hostile server may repeat the token.
                let mut why = why.replace(token, "…");
                let most = MAX_BODY.min(why.len());
                why.truncate((0..=most).rfind(|at| why.is_char_boundary(*at)).unwrap_or_default());
                let refusal = Refusal::new(StatusCode::UNAUTHORIZED, why);
                return Err(HandshakeError::Refused(Box::new(refusal)));
            }
            // Not the reply: it is for clients that are authenticated.
            None => {}
        }
    }
}

/// Returns the refusal that would have said the same before the upgrade.
fn refused(error: Error) -> HandshakeError {
    if let Error::Link(LinkError::Closed(reason)) = &error {
        let status = match reason.code {
            CloseCode::Unauthorized | CloseCode::Policy => Some(StatusCode::UNAUTHORIZED),
            CloseCode::Forbidden => Some(StatusCode::FORBIDDEN),
            CloseCode::TryAgainLater | CloseCode::Restart => Some(StatusCode::SERVICE_UNAVAILABLE),
            _ => None,
        };
        if let Some(status) = status {
            let refusal = Refusal::new(status, reason.reason.clone());
            return HandshakeError::Refused(Box::new(refusal));
        }
    }
    let lost = io::Error::new(io::ErrorKind::ConnectionReset, error.to_string());
    HandshakeError::Connect(Arc::new(lost))
}
