//! Bounds of a [`Correlation`](super::Correlation).

use std::time::Duration;

/// Decision on a request whose connection is lost, where the next peer knows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// Ends the request with an error, since it may have run: the default.
    #[default]
    Fail,
    /// Sends the request again, on five connections at most; it may run more than once.
    Resend,
}

/// Bounds of a [`Correlation`](super::Correlation).
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) deadline: Option<Duration>,
    pub(crate) deadline_total: Option<Duration>,
    pub(crate) lost_answer_timeout: Option<Duration>,
    pub(crate) retry_refused: bool,
    pub(crate) max_inbound: usize,
    pub(crate) max_inbound_memory: usize,
    pub(crate) max_held_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: None,
            deadline_total: None,
            lost_answer_timeout: Some(Duration::from_secs(60)),
            retry_refused: true,
            max_inbound: 1024,
            max_inbound_memory: 64 << 20,
            max_held_bytes: 4 << 20,
        }
    }
}

impl Config {
    /// Ends a request of ours to which nothing has arrived for this time: no response, and no
    /// `notifications/progress`, which restarts the time. `None`, the default, leaves it to
    /// the caller: a tool may work for an hour in silence. Subscriptions have no deadline. The
    /// error says whether the request was sent: see [`TIMED_OUT`](super::TIMED_OUT). The extension
    /// [`Deadline`](super::Deadline) sets the deadline of a single request.
    ///
    /// The time is suspended while the server waits for the answer to a request of its own, such
    /// as an elicitation: a client cannot tell which call that belongs to, so the deadlines of all
    /// are suspended. A handler that panics after it has given its context away never answers,
    /// unless its service is in a [`CatchPanic`](crate::CatchPanic).
    ///
    /// A peer that is dead is found by the [heartbeat](crate::layer::Heartbeat) without a
    /// deadline, and a connection that is lost ends its requests, or resumes them; where an answer
    /// was lost on the way, [`lost_answer_timeout`](Self::lost_answer_timeout) ends what may have
    /// waited for it.
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Ends a request of ours after this time in total, regardless of progress and of what the
    /// server waits for. `None` by default.
    #[must_use]
    pub fn deadline_total(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline_total = deadline.into();
        self
    }

    /// Ends calls whose answer was lost: 60 s. An error, or an unreadable answer, that names no
    /// request ends the only request of ours in flight. If there are several, each ends when
    /// nothing has arrived for it for this time from then on. `None` leaves them to their
    /// deadlines.
    #[must_use]
    pub fn lost_answer_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.lost_answer_timeout = timeout.into();
        self
    }

    /// Sends a request again if the peer refuses it with `-32000` without having executed it: `true`.
    /// Applies to requests of 16 MiB in total. RFC 9113, section 8.7, has the equivalent for HTTP.
    /// The `reason` in `data` says when:
    ///
    /// - `stopping`: on the next connection, for which all further requests are held back. Applies
    ///   if another connection may follow, on five connections at most. Where there is none after
    ///   5 s, and then after twice as long each time, requests are sent all the same. A peer that
    ///   answers one of those otherwise is not stopping: perhaps it is a tool that says so, and
    ///   such refusals are passed on. So are they where the peer has not closed within 60 s.
    /// - `too_many_requests`: before all later requests, once the peer has answered one of those
    ///   that it has, which lets one more be sent; and one by one after 100 ms, then twice as long
    ///   each time, up to 5 s. A peer may have more requests than await an answer, since one that
    ///   was cancelled counts until its handler has ended. After 60 s without an answer refusals
    ///   are passed on until there is one.
    ///
    /// A peer that has said how many requests it takes, has as many and has answered none for 10 s
    /// is sent one more, and so on: the answers may be lost. It waits again if it is refused.
    #[must_use]
    pub fn retry_refused(mut self, retry: bool) -> Self {
        self.retry_refused = retry;
        self
    }

    /// Sets how many requests of the peer may be in flight: 1,024. Each is a task of rmcp's. One
    /// that its sender has cancelled counts until its handler has ended. As many notifications are
    /// handled at once, or 64 where this is less; further ones wait.
    #[must_use]
    pub fn max_inbound(mut self, requests: usize) -> Self {
        self.max_inbound = requests;
        self
    }

    /// Sets how much memory the requests of the peer that are being handled may take, in bytes: 64
    /// MiB. It is estimated from their JSON, which takes up to a hundred times its size where it
    /// is made of many small values. A request that would take more with the others is refused
    /// with `-32000`, and one that would take more alone with `-32600`. One that takes less than a
    /// thousandth of this is always handled.
    ///
    /// Notifications may take as much, those included that wait: one that would take more, alone
    /// or with the others, is dropped, counted in [`refused`](crate::stats::Snapshot::refused) and
    /// logged at WARN. `notifications/cancelled` is never dropped, but loses its reason and
    /// metadata then.
    #[must_use]
    pub fn max_inbound_memory(mut self, bytes: usize) -> Self {
        self.max_inbound_memory = bytes;
        self
    }

    /// Sets how many bytes of requests and notifications are kept while they have to wait: 4 MiB,
    /// of what came over the wire and 512 more for each. Further requests are refused with
    /// `-32000`, further notifications are dropped, counted and logged as above. What is kept
    /// counts by its decoded size in [`max_inbound_memory`](Self::max_inbound_memory) too.
    #[must_use]
    pub fn max_held_bytes(mut self, bytes: usize) -> Self {
        self.max_held_bytes = bytes;
        self
    }
}
