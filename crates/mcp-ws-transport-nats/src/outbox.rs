//! [`Outbox`]: the messages that the client library does not take at once.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_nats::message::OutboundMessage;
use mcp_ws_transport::cluster::PublishError;
use tokio::sync::Notify;

/// Queue of messages in the order in which they are published, bounded in bytes.
///
/// A message that finds it empty is handed to the client library there and then.
pub(crate) struct Outbox {
    max_bytes: usize,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<OutboundMessage>,
    /// Size of those that wait, and of the one that is being handed over.
    bytes: usize,
}

/// Bytes that a message takes up beside its subject and payload.
const OVERHEAD: usize = size_of::<OutboundMessage>();

impl Outbox {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, queue: Mutex::default(), filled: Notify::new() }
    }

    /// Sends a message by `try_send` where none waits, and else queues it.
    pub(crate) fn push(
        &self,
        message: OutboundMessage,
        try_send: impl FnOnce(OutboundMessage) -> bool,
    ) -> Result<(), PublishError> {
        let mut queue = self.lock();
        if queue.bytes == 0 && try_send(message.clone()) {
            return Ok(());
        }
        let bytes = size(&message);
        if queue.bytes > 0 && queue.bytes + bytes > self.max_bytes {
            return Err(PublishError::Full);
        }
        queue.bytes += bytes;
        queue.waiting.push_back(message);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Returns the next message, which counts until it is [sent](Self::note_sent).
    pub(crate) async fn next(&self) -> OutboundMessage {
        loop {
            if let Some(message) = self.lock().waiting.pop_front() {
                return message;
            }
            self.filled.notified().await;
        }
    }

    /// Records that a message of this size was sent, or given up.
    pub(crate) fn note_sent(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }

    /// Drops the messages that wait.
    pub(crate) fn clear(&self) {
        let mut queue = self.lock();
        let dropped = std::mem::take(&mut queue.waiting);
        queue.bytes -= dropped.iter().map(size).sum::<usize>();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what a message counts as, in bytes.
pub(crate) fn size(message: &OutboundMessage) -> usize {
    message.subject.len() + message.payload.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static str) -> OutboundMessage {
        let (subject, payload) = ("a".into(), payload.into());
        OutboundMessage { subject, payload, reply: None, headers: None }
    }

    #[tokio::test]
    async fn what_is_not_taken_waits_in_order_and_within_the_bound() {
        let outbox = Outbox::new(2 * size(&message("1")));
        outbox.push(message("0"), |_| true).unwrap();
        outbox.push(message("1"), |_| false).unwrap();
        // Nothing overtakes what waits, nor what is being handed over.
        outbox.push(message("2"), |_| panic!("overtakes")).unwrap();
        assert_eq!(outbox.push(message("3"), |_| true), Err(PublishError::Full));
        let first = outbox.next().await;
        assert_eq!(first.payload, "1");
        assert_eq!(outbox.push(message("3"), |_| true), Err(PublishError::Full));
        outbox.note_sent(size(&first));
        outbox.push(message("4"), |_| panic!("overtakes")).unwrap();
        outbox.clear();
        outbox.push(message("5"), |_| true).unwrap();
    }
}
