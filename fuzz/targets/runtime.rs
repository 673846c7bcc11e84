//! [`block_on`]: a runtime for one run, whose time passes only where nothing else can happen.

use std::{future::Future, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
}

/// Returns what `future` resolves to, which it must within an hour of paused time.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let bounded = async { timeout(Duration::from_secs(3600), future).await };
    RUNTIME.with(|runtime| runtime.block_on(bounded)).expect("it ends")
}
