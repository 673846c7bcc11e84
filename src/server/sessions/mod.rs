//! Sessions that outlive their connections: a client that comes back finds its service as it left it.
//!
//! | | |
//! |---|---|
//! | a client opens a session | it gets a service of its own, as every client does, and a secret |
//! | its connection is lost | the service runs on for [`SessionConfig::window`](config::SessionConfig::window); what it sends is kept |
//! | it comes back in time, with the secret, as the same identity | nothing is lost |
//! | … while its old connection seems to live | the same; the old one is closed with 4409 |
//! | it comes too late, or it is somebody else | a new session; who guesses learns nothing |
//! | it comes with the name alone | the service is as it was; what it says first shows who it is |
//! | … and nothing that it says for 10 s can be read | it is closed with 1008, and the session ends |
//! | there are too many without a connection | of the address that has the most, the one that has been so for the longest ends |
//! | the server stops | those without a connection end at once |

mod attach;
pub(super) mod config;
mod detached;
pub(super) mod entry;
pub(super) mod id;
mod links;
pub(super) mod new_link;
pub(super) mod store;
