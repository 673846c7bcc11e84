//! Authentication within the connection, for clients that cannot send headers.
//!
//! | from the client | answer |
//! |---|---|
//! | the request `authenticate` with a `token` that is accepted | the result `{"authenticated": true}` |
//! | … that is not | the error `-32001`, then a Close: 4401, or 4403 where 403 would be the answer, or 1013 where 503 would |
//! | any other request | the error `-32001` "Authentication required" |
//! | anything else | nothing |
//! | the request `authenticate` again | the error `-32600` "already authenticated" |
//! | … where nobody is asked, or a header has said enough | the result `{"authenticated": true}` |

use rmcp::{
    ErrorData,
    model::{ErrorCode, JsonRpcMessage, RequestId},
    service::TxJsonRpcMessage,
    transport::Transport as _,
};
use serde_json::json;
use tokio::time::timeout;

use super::{Credentials, Denied, Gate, Identity, Token, ask};
use crate::{
    error::{CloseCode, CloseReason},
    server::{Config, registry::Cause, role::Hosted},
    transport::WebSocketTransport,
};

/// The JSON-RPC code of what is refused for want of authentication.
const UNAUTHENTICATED: ErrorCode = ErrorCode(-32001);

/// Reads from `transport` until somebody has authenticated, with nothing said to the service. The time
/// of the handshake is for the client to ask; then the authenticator has as much.
pub(in crate::server) async fn authenticate<R: Hosted>(
    transport: &mut WebSocketTransport<R>,
    config: &Config<R>,
    gate: &dyn Gate,
    credentials: Credentials,
) -> Result<Identity, (Cause, CloseReason)> {
    let (id, token) = match timeout(config.timeout, attempt(transport)).await {
        Ok(Some(attempt)) => attempt,
        Ok(None) => {
            let left = CloseReason::new(CloseCode::Abnormal, "the client has left");
            return Err((Cause::Unauthorized, left));
        }
        Err(_) => {
            let reason = format!("not authenticated within {:?}", config.timeout);
            return Err((Cause::TimedOut, CloseReason::new(CloseCode::Policy, reason)));
        }
    };
    let verdict = ask(gate, Credentials { token, ..credentials }, config.timeout).await;
    let answer = match verdict {
        Ok(_) => JsonRpcMessage::response(R::custom_result(json!({ "authenticated": true })), id),
        Err(_) => refusal::<R>("Authentication failed", id),
    };
    let _ = timeout(config.timeout, transport.send(answer)).await;
    verdict.map_err(|denied| {
        let (cause, code) = match denied {
            Denied::Unauthorized | Denied::Challenge(_) => {
                (Cause::Unauthorized, config.manners().unauthorized)
            }
            Denied::Forbidden => (Cause::Forbidden, CloseCode::Forbidden),
            Denied::Unavailable(_) => (Cause::Unavailable, CloseCode::TryAgainLater),
        };
        (cause, CloseReason::new(code, denied.to_string()))
    })
}

/// What a client is answered that asks to be authenticated and need not be.
pub(in crate::server) fn needless<R: Hosted>(
    request: &R::PeerReq,
) -> Option<Result<R::Resp, ErrorData>> {
    R::authenticate(request)?;
    Some(Ok(R::custom_result(json!({ "authenticated": true }))))
}

/// What it is answered when it is already.
pub(in crate::server) fn again<R: Hosted>(
    request: &R::PeerReq,
) -> Option<Result<R::Resp, ErrorData>> {
    R::authenticate(request)?;
    Some(Err(ErrorData::invalid_request("already authenticated", None)))
}

/// The next request to authenticate, and its token; every other one is refused. `None` when the client
/// has left.
async fn attempt<R: Hosted>(
    transport: &mut WebSocketTransport<R>,
) -> Option<(RequestId, Option<Token>)> {
    loop {
        let JsonRpcMessage::Request(request) = transport.receive().await? else { continue };
        let Some(params) = R::authenticate(&request.request) else {
            let refusal = refusal::<R>("Authentication required", request.id);
            let _ = transport.send(refusal).await;
            continue;
        };
        let token = params.and_then(|params| Token::new(params.get("token")?.as_str()?));
        return Some((request.id, token));
    }
}

fn refusal<R: Hosted>(message: &'static str, id: RequestId) -> TxJsonRpcMessage<R> {
    JsonRpcMessage::error(ErrorData::new(UNAUTHENTICATED, message, None), Some(id))
}
