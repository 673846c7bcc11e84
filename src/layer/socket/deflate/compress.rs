//! [`Compressor`]: compresses outbound messages.

use std::cell::Cell;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

use super::{super::side::Side, negotiate::Agreement};

/// The end of each compressed message, which is left out (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

thread_local! {
    /// The compressor of the last message that was compressed by itself, for the next one.
    static SPARE: Cell<Option<(Kind, Compress)>> = const { Cell::new(None) };
}

/// Level and window.
type Kind = (u32, u8);

/// Compresses the messages of one connection.
#[derive(Debug)]
pub(in super::super) struct Compressor {
    threshold: usize,
    kind: Kind,
    takeover: bool,
    /// Compressor for all messages, with context takeover and from the first message on.
    kept: Option<Box<Compress>>,
}

impl Compressor {
    /// Creates the compressor. `None` where the peer's window is too small to compress for: nothing
    /// has to be compressed.
    pub(in super::super) fn new(agreement: &Agreement, side: Side) -> Option<Self> {
        let half = agreement.outbound(side);
        let config = agreement.config;
        Some(Self {
            threshold: config.threshold,
            kind: (config.level.min(9), half.window()?),
            takeover: half.takeover,
            kept: None,
        })
    }

    /// Returns the payload of the compressed message. `None` where it is better sent as it is.
    pub(in super::super) fn compress(&mut self, data: &[u8]) -> Option<Bytes> {
        if data.len() < self.threshold {
            return None;
        }
        if self.takeover {
            let kind = self.kind;
            let compress = self.kept.get_or_insert_with(|| Box::new(new(kind)));
            // Sent compressed however large, since later messages may refer to it.
            let compressed = deflate(compress, data);
            if compressed.is_none() {
                self.kept = None;
            }
            return compressed;
        }
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        let spare = spare.filter(|(kind, _)| *kind == self.kind);
        let mut compress = spare.map_or_else(|| new(self.kind), |(_, compress)| compress);
        let compressed = deflate(&mut compress, data);
        compress.reset();
        let _ = SPARE.try_with(|spare| spare.set(Some((self.kind, compress))));
        compressed.filter(|compressed| compressed.len() < data.len())
    }
}

fn new((level, bits): Kind) -> Compress {
    Compress::new_with_window_bits(Compression::new(level), false, bits)
}

/// Returns the compressed message up to its tail.
fn deflate(compress: &mut Compress, data: &[u8]) -> Option<Bytes> {
    let mut compressed = Vec::with_capacity(data.len() / 4 + 128);
    let start = compress.total_in();
    loop {
        let taken = usize::try_from(compress.total_in() - start).ok()?;
        compress.compress_vec(data.get(taken..)?, &mut compressed, FlushCompress::Sync).ok()?;
        let taken = usize::try_from(compress.total_in() - start).ok()?;
        if taken == data.len() && compressed.len() < compressed.capacity() {
            break;
        }
        compressed.reserve((compressed.len() / 2).max(128));
    }
    compressed.ends_with(&TAIL).then(|| {
        compressed.truncate(compressed.len() - TAIL.len());
        Bytes::from(compressed)
    })
}
