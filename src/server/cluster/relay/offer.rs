//! [`SessionOffers`]: the instance that has a session offers it, and has it resumed by whoever takes
//! the offer.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::{
    ask::{Answer, Ask},
    context::{GO_TIMEOUT, RelayContext},
    count::{Direction, RelayCounts, RelaySlot},
    part::{Part, PartKind},
    pipe::PipeEnd,
};
use crate::{
    close::{CloseCode, CloseReason},
    cluster::{subject::Subject, subscription::Subscription},
    role::McpRole,
    server::{
        cluster::{
            Cluster,
            asks::{AskHandler, AskKind},
        },
        sessions::{new_link::NewLink, store::SessionStore},
    },
    stats::Stats,
};

/// Time within which a pipe is subscribed to: the asking instance waits a second for its answer.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_millis(400);

/// Receiver of questions for the sessions of one server.
///
/// | state | event | then |
/// |---|---|---|
/// | | the session is not here, or not the client's; the server stops, or relays none | `unknown` |
/// | | as many relays as may be | `full` |
/// | | any other question | this instance subscribes to the pipe, and offers the session |
/// | | subscribing fails, or takes 400 ms | `degraded` |
/// | offered | the first part of the pipe, within 2 s | the session is resumed, as by a client that is here |
/// | offered | anything else, or nothing | the offer is forgotten |
///
/// So a question that arrives late, when its client has given it up, takes no session over.
struct SessionOffers<R: McpRole> {
    sessions: Weak<SessionStore<R>>,
    relay: Arc<RelayContext>,
}

/// Joins the sessions of a server to those of the other instances of its cluster.
pub(in crate::server) fn join<R: McpRole>(
    cluster: &Cluster,
    sessions: &Arc<SessionStore<R>>,
    counts: RelayCounts,
    max_message: usize,
) {
    let relay = Arc::new(RelayContext::new(cluster.node().clone(), counts, max_message));
    let offers = SessionOffers { sessions: Arc::downgrade(sessions), relay: relay.clone() };
    let offers: Arc<dyn AskHandler> = Arc::new(offers);
    relay.node.add_handler(AskKind::RESUME, Arc::downgrade(&offers));
    sessions.join(relay, offers);
}

impl<R: McpRole> AskHandler for SessionOffers<R> {
    fn on_ask(&self, payload: &Bytes, reply_to: &Subject) -> bool {
        let Some((sessions, ask)) = self.sessions.upgrade().zip(Ask::parse(payload)) else {
            return false;
        };
        let Some(proof) = ask.proof().filter(|_| sessions.has(&ask.session)) else { return false };
        let is_resumable = sessions.is_resumable(&ask.session, &proof, ask.identity().as_ref());
        let answer = match self.relay.try_acquire(Direction::In) {
            _ if !is_resumable || !self.relay.relays_any() => Answer::Unknown,
            None => Answer::Full,
            Some(slot) => {
                let relay = self.relay.clone();
                tokio::spawn(offer(relay, sessions, ask, reply_to.clone(), slot));
                return true;
            }
        };
        self.relay.node.answer(reply_to, answer.encode());
        true
    }
}

/// Offers a session, and has it resumed if the offer is taken.
async fn offer<R: McpRole>(
    relay: Arc<RelayContext>,
    sessions: Arc<SessionStore<R>>,
    ask: Ask,
    reply_to: Subject,
    slot: RelaySlot,
) {
    let stop = sessions.stop.clone();
    let taken = async {
        let [own, other] = ask.subjects().map(|words| relay.node.subject(&words).ok());
        let subscribing =
            relay.node.relay_bus.subscribe(own.as_ref()?, relay.bounds().subscription());
        let Ok(Ok(mut subscription)) = timeout(SUBSCRIBE_TIMEOUT, subscribing).await else {
            // The client is to come again: its session is here.
            relay.node.answer(&reply_to, Answer::Degraded.encode());
            return None;
        };
        relay.node.answer(&reply_to, Answer::Offer.encode());
        timeout(GO_TIMEOUT, is_taken(&mut subscription))
            .await
            .ok()?
            .then_some((subscription, other?))
    };
    let taken = tokio::select! {
        taken = taken => taken,
        () = stop.cancelled() => None,
    };
    let Some((subscription, other)) = taken else {
        tracing::debug!("the offer of a session was not taken");
        return;
    };
    let stats = Stats::default();
    let pipe = relay.pipe(PipeEnd::Session, subscription, other, Some(stats.clone()), slot);
    let link = NewLink::new(Box::pin(pipe), stats, None, ask.limits(), ask.address);
    let Some(proof) = ask.proof() else { return };
    let asked = (&ask.session, &proof, ask.received);
    if let Err(link) = sessions.resume(asked, ask.identity().as_ref(), link) {
        // The session has ended meanwhile, or its client has shown a newer secret.
        link.close_with(CloseReason::new(CloseCode::SessionGone, "the session cannot be resumed"));
    }
}

/// Returns `true` if the first part says that the offer is taken.
async fn is_taken(subscription: &mut Subscription) -> bool {
    let first = subscription.next().await.filter(|first| first.dropped_before == 0);
    let part = first.and_then(|first| Part::parse(&first.payload));
    part.is_some_and(|part| (part.kind, part.number) == (PartKind::Go, 1))
}
