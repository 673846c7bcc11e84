//! [`Aliases`]: replacements, in the layers above, for the ids and progress tokens of a later peer's
//! requests.

use std::collections::HashMap;

use rmcp::model::{ProgressToken, RequestId};

/// Ids of the peer's requests above this layer, and their real ones. Handlers of a former peer may
/// still run, and rmcp would take a new request with the same id for theirs.
#[derive(Debug, Default)]
pub(in super::super) struct Aliases {
    real: HashMap<RequestId, RequestId>,
    restarts: u64,
}

impl Aliases {
    /// Begins with another peer.
    pub(super) fn on_new_peer(&mut self) {
        self.restarts += 1;
        self.real.clear();
    }

    /// Returns `true` if every id is passed up unchanged.
    pub(super) fn is_plain(&self) -> bool {
        self.restarts == 0 && self.real.is_empty()
    }

    /// Returns the alias of a request of the present peer. The first peer has none.
    fn alias(&self, id: &RequestId) -> Option<RequestId> {
        let alias = match id {
            // An id that looks like an alias gets one, or it could be taken for a later one.
            RequestId::String(text) if self.restarts > 0 || text.contains('\u{2032}') => {
                format!("'{text}\u{2032}{}", self.restarts)
            }
            RequestId::Number(number) if self.restarts > 0 => {
                format!("{number}\u{2032}{}", self.restarts)
            }
            _ => return None,
        };
        Some(RequestId::String(alias.into()))
    }

    /// Returns the progress token for the layers above of a request of the peer, if it is another.
    pub(super) fn token_inward(&self, token: &ProgressToken) -> Option<ProgressToken> {
        self.alias(&token.0).map(ProgressToken)
    }

    /// Changes a progress token to that of the present peer. Returns `false` if it is a former
    /// one's.
    pub(super) fn resolve_token(&self, token: &mut ProgressToken) -> bool {
        let RequestId::String(text) = &token.0 else { return self.restarts == 0 };
        let Some((real, restarts)) = text.rsplit_once('\u{2032}') else {
            return self.restarts == 0;
        };
        let real = match real.strip_prefix('\'') {
            _ if restarts.parse() != Ok(self.restarts) => None,
            Some(text) => Some(RequestId::String(text.into())),
            None => real.parse().ok().map(RequestId::Number),
        };
        let is_present = real.is_some();
        token.0 = real.unwrap_or_else(|| token.0.clone());
        is_present
    }

    /// Returns the id for the layers above of a request of the peer that begins, if it is another.
    pub(super) fn inward(&mut self, id: &RequestId) -> Option<RequestId> {
        let alias = self.alias(id)?;
        self.real.insert(alias.clone(), id.clone());
        Some(alias)
    }

    /// Returns the alias of a request that is cancelled, and forgets it.
    pub(in super::super) fn cancelled(&mut self, id: &RequestId) -> Option<RequestId> {
        let alias = self.alias(id)?;
        self.real.remove(&alias);
        Some(alias)
    }

    /// Returns the real id of a refused request, and forgets it, unless another request with this
    /// alias is `in_flight`.
    pub(in super::super) fn refused(
        &mut self,
        alias: &RequestId,
        in_flight: bool,
    ) -> Option<RequestId> {
        match in_flight {
            true => self.real.get(alias).cloned(),
            false => self.real.remove(alias),
        }
    }

    /// Changes `id` to the real one. Returns `false` if its request is of a former peer, or was
    /// cancelled.
    pub(super) fn resolve(&self, id: &mut RequestId) -> bool {
        match self.real.get(id) {
            Some(real) => *id = real.clone(),
            None => return self.restarts == 0,
        }
        true
    }

    /// Resolves the id of a request that ends, and forgets it.
    pub(super) fn end(&mut self, id: &mut RequestId) -> bool {
        // Nearly always; then no id is hashed.
        if self.real.is_empty() {
            return self.restarts == 0;
        }
        match self.real.remove(id) {
            Some(real) => *id = real,
            None => return self.restarts == 0,
        }
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.real.len()
    }
}
