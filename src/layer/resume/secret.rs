//! The secret by which a client proves that a session is its own, and its rotation.

use std::fmt;

use serde::{Deserialize, Serialize, de};
use subtle::ConstantTimeEq as _;

/// The longest secret and session id, in bytes.
const MAX_LENGTH: usize = 128;

/// Id of a session. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// Returns the id as it is on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Proof that a session is one's own. Never shown by `Debug`, and compared in constant time.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Secret(Box<str>);

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

#[cfg(feature = "cluster")]
impl Secret {
    /// Returns its SHA-256, which shows that one has it and cannot be presented to a server.
    pub(crate) fn digest(&self) -> [u8; 32] {
        use sha2::Digest as _;
        sha2::Sha256::digest(self.0.as_bytes()).into()
    }
}

/// Proof of a client that it has the secret of a session.
#[cfg(feature = "server")]
pub(crate) enum Proof<'a> {
    /// The secret.
    Secret(&'a Secret),
    /// SHA-256 of the secret, as another instance of the server presents it for its client.
    #[cfg(feature = "cluster")]
    Digest([u8; 32]),
}

#[cfg(feature = "server")]
impl Proof<'_> {
    /// Returns `true` if this proves that the client has `secret`. In constant time.
    fn is_of(&self, secret: &Secret) -> bool {
        match self {
            Self::Secret(presented) => *presented == secret,
            #[cfg(feature = "cluster")]
            Self::Digest(presented) => secret.digest().ct_eq(presented).into(),
        }
    }
}

/// Error of a text that is no session id or secret: 1 to 128 of the characters
/// `A-Z a-z 0-9 - . _ ~`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 1 to 128 unreserved characters")]
pub struct NotAToken;

/// Defines the parts that both have in common. They are made of unreserved characters (RFC 3986,
/// section 2.3), random, and secret enough not to be shown.
macro_rules! token {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NotAToken;

            fn try_from(text: String) -> Result<Self, NotAToken> {
                let is_unreserved =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                let fits = (1..=MAX_LENGTH).contains(&text.len());
                if !fits || !text.bytes().all(is_unreserved) {
                    return Err(NotAToken);
                }
                Ok(Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        #[cfg(feature = "server")]
        #[cfg_attr(docsrs, doc(cfg(feature = "server")))]
        impl $name {
            /// Returns a new one: 32 random bytes in base64url.
            #[must_use]
            pub fn random() -> Self {
                use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
                Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()).into())
            }
        }
    };
}

token!(SessionId);
token!(Secret);

#[cfg(feature = "server")]
impl SessionId {
    /// Returns a new one that begins with the tag of the server instance that issues it, and a dot.
    pub(crate) fn random_at(instance: &str) -> Self {
        Self(format!("{instance}.{}", Self::random().as_str()).into())
    }
}

/// The secrets of one session, as its server keeps them.
///
/// | the client presents | answer | valid from then on |
/// |---|---|---|
/// | the one it was given last | a new one | both |
/// | the one before, since that answer was lost | the same as then | both |
/// | any other | none | as before |
///
/// Once it is [confirmed](Self::confirm) that the answer arrived, the one before is no longer
/// valid.
#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
#[derive(Debug)]
pub struct Secrets {
    given: Secret,
    before: Option<Secret>,
}

#[cfg(feature = "server")]
impl Default for Secrets {
    fn default() -> Self {
        Self { given: Secret::random(), before: None }
    }
}

#[cfg(feature = "server")]
impl Secrets {
    /// Returns the secret that was given last.
    #[must_use]
    pub fn given(&self) -> &Secret {
        &self.given
    }

    /// Returns the secret to be given in return for `presented`, if that is valid.
    pub fn rotate(&mut self, presented: &Secret) -> Option<&Secret> {
        self.rotate_for(&Proof::Secret(presented))
    }

    /// Returns the secret to be given in return for this proof, if that is of a valid one.
    pub(crate) fn rotate_for(&mut self, presented: &Proof<'_>) -> Option<&Secret> {
        if presented.is_of(&self.given) {
            self.before = Some(std::mem::replace(&mut self.given, Secret::random()));
            return Some(&self.given);
        }
        self.is_before(presented).then_some(&self.given)
    }

    /// Returns `true` if this proof is of a valid secret.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_valid(&self, presented: &Proof<'_>) -> bool {
        presented.is_of(&self.given) || self.is_before(presented)
    }

    fn is_before(&self, presented: &Proof<'_>) -> bool {
        self.before.as_ref().is_some_and(|before| presented.is_of(before))
    }

    /// Records that the client has the secret that was given last.
    pub fn confirm(&mut self) {
        self.before = None;
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;

    #[test]
    fn a_lost_answer_locks_nobody_out() {
        let mut secrets = Secrets::default();
        let first = secrets.given().clone();
        let second = secrets.rotate(&first).unwrap().clone();
        assert_ne!(first, second);
        assert_eq!(secrets.rotate(&first), Some(&second));
        let third = secrets.rotate(&second).unwrap().clone();
        assert_eq!(secrets.rotate(&first), None);
        assert_eq!(secrets.rotate(&second), Some(&third));
        secrets.confirm();
        assert_eq!(secrets.rotate(&second), None);
        assert!(secrets.rotate(&third).is_some());
    }

    #[test]
    fn ten_thousand_guesses_change_nothing() {
        let mut secrets = Secrets::default();
        let given = secrets.given().clone();
        for _ in 0..10_000 {
            assert_eq!(secrets.rotate(&Secret::random()), None);
        }
        assert_eq!(secrets.given(), &given);
        assert!(secrets.rotate(&given).is_some());
    }

    #[test]
    fn neither_shows() {
        let (secrets, id) = (Secrets::default(), SessionId::random());
        let shown = format!("{secrets:?} {id:?}");
        assert!(!shown.contains(&*secrets.given.0) && !shown.contains(id.as_str()), "{shown}");
        assert_eq!((secrets.given.0.len(), id.as_str().len()), (43, 43));
    }
}
