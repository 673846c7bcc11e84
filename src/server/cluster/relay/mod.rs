//! Relay of sessions: a client resumes here a session that another instance has.
//!
//! ```text
//!             this instance                       home: the instance that has the session
//!   client ── RelayedLink ── Pipe ···· bus ···· Pipe ── transport of the session
//! ```
//!
//! The tag in the session's id tells the home, so that nothing keeps a directory. The question for
//! the session is in `away.rs` and the offer in `home.rs`; `pipe/` is the link over the bus.

mod ask;
pub(in crate::server) mod away;
pub(in crate::server) mod carry;
pub(in crate::server) mod context;
pub(in crate::server) mod count;
pub(in crate::server) mod home;
mod part;
mod pipe;
