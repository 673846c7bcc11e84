//! [`BearerTokens`]: an authenticator that knows a list of tokens.

use std::fmt;

use super::{AuthError, Authenticator, Credentials, Identity, token::Token};

/// Authenticator that knows a list of tokens, each with its identity.
///
/// A token is compared with all of them, in a time that does not tell which was close.
#[derive(Clone, Default)]
pub struct BearerTokens {
    known: Vec<(Box<str>, Identity)>,
}

impl BearerTokens {
    /// Adds `token`, which stands for `identity`. An empty one stands for nobody.
    #[must_use]
    pub fn token(mut self, token: impl Into<Box<str>>, identity: Identity) -> Self {
        self.known.push((token.into(), identity));
        self
    }

    fn find(&self, token: &Token) -> Option<&Identity> {
        // A token is never empty, so an empty one in the list matches none. No early return: the time
        // must not tell the position in the list.
        let mut found = None;
        for (known, identity) in &self.known {
            if token.is(known) {
                found = Some(identity);
            }
        }
        found
    }
}

/// Collects tokens without names: their identities are `token-1`, `token-2` and so on.
impl<T: Into<Box<str>>> FromIterator<T> for BearerTokens {
    fn from_iter<I: IntoIterator<Item = T>>(tokens: I) -> Self {
        let named =
            |(n, token): (usize, T)| (token.into(), Identity::new(format!("token-{}", n + 1)));
        Self { known: tokens.into_iter().enumerate().map(named).collect() }
    }
}

impl Authenticator for BearerTokens {
    async fn authenticate(&self, credentials: Credentials) -> Result<Identity, AuthError> {
        let token = credentials.token.ok_or(AuthError::Unauthorized)?;
        self.find(&token).cloned().ok_or(AuthError::Unauthorized)
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.known.iter().map(|(_, identity)| identity)).finish()
    }
}
