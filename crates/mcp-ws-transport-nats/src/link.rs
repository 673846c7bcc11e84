//! [`Link`]: what is known of the connection, by the events of the client library.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use async_nats::{Event, ServerError};
use mcp_ws_transport::cluster::{Feed, Subject};
use tokio::sync::watch;

use crate::outbox::Outbox;

/// State of the connection, and what is lost or refused on it.
pub(crate) struct Link {
    pub(crate) is_up: watch::Sender<bool>,
    pub(crate) outbox: Outbox,
    subscriptions: Mutex<Subscriptions>,
}

#[derive(Default)]
struct Subscriptions {
    /// Subscriptions in force, by their number on the connection.
    feeds: HashMap<u64, Weak<Feed>>,
    /// Subscriptions that are being made, each with a place for the reason of a refusal.
    made: Vec<(Subject, Weak<OnceLock<String>>)>,
}

impl Link {
    pub(crate) fn new(max_queued_bytes: usize) -> Self {
        Self {
            is_up: watch::Sender::new(false),
            outbox: Outbox::new(max_queued_bytes),
            subscriptions: Mutex::default(),
        }
    }

    pub(crate) fn on_event(&self, event: &Event) {
        match event {
            Event::Connected => self.set_up(true),
            Event::Disconnected | Event::Closed => {
                self.set_up(false);
                self.outbox.clear();
            }
            Event::SlowConsumer(number) => self.count_dropped(*number),
            Event::ServerError(ServerError::Other(text)) => self.on_refusal(text),
            Event::ServerError(error) => tracing::warn!("{error}"),
            Event::ClientError(error) => tracing::warn!("{error}"),
            _ => {}
        }
    }

    pub(crate) fn set_up(&self, is_up: bool) {
        self.is_up.send_if_modified(|was_up| std::mem::replace(was_up, is_up) != is_up);
    }

    /// Resolves when the connection is lost.
    pub(crate) async fn lost(&self) {
        let _ = self.is_up.subscribe().wait_for(|is_up| !is_up).await;
    }

    pub(crate) fn set_feed(&self, number: u64, feed: &Arc<Feed>) {
        self.lock().feeds.insert(number, Arc::downgrade(feed));
    }

    pub(crate) fn remove_feed(&self, number: u64) {
        self.lock().feeds.remove(&number);
    }

    /// Returns what has the reason if the server refuses the subscription to this subject.
    pub(crate) fn watch_refusal(&self, subject: &Subject) -> Arc<OnceLock<String>> {
        let refusal = Arc::default();
        let mut subscriptions = self.lock();
        subscriptions.made.retain(|(_, refusal)| refusal.strong_count() > 0);
        subscriptions.made.push((subject.clone(), Arc::downgrade(&refusal)));
        refusal
    }

    fn count_dropped(&self, number: u64) {
        let feed = self.lock().feeds.get(&number).and_then(Weak::upgrade);
        if let Some(feed) = feed {
            feed.count_dropped(1);
        }
    }

    fn on_refusal(&self, text: &str) {
        tracing::warn!("NATS refuses: {text}");
        for (subject, refusal) in &self.lock().made {
            let is_named = text.contains("ubscription") && text.contains(&format!("\"{subject}\""));
            if let Some(refusal) = refusal.upgrade().filter(|_| is_named) {
                let _ = refusal.set(text.to_owned());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
