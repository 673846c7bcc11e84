//! [`Frames`]: tracks frame and message boundaries (RFC 6455, section 5.2) without reading
//! payloads.

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Frame tracker of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Header of the current frame, of which `read` bytes have arrived.
    header: [u8; 14],
    read: usize,
    /// Payload bytes of the current frame that are still to arrive.
    left: u64,
    /// `true` if the current frame carries data, `false` if it is a control frame.
    is_data: bool,
    /// `true` if the message continues in another frame.
    goes_on: bool,
    /// Payload bytes of the current or last message that its headers have announced.
    size: u64,
    /// Payload bytes of data frames received, in all messages.
    received: u64,
    /// Number of messages that have begun.
    begun: u64,
}

impl Frames {
    /// Advances over `bytes`.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Advances over `bytes` to the end of a header or of a frame, whichever comes first. Returns
    /// the number of bytes consumed.
    pub(super) fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken =
                usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= taken as u64;
            if self.is_data {
                self.received += taken as u64;
            }
            return taken;
        }
        if self.read == 0
            && let Some(length) = header_length(bytes)
            && let Some(header) = bytes.get(..length)
        {
            self.header[..length].copy_from_slice(header);
            self.begin_frame();
            return length;
        }
        for (at, byte) in bytes.iter().enumerate() {
            self.header[self.read] = *byte;
            self.read += 1;
            if header_length(&self.header[..self.read]) == Some(self.read) {
                self.begin_frame();
                return at + 1;
            }
        }
        bytes.len()
    }

    fn begin_frame(&mut self) {
        let [first, second, ..] = self.header;
        let extended = match second & !MASKED {
            126 => &self.header[2..4],
            127 => &self.header[2..10],
            _ => &[],
        };
        let length = match extended {
            [] => u64::from(second & !MASKED),
            bytes => bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.read = 0;
        self.left = length;
        let opcode = first & 0x0f;
        self.is_data = opcode < 8;
        if !self.is_data {
            return;
        }
        if opcode == 0 {
            self.size = self.size.saturating_add(length);
        } else {
            self.size = length;
            self.begun += 1;
        }
        self.goes_on = first & FIN == 0;
    }

    /// Returns `true` between two frames.
    pub(super) fn is_between_frames(&self) -> bool {
        self.read == 0 && self.left == 0
    }

    /// Returns `true` while a message or a frame has begun and has not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.is_between_frames() || self.goes_on
    }

    /// Returns the payload bytes of the current message that its headers have announced.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the payload bytes of messages received, without those of control frames.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Returns the number of messages that have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }
}

/// Returns the length of the frame header that begins so, once that is known.
pub(super) fn header_length(header: &[u8]) -> Option<usize> {
    let second = header.get(1)?;
    let extended = match second & !MASKED {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    Some(2 + extended + if second & MASKED != 0 { 4 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a frame of this many zeros; the mask is zero too.
    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(vec![0; length + if masked { 4 } else { 0 }]);
        bytes
    }

    #[test]
    fn messages_are_told_apart_however_their_bytes_come() {
        let mut wire = Vec::new();
        for masked in [false, true] {
            for length in [0, 1, 125, 126, 65_535, 65_536] {
                wire.extend(frame(0x81, length, masked));
            }
            // A message in three frames with a ping in between.
            for (first, length) in [(0x02, 10), (0x89, 100), (0x00, 300), (0x80, 0)] {
                wire.extend(frame(first, length, masked));
            }
        }
        for step in [1, 2, 3, 1000, wire.len()] {
            let mut frames = Frames::default();
            for bytes in wire.chunks(step) {
                frames.follow(bytes);
            }
            assert!(!frames.is_unfinished());
            assert_eq!((frames.begun(), frames.size()), (14, 310));
            assert_eq!(frames.received(), 2 * (1 + 125 + 126 + 65_535 + 65_536 + 310));
        }
    }

    #[test]
    fn what_has_begun_is_unfinished_until_its_last_byte() {
        let mut frames = Frames::default();
        let wire = [frame(0x01, 2, true), frame(0x89, 1, true), frame(0x80, 1, true)].concat();
        for (at, byte) in wire.iter().enumerate() {
            assert_eq!(frames.is_unfinished(), at > 0, "{at}");
            frames.follow(&[*byte]);
        }
        assert!(!frames.is_unfinished());
    }
}
