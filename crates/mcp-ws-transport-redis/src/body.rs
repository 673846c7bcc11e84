//! [`Body`]: what is published on a channel of Redis, which has payloads alone.
//!
//! | first byte | then | |
//! |---|---|---|
//! | 0 | | published to all |
//! | 1 | length of a subject, 1 byte; the subject | a question, to be answered there |
//! | 2 | number of a question, 8 bytes, most significant first | its answer |
//!
//! The payload follows.

use bytes::{Buf, BufMut, Bytes};
use mcp_ws_transport::cluster::Subject;

/// Kind of a message: whether an answer is wanted, or it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Question { reply_to: Subject },
    Answer { question: u64 },
}

/// Message on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) kind: Kind,
    pub(crate) payload: Bytes,
}

impl Body {
    /// Returns what is published.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut published = Vec::with_capacity(self.payload.len() + 16);
        match &self.kind {
            Kind::Plain => published.put_u8(0),
            Kind::Question { reply_to } => {
                let reply_to = reply_to.as_str();
                published.put_u8(1);
                // A subject has at most 255 bytes.
                published.put_u8(u8::try_from(reply_to.len()).unwrap_or(u8::MAX));
                published.put(reply_to.as_bytes());
            }
            Kind::Answer { question } => {
                published.put_u8(2);
                published.put_u64(*question);
            }
        }
        published.put(&self.payload[..]);
        published
    }

    /// Returns the message, or `None` if another program has published something else.
    pub(crate) fn parse(mut published: Bytes) -> Option<Self> {
        let kind = match published.try_get_u8().ok()? {
            0 => Kind::Plain,
            1 => {
                let length = usize::from(published.try_get_u8().ok()?);
                if length > published.len() {
                    return None;
                }
                let reply_to = published.split_to(length);
                let reply_to = Subject::new(std::str::from_utf8(&reply_to).ok()?).ok()?;
                Kind::Question { reply_to }
            }
            2 => Kind::Answer { question: published.try_get_u64().ok()? },
            _ => return None,
        };
        Some(Self { kind, payload: published })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read_as_it_was_written() {
        let longest = Subject::new("x".repeat(255)).unwrap();
        for kind in
            [Kind::Plain, Kind::Question { reply_to: longest }, Kind::Answer { question: u64::MAX }]
        {
            for payload in ["", "payload"] {
                let body = Body { kind: kind.clone(), payload: payload.into() };
                assert_eq!(Body::parse(body.to_vec().into()), Some(body));
            }
        }
    }

    #[test]
    fn what_others_publish_is_no_message() {
        for published in [&b""[..], b"\x03", b"\x01", b"\x01\x05a.b", b"\x01\x01*", b"\x02\0\0\0"] {
            assert_eq!(Body::parse(Bytes::from_static(published)), None, "{published:?}");
        }
    }
}
