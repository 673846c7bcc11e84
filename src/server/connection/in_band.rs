//! Authentication within the connection, for clients that cannot send headers.
//!
//! | from the client | answer |
//! |---|---|
//! | the request `authenticate` with an accepted `token` | the result `{"authenticated": true}` |
//! | … with any other | the error `-32001`, then a Close: 4401, 4403 for a 403, 1013 for a 503 |
//! | any other request | the error `-32001` "Authentication required" |
//! | a message larger than [`Config::max_unauthenticated_message_size`] | a Close: 1009 |
//! | anything else | nothing |
//! | the request `authenticate` again | the error `-32600` "already authenticated" |
//! | … of a client that was admitted at its upgrade | the result `{"authenticated": true}` |

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use http::request::Parts;
use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, LinkError},
    framing::{Framing, decode_error::DecodeError, unauthenticated::UnauthenticatedMessage},
    message::Message,
    role::McpRole,
    rpc_code::UNAUTHENTICATED,
    server::{
        auth::{AuthError, Credentials, DynAuthenticator, Identity, token::Token, verify},
        config::Config,
        http::upgraded::Unauthenticated,
        registry::event::RejectReason,
    },
};

/// Reads from `link` until the client has authenticated.
///
/// The handshake timeout bounds the time until the client asks; the authenticator then has as long
/// again.
///
/// # Errors
/// The reason to close the connection with.
pub(in crate::server) async fn authenticate<R: McpRole>(
    link: &mut dyn Unauthenticated,
    framing: &mut dyn Framing<R>,
    config: &Config<R>,
    authenticator: &dyn DynAuthenticator,
    (parts, peer): (&Parts, Option<SocketAddr>),
) -> Result<Identity, (RejectReason, CloseReason)> {
    let late =
        |reason: String| (RejectReason::TimedOut, CloseReason::new(CloseCode::Policy, reason));
    let unauthorized = |reason| (RejectReason::Unauthorized, reason);
    let time = config.timeout;
    let attempted = timeout(time, attempt(link, framing)).await;
    let attempted = attempted.map_err(|_| late(format!("not authenticated within {time:?}")))?;
    let (id, token) = attempted.map_err(unauthorized)?;
    let credentials = Credentials { token, parts: parts.clone(), peer };
    let decision = Box::pin(verify(authenticator, credentials, time)).await;
    let answer = match decision {
        Ok(_) => JsonRpcMessage::response(R::custom_result(json!({ "authenticated": true })), id),
        Err(_) => refusal::<R>("Authentication failed", id),
    };
    let answered = timeout(time, write(link, framing, &answer)).await;
    let identity = decision.map_err(|denied| {
        let (cause, code) = match denied {
            AuthError::Unauthorized | AuthError::Challenge(_) => {
                (RejectReason::Unauthorized, config.framing_properties().unauthorized_code)
            }
            AuthError::Forbidden => (RejectReason::Forbidden, CloseCode::Forbidden),
            AuthError::Unavailable(_) => (RejectReason::Unavailable, CloseCode::TryAgainLater),
        };
        (cause, CloseReason::new(code, denied.to_string()))
    })?;
    let not_taken = || format!("the answer to authenticate was not taken within {time:?}");
    answered.map_err(|_| late(not_taken()))?.map_err(|_| unauthorized(client_left()))?;
    Ok(identity)
}

/// Closes the connection, within the close timeout of its socket.
pub(in crate::server) async fn close(link: &mut dyn Unauthenticated, reason: CloseReason) {
    if reason.code.is_sendable() {
        // Without waiting for room: the client may read nothing.
        let _ = link.start_send_unpin(Message::Close(Some(reason)));
    }
    let _ = link.close().await;
}

/// Answers the method `authenticate` for a client that was admitted at its upgrade.
pub(in crate::server) fn answer_when_authenticated<R: McpRole>(
    request: &R::PeerReq,
) -> Option<Result<R::Resp, ErrorData>> {
    R::authenticate(request)?;
    Some(Ok(R::custom_result(json!({ "authenticated": true }))))
}

/// Answers the method `authenticate` for a client that has used it already.
pub(in crate::server) fn refuse_second_attempt<R: McpRole>(
    request: &R::PeerReq,
) -> Option<Result<R::Resp, ErrorData>> {
    R::authenticate(request)?;
    Some(Err(ErrorData::invalid_request("already authenticated", None)))
}

/// Reads up to the next request to authenticate. Returns its token; every other request is refused.
async fn attempt<R: McpRole>(
    link: &mut dyn Unauthenticated,
    framing: &mut dyn Framing<R>,
) -> Result<(RequestId, Option<Token>), CloseReason> {
    loop {
        let message = match link.next().await {
            Some(Ok(Message::Close(_))) | None => return Err(client_left()),
            Some(Ok(message)) if message.is_data() => message,
            Some(Ok(_)) => continue,
            // The socket has sent its own Close.
            Some(Err(error)) => return Err(reason_of(&error)),
        };
        let read =
            framing.decode_unauthenticated(&message).unwrap_or_else(|| decode(framing, message));
        let answer = match read {
            Ok(UnauthenticatedMessage::Authenticate { id, token }) => {
                return Ok((id, token.and_then(|token| Token::new(&token))));
            }
            Ok(UnauthenticatedMessage::Request { id }) => {
                Some(refusal::<R>("Authentication required", id))
            }
            Ok(UnauthenticatedMessage::Other)
            | Err(
                DecodeError::Response { .. }
                | DecodeError::Responses { .. }
                | DecodeError::Dropped { .. },
            ) => None,
            Err(DecodeError::Request { id: None, .. }) if R::IS_CLIENT => None,
            Err(DecodeError::Request { id, error }) => Some(JsonRpcMessage::error(error, id)),
            Err(DecodeError::Unacceptable(reason)) => return Err(reason),
        };
        match answer {
            Some(answer) => write(link, framing, &answer).await,
            None => write_replies(link, framing).await,
        }
        .map_err(|error| reason_of(&error))?;
    }
}

/// Decodes a message of a framing without a [`Framing::decode_unauthenticated`] of its own.
fn decode<R: McpRole>(
    framing: &mut dyn Framing<R>,
    message: Message,
) -> Result<UnauthenticatedMessage, DecodeError> {
    let Some(RxJsonRpcMessage::<R>::Request(request)) = framing.decode(message, &())? else {
        return Ok(UnauthenticatedMessage::Other);
    };
    let id = request.id;
    Ok(match R::authenticate(&request.request) {
        Some(token) => UnauthenticatedMessage::Authenticate { id, token },
        None => UnauthenticatedMessage::Request { id },
    })
}

/// Writes `message` and the replies that the framing has queued.
async fn write<R: McpRole>(
    link: &mut dyn Unauthenticated,
    framing: &mut dyn Framing<R>,
    message: &TxJsonRpcMessage<R>,
) -> Result<(), Error> {
    let encoded = framing.encode(message)?;
    if let Some(message) = encoded.and_then(|message| framing.enqueue_in_order(message)) {
        link.feed(message).await?;
    }
    write_replies(link, framing).await
}

/// Writes the replies that the framing has queued.
async fn write_replies<R: McpRole>(
    link: &mut dyn Unauthenticated,
    framing: &mut dyn Framing<R>,
) -> Result<(), Error> {
    while let Some(message) = framing.next_reply() {
        link.feed(message).await?;
    }
    link.flush().await
}

fn client_left() -> CloseReason {
    CloseReason::new(CloseCode::Abnormal, "the client has left")
}

/// Returns the reason to close a link that has failed before the client was let in.
pub(in crate::server) fn reason_of(error: &Error) -> CloseReason {
    match error {
        Error::Link(LinkError::Closed(_) | LinkError::Io(_)) => client_left(),
        Error::Link(error) => error.close_reason(),
        other => CloseReason::new(CloseCode::Internal, other.to_string()),
    }
}

fn refusal<R: McpRole>(message: &'static str, id: RequestId) -> TxJsonRpcMessage<R> {
    JsonRpcMessage::error(ErrorData::new(UNAUTHENTICATED, message, None), Some(id))
}
