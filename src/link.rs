//! Items between the layers above a single connection.
//!
//! [`Outgoing`] messages go down, and [`LinkEvent`]s come up, in which the end of one connection
//! and the start of the next have their place among the messages.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::Error, message::Message};

/// Time for which a limit is kept that was learned from a connection closed with 1009. A middlebox
/// may have closed it, and that should not limit this side for good.
const LEARNED_FOR: Duration = Duration::from_secs(3600);

/// An outbound message, and its number in the order of all that were ever queued.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outgoing {
    /// Sequence number; the first is 1.
    pub seq: u64,
    /// The message.
    pub message: Message,
    /// Peers for which it is kept in the queue.
    pub retention: Retention,
}

impl Outgoing {
    /// Creates a message with this number, for the present peer only.
    #[must_use]
    pub fn new(seq: u64, message: Message) -> Self {
        Self { seq, message, retention: Retention::ThisPeer }
    }
}

/// Peers that a message in the queue is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// The present one alone: the message is dropped when another peer takes its place.
    #[default]
    ThisPeer,
    /// The present one or any later: the message waits in the queue for the next link.
    AnyPeer,
}

/// An event of a succession of connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LinkEvent<T> {
    /// A message.
    Item(T),
    /// The connection is lost, and another may follow.
    Down(Down),
    /// A new connection has taken the place of the former.
    Up(LinkUp),
}

impl<T> LinkEvent<T> {
    /// Returns the message, if this is one.
    #[must_use]
    pub fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Down(_) | Self::Up(_) => None,
        }
    }
}

impl<T> From<T> for LinkEvent<T> {
    fn from(item: T) -> Self {
        Self::Item(item)
    }
}

/// The end of a connection that need not be the last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Down {
    /// Cause of the end.
    pub cause: Error,
    /// Number of the last message that was handed to the connection. Later ones never left.
    pub handed: u64,
    /// `true` if the peer may have kept the session for longer than it had to. Answers to it may
    /// still arrive.
    pub may_resume: bool,
}

impl Down {
    /// Creates an end with this `cause`, to which nothing was handed, and whose session is gone.
    #[must_use]
    pub fn new(cause: Error) -> Self {
        Self { cause, handed: 0, may_resume: false }
    }
}

/// Relation of a new connection to those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkUp {
    /// The peer knows nothing of what was before.
    NewPeer,
    /// The peer claims to be the former one. Its first message shows whether it goes on or begins
    /// anew; until then nothing is sent.
    Unverified,
    /// The peer has kept the session, and nothing is lost.
    Resumed(Resumed),
}

/// State of a session that goes on over a new connection. A source makes it by
/// [`FrozenCount::resumed`](crate::layer::resume::FrozenCount::resumed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Number of messages of this side that the peer has received in the session.
    pub received: u64,
    /// Number of messages that are sent again; set by [`Resume`](crate::layer::Resume), 0 below it.
    pub replayed: u64,
    /// Number of the freeze at which the peer was told this side's own count.
    pub(crate) freeze: u64,
}

/// Limits that one side of a link announces to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MessageLimits {
    /// Largest message that it accepts, in bytes of payload. `None` if it does not say.
    pub max_message: Option<usize>,
    /// Number of unanswered requests that it accepts at a time. `None` if it does not say.
    pub max_inbound: Option<usize>,
}

impl MessageLimits {
    /// Least message size that a peer is believed to be limited to: 1 KiB. In fewer bytes it could
    /// not even read an error.
    pub const MIN_MESSAGE: usize = 1024;

    /// Creates limits from the numbers that a peer announces. 0 counts as not announced; a message
    /// size below [`MIN_MESSAGE`](Self::MIN_MESSAGE) is raised to it.
    #[must_use]
    pub fn from_peer(max_message: Option<u64>, max_inbound: Option<u64>) -> Self {
        let number = |told: Option<u64>| {
            told.filter(|told| *told > 0).map(|told| usize::try_from(told).unwrap_or(usize::MAX))
        };
        Self {
            max_message: number(max_message).map(|bytes| bytes.max(Self::MIN_MESSAGE)),
            max_inbound: number(max_inbound),
        }
    }

    /// Returns these limits, with those of `others` where one is missing.
    #[cfg(feature = "server")]
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            max_message: self.max_message.or(others.max_message),
            max_inbound: self.max_inbound.or(others.max_inbound),
        }
    }
}

/// Limits of the peer of the current link. A cheap, shared handle for whoever makes links, and for
/// the layers that respect them.
#[derive(Debug, Clone, Default)]
pub struct PeerLimits(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    max_message: AtomicUsize,
    /// Limit learned at the moment `since`, in bytes; `usize::MAX` if none.
    learned: AtomicUsize,
    since: Mutex<Option<Instant>>,
    /// Largest message that a peer has read, in bytes. `true` if one has been shown to take less
    /// since.
    passed: AtomicUsize,
    is_doubted: AtomicBool,
    max_inbound: AtomicUsize,
}

impl Default for Kept {
    fn default() -> Self {
        let none = || AtomicUsize::new(usize::MAX);
        Self {
            max_message: none(),
            learned: none(),
            since: Mutex::default(),
            passed: AtomicUsize::new(0),
            is_doubted: AtomicBool::new(false),
            max_inbound: none(),
        }
    }
}

impl PeerLimits {
    /// Sets the limits that the peer of a new link announces; a missing one means no limit.
    pub fn set(&self, limits: MessageLimits) {
        self.0.max_message.store(limits.max_message.unwrap_or(usize::MAX), Relaxed);
        self.0.max_inbound.store(limits.max_inbound.unwrap_or(usize::MAX), Relaxed);
    }

    /// Updates the limits by a later announcement on the same link; a missing one stays as it was.
    pub(crate) fn add(&self, limits: MessageLimits) {
        if let Some(bytes) = limits.max_message {
            self.0.max_message.store(bytes, Relaxed);
        }
        if let Some(requests) = limits.max_inbound {
            self.0.max_inbound.store(requests, Relaxed);
        }
    }

    /// Records that the peer has shown to accept no more than `max_message` bytes. This holds on
    /// later links too, until a peer announces its limit, and for an hour at most. It does not
    /// bound what has [passed](Self::pass) before, since another cause may have been taken for the
    /// size, unless it is shown twice and nothing larger has passed between: behind a balancer one
    /// server may take less than another.
    pub(crate) fn learn(&self, max_message: usize) {
        let max_message = max_message.max(MessageLimits::MIN_MESSAGE);
        let mut since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.learned(*since);
        self.0.learned.store(known.min(max_message), Relaxed);
        if max_message < known {
            *since = Some(Instant::now());
        }
        if max_message < self.0.passed.load(Relaxed) && self.0.is_doubted.swap(true, Relaxed) {
            self.0.passed.store(max_message, Relaxed);
            self.0.is_doubted.store(false, Relaxed);
        }
    }

    /// Records that a peer has read a message of this many bytes.
    pub(crate) fn pass(&self, bytes: usize) {
        self.0.passed.fetch_max(bytes, Relaxed);
        if bytes > self.0.learned.load(Relaxed) {
            self.0.is_doubted.store(false, Relaxed);
        }
    }

    fn learned(&self, since: Option<Instant>) -> usize {
        match since {
            Some(since) if since.elapsed() < LEARNED_FOR => self.0.learned.load(Relaxed),
            _ => usize::MAX,
        }
    }

    /// Returns the largest message that the peer accepts, in bytes: `usize::MAX` if unknown.
    #[must_use]
    pub fn max_message(&self) -> usize {
        let told = self.0.max_message.load(Relaxed);
        if told != usize::MAX || self.0.learned.load(Relaxed) == usize::MAX {
            return told;
        }
        let since = self.0.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.learned(*since).max(self.0.passed.load(Relaxed))
    }

    /// Returns the number of unanswered requests that the peer accepts: `usize::MAX` if unknown.
    #[must_use]
    pub fn max_inbound(&self) -> usize {
        self.0.max_inbound.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_limits_are_none_or_the_nearest_that_can_be_kept() {
        let told = |bytes, requests| {
            let limits = MessageLimits::from_peer(Some(bytes), Some(requests));
            (limits.max_message, limits.max_inbound)
        };
        assert_eq!(told(0, 0), (None, None));
        assert_eq!(told(1, 1), (Some(1024), Some(1)));
        assert_eq!(told(4 << 20, 1024), (Some(4 << 20), Some(1024)));
        assert_eq!(told(u64::MAX, u64::MAX), (Some(usize::MAX), Some(usize::MAX)));
        assert_eq!(MessageLimits::from_peer(None, None), MessageLimits::default());
    }

    #[test]
    fn a_new_link_has_no_limits_of_the_one_before() {
        let peer = PeerLimits::default();
        peer.set(MessageLimits::from_peer(Some(5000), Some(7)));
        peer.add(MessageLimits::from_peer(Some(6000), None));
        assert_eq!((peer.max_message(), peer.max_inbound()), (6000, 7));
        peer.clone().set(MessageLimits::from_peer(None, Some(8)));
        assert_eq!((peer.max_message(), peer.max_inbound()), (usize::MAX, 8));
        peer.learn(7000);
        peer.learn(9000);
        peer.set(MessageLimits::default());
        assert_eq!(peer.max_message(), 7000);
        peer.set(MessageLimits::from_peer(Some(8000), None));
        assert_eq!(peer.max_message(), 8000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_was_learned_is_neither_below_what_passed_nor_for_good() {
        let peer = PeerLimits::default();
        peer.learn(2000);
        assert_eq!(peer.max_message(), 2000);
        peer.pass(5000);
        assert_eq!(peer.max_message(), 5000);
        tokio::time::advance(LEARNED_FOR).await;
        assert_eq!(peer.max_message(), usize::MAX);
        peer.learn(9000);
        assert_eq!(peer.max_message(), 9000);
        tokio::time::advance(LEARNED_FOR / 2).await;
        // Learning the same limit again does not renew it.
        peer.learn(9000);
        tokio::time::advance(LEARNED_FOR / 2).await;
        assert_eq!(peer.max_message(), usize::MAX);
    }

    /// A balancer leads to one that takes much, and then to another.
    #[test]
    fn a_limit_that_is_shown_twice_is_believed_though_more_has_passed_before() {
        let peer = PeerLimits::default();
        peer.pass(5000);
        peer.learn(2999);
        peer.pass(100);
        assert_eq!(peer.max_message(), 5000);
        peer.learn(2999);
        assert_eq!(peer.max_message(), 2999);
        peer.learn(1999);
        assert_eq!(peer.max_message(), 2999);
        // A larger message passes: it was not the size, or another server.
        peer.pass(2500);
        peer.learn(1999);
        assert_eq!(peer.max_message(), 2999);
        peer.learn(1999);
        assert_eq!(peer.max_message(), 1999);
    }
}
