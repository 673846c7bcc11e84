//! [`Link`]: what is known of the connection, by the events of the client library.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use async_nats::{Event, ServerError, connection::State};
use mcp_ws_transport::cluster::{SharedWarnLimit, Subject};
use tokio::{sync::watch, time::sleep};

use crate::outbox::Outbox;

/// Time after which the state of the connection is looked at, whatever the events say.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// State of the connection, and what is refused on it.
pub(crate) struct Link {
    pub(crate) is_up: watch::Sender<bool>,
    pub(crate) outbox: Outbox,
    /// Subscriptions that are being made, each with a place for the reason of a refusal.
    subscribing: Mutex<Vec<(Subject, Weak<OnceLock<String>>)>>,
    /// Limits of the warnings of attempts to connect, and of what the server refuses.
    failures: SharedWarnLimit,
    refusals: SharedWarnLimit,
}

impl Link {
    pub(crate) fn new(max_queued_bytes: usize) -> Self {
        Self {
            is_up: watch::Sender::new(false),
            outbox: Outbox::new(max_queued_bytes),
            subscribing: Mutex::default(),
            failures: SharedWarnLimit::default(),
            refusals: SharedWarnLimit::default(),
        }
    }

    pub(crate) fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => self.set_up(true),
            Event::Disconnected | Event::Closed => self.set_up(false),
            Event::ServerError(ServerError::Other(text)) => self.on_refusal(text),
            Event::ServerError(error) => self.on_refusal(&error.to_string()),
            Event::ClientError(error) => {
                if let Some(suppressed) = self.failures.admit() {
                    tracing::warn!(suppressed, "cannot connect to NATS: {error}");
                }
            }
            _ => {}
        }
    }

    /// Records whether the connection is there. What waits to be sent is forgotten if it is not.
    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.send_if_modified(|was_up| std::mem::replace(was_up, is_up) != is_up);
        if !is_up {
            self.outbox.clear();
        }
    }

    /// Follows the `state` of the connection where its events do not tell it: the client library
    /// drops those that its queue of 128 has no room for, as when the server refuses many messages.
    ///
    /// The event that there is a connection comes before the state says so. A state without a
    /// connection, against the events, therefore counts only where the last look found the same.
    pub(crate) async fn follow(&self, state: impl Fn() -> State) {
        let mut was_suspect = false;
        loop {
            sleep(STATE_INTERVAL).await;
            let is_connected = state() == State::Connected;
            let is_suspect = !is_connected && *self.is_up.borrow();
            if is_connected || is_suspect && was_suspect {
                self.set_up(is_connected);
            }
            was_suspect = is_suspect;
        }
    }

    /// Resolves when the connection is lost.
    pub(crate) async fn lost(&self) {
        let _ = self.is_up.subscribe().wait_for(|is_up| !is_up).await;
    }

    /// Returns a place that gets the reason if the server refuses the subscription to this subject.
    pub(crate) fn watch_refusal(&self, subject: &Subject) -> Arc<OnceLock<String>> {
        let refusal = Arc::default();
        let mut subscribing = self.subscribing.lock().unwrap_or_else(PoisonError::into_inner);
        subscribing.retain(|(_, refusal)| refusal.strong_count() > 0);
        subscribing.push((subject.clone(), Arc::downgrade(&refusal)));
        refusal
    }

    fn on_refusal(&self, text: &str) {
        if let Some(suppressed) = self.refusals.admit() {
            tracing::warn!(suppressed, "NATS refuses: {text}");
        }
        let subscribing = self.subscribing.lock().unwrap_or_else(PoisonError::into_inner);
        for (subject, refusal) in &*subscribing {
            let is_named = text.contains("ubscription") && text.contains(&format!("\"{subject}\""));
            if let Some(refusal) = refusal.upgrade().filter(|_| is_named) {
                let _ = refusal.set(text.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test]
    async fn a_state_whose_event_was_dropped_is_known_all_the_same() {
        let link = Link::new(1000);
        let (state, now) = watch::channel(State::Pending);
        let changes = async {
            for (next, is_up) in
                [(State::Connected, true), (State::Disconnected, false), (State::Connected, true)]
            {
                state.send_replace(next);
                let mut known = link.is_up.subscribe();
                let known = known.wait_for(|known| *known == is_up);
                timeout(20 * STATE_INTERVAL, known).await.unwrap().unwrap();
            }
        };
        tokio::select! {
            () = link.follow(|| now.borrow().clone()) => {}
            () = changes => {}
        }
    }

    #[tokio::test]
    async fn a_state_that_lags_behind_the_event_is_not_taken_for_a_loss() {
        let link = Link::new(1000);
        let (looks, over) = (Cell::new(0), Notify::new());
        let state = || {
            looks.set(looks.get() + 1);
            match looks.get() {
                1 | 2 => State::Disconnected,
                3 => {
                    link.on_event(&Event::Connected);
                    State::Disconnected
                }
                _ => {
                    assert!(*link.is_up.borrow(), "the connection was taken for lost");
                    over.notify_one();
                    State::Connected
                }
            }
        };
        tokio::select! {
            () = link.follow(state) => {}
            () = over.notified() => {}
        }
    }
}
