//! Extensions that each request and notification of the peer carries.

use rmcp::model::Extensions;

use super::slots::HandlerSlot;

/// Returns empty extensions that have room for seven, and whose clones have it too.
pub(super) fn roomy_extensions() -> Extensions {
    #[derive(Clone)]
    struct Placeholder<const N: usize>;
    let mut extensions = Extensions::new();
    // One more than fit into the smallest map.
    extensions.insert(Placeholder::<0>);
    extensions.insert(Placeholder::<1>);
    extensions.insert(Placeholder::<2>);
    extensions.insert(Placeholder::<3>);
    extensions.clear();
    extensions
}

/// Adds to `extensions` what a handler finds there besides: `all`, and its `slot`.
pub(super) fn attach_extensions(extensions: &mut Extensions, all: &Extensions, slot: HandlerSlot) {
    // The message's own extensions go into the copy, since they are fewer.
    let own = std::mem::replace(extensions, all.clone());
    extensions.extend(own);
    match extensions.get_mut::<HandlerSlot>() {
        Some(taken) => *taken = slot,
        None => drop(extensions.insert(slot)),
    }
}
