//! Authentication within the connection, for clients that cannot send headers.
//!
//! | from the client | answer |
//! |---|---|
//! | the request `authenticate` with a `token` that is accepted | the result `{"authenticated": true}` |
//! | … that is not | the error `-32001`, then a Close: 4401, or 4403 where 403 would be the answer |
//! | any other request | the error `-32001` "Authentication required" |
//! | anything else | nothing |

use rmcp::{
    ErrorData,
    model::{ErrorCode, JsonRpcMessage},
    transport::Transport as _,
};
use serde_json::json;

use super::{Credentials, Denied, Gate, Identity, Token, ask};
use crate::{
    error::{CloseCode, CloseReason},
    server::{Config, registry::Cause, role::Hosted},
    transport::WebSocketTransport,
};

/// The JSON-RPC code of what is refused for want of authentication.
const UNAUTHENTICATED: ErrorCode = ErrorCode(-32001);

/// Reads from `transport` until somebody has authenticated, with nothing said to the service.
pub(in crate::server) async fn authenticate<R: Hosted>(
    transport: &mut WebSocketTransport<R>,
    config: &Config<R>,
    gate: &dyn Gate,
    credentials: Credentials,
) -> Result<Identity, (Cause, CloseReason)> {
    let attempt = async {
        while let Some(message) = transport.receive().await {
            let JsonRpcMessage::Request(request) = message else { continue };
            let refusal = |message: &'static str| {
                JsonRpcMessage::error(
                    ErrorData::new(UNAUTHENTICATED, message, None),
                    Some(request.id.clone()),
                )
            };
            let Some(params) = R::authenticate(&request.request) else {
                let _ = transport.send(refusal("Authentication required")).await;
                continue;
            };
            let token = params.and_then(|params| Token::new(params.get("token")?.as_str()?));
            let credentials = Credentials { token, ..credentials.clone() };
            match ask(gate, credentials, config.timeout).await {
                Ok(identity) => {
                    let result = R::custom_result(json!({ "authenticated": true }));
                    let _ = transport.send(JsonRpcMessage::response(result, request.id)).await;
                    return Ok(identity);
                }
                Err(denied) => {
                    let _ = transport.send(refusal("Authentication failed")).await;
                    let (cause, code) = match denied {
                        Denied::Unauthorized | Denied::Challenge(_) => {
                            (Cause::Unauthorized, CloseCode::Unauthorized)
                        }
                        Denied::Forbidden => (Cause::Forbidden, CloseCode::Forbidden),
                        Denied::Unavailable(_) => (Cause::Unavailable, CloseCode::TryAgainLater),
                    };
                    return Err((cause, CloseReason::new(code, denied.to_string())));
                }
            }
        }
        let left = CloseReason::new(CloseCode::Abnormal, "the client has left");
        Err((Cause::Unauthorized, left))
    };
    match tokio::time::timeout(config.timeout, attempt).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let reason = format!("not authenticated within {:?}", config.timeout);
            Err((Cause::TimedOut, CloseReason::new(CloseCode::Policy, reason)))
        }
    }
}
