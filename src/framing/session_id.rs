//! [`SessionIdCell`]: the id of a session, shared by its framing and whoever makes its connections.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Longest id of a session, in bytes.
const MAX_SESSION_ID: usize = 1024;

/// Id of the session that a connection carries. A cheap handle, shared by the
/// [`Framing`](super::Framing) and whoever makes the connection. The id does not show in `Debug`.
#[derive(Clone, Default)]
pub struct SessionIdCell(Arc<Mutex<Option<Arc<str>>>>);

impl SessionIdCell {
    /// Returns the id, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the id. One of more than 1,024 bytes counts as none: it would be in every message.
    pub fn set(&self, id: Option<String>) {
        let id = id.filter(|id| id.len() <= MAX_SESSION_ID);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id.map(Arc::from);
    }
}

impl fmt::Debug for SessionIdCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionIdCell(..)")
    }
}
