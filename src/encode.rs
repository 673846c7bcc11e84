//! Encoding of JSON-RPC messages as compact JSON. `jsonrpc`, `id` and `method` come first, so that
//! the peer can dispatch what follows as it reads.

mod json;
pub(crate) mod typed;

use rmcp::service::TxJsonRpcMessage;

use crate::role::McpRole;

/// Encodes one message that a role `R` sends.
///
/// The JSON is equal to that of rmcp's own `Serialize`, except that an error without an id says
/// `"id":null`, as JSON-RPC 2.0 (section 5) wants it, and that params which are absent are not
/// `null`.
///
/// # Errors
///
/// When a value inside refuses to be serialised.
pub fn encode<R: McpRole>(message: &TxJsonRpcMessage<R>) -> Result<Vec<u8>, serde_json::Error> {
    R::encode(message).map(Vec::from)
}
