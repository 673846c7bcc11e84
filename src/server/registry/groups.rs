//! [`Groups`]: the groups that a client is in.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most groups that a client is in.
const MAX_GROUPS: usize = 256;

/// The longest name of a group, in bytes.
const MAX_NAME: usize = 256;

/// Groups that a client is in.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<BTreeSet<Box<str>>>);

impl Groups {
    /// Adds a group. Returns `false` if there are too many, or its name is empty or too long.
    pub(super) fn join(&self, name: &str) -> bool {
        let mut groups = self.lock();
        let fits = (1..=MAX_NAME).contains(&name.len());
        if fits && groups.len() < MAX_GROUPS {
            groups.insert(name.into());
        }
        groups.contains(name)
    }

    /// Removes a group. Returns `false` if the client was not in it.
    pub(super) fn leave(&self, name: &str) -> bool {
        self.lock().remove(name)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.lock().contains(name)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Box<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_in_a_bounded_number_of_groups() {
        let groups = Groups::default();
        assert!(!groups.join("") && !groups.join(&"x".repeat(257)));
        for number in 0..MAX_GROUPS {
            assert!(groups.join(&number.to_string()));
        }
        assert!(groups.join("7") && !groups.join("one more"));
        assert!(groups.leave("7") && !groups.leave("7") && groups.join("one more"));
        assert!(groups.contains("one more") && !groups.contains("7"));
    }
}
