//! How the instance that has the client asks the one that has the session for it.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    ask::{Answer, Ask},
    carry::{RelayedLink, relay_lost},
    context::{GO_TIMEOUT, RelayContext},
    count::Direction,
    part::{Part, PartKind},
    pipe::PipeEnd,
};
use crate::{
    close::{CloseCode, CloseReason},
    cluster::{
        bus::{AskError, PublishError, SubscribeError},
        subject::Subject,
        subscription::Subscription,
    },
    layer::resume::{
        frame::Frame,
        secret::{Secret, SessionId},
    },
    link::MessageLimits,
    message::Message,
    server::{auth::Identity, cluster::asks::AskKind, sessions::new_link::NewLink},
};

/// Time for an answer, however often the question is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Time for the answer to one question: the bus may have lost it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Time after which the question is asked again. It doubles each time, up to the second of these.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const MAX_RETRY_INTERVAL: Duration = Duration::from_millis(800);

/// Time after an outage of the bus within which other instances may not have subscribed again yet.
const REJOIN_TIME: Duration = Duration::from_secs(3);

/// Time for which an instance that was heard of lately is asked though it has not subscribed.
const ABSENCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time for the Close of a client that has left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Outcome of the question for the session of another instance, which a client wants to resume.
///
/// | state | event | then |
/// |---|---|---|
/// | asking | nobody there, though the other instance was heard of in the last 7 s | again, for 1 s in all |
/// | asking | nobody there, in the first 3 s after the bus came up; the bus is away; no answer for 1 s | again, for 3 s in all |
/// | asking | `unknown`; nobody there for so long; no answer for 3 s | [`Unknown`](Self::Unknown): a new session here |
/// | asking | as many relays as may be, here or there | [`Rejected`](Self::Rejected) with 1013 |
/// | asking | no relays may be, here or there; this instance has no right to subscribe to the pipe | [`Unknown`](Self::Unknown) |
/// | asking | the session is there, and that instance cannot subscribe to the pipe | [`Rejected`](Self::Rejected) with 1001: the client comes back soon, maybe by another way |
/// | asking | `offer` | taken by the first part of the pipe: going |
/// | going | `@session` | [`Relayed`](Self::Relayed) |
/// | going | 4410: the session has just ended, or has a newer secret | [`Unknown`](Self::Unknown) |
/// | going | any other end, 2 s | [`Rejected`](Self::Rejected) with 1001: it may have been resumed, and the client comes back |
/// | any | no session, and the client has said something without waiting for it | [`Rejected`](Self::Rejected) with 1002 |
/// | any | the client leaves | [`Left`](Self::Left) |
/// | any | this instance stops | [`Rejected`](Self::Rejected) with 1012 |
///
/// The question is asked again after 100, 200 and 400 ms, then every 800 ms, and at once when the
/// other instance is heard of, or this one reaches the others again.
pub(in crate::server) enum RelayOutcome {
    /// The session goes on, over this link and the relay.
    Relayed(Box<RelayedLink>),
    /// There is no such session, as far as can be told.
    Unknown(NewLink),
    /// The link is to be closed with the reason.
    Rejected(NewLink, CloseReason),
    /// The client has left.
    Left,
}

/// Next step after the outcome of a question.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The offer is taken.
    Go,
    /// The question is asked again, after this time at the latest.
    Again(Duration),
    /// There is no such session.
    Unknown,
    /// There are as many relays as may be.
    TryLater,
    /// The other instance cannot subscribe to the pipe.
    Degraded,
}

impl Step {
    /// Returns the step that follows.
    ///
    /// The instance is asked again for as long as `absence_left` where it has not subscribed, and
    /// for as long as `answer_left` where it has not answered or the bus is away.
    fn after(
        asked: &Result<Answer, AskError>,
        absence_left: Duration,
        answer_left: Duration,
    ) -> Self {
        let again_within = |time: Duration| match time.is_zero() {
            true => Self::Unknown,
            false => Self::Again(time),
        };
        match asked {
            Ok(Answer::Offer) => Self::Go,
            Ok(Answer::Full) => Self::TryLater,
            Ok(Answer::Degraded) => Self::Degraded,
            Ok(Answer::Unknown) => Self::Unknown,
            Err(AskError::Nobody) => again_within(absence_left),
            Err(
                AskError::TimedOut | AskError::NotSent(PublishError::Away | PublishError::Full),
            ) => again_within(answer_left),
            Err(AskError::NotSent(_)) => Self::Unknown,
        }
    }
}

/// End of a pipe that no part has crossed yet, at this instance.
struct NewPipe {
    /// Subscription to the subject of this end.
    subscription: Subscription,
    /// Subject of the other end.
    to: Subject,
}

/// Client that waits for its session.
struct Waiting {
    link: NewLink,
    /// Message that it has sent without waiting.
    early: Option<Message>,
}

impl Waiting {
    /// Resolves when the client has left.
    async fn left(&mut self) {
        while self.early.is_none() {
            match self.link.next().await {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(message)) if message.is_data() => self.early = Some(message),
                Some(Ok(_)) => {}
            }
        }
        std::future::pending().await
    }

    /// Returns the outcome where there is no such session.
    ///
    /// What the client has said already was for that session, and must not be said in another.
    fn unknown(self) -> RelayOutcome {
        match self.early {
            None => RelayOutcome::Unknown(self.link),
            Some(_) => {
                let violation = "resume: a message before @session, which is of another session";
                let reason = CloseReason::new(CloseCode::Protocol, violation);
                RelayOutcome::Rejected(self.link, reason)
            }
        }
    }
}

impl RelayContext {
    /// Resumes the session of another instance for the client of `link`.
    ///
    /// This instance takes messages within `own` limits, and stops when `stop` is cancelled.
    pub(in crate::server) async fn resume(
        &self,
        (session, secret, received): (&SessionId, &Secret, u64),
        identity: Option<&Identity>,
        link: NewLink,
        own: MessageLimits,
        (stop, stop_reason): (&CancellationToken, &CloseReason),
    ) -> RelayOutcome {
        let Some(instance) = self.other_instance(session) else {
            return RelayOutcome::Unknown(link);
        };
        let Some(slot) = self.try_acquire(Direction::Out) else {
            return RelayOutcome::Rejected(link, try_later());
        };
        let (limits, address) = (self.limit(link.limits()), link.address());
        let ask = || {
            let asked = (session.clone(), secret.digest(), received);
            Ask::new(asked, identity, limits, address)
        };
        let mut waiting = Waiting { link, early: None };
        let asking = self.ask(instance, ask);
        let (step, new_pipe) = tokio::select! {
            asked = asking => asked,
            () = waiting.left() => return left(waiting.link).await,
            () = stop.cancelled() => return RelayOutcome::Rejected(waiting.link, stop_reason.clone()),
        };
        let NewPipe { subscription, to } = match (step, new_pipe) {
            (Step::Go, Some(new_pipe)) => new_pipe,
            (Step::TryLater, _) => return RelayOutcome::Rejected(waiting.link, try_later()),
            (Step::Degraded, _) => return RelayOutcome::Rejected(waiting.link, degraded()),
            _ => return waiting.unknown(),
        };
        let go = Part::encode(PartKind::Go, 1, &[]);
        if self.node.relay_bus.publish(&to, go).is_err() {
            return RelayOutcome::Rejected(waiting.link, relay_lost());
        }
        let mut pipe = self.pipe(PipeEnd::Client, subscription, to, None, slot);
        let first = tokio::select! {
            first = timeout(GO_TIMEOUT, pipe.next()) => first,
            () = waiting.left() => {
                drop(pipe);
                return left(waiting.link).await;
            }
            () = stop.cancelled() => return RelayOutcome::Rejected(waiting.link, stop_reason.clone()),
        };
        let first = first.map(|first| first.map(|frame| frame.map(|frame| limited(frame, own))));
        match first {
            Ok(Some(Ok(frame))) if is_session(&frame) => {
                let Waiting { mut link, early } = waiting;
                link.send_now(frame);
                RelayOutcome::Relayed(Box::new(RelayedLink::new(link, pipe, early)))
            }
            Ok(Some(Ok(Message::Close(Some(reason))))) if reason.code == CloseCode::SessionGone => {
                waiting.unknown()
            }
            _ => RelayOutcome::Rejected(waiting.link, relay_lost()),
        }
    }

    /// Asks until there is an answer that counts. With an offer, returns this end of the pipe.
    async fn ask(&self, instance: &str, new_ask: impl Fn() -> Ask) -> (Step, Option<NewPipe>) {
        let (began, mut interval) = (Instant::now(), RETRY_INTERVAL);
        let (mut ask, mut new_pipe) = (new_ask(), None);
        let mut state = self.node.state.subscribe();
        loop {
            let heard = self.node.last_heard(instance);
            state.mark_unchanged();
            let deadline = (began + ASK_TIMEOUT).min(Instant::now() + ATTEMPT_TIMEOUT);
            let asked = self.ask_once(instance, &ask, deadline, &mut new_pipe).await;
            let passed = began.elapsed() + RETRY_INTERVAL;
            let left = |time: Duration| time.saturating_sub(passed);
            let absence_timeout = self.absence_timeout(instance);
            let step = Step::after(&asked, left(absence_timeout), left(ASK_TIMEOUT));
            tracing::debug!(?asked, ?step, "asked for a session of another instance");
            let Step::Again(latest) = step else { return (step, new_pipe) };
            if asked == Err(AskError::TimedOut) {
                // An offer that comes late is for another pipe, and is not taken.
                (ask, new_pipe) = (new_ask(), None);
            }
            tokio::select! {
                () = sleep(interval.min(latest)) => {}
                () = self.node.heard_since(instance, heard) => {}
                _ = state.changed() => {}
            }
            interval = MAX_RETRY_INTERVAL.min(2 * interval);
        }
    }

    /// Asks once, after subscribing to this end of the pipe unless that is done already.
    async fn ask_once(
        &self,
        instance: &str,
        ask: &Ask,
        deadline: Instant,
        new_pipe: &mut Option<NewPipe>,
    ) -> Result<Answer, AskError> {
        let subject = |words: &str| self.node.subject(words).ok();
        let [to, own] = ask.subjects();
        let subjects = (subject(&to), subject(&own), subject(&format!("i.{instance}")));
        // What cannot be asked for is at no other instance.
        let ((Some(to), Some(own), Some(instance)), Some(mut payload)) = (subjects, ask.encode())
        else {
            return Ok(Answer::Unknown);
        };
        if new_pipe.is_none() {
            let subscribing = self.node.relay_bus.subscribe(&own, self.bounds().subscription());
            match timeout_at(deadline, subscribing).await {
                Ok(Ok(subscription)) => *new_pipe = Some(NewPipe { subscription, to }),
                Ok(Err(SubscribeError::Away)) => return Err(PublishError::Away.into()),
                Ok(Err(SubscribeError::Refused(_))) => return Ok(Answer::Unknown),
                Err(_) => return Err(AskError::TimedOut),
            }
        }
        payload.insert(0, AskKind::RESUME.0);
        let time = deadline.saturating_duration_since(Instant::now());
        let answer = self.node.bus.ask(&instance, payload.into(), time).await?;
        Ok(Answer::parse(&answer))
    }

    /// Returns the limits of a client as its session is to keep them: a message that this instance
    /// does not carry would end the relay again and again.
    fn limit(&self, limits: MessageLimits) -> MessageLimits {
        let of_client = limits.max_message.unwrap_or(usize::MAX);
        MessageLimits { max_message: Some(of_client.min(self.max_message)), ..limits }
    }

    /// Returns the time for which the instance is asked though it has not subscribed.
    ///
    /// Right after an outage of the bus, this instance may have subscribed again before the other.
    fn absence_timeout(&self, instance: &str) -> Duration {
        let is_rejoin_over =
            self.node.up_since().is_some_and(|since| since.elapsed() > REJOIN_TIME);
        match (is_rejoin_over, self.node.is_up(instance)) {
            (false, _) => ASK_TIMEOUT,
            (true, true) => ABSENCE_TIMEOUT,
            (true, false) => Duration::ZERO,
        }
    }

    /// Returns the tag of the other instance whose session this is, if this one relays any.
    fn other_instance<'a>(&self, session: &'a SessionId) -> Option<&'a str> {
        let (tag, _) = session.as_str().split_once('.')?;
        (tag != self.node.instance() && self.relays_any()).then_some(tag)
    }
}

fn is_session(frame: &Message) -> bool {
    let Message::Text(text) = frame else { return false };
    matches!(Frame::parse(text), Ok(Some(Frame::Session(session))) if session.resumed)
}

/// Returns the frame of a session with the lower of both instances' limits of its messages.
fn limited(frame: Message, own: MessageLimits) -> Message {
    let Message::Text(text) = &frame else { return frame };
    let Ok(Some(Frame::Session(session))) = Frame::parse(text) else { return frame };
    let limits = session.limits();
    let max_message = [limits.max_message, own.max_message].into_iter().flatten().min();
    Frame::Session(session.within(MessageLimits { max_message, ..limits })).encode()
}

fn try_later() -> CloseReason {
    CloseReason::new(CloseCode::TryAgainLater, "too many sessions of other instances")
}

/// Reason to close a link whose session is at an instance that cannot take its end of the pipe.
///
/// Not 1013, after which a client waits: it may come to that instance itself the next time.
fn degraded() -> CloseReason {
    CloseReason::new(
        CloseCode::GoingAway,
        "the cluster is degraded: the session's instance cannot relay it",
    )
}

/// Ends the link of a client that has left.
async fn left(mut link: NewLink) -> RelayOutcome {
    let _ = timeout(CLOSE_TIMEOUT, link.close()).await;
    RelayOutcome::Left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_of_a_question_leads_on() {
        let not_sent = |error| Err(AskError::NotSent(error));
        let (none, some) = (Duration::ZERO, Duration::from_millis(1));
        let again = || Step::Again(some);
        // With no time left; with time for an instance that is absent; with time for an answer.
        for (asked, [neither, absence, answer]) in [
            (Ok(Answer::Offer), [Step::Go, Step::Go, Step::Go]),
            (Ok(Answer::Unknown), [Step::Unknown, Step::Unknown, Step::Unknown]),
            (Ok(Answer::Full), [Step::TryLater, Step::TryLater, Step::TryLater]),
            (Ok(Answer::Degraded), [Step::Degraded, Step::Degraded, Step::Degraded]),
            (Err(AskError::Nobody), [Step::Unknown, again(), Step::Unknown]),
            (Err(AskError::TimedOut), [Step::Unknown, Step::Unknown, again()]),
            (not_sent(PublishError::Away), [Step::Unknown, Step::Unknown, again()]),
            (not_sent(PublishError::Full), [Step::Unknown, Step::Unknown, again()]),
            (
                not_sent(PublishError::TooLarge { size: 2, max: 1 }),
                [Step::Unknown, Step::Unknown, Step::Unknown],
            ),
        ] {
            assert_eq!(Step::after(&asked, none, none), neither, "{asked:?}");
            assert_eq!(Step::after(&asked, some, none), absence, "{asked:?}");
            assert_eq!(Step::after(&asked, none, some), answer, "{asked:?}");
        }
    }
}
