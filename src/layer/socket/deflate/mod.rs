//! permessage-deflate (RFC 7692): compressed messages, if both sides agree in the opening
//! handshake. Feature `deflate`, and off until it is asked for:
//!
//! ```
//! use mcp_ws_transport::{layer::socket::{self, deflate}, transport};
//!
//! let socket = socket::Config::default().deflate(deflate::Config::default());
//! let config = transport::Config::default().socket(socket);
//! // … for `Connect::transport`, which then offers it, or for the server's `Config::transport`,
//! // which then accepts it where it is offered.
//! # drop(config);
//! ```
//!
//! A peer or a proxy that does not know the extension ignores the offer, and nothing is compressed.
//!
//! # How it is made
//!
//! tungstenite knows no extensions, so what it is to read is inflated below it, and what it is to
//! write is compressed above it. On the way in, the frames of a compressed message become frames of
//! what was compressed, in pieces of at most 16 KiB; all others pass as they are. So there is one
//! implementation of RFC 6455 still, and one of each promise of [`Socket`](super::Socket): the
//! limit to the size of a message holds for what is inflated, piece by piece, and a bomb ends with
//! 1009 when it has grown to the limit, not beyond; text is UTF-8, or the link is closed with 1007;
//! and so on. What does not inflate is closed with 1007 too. A bit RSV1 where it has no meaning, as
//! on a control frame or a continuation, is a broken rule, 1002.
//!
//! The computing is done by `flate2`, with `zlib-rs`, which is written in Rust and keeps to windows of every
//! size from 512 bytes on.
//!
//! # What it costs
//!
//! By default each message is compressed by itself (`no_context_takeover` on both sides): between
//! messages a connection holds nothing but a few words, and one compressor and one inflater per
//! thread wait for the next message of whichever connection. With
//! [`context_takeover`](Config::context_takeover), what was sent before helps to compress what
//! follows, and each connection keeps some 270 KiB for what it sends and 40 KiB for what it
//! receives.
//!
//! Bytes on the wire and CPU time for one call, both ends together, side by side in one run of
//! `cargo bench --bench deflate --features deflate` (medians of interleaved rounds; two cores of an
//! AMD EPYC, Linux 6.18, rustc 1.95):
//!
//! | | off | by default | level 6 | context takeover |
//! |---|--:|--:|--:|--:|
//! | `tools/list`, 40 tools | 17,752 B, 205 µs | 1,540 B, 214 µs | 1,185 B, 247 µs | 1,079 B, 209 µs |
//! | a result of 1 KiB | 1,458 B, 29 µs | 606 B, 35 µs | 480 B, 43 µs | 165 B, 30 µs |
//! | a result of 16 KiB | 19,707 B, 101 µs | 4,258 B, 131 µs | 2,792 B, 186 µs | 1,526 B, 120 µs |
//! | a result of 256 KiB | 312 kB, 1.5 ms | 61 kB, 2.3 ms | 39 kB, 4.1 ms | 61 kB, 2.2 ms |
//!
//! The results are the same again and again, as polling gets them, which suits context takeover as
//! long as they fit into its window of 32 KiB.
//!
//! A message is compressed when it is handed to the socket, on the thread that sends it: nothing
//! else is sent on the same connection meanwhile.
//!
//! What a message inflates to is held to the limit of messages, piece by piece, and so is what it
//! takes compressed, with a sixteenth and 64 KiB on top: more is closed with 1009.
//!
//! Compression tells an observer of the encrypted stream how well something compresses. Where a
//! peer can have its own text put into the same message as a secret (or into the same connection,
//! with context takeover), and see the size, it can guess the secret (CRIME, BREACH).

mod compress;
mod header;
pub(super) mod inflate;
pub(crate) mod negotiate;

pub use self::negotiate::Agreement;
pub(super) use self::{
    compress::Compressor,
    inflate::{Fault, Inflater},
};

/// Settings of permessage-deflate, to offer or to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    pub(crate) threshold: usize,
    pub(crate) level: u32,
    pub(crate) context_takeover: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { threshold: 1 << 10, level: 1, context_takeover: false }
    }
}

impl Config {
    /// Sets the size from which on messages are compressed, in bytes: 1 KiB. Smaller ones are sent
    /// as they are.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Sets the level of compression, from 1 (fast) to 9 (small): 1.
    #[must_use]
    pub fn level(mut self, level: u32) -> Self {
        self.level = level;
        self
    }

    /// Sets whether messages may refer to those before them: `false`. Smaller on the wire, larger
    /// in memory.
    #[must_use]
    pub fn context_takeover(mut self, allowed: bool) -> Self {
        self.context_takeover = allowed;
        self
    }
}

#[cfg(test)]
mod tests;
