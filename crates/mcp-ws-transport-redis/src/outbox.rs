//! [`Outbox`]: what is to be sent to Redis, in order.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mcp_ws_transport::cluster::PublishError;
use tokio::sync::{Notify, oneshot};

/// Command to be sent.
#[derive(Debug)]
pub(crate) enum Command {
    Publish { channel: String, body: Vec<u8>, question: Option<u64> },
    Subscribe { channel: String, done: oneshot::Sender<Result<(), String>> },
    Unsubscribe { channel: String },
}

/// Queue of commands, which is open while there is a connection; bounded in bytes.
pub(crate) struct Outbox {
    max_bytes: usize,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    is_open: bool,
    waiting: VecDeque<Command>,
    /// Size of what waits, and of what Redis has not confirmed.
    bytes: usize,
}

/// Bytes that a command takes up beside its channel and body.
const OVERHEAD: usize = size_of::<Command>();

impl Outbox {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, queue: Mutex::default(), filled: Notify::new() }
    }

    /// Takes commands from now on.
    pub(crate) fn open(&self) {
        self.lock().is_open = true;
    }

    /// Takes no commands any more, and drops those that wait.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        let dropped = std::mem::take(&mut *queue);
        drop(queue);
        drop(dropped); // Tells those who subscribe.
    }

    /// Queues a command. Those to subscribe, of which there are few, are taken beyond the bound.
    pub(crate) fn push(&self, command: Command) -> Result<(), PublishError> {
        let mut queue = self.lock();
        if !queue.is_open {
            return Err(PublishError::Away);
        }
        let bytes = command.size();
        let is_bounded = matches!(command, Command::Publish { .. });
        if is_bounded && queue.bytes > 0 && queue.bytes + bytes > self.max_bytes {
            return Err(PublishError::Full);
        }
        queue.bytes += bytes;
        queue.waiting.push_back(command);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Returns the next command, which counts until it is [confirmed](Self::note_confirmed).
    pub(crate) async fn next(&self) -> Command {
        loop {
            if let Some(command) = self.lock().waiting.pop_front() {
                return command;
            }
            self.filled.notified().await;
        }
    }

    /// Records that a command of this size is done. It must not come after [`Self::close`].
    pub(crate) fn note_confirmed(&self, bytes: usize) {
        self.lock().bytes -= bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Command {
    /// Returns what a command counts as, in bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Publish { channel, body, .. } => channel.len() + body.len() + OVERHEAD,
            Self::Subscribe { channel, .. } | Self::Unsubscribe { channel } => {
                channel.len() + OVERHEAD
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(body: &str) -> Command {
        Command::Publish { channel: "a".into(), body: body.into(), question: None }
    }

    #[tokio::test]
    async fn commands_wait_within_the_bound_and_while_there_is_a_connection() {
        let outbox = Outbox::new(2 * publish("1").size());
        assert_eq!(outbox.push(publish("0")), Err(PublishError::Away));
        outbox.open();
        outbox.push(publish("1")).unwrap();
        outbox.push(publish("2")).unwrap();
        assert_eq!(outbox.push(publish("3")), Err(PublishError::Full));
        outbox.push(Command::Unsubscribe { channel: "a".into() }).unwrap();
        let first = outbox.next().await;
        assert!(matches!(&first, Command::Publish { body, .. } if body == b"1"), "{first:?}");
        assert_eq!(outbox.push(publish("3")), Err(PublishError::Full));
        let (done, confirmed) = oneshot::channel();
        outbox.push(Command::Subscribe { channel: "a".into(), done }).unwrap();
        outbox.close();
        confirmed.await.unwrap_err();
        assert_eq!(outbox.push(publish("4")), Err(PublishError::Away));
        outbox.open();
        outbox.push(publish("5")).unwrap();
    }
}
