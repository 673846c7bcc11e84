//! [`InstanceTag`]: the name of one server process of several, in the session ids that it issues.

use std::sync::Arc;

use crate::layer::resume::secret::SessionId;

/// The longest tag, in bytes.
const MAX_LENGTH: usize = 64;

/// Tag with which the session ids begin that an instance issues, so that a proxy can tell whose
/// they are.
#[derive(Debug, Clone)]
pub(in crate::server) struct InstanceTag(Arc<str>);

impl InstanceTag {
    /// Creates the tag, which may be invalid.
    pub(in crate::server) fn new(tag: impl Into<Arc<str>>) -> Self {
        Self(tag.into())
    }

    /// Fails when the tag cannot stand in a session id, before its first dot.
    pub(in crate::server) fn validate(&self) -> Result<(), String> {
        let Self(tag) = self;
        if Self::is_tag(tag) {
            return Ok(());
        }
        Err(format!(
            "the instance {tag:?} is not 1 to {MAX_LENGTH} of the characters A-Z a-z 0-9 - _"
        ))
    }

    /// Returns `true` if this can be the tag of an instance.
    pub(in crate::server) fn is_tag(text: &str) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_allowed)
    }

    /// Returns `true` if the id begins with the tag of another instance.
    pub(super) fn is_of_another(&self, id: &SessionId) -> bool {
        let tag = id.as_str().split_once('.').map(|(tag, _)| tag);
        tag.is_some_and(|tag| tag != &*self.0 && Self::is_tag(tag))
    }

    /// Returns the tag.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn as_str(&self) -> &str {
        &self.0
    }

    /// Issues a session id, which no other session has.
    pub(super) fn issue(&self) -> SessionId {
        SessionId::random_at(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_no_dot_and_is_not_too_long_for_an_id() {
        let longest = "x".repeat(64);
        for tag in ["a", "mcp-0", "B_2", &longest] {
            InstanceTag::new(tag).validate().unwrap();
            let id = InstanceTag::new(tag).issue();
            assert_eq!(id.as_str().len(), tag.len() + 44);
            assert_eq!(id.as_str().split_once('.').unwrap().0, tag);
            SessionId::try_from(id.as_str().to_owned()).unwrap();
        }
        for tag in ["", "a.b", "a b", "a|b", "ä", "a\n", &(longest + "x")] {
            let error = InstanceTag::new(tag).validate().unwrap_err();
            assert!(error.contains(&format!("{tag:?}")), "{error}");
        }
    }
}
