//! Both roles decode a message as rmcp does, or refuse it as rmcp does.

use rmcp::{RoleClient, RoleServer};

#[path = "../../tests/decode_agreement/agree.rs"]
mod agree;

/// The first byte chooses the method of the call that an answer is for.
pub(crate) fn run(data: &[u8]) {
    let Some((first, json)) = data.split_first() else { return };
    let method = agree::METHODS[usize::from(*first) % agree::METHODS.len()];
    agree::agree::<RoleServer>(json, method);
    agree::agree::<RoleClient>(json, method);
}
