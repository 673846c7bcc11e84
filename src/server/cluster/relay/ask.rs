//! [`Ask`]: the question for a session of another instance, and its [`Answer`].

use std::net::IpAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    layer::resume::secret::{Proof, SessionId},
    link::MessageLimits,
    server::auth::Identity,
};

/// Version of the questions and of the parts.
const VERSION: u32 = 1;

/// The largest question, in bytes.
const MAX_BYTES: usize = 4096;

/// Length of the name of a pipe: 16 random bytes in base64url.
const PIPE_LENGTH: usize = 22;

/// Question for a session, which its client wants to resume at the instance that asks.
///
/// The secret crosses as its SHA-256, and the identity as its subject.
#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    v: u32,
    pub(super) session: SessionId,
    secret_sha256: String,
    /// Number of the last message that the client has received.
    pub(super) received: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    /// Address or network that the client comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_message: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_inbound: Option<u64>,
    /// Name of the pipe, in its two subjects.
    pipe: String,
}

impl Ask {
    /// Creates the question of a client at `address` for a session, with the name of a new pipe.
    pub(super) fn new(
        (session, secret_sha256, received): (SessionId, [u8; 32], u64),
        identity: Option<&Identity>,
        limits: MessageLimits,
        address: Option<IpAddr>,
    ) -> Self {
        let number = |limit: Option<usize>| limit.map(|limit| limit as u64);
        Self {
            v: VERSION,
            session,
            secret_sha256: URL_SAFE_NO_PAD.encode(secret_sha256),
            received,
            identity: identity.map(|identity| identity.subject().to_owned()),
            address,
            max_message: number(limits.max_message),
            max_inbound: number(limits.max_inbound),
            pipe: URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
        }
    }

    /// Returns the bytes that follow the byte of the kind; `None` if they are too many, because of
    /// a long identity.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok().filter(|bytes| bytes.len() <= MAX_BYTES)
    }

    /// Parses a question of this version; `None` if it is none.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        if payload.len() > MAX_BYTES {
            return None;
        }
        let ask: Self = serde_json::from_slice(payload).ok()?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_name = ask.pipe.len() == PIPE_LENGTH && ask.pipe.bytes().all(is_word);
        (ask.v == VERSION && is_name && ask.proof().is_some()).then_some(ask)
    }

    /// Returns the proof that the session is the client's.
    pub(super) fn proof(&self) -> Option<Proof<'static>> {
        let digest = URL_SAFE_NO_PAD.decode(&self.secret_sha256).ok()?;
        digest.try_into().ok().map(Proof::Digest)
    }

    /// Returns the identity of the client.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.identity.as_deref().map(Identity::new)
    }

    /// Returns the limits that the client has announced.
    pub(super) fn limits(&self) -> MessageLimits {
        MessageLimits::from_peer(self.max_message, self.max_inbound)
    }

    /// Returns the words of the subjects of a pipe: of the end with the session, and of the other.
    pub(super) fn subjects(&self) -> [String; 2] {
        ["home", "away"].map(|end| format!("r.{}.{end}", self.pipe))
    }
}

/// Answer to an [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The session is here, and waits for the first part of the pipe for 2 s.
    Offer,
    /// The session is not here, or is not the client's.
    Unknown,
    /// The instance has as many relayed links as it may.
    Full,
    /// The session is here, but this instance cannot subscribe to the pipe.
    Degraded,
}

impl Answer {
    /// Returns the bytes of the answer.
    pub(super) fn encode(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Offer => b"offer",
            Self::Unknown => b"unknown",
            Self::Full => b"full",
            Self::Degraded => b"degraded",
        })
    }

    /// Parses an answer; what is none of these words is taken for `unknown`.
    pub(super) fn parse(payload: &[u8]) -> Self {
        match payload {
            b"offer" => Self::Offer,
            b"full" => Self::Full,
            b"degraded" => Self::Degraded,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::resume::secret::Secret;

    fn ask(identity: &str) -> Ask {
        let (id, secret) = (SessionId::random_at("a"), Secret::random());
        let limits = MessageLimits { max_message: Some(5000), max_inbound: None };
        let address = Some([10, 0, 0, 1].into());
        Ask::new((id, secret.digest(), 7), Some(&Identity::new(identity)), limits, address)
    }

    #[test]
    fn a_question_is_read_as_it_was_written_and_has_no_secret() {
        let secret = Secret::random();
        let asked = Ask::new(
            (SessionId::random(), secret.digest(), 7),
            None,
            MessageLimits::default(),
            None,
        );
        let text = String::from_utf8(asked.encode().unwrap()).unwrap();
        assert!(
            !text.contains(&serde_json::to_value(&secret).unwrap().as_str().unwrap().to_owned()),
            "{text}"
        );

        let asked = ask("anna");
        let read = Ask::parse(&asked.encode().unwrap()).unwrap();
        assert_eq!(
            (&read.session, read.received, read.address),
            (&asked.session, 7, asked.address)
        );
        assert_eq!((read.identity(), read.limits()), (asked.identity(), asked.limits()));
        assert_eq!(read.subjects(), asked.subjects());
        assert_eq!(read.subjects()[0].len(), "r..home".len() + 22);
    }

    #[test]
    fn whatever_else_there_is_is_no_question() {
        let valid = serde_json::to_value(ask("anna")).unwrap();
        let with = |field: &str, value: serde_json::Value| {
            let mut changed = valid.clone();
            changed[field] = value;
            changed.to_string()
        };
        assert!(Ask::parse(with("unknown", 1.into()).as_bytes()).is_some());
        for text in [
            String::new(),
            "{}".into(),
            "[]".into(),
            with("v", 2.into()),
            with("session", "not an id".into()),
            with("session", "x".repeat(129).into()),
            with("secret_sha256", "short".into()),
            with("received", (-1).into()),
            with("address", "nowhere".into()),
            with("pipe", "a.b".into()),
            with("pipe", "x".repeat(23).into()),
            with("pipe", "> > > > > > > > > > > ".into()),
            with("identity", "x".repeat(5000).into()),
        ] {
            assert!(Ask::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(ask(&"x".repeat(5000)).encode().is_none());
    }

    #[test]
    fn an_answer_that_is_not_understood_is_a_no() {
        for answer in [Answer::Offer, Answer::Unknown, Answer::Full, Answer::Degraded] {
            assert_eq!(Answer::parse(&answer.encode()), answer);
        }
        for other in [&b""[..], b"offers", b"\xff"] {
            assert_eq!(Answer::parse(other), Answer::Unknown);
        }
    }
}
