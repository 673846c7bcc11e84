//! [`Published`] and [`Report`]: a notification on the bus, and what an instance says of it.
//!
//! | | bytes |
//! |---|---|
//! | notification | the version 1, its number in 8 bytes with the highest first, a [`Head`] as JSON, a line feed, the notification as JSON-RPC |
//! | report | the byte of its [kind](super::asks::AskKind), a [`Report`] as JSON |

use bytes::Bytes;
use serde::{Deserialize, Serialize, ser::Error as _};

use super::{asks::AskKind, audience::Audience, members::Process, report::Reached};

/// First byte of a notification.
const VERSION: u8 = 1;

/// Bytes before the head: the version and the number.
const NUMBER_END: usize = 9;

/// The largest head, in bytes.
const MAX_HEAD: usize = 4096;

/// The largest report, in bytes.
const MAX_REPORT: usize = 4096;

/// Sender and audience, before a notification.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    #[serde(flatten)]
    pub(super) from: Process,
    pub(super) to: Audience,
}

/// Notification as it is published; its number is set last.
pub(super) struct Unnumbered(Vec<u8>);

impl Unnumbered {
    /// Creates the message of a notification, given as JSON-RPC.
    pub(super) fn new(head: &Head, json: &[u8]) -> Result<Self, serde_json::Error> {
        let mut bytes = vec![0; NUMBER_END];
        serde_json::to_writer(&mut bytes, head)?;
        if bytes.len() - NUMBER_END >= MAX_HEAD {
            return Err(serde_json::Error::custom("the audience takes more than 4,000 bytes"));
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(json);
        Ok(Self(bytes))
    }

    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// Returns the message with this `number`.
    pub(super) fn numbered(mut self, number: u64) -> Bytes {
        self.0[0] = VERSION;
        self.0[1..NUMBER_END].copy_from_slice(&number.to_be_bytes());
        self.0.into()
    }
}

/// Notification that has come by the bus.
#[derive(Debug)]
pub(super) struct Published<'a> {
    pub(super) number: u64,
    pub(super) head: Head,
    /// The notification as JSON-RPC, unread.
    pub(super) json: &'a [u8],
}

impl<'a> Published<'a> {
    /// Parses a notification as far as its head; `None` if it is none.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        let (version, rest) = payload.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let end = rest.iter().take(MAX_HEAD).position(|byte| *byte == b'\n')?;
        let (head, json) = (&rest[..end], &rest[end + 1..]);
        let number = u64::from_be_bytes(*number);
        let head: Head = (*version == VERSION).then(|| serde_json::from_slice(head).ok())??;
        head.from.is_valid().then_some(Self { number, head, json })
    }
}

/// Report of an instance on a notification, to the one that has sent it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Tag of the instance that reports.
    pub(super) by: String,
    /// Process that has sent the notification.
    pub(super) to: Process,
    /// Number of the notification.
    pub(super) number: u64,
    #[serde(flatten)]
    pub(super) reached: Reached,
}

impl Report {
    /// Returns the message of the report.
    pub(super) fn message(&self) -> Result<Bytes, serde_json::Error> {
        let mut bytes = vec![AskKind::REPORT.0];
        serde_json::to_writer(&mut bytes, self)?;
        Ok(bytes.into())
    }

    /// Parses a report, without the byte of its kind; `None` if it is none.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let report: Self =
            (payload.len() <= MAX_REPORT).then(|| serde_json::from_slice(payload).ok())??;
        Process::is_tag(&report.by).then_some(report)
    }
}
