//! Decoding of the messages of rmcp's own roles.

use rmcp::{ErrorData, service::RxJsonRpcMessage};

use super::{PendingMethods, json, malformed::Malformed, message, peer::Peer};

/// Decodes one message that the peer of a role `R` has sent, as [`decode`](super::decode) says.
pub(crate) fn decode<R: Peer>(
    bytes: &[u8],
    calls: &dyn PendingMethods,
) -> Result<RxJsonRpcMessage<R>, Malformed> {
    let bytes = json::without_bom(bytes);
    // Checked once: serde_json would check each string anew.
    let Ok(text) = str::from_utf8(bytes) else { return Err(Malformed::of(bytes)) };
    if json::has_reserved_name(bytes) {
        return Err(Malformed::refused(bytes, reserved_name()));
    }
    let message = match message::usual::<R>(text, calls) {
        Some(message) => message,
        None => match calls.refuses_buffering() {
            Some(error) => return Err(Malformed::refused(bytes, error)),
            None => serde_json::from_str(text).map_err(|_| Malformed::of(bytes))?,
        },
    };
    if *json::KEEPS_ALL_NUMBERS
        && let Some(fault) = json::fault(text)
    {
        return Err(Malformed::refused(bytes, ErrorData::invalid_request(fault, None)));
    }
    Ok(message)
}

/// Builds the error for a name that [`json::has_reserved_name`] finds.
pub(crate) fn reserved_name() -> ErrorData {
    ErrorData::invalid_request(json::RESERVED_NAME, None)
}
