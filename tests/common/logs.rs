//! The log of one test among many that run in its process.
//!
//! A subscriber for one thread (`tracing::subscriber::set_default`) loses events: while it is the
//! only one, `tracing-core` asks the thread that meets a call site first whether anybody is
//! interested, and remembers its "nobody" for all threads. So one subscriber serves the whole
//! process.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Mutex, Once},
};

use tracing_subscriber::{filter::dynamic_filter_fn, fmt, prelude::*};

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Logs of the crate, at any level, on the thread of the test that made it. On a runtime of one
/// thread, as `#[tokio::test]` has it by default, that is all that the test does.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

/// Ends the capture when it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Capture(());

impl Log {
    /// Begins a log, which ends with the [`Capture`].
    pub fn capture() -> (Self, Capture) {
        static SUBSCRIBE: Once = Once::new();
        SUBSCRIBE.call_once(|| {
            let wanted = dynamic_filter_fn(|metadata, _| {
                metadata.target().starts_with("mcp_ws_transport") && Self::current().is_some()
            });
            let lines =
                fmt::layer().with_ansi(false).with_writer(|| Self::current().unwrap_or_default());
            tracing_subscriber::registry().with(lines.with_filter(wanted)).init();
        });
        let log = Self::default();
        OF_THIS_THREAD.set(Some(log.clone()));
        (log, Capture(()))
    }

    fn current() -> Option<Self> {
        OF_THIS_THREAD.try_with(|log| log.borrow().clone()).ok().flatten()
    }

    /// The lines so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = OF_THIS_THREAD.try_with(|log| log.take());
    }
}
