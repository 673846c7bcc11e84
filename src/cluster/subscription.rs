//! [`Subscription`]: the messages that an instance receives from a bus.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::Stream;

use super::subject::Subject;

/// Message that a bus has delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// Bytes that were published.
    pub payload: Bytes,
    /// Subject on which the answer is to be published, if this is a question.
    pub reply_to: Option<Subject>,
    /// Number of messages before this one that were dropped because the subscriber was too slow.
    pub dropped_before: u64,
}

/// Stream of what is published on a subject; bounded in bytes.
///
/// It ends when its bus does. Dropping it ends the subscription.
#[must_use = "streams do nothing unless polled"]
pub struct Subscription {
    shared: Arc<Shared>,
}

/// End of a [`Subscription`] by which a bus fills it with what it receives.
///
/// The subscription ends when this is dropped.
pub struct Feed {
    shared: Arc<Shared>,
}

/// Queue that a subscription and its feed share.
struct Shared {
    max_bytes: usize,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    /// Number of messages that were dropped since the last that was not.
    dropped: u64,
    ends: Ends,
    /// Wakes the subscriber, who waits for a message.
    reader: Option<Waker>,
    /// Wakes the bus, which waits for the subscriber to leave.
    feeder: Option<Waker>,
}

/// State of the two ends of a subscription.
#[derive(Default, PartialEq, Eq)]
enum Ends {
    /// Both ends are there.
    #[default]
    Open,
    /// The bus puts nothing in any more.
    FeedDropped,
    /// The subscriber reads no more.
    SubscriptionDropped,
}

/// Bytes that a message takes up beside its payload.
const OVERHEAD: usize = size_of::<Delivery>();

impl Subscription {
    /// Creates a subscription in which at most `max_bytes` wait, and the feed that fills it.
    ///
    /// A message counts with its payload and 64 bytes; one waits in any case.
    pub fn bounded(max_bytes: usize) -> (Feed, Self) {
        let shared = Arc::new(Shared { max_bytes, queue: Mutex::default() });
        (Feed { shared: shared.clone() }, Self { shared })
    }
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut queue = self.shared.lock();
        if let Some(delivery) = queue.deliveries.pop_front() {
            queue.bytes -= delivery.payload.len() + OVERHEAD;
            return Poll::Ready(Some(delivery));
        }
        if queue.ends == Ends::FeedDropped {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.ends = Ends::SubscriptionDropped;
        queue.deliveries = VecDeque::new();
        let feeder = queue.feeder.take();
        drop(queue);
        if let Some(feeder) = feeder {
            feeder.wake();
        }
    }
}

impl Feed {
    /// Adds a message, or drops it if too much waits. Returns `false` if nobody reads any more.
    pub fn push(&self, payload: Bytes, reply_to: Option<Subject>) -> bool {
        let mut queue = self.shared.lock();
        if queue.ends == Ends::SubscriptionDropped {
            return false;
        }
        let bytes = payload.len() + OVERHEAD;
        if !queue.deliveries.is_empty() && queue.bytes + bytes > self.shared.max_bytes {
            queue.dropped += 1;
            return true;
        }
        let dropped_before = std::mem::take(&mut queue.dropped);
        queue.bytes += bytes;
        queue.deliveries.push_back(Delivery { payload, reply_to, dropped_before });
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }

    /// Counts messages that the bus has dropped itself before the next one.
    pub fn count_dropped(&self, messages: u64) {
        self.shared.lock().dropped += messages;
    }

    /// Returns `true` if nobody reads any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().ends == Ends::SubscriptionDropped
    }

    /// Resolves when nobody reads any more. One task can wait for it at a time.
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| {
            let mut queue = self.shared.lock();
            if queue.ends == Ends::SubscriptionDropped {
                return Poll::Ready(());
            }
            queue.feeder = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if queue.ends == Ends::Open {
            queue.ends = Ends::FeedDropped;
        }
        let reader = queue.reader.take();
        drop(queue);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn what_is_beyond_the_bound_is_dropped_and_counted() {
        let (feed, mut subscription) = Subscription::bounded(2 * (OVERHEAD + 10));
        for payload in ["first", "second", "third", "fourth"] {
            assert!(feed.push(payload.into(), None));
        }
        assert_eq!(subscription.next().await.unwrap().payload, "first");
        feed.push("fifth".into(), None);
        let second = subscription.next().await.unwrap();
        assert_eq!((&second.payload[..], second.dropped_before), (&b"second"[..], 0));
        let fifth = subscription.next().await.unwrap();
        assert_eq!((&fifth.payload[..], fifth.dropped_before), (&b"fifth"[..], 2));
        // One that is larger than the bound does not wait for ever.
        feed.push(vec![0; 1000].into(), None);
        assert_eq!(subscription.next().await.unwrap().payload.len(), 1000);
        drop(feed);
        assert_eq!(subscription.next().await, None);
    }

    #[tokio::test]
    async fn each_end_learns_that_the_other_is_gone() {
        let (feed, subscription) = Subscription::bounded(1000);
        assert_eq!(feed.closed().now_or_never(), None);
        let closed = async { feed.closed().await };
        let ((), ()) = futures::join!(closed, async { drop(subscription) });
        assert!(feed.is_closed());
        assert!(!feed.push("late".into(), None));
    }
}
