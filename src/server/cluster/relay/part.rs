//! [`Part`]: the unit in which a relayed link crosses the bus.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a part before its payload.
pub(super) const HEAD_BYTES: usize = 9;

/// Kind of a part, which is its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    /// Start of the link, sent by the instance that asked for it.
    Go,
    /// Beginning of a message, or more of it.
    More,
    /// Text message, or the rest of one.
    Text,
    /// Binary message, or the rest of one.
    Binary,
    /// Ping of the WebSocket.
    Ping,
    /// Pong of the WebSocket.
    Pong,
    /// Close: a code and a reason, or nothing.
    Close,
    /// Credit: the bytes that were read so far.
    Credit,
    /// Heartbeat: its number is that of the last part that was sent.
    Heartbeat,
}

impl PartKind {
    const ALL: [(Self, u8); 9] = [
        (Self::Go, b'g'),
        (Self::More, b'+'),
        (Self::Text, b't'),
        (Self::Binary, b'b'),
        (Self::Ping, b'p'),
        (Self::Pong, b'q'),
        (Self::Close, b'c'),
        (Self::Credit, b'k'),
        (Self::Heartbeat, b'h'),
    ];

    fn byte(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, byte)| *byte)
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, of)| *of == byte).map(|(kind, _)| *kind)
    }
}

/// Numbered part of a relayed link: the kind, the number in big-endian, and the payload.
///
/// The parts of each direction are numbered from 1, but for heartbeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) number: u64,
    pub(super) payload: Bytes,
}

impl Part {
    /// Returns the bytes of a part.
    pub(super) fn encode(kind: PartKind, number: u64, payload: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + payload.len());
        bytes.put_u8(kind.byte());
        bytes.put_u64(number);
        bytes.put_slice(payload);
        bytes.freeze()
    }

    /// Returns the part that these bytes are, or `None` if they are none.
    pub(super) fn parse(bytes: &Bytes) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let kind = PartKind::of(*kind)?;
        let number = u64::from_be_bytes(*rest.first_chunk()?);
        let payload = bytes.slice(HEAD_BYTES..);
        let fits = match kind {
            PartKind::Go | PartKind::Heartbeat => payload.is_empty(),
            PartKind::Credit => payload.len() == 8,
            PartKind::Close => payload.len() != 1 && payload.len() <= 125,
            PartKind::Ping | PartKind::Pong => payload.len() <= 125,
            PartKind::More => !payload.is_empty(),
            PartKind::Text | PartKind::Binary => true,
        };
        fits.then_some(Self { kind, number, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_read_as_it_was_written() {
        for (kind, _) in PartKind::ALL {
            let payload: &[u8] = match kind {
                PartKind::Go | PartKind::Heartbeat => b"",
                PartKind::Credit => b"12345678",
                _ => b"payload",
            };
            let bytes = Part::encode(kind, 0x0102_0304_0506_0708, payload);
            let part = Part::parse(&bytes).unwrap();
            assert_eq!((part.kind, part.number), (kind, 0x0102_0304_0506_0708));
            assert_eq!(part.payload, payload);
            assert_eq!(bytes.len(), HEAD_BYTES + payload.len());
        }
    }

    #[test]
    fn whatever_else_there_is_is_no_part() {
        let of = |kind: &[u8], payload: &[u8]| Bytes::from([kind, &[0; 8], payload].concat());
        for bytes in [
            Bytes::new(),
            Bytes::from_static(b"t"),
            Bytes::from_static(b"t1234567"),
            of(b"x", b""),
            of(b"\0", b""),
            of(b"g", b"?"),
            of(b"h", b"?"),
            of(b"k", b"1234567"),
            of(b"k", b"123456789"),
            of(b"c", b"1"),
            of(b"c", &[b'x'; 126]),
            of(b"p", &[b'x'; 126]),
            of(b"q", &[b'x'; 126]),
            of(b"+", b""),
        ] {
            assert_eq!(Part::parse(&bytes), None, "{bytes:?}");
        }
    }
}
