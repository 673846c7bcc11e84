//! Encoding of JSON-RPC messages as compact JSON.

use rmcp::service::TxJsonRpcMessage;

use crate::decode::Role;

/// Encodes one message that a role `R` sends.
///
/// # Errors
///
/// When a value inside refuses to be serialised.
pub fn encode<R: Role>(message: &TxJsonRpcMessage<R>) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(256);
    serde_json::to_writer(&mut out, message)?;
    Ok(out)
}
