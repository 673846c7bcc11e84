//! What fuzzing has kept is run once more, by what it was found with: see `fuzz/README.md`.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../../fuzz/targets/runtime.rs"]
mod runtime;

/// Runs `target` on each input of its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        let run = catch_unwind(AssertUnwindSafe(|| target(&input)));
        assert!(run.is_ok(), "{}", path.display());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus is empty");
    println!("count: {inputs} inputs replayed");
}

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident: $path:literal,)*) => {$(
        $(#[$attribute])*
        #[path = $path]
        mod $name;

        $(#[$attribute])*
        #[test]
        fn $name() {
            replay(stringify!($name), $name::run);
        }
    )*};
}

targets! {
    control_frames: "../../fuzz/targets/control_frames.rs",
    framing: "../../fuzz/targets/framing.rs",
    #[cfg(all(feature = "deflate", feature = "server"))]
    headers: "../../fuzz/targets/headers.rs",
    #[cfg(feature = "deflate")]
    inflate: "../../fuzz/targets/inflate.rs",
    json_rpc: "../../fuzz/targets/json_rpc.rs",
    relay: "../../fuzz/targets/relay.rs",
    #[cfg(all(feature = "deflate", feature = "server"))]
    upgrade: "../../fuzz/targets/upgrade.rs",
}
