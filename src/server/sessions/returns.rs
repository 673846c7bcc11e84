//! [`ReturnsBy`]: the means by which a client can come back to its session.

use std::time::Duration;

use crate::{close::CloseCode, error::Error, layer::resume::secret::Secrets};

/// Longest time that a session is kept for a client that may not have noticed its id.
const ISSUED_ID_GRACE: Duration = Duration::from_secs(5);

/// Means by which a client can come back to its session.
pub(in crate::server) enum ReturnsBy {
    /// The secret: the client speaks the extension.
    Secret(Secrets),
    /// The id of the session, which the client knows.
    KnownId,
    /// The issued id, which the client has not brought back yet.
    IssuedId,
}

impl ReturnsBy {
    /// Returns the time for which a session is kept after the loss of a link: the `window` at most.
    ///
    /// `None` ends the session at once.
    pub(super) fn kept_for(
        &self,
        cause: &Error,
        is_initialized: bool,
        window: Duration,
    ) -> Option<Duration> {
        let code = match cause {
            Error::Link(error) => error.close_reason().code,
            _ => CloseCode::Internal,
        };
        match self {
            Self::Secret(_) => is_survived(code).then_some(window),
            Self::KnownId => (is_initialized && is_accident(code)).then_some(window),
            Self::IssuedId => {
                (is_initialized && is_accident(code)).then_some(window.min(ISSUED_ID_GRACE))
            }
        }
    }
}

/// Returns `true` if a client that has no secret may want its session back.
///
/// A client had no reason to close a connection that it would make again, unless its page was left
/// or loaded again.
fn is_accident(code: CloseCode) -> bool {
    matches!(code, CloseCode::Abnormal | CloseCode::GoingAway)
}

/// Returns `true` if a session outlives a link that ended with this code (section 7 of the
/// [protocol](crate::guide::resume_v1)).
fn is_survived(code: CloseCode) -> bool {
    !code.is_final() && code != CloseCode::SessionGone
}
