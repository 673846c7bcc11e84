//! The way from the address to the 101, and other answers.

mod client;
mod dialing;
mod fallback;
mod guard;
mod limits;
mod mount;
mod origin;
mod server;
#[cfg(all(feature = "rustls-tls", feature = "ring"))]
mod tls;
