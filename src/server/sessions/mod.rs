//! Sessions that outlive their connections: a client that comes back finds its service as it left
//! it.
//!
//! | event | effect |
//! |---|---|
//! | a client opens a session | a service of its own runs; the client is given a secret |
//! | its connection is lost | the service runs on for the [window]; what it sends is kept |
//! | it comes back in time, with the secret, as the same identity | nothing is lost |
//! | … while its old connection seems to work | the same; the old one is closed with 4409 |
//! | it comes too late, or as another identity | a new session, as for a wrong guess |
//! | it comes with the id alone | its first message shows whether it goes on or begins anew |
//! | … and nothing that it says for 10 s can be read | it is closed with 1008, and the session ends |
//! | too many are without a connection | the oldest of the address that has the most ends |
//! | the server stops | sessions without a connection end at once |
//!
//! [window]: config::SessionConfig::window

pub(super) mod attach;
pub(super) mod config;
mod detached;
pub(super) mod entry;
pub(super) mod id;
pub(super) mod instance;
mod links;
pub(super) mod new_link;
mod returns;
pub(super) mod store;
