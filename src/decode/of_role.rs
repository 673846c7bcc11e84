//! [`decode`]: decoding for any role.

use rmcp::service::RxJsonRpcMessage;

use super::{PendingMethods, malformed::Malformed};
use crate::role::McpRole;

/// Decodes one message that the peer of a role `R` has sent.
///
/// A leading byte order mark is skipped.
///
/// # Errors
///
/// [`Malformed`] when rmcp refuses the message. An unknown method is no error, but a custom
/// request or notification. Also for a member whose name begins with `$serde_json::private::`,
/// since what a `Value` makes of it depends on the features that the program enables in serde_json.
pub fn decode<R: McpRole>(
    bytes: &[u8],
    calls: &dyn PendingMethods,
) -> Result<RxJsonRpcMessage<R>, Malformed> {
    R::decode(bytes, calls)
}
