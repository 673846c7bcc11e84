//! [`SlowestSecond`]: how far virtual time is behind real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::sleep};

use crate::fleet::Result;

/// Real time of a virtual second from which on clients believe that the machine was asleep.
const LIMIT: Duration = Duration::from_secs(5);

/// The longest that a second of virtual time has taken.
pub(crate) struct SlowestSecond {
    millis: Arc<AtomicU64>,
    watching: JoinHandle<()>,
}

impl SlowestSecond {
    /// Watches from now on.
    pub(crate) fn watch() -> Self {
        let millis = Arc::new(AtomicU64::new(0));
        let slowest = millis.clone();
        let watching = tokio::spawn(async move {
            loop {
                let began = Instant::now();
                sleep(Duration::from_secs(1)).await;
                let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                slowest.fetch_max(took, Relaxed);
            }
        });
        Self { millis, watching }
    }

    /// Fails if a second has taken too long.
    pub(crate) fn check(self) -> Result<()> {
        self.watching.abort();
        let slowest = Duration::from_millis(self.millis.load(Relaxed));
        println!("slowest second                  {slowest:.1?} of real time");
        if slowest < LIMIT {
            return Ok(());
        }
        Err("the simulation was too slow: clients have taken the machine for one that was asleep"
            .into())
    }
}
