//! [`PipeError`]: the cause for which a link over a bus is lost.

use super::bounds::SILENCE_TIMEOUT;
use crate::{
    close::{CloseCode, CloseReason},
    cluster::bus::PublishError,
    error::{Error, LinkError},
};

/// Cause for which a link over a bus is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PipeError {
    #[error("a part is missing")]
    Gap,
    #[error("a part is malformed")]
    Malformed,
    #[error("more was sent than there was room for")]
    Credit,
    #[error("a message is larger than allowed")]
    TooLarge,
    #[error("nothing came for {SILENCE_TIMEOUT:?}")]
    Silence,
    #[error("the other instance is gone")]
    Nobody,
    #[error("the bus has lost messages")]
    Dropped,
    #[error(transparent)]
    NotSent(PublishError),
    #[error("the bus has ended")]
    BusEnded,
}

impl From<PipeError> for Error {
    fn from(error: PipeError) -> Self {
        let reason = format!("relay between instances: {error}");
        LinkError::Closed(CloseReason::new(CloseCode::Abnormal, reason)).into()
    }
}
