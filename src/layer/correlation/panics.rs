//! Requests of the peer whose handlers have panicked: nobody else would answer them.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::time::Timer;

/// Time in which a service may still answer a request whose handler has panicked. One that catches
/// the panic does.
const GRACE_PERIOD: Duration = Duration::from_secs(1);

/// Numbers of the requests whose handlers have panicked, with the moment at which each is answered.
#[derive(Debug, Default)]
pub(super) struct Panics {
    requests: VecDeque<(Instant, u64)>,
    timer: Timer,
}

impl Panics {
    /// Adds requests whose handlers have just panicked.
    pub(super) fn extend(&mut self, requests: Vec<u64>) {
        let due = Instant::now() + GRACE_PERIOD;
        self.requests.extend(requests.into_iter().map(|request| (due, request)));
    }

    /// Ready with the next request that is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        let Some((due, request)) = self.requests.front().copied() else { return Poll::Pending };
        if !self.timer.is_set() {
            self.timer.set(due);
        }
        ready!(self.timer.poll(cx));
        self.requests.pop_front();
        Poll::Ready(request)
    }
}
