//! Conversions between the WebSocket library's errors and close frames and this crate's.

use tokio_tungstenite::tungstenite::{
    Error as WsError,
    error::{CapacityError, ProtocolError},
    protocol::CloseFrame,
};

#[cfg(feature = "deflate")]
use super::deflate;
use super::small_messages::TooBig;
use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, LinkError},
};

/// Returns the error of a write to a connection that is closing.
pub(super) fn ended() -> Error {
    LinkError::Closed(CloseReason::new(CloseCode::Abnormal, "the connection is closing")).into()
}

pub(super) fn close_frame(reason: &CloseReason) -> CloseFrame {
    let code = if reason.code.is_sendable() { reason.code } else { CloseCode::Normal };
    CloseFrame { code: u16::from(code).into(), reason: reason.wire_reason().into() }
}

pub(super) fn link_error(error: WsError) -> LinkError {
    match error {
        WsError::Io(error) => {
            let too_big = error.get_ref().and_then(|error| error.downcast_ref::<TooBig>());
            if let Some(&TooBig { size, limit }) = too_big {
                return LinkError::TooBig { size, limit };
            }
            #[cfg(feature = "deflate")]
            match error.get_ref().and_then(|error| error.downcast_ref::<deflate::Fault>()) {
                Some(deflate::Fault::Corrupt(what)) => return LinkError::Deflate((*what).into()),
                Some(deflate::Fault::Protocol(what)) => return LinkError::Protocol((*what).into()),
                Some(&deflate::Fault::TooBig { size, limit }) => {
                    return LinkError::TooBig { size, limit };
                }
                None => {}
            }
            error.into()
        }
        WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            LinkError::TooBig { size, limit: max_size }
        }
        WsError::Utf8(_) => LinkError::Utf8,
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | WsError::ConnectionClosed
        | WsError::AlreadyClosed => LinkError::Closed(CloseCode::Abnormal.into()),
        WsError::Protocol(error) => LinkError::Protocol(error.to_string()),
        other => LinkError::Protocol(other.to_string()),
    }
}
