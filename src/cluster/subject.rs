//! [`Subject`]: where on a bus a message is published.

use std::{fmt, sync::Arc};

/// Name on a [`Bus`](super::Bus) under which messages are published and subscribed to.
///
/// One to 16 words with a dot between them, each of the characters `A-Z a-z 0-9 - _`, 255 bytes at
/// most: what both NATS and Redis take as it is, without wildcards.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject(Arc<str>);

/// Error of [`Subject::new`]: the text is no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no subject: 1 to 16 words of the characters A-Z a-z 0-9 - _ with a dot between them, \
     255 bytes at most"
)]
pub struct InvalidSubject(String);

impl Subject {
    /// The longest subject, in bytes.
    const MAX_BYTES: usize = 255;

    /// The most words.
    const MAX_WORDS: usize = 16;

    /// Creates a subject of this text.
    ///
    /// # Errors
    /// [`InvalidSubject`] when the text has other characters, an empty word, or is too long.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidSubject> {
        let text = text.into();
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let fits = text.len() <= Self::MAX_BYTES && text.split('.').count() <= Self::MAX_WORDS;
        if fits && text.split('.').all(is_word) {
            return Ok(Self(text));
        }
        Err(InvalidSubject(text.chars().take(Self::MAX_BYTES).collect()))
    }

    /// Creates the subject below this one that has these `words` at its end.
    ///
    /// # Errors
    /// [`InvalidSubject`] when a word is not valid, or the subject would be too long.
    pub fn join(&self, words: &str) -> Result<Self, InvalidSubject> {
        Self::new(format!("{self}.{words}"))
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_of_words_that_every_bus_takes() {
        let longest = "x".repeat(255);
        for text in ["mcp", "prod.math", "a-b.C_9", &longest, &["w"; 16].join(".")] {
            assert_eq!(Subject::new(text).unwrap().as_str(), text);
        }
        let too_long = longest.clone() + "x";
        let too_many = ["w"; 17].join(".");
        for text in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "ä", &too_long, &too_many] {
            let error = Subject::new(text).unwrap_err().to_string();
            assert!(error.contains("is no subject"), "{error}");
        }
        let prefix = Subject::new("prod").unwrap();
        assert_eq!(prefix.join("i.a").unwrap().as_str(), "prod.i.a");
        prefix.join("").unwrap_err();
    }
}
