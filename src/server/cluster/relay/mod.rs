//! Relay of sessions: a client resumes here a session that another instance has.
//!
//! ```text
//!             this instance                       the instance that has the session
//!   client ── RelayedLink ── Pipe ···· bus ···· Pipe ── transport of the session
//! ```
//!
//! The tag in the session's id tells which instance that is, so that no directory is needed. The
//! question for the session is in `resume.rs`, and the offer that answers it in `offer.rs`.
//!
//! | word | |
//! |---|---|
//! | pipe | the link over the bus, in `pipe/`; each instance has an end of it |
//! | part | the unit in which messages cross a pipe, numbered: a whole message, or a piece of one |
//! | go | the first part, which takes the offer |
//! | home, away | the two subjects of a pipe: to its end at the instance that has the session, and to that at the instance that has the client |

mod ask;
pub(in crate::server) mod carry;
pub(in crate::server) mod context;
pub(in crate::server) mod count;
pub(in crate::server) mod offer;
mod part;
mod pipe;
pub(in crate::server) mod resume;
