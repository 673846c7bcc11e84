use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use futures::{SinkExt, channel::oneshot, task::noop_waker};
use tokio::{
    sync::watch,
    time::{advance, timeout},
};

use super::*;
use crate::cluster::{AskError, Feed, SubscribeError};

mod model;

/// Messages under way to one end, each with the subject for the answer to it.
type UnderWay = VecDeque<(Bytes, Option<Subject>)>;

/// Bus with two ends, on which the test moves each message itself.
#[derive(Default)]
struct Wire(Mutex<Hub>);

#[derive(Default)]
struct Hub {
    /// Payloads under way to the end with the session, and to the end with the client.
    under_way: [UnderWay; 2],
    feeds: [Option<Feed>; 2],
    answers: HashMap<Subject, oneshot::Sender<Bytes>>,
    asked: u64,
    is_full: bool,
    is_away: bool,
}

const SESSION: usize = 0;
const CLIENT: usize = 1;

fn subjects() -> [Subject; 2] {
    ["x.session", "x.client"].map(|text| Subject::new(text).unwrap())
}

impl Wire {
    fn hub(&self) -> std::sync::MutexGuard<'_, Hub> {
        self.0.lock().unwrap()
    }

    fn put(
        &self,
        subject: &Subject,
        payload: Bytes,
        reply_to: Option<Subject>,
    ) -> Result<(), PublishError> {
        let mut hub = self.hub();
        if hub.is_away {
            return Err(PublishError::Away);
        }
        match subjects().iter().position(|end| end == subject) {
            Some(_) if hub.is_full => return Err(PublishError::Full),
            Some(to) => hub.under_way[to].push_back((payload, reply_to)),
            None => {
                if let Some(answer) = hub.answers.remove(subject) {
                    let _ = answer.send(payload);
                }
            }
        }
        Ok(())
    }

    /// Brings the next messages to an end. Returns how many.
    fn bring(&self, to: usize, count: usize) -> usize {
        let mut hub = self.hub();
        let count = count.min(hub.under_way[to].len());
        for _ in 0..count {
            let (payload, reply_to) = hub.under_way[to].pop_front().unwrap();
            if let Some(feed) = &hub.feeds[to] {
                feed.push(payload, reply_to);
            }
        }
        count
    }
}

impl Bus for Wire {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        self.put(subject, payload, None)
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        let to = subjects().iter().position(|end| end == subject).unwrap();
        let (feed, subscription) = Subscription::bounded(max_bytes);
        self.hub().feeds[to] = Some(feed);
        async { Ok(subscription) }.boxed()
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        time: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let to = subjects().iter().position(|end| end == subject).unwrap();
        let subject = subject.clone();
        async move {
            let (sender, answer) = oneshot::channel();
            let inbox = {
                let mut hub = self.hub();
                // Nobody has subscribed: the end is gone.
                if hub.feeds[to].as_ref().is_none_or(|feed| feed.closed().now_or_never().is_some())
                {
                    return Err(AskError::Nobody);
                }
                hub.asked += 1;
                let inbox = Subject::new(format!("inbox.{}", hub.asked)).unwrap();
                hub.answers.insert(inbox.clone(), sender);
                inbox
            };
            self.put(&subject, payload, Some(inbox))?;
            timeout(time, answer).await.ok().and_then(Result::ok).ok_or(AskError::TimedOut)
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        1 << 20
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }
}

/// Returns the two ends of a pipe whose first part has been sent.
async fn ends(wire: &Arc<Wire>, bounds: Bounds) -> [Pipe; 2] {
    let mut ends = Vec::new();
    for (end, from, to) in [(PipeEnd::Session, SESSION, CLIENT), (PipeEnd::Client, CLIENT, SESSION)]
    {
        let subscription = wire.subscribe(&subjects()[from], bounds.subscription()).await.unwrap();
        let to = subjects()[to].clone();
        ends.push(Pipe::new(wire.clone(), end, subscription, to, bounds, Some(Stats::default())));
    }
    ends.try_into().unwrap()
}

/// Bounds of a pipe that small messages fill.
fn small() -> Bounds {
    Bounds { part: 16, credit: 800, queue: 2000, message: 500 }
}

fn text(text: impl Into<String>) -> Message {
    Message::text(text.into())
}

/// Polls what an end has, without waiting.
fn next(pipe: &mut Pipe) -> Poll<Option<Result<Message, Error>>> {
    pipe.poll_next_unpin(&mut Context::from_waker(&noop_waker()))
}

fn flush(pipe: &mut Pipe) -> Poll<Result<(), Error>> {
    pipe.poll_flush_unpin(&mut Context::from_waker(&noop_waker()))
}

fn is_lost(pipe: &mut Pipe, why: &str) -> bool {
    match next(pipe) {
        Poll::Ready(Some(Err(error))) => {
            assert!(error.to_string().contains(why), "{error}, not {why}");
            true
        }
        Poll::Pending => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_kinds_and_sizes_arrive_in_order_both_ways() {
    let wire = Arc::new(Wire::default());
    let [mut session, mut client] = ends(&wire, Bounds::new(1 << 20, 5 << 20)).await;
    let large = |size| "x".repeat(size);
    let messages = [
        text(""),
        text("short"),
        Message::Binary(Bytes::from(vec![7; 300_000])),
        Message::Ping(Bytes::from_static(b"ping")),
        text(large(4 << 20)),
        Message::Pong(Bytes::new()),
        text(large(256 << 10)),
        Message::Close(Some(CloseReason::new(CloseCode::TakenOver, "newer"))),
    ];
    for (from, to) in [(&mut session, &mut client)] {
        let mut got = Vec::new();
        for message in &messages {
            assert!(from.start_send_unpin(message.clone()).is_ok());
        }
        for _ in 0..1000 {
            let _ = flush(from);
            wire.bring(CLIENT, usize::MAX);
            while let Poll::Ready(Some(Ok(message))) = next(to) {
                got.push(message);
            }
            wire.bring(SESSION, usize::MAX);
        }
        assert_eq!(got.len(), messages.len());
        assert!(got == messages);
        assert!(matches!(next(to), Poll::Ready(None)));
        // A message that is sent to an end that has closed is an error, and not lost in silence.
        to.start_send_unpin(text("late")).unwrap_err();
    }
    let sent = session.stats.as_ref().unwrap().snapshot();
    let received = client.stats.as_ref().unwrap().snapshot();
    assert_eq!((sent.messages_sent, received.messages_received), (5, 5));
    assert!(received.bytes_received > (4 << 20) + 500_000, "{received:?}");
    drop(client);
    // The other end answers the Close.
    assert_eq!(wire.bring(SESSION, 1), 1);
    session.close().await.unwrap();
}

/// The last part is lost, so that no later one shows it: the next heartbeat does.
#[tokio::test(start_paused = true)]
async fn a_loss_ends_the_link_whatever_was_lost() {
    for lost in 0..3 {
        let wire = Arc::new(Wire::default());
        let [mut session, mut client] = ends(&wire, small()).await;
        for number in 0..3 {
            session.start_send_unpin(text(format!("{number}"))).unwrap();
        }
        assert!(flush(&mut session).is_ready());
        wire.hub().under_way[CLIENT].remove(lost).unwrap();
        wire.bring(CLIENT, usize::MAX);
        for number in 0..lost {
            assert!(
                matches!(next(&mut client), Poll::Ready(Some(Ok(m))) if m == text(format!("{number}")))
            );
        }
        if lost == 2 {
            assert!(next(&mut client).is_pending());
            advance(HEARTBEAT_INTERVAL).await;
            assert!(next(&mut session).is_pending());
            wire.bring(CLIENT, usize::MAX);
        }
        assert!(is_lost(&mut client, "a part is missing"), "{lost}");
        // And it stays so.
        assert!(is_lost(&mut client, "a part is missing"));
        assert!(matches!(flush(&mut client), Poll::Ready(Err(_))));
        // The other end is told.
        wire.bring(SESSION, usize::MAX);
        let told = next(&mut session);
        assert!(
            matches!(&told, Poll::Ready(Some(Ok(Message::Close(Some(reason)))))
            if reason.code == CloseCode::Abnormal),
            "{told:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_lives_by_heartbeats_and_dies_of_silence() {
    let wire = Arc::new(Wire::default());
    let [mut session, mut client] = ends(&wire, small()).await;
    for _ in 0..100 {
        advance(HEARTBEAT_INTERVAL).await;
        assert!(next(&mut session).is_pending() && next(&mut client).is_pending());
        assert_eq!([wire.bring(SESSION, 9), wire.bring(CLIENT, 9)], [2, 1]);
    }
    for _ in 0..4 {
        advance(HEARTBEAT_INTERVAL).await;
        assert!(next(&mut session).is_pending() && next(&mut client).is_pending());
    }
    advance(2 * HEARTBEAT_INTERVAL).await;
    assert!(
        is_lost(&mut session, "nothing came for 5s") && is_lost(&mut client, "nothing came for 5s")
    );
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_gone_without_a_word_is_noticed_at_the_next_heartbeat() {
    let wire = Arc::new(Wire::default());
    let [session, mut client] = ends(&wire, small()).await;
    wire.hub().is_away = true;
    drop(session);
    wire.hub().is_away = false;
    assert!(next(&mut client).is_pending());
    advance(HEARTBEAT_INTERVAL).await;
    assert!(is_lost(&mut client, "the other instance is gone"));
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_does_not_keep_up_delays_and_one_that_is_away_ends_the_link() {
    let wire = Arc::new(Wire::default());
    let [mut session, mut client] = ends(&wire, small()).await;
    wire.hub().is_full = true;
    session.start_send_unpin(text("delayed")).unwrap();
    assert!(flush(&mut session).is_pending());
    advance(2 * HEARTBEAT_INTERVAL).await;
    assert!(flush(&mut session).is_pending());
    wire.hub().is_full = false;
    // Woken by its own timer.
    timeout(RETRY_INTERVAL, session.flush()).await.unwrap().unwrap();
    wire.bring(CLIENT, 9);
    assert!(matches!(next(&mut client), Poll::Ready(Some(Ok(m))) if m == text("delayed")));

    wire.hub().is_away = true;
    advance(HEARTBEAT_INTERVAL).await;
    // Nothing is lost yet.
    assert!(next(&mut session).is_pending());
    session.start_send_unpin(text("lost")).unwrap();
    assert!(matches!(flush(&mut session), Poll::Ready(Err(_))));
    assert!(is_lost(&mut session, "the bus is away"));
}

/// Reading makes credit due, which the other end may wait for.
#[tokio::test(start_paused = true)]
async fn credit_that_the_bus_does_not_take_is_sent_again_soon() {
    let wire = Arc::new(Wire::default());
    let [mut session, client] = ends(&wire, small()).await;
    session.start_send_unpin(text("x".repeat(100))).unwrap();
    assert!(flush(&mut session).is_ready());
    // Parts of a message that is not whole yet.
    wire.bring(CLIENT, 6);
    wire.hub().is_full = true;
    let mut client = tokio_test::task::spawn(client);
    assert!(client.poll_next().is_pending());
    wire.hub().is_full = false;
    advance(2 * RETRY_INTERVAL).await;
    assert!(client.is_woken());
    assert!(client.poll_next().is_pending());
    assert_eq!(wire.bring(SESSION, 9), 1);
}

/// A reader that does not read has a bounded amount wait; credit and heartbeats wait for nobody.
#[tokio::test(start_paused = true)]
async fn who_does_not_read_stops_the_sender_and_hears_the_heartbeats_all_the_same() {
    let wire = Arc::new(Wire::default());
    let [mut session, mut client] = ends(&wire, small()).await;
    let mut sent = 0;
    let mut context = Context::from_waker(futures::task::noop_waker_ref());
    while session.poll_ready_unpin(&mut context).is_ready() {
        session.start_send_unpin(text("x".repeat(16))).unwrap();
        let _ = flush(&mut session);
        sent += 1;
    }
    // Parts of 80 bytes: 10 on the way, and 25 in the queue.
    assert_eq!((sent, wire.bring(CLIENT, 99)), (35, 10));
    for _ in 0..60 {
        advance(HEARTBEAT_INTERVAL).await;
        assert!(flush(&mut session).is_pending());
        // The reader waits to write elsewhere.
        assert!(flush(&mut client).is_ready());
        wire.bring(SESSION, 99);
        wire.bring(CLIENT, 99);
    }
    let mut got = 0;
    while got < sent {
        while let Poll::Ready(item) = next(&mut client) {
            assert!(item.unwrap().is_ok());
            got += 1;
        }
        wire.bring(SESSION, 99);
        let _ = flush(&mut session);
        assert!(wire.bring(CLIENT, 99) > 0 || got == sent, "{got}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_end_sends_ends_the_link() {
    let part = |kind, number, payload: &[u8]| Part::encode(kind, number, payload);
    let full = |number| part(PartKind::Text, number, &[b'x'; 400]);
    for (parts, why) in [
        (vec![Bytes::new()], "malformed"),
        (vec![Bytes::from_static(b"\xff\0\0\0\0\0\0\0\x01")], "malformed"),
        (vec![part(PartKind::Go, 1, b"")], "malformed"),
        (vec![part(PartKind::Text, 1, b"\xff")], "malformed"),
        (vec![part(PartKind::More, 1, b"a"), part(PartKind::Ping, 2, b"")], "malformed"),
        (vec![part(PartKind::Text, 0, b"")], "missing"),
        (vec![part(PartKind::Text, 2, b"")], "missing"),
        (vec![part(PartKind::Text, u64::MAX, b"")], "missing"),
        (vec![part(PartKind::Heartbeat, 1, b"")], "missing"),
        (vec![part(PartKind::Credit, 1, &1_u64.to_be_bytes())], "room"),
        (vec![part(PartKind::Credit, 1, &u64::MAX.to_be_bytes())], "room"),
        (vec![full(1), full(2)], "room"),
        (vec![part(PartKind::Text, 1, &[b'x'; 501])], "larger"),
        (
            vec![part(PartKind::More, 1, &[b'x'; 300]), part(PartKind::Text, 2, &[b'x'; 201])],
            "larger",
        ),
    ] {
        let wire = Arc::new(Wire::default());
        let [_session, mut client] = ends(&wire, small()).await;
        for part in &parts {
            wire.hub().feeds[CLIENT].as_ref().unwrap().push(part.clone(), None);
        }
        let after = part(PartKind::Text, parts.len() as u64 + 1, b"after");
        wire.hub().feeds[CLIENT].as_ref().unwrap().push(after, None);
        let mut end = next(&mut client);
        while let Poll::Ready(Some(Ok(message))) = end {
            assert_ne!(message, text("after"), "{why}");
            end = next(&mut client);
        }
        let Poll::Ready(Some(Err(error))) = end else { panic!("{end:?}: {why} {parts:?}") };
        assert!(error.to_string().contains(why), "{error}: {why}");
    }
    // What the bus has dropped.
    let wire = Arc::new(Wire::default());
    let [_session, mut client] = ends(&wire, small()).await;
    wire.hub().feeds[CLIENT].as_ref().unwrap().count_dropped(1);
    wire.hub().feeds[CLIENT].as_ref().unwrap().push(part(PartKind::Text, 1, b""), None);
    assert!(is_lost(&mut client, "the bus has lost messages"));
}

/// A reader and a writer in tasks of their own: who polls last takes in what the other waits for.
#[tokio::test(start_paused = true)]
async fn a_reader_and_a_writer_in_tasks_of_their_own_are_both_woken() {
    let wire = Arc::new(Wire::default());
    let [mut session, client] = ends(&wire, small()).await;
    let (mut sink, mut stream) = client.split();
    let writing = tokio::spawn(async move {
        for number in 0..200 {
            sink.send(text(format!("{number}"))).await.unwrap();
        }
        sink
    });
    let reading = tokio::spawn(async move {
        let message = stream.next().await.unwrap().unwrap();
        (message, stream)
    });
    let mut got = 0;
    while got < 200 {
        wire.bring(SESSION, 3);
        while let Poll::Ready(item) = next(&mut session) {
            assert_eq!(item.unwrap().unwrap(), text(format!("{got}")));
            got += 1;
        }
        wire.bring(CLIENT, 99);
        tokio::task::yield_now().await;
    }
    session.send(text("hello")).await.unwrap();
    wire.bring(CLIENT, 99);
    let _sink = writing.await.unwrap();
    assert_eq!(reading.await.unwrap().0, text("hello"));
}

/// One task that polls both halves: what the sink takes in wakes it for the stream.
#[tokio::test(start_paused = true)]
async fn what_one_half_takes_in_wakes_the_task_for_the_other() {
    let wire = Arc::new(Wire::default());
    let [mut session, client] = ends(&wire, small()).await;
    let mut client = tokio_test::task::spawn(client);
    assert!(client.poll_next().is_pending());
    session.start_send_unpin(text("between")).unwrap();
    assert!(flush(&mut session).is_ready());
    wire.bring(CLIENT, 9);
    assert!(client.is_woken());
    // It is polled, and its sink is first.
    assert!(client.enter(|cx, pipe| pipe.poll_flush(cx)).is_ready());
    assert!(client.is_woken());
    assert!(
        matches!(client.poll_next(), Poll::Ready(Some(Ok(message))) if message == text("between"))
    );
}
