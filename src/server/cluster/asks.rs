//! [`AskHandlers`]: who answers what this instance is asked by others.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

use crate::cluster::subject::Subject;

/// Kind of a message to one instance, which is its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct AskKind(pub(in crate::server) u8);

impl AskKind {
    /// Question for the process that has joined with this tag.
    pub(super) const WHO: Self = Self(b'?');
    /// Report on a notification.
    pub(super) const REPORT: Self = Self(b'r');
    /// Question for a session, to be resumed from here.
    pub(in crate::server) const RESUME: Self = Self(b's');
}

/// Receiver of questions of one kind.
///
/// It must not wait: what takes time belongs in a task. Its answer is published on `reply_to`.
pub(in crate::server) trait AskHandler: Send + Sync {
    /// Takes a question, without the byte of its kind. Returns `false` if another handler is to.
    fn on_ask(&self, payload: &Bytes, reply_to: &Subject) -> bool;
}

/// Receivers of the questions that an instance is asked, by kind.
#[derive(Default)]
pub(super) struct AskHandlers(Mutex<Vec<(AskKind, Weak<dyn AskHandler>)>>);

impl AskHandlers {
    /// Adds a handler of questions of this `kind`, for as long as it lives.
    pub(super) fn add(&self, kind: AskKind, handler: Weak<dyn AskHandler>) {
        let mut handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handlers.retain(|(_, handler)| handler.strong_count() > 0);
        handlers.push((kind, handler));
    }

    /// Hands a question to the first handler that takes it. Returns `false` if there is none.
    pub(super) fn dispatch(&self, kind: AskKind, payload: &Bytes, reply_to: &Subject) -> bool {
        let handlers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_kind = handlers.iter().filter(|(of, _)| *of == kind);
        // Without the lock: a handler may add another.
        let of_kind: Vec<Arc<_>> = of_kind.filter_map(|(_, handler)| handler.upgrade()).collect();
        drop(handlers);
        of_kind.iter().any(|handler| handler.on_ask(payload, reply_to))
    }
}
