use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::SinkExt;
use proptest::test_runner::Config as Cases;
use tokio::{task::unconstrained, time::advance};
use tokio_test::{
    assert_pending, assert_ready, assert_ready_err, assert_ready_ok,
    task::{Spawn, spawn},
};

use super::*;
use crate::{
    close::CloseCode,
    error::LinkError,
    layer::{
        Reconnect, SharedLink,
        fake::{self, Peer},
        reconnect::LinkSource,
        shared_link,
    },
    link::Retention,
};

#[cfg(all(feature = "client", feature = "server"))]
mod both_ways;
mod full_window;
mod hostile;
#[cfg(feature = "server")]
mod model;
mod start;
mod unruly;
mod vectors;

const SECOND: Duration = Duration::from_secs(1);

/// A source whose next link is put there by the test.
#[derive(Debug, Clone, Default)]
struct Source(Arc<Mutex<Next>>);

#[derive(Debug, Default)]
struct Next {
    link: Option<(fake::Link, LinkUp)>,
    waker: Option<std::task::Waker>,
}

impl Source {
    /// Hands on a new link, and returns its far end.
    fn give(&self, up: LinkUp) -> Peer {
        let (link, peer) = fake::link();
        let mut next = self.0.lock().unwrap();
        next.link = Some((link, up));
        next.waker.take().into_iter().for_each(std::task::Waker::wake);
        peer
    }
}

impl LinkSource for Source {
    type Link = fake::Link;

    fn on_lost(self: Pin<&mut Self>, cause: &Error) -> bool {
        // Who was taken over may come back: the secret decides.
        let taken_over = matches!(cause, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::TakenOver);
        taken_over || cause.is_retryable()
    }

    fn poll_next_link(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(fake::Link, LinkUp), Error>> {
        let mut next = self.0.lock().unwrap();
        next.waker = Some(cx.waker().clone());
        next.link.take().map_or(Poll::Pending, |link| Poll::Ready(Ok(link)))
    }
}

type Line = Resume<Reconnect<Source>>;

/// One side, the far end of its present link, and where the next comes from.
struct Side {
    line: Spawn<Line>,
    peer: Peer,
    source: Source,
    receive_count: ReceiveCount,
    tickets: u64,
}

fn line(window_bytes: usize) -> (Line, Peer, Source, ReceiveCount) {
    let ((link, peer), source, receive_count) =
        (fake::link(), Source::default(), ReceiveCount::default());
    let config = Config::default().window_bytes(window_bytes);
    let line = Resume::with_receive_count(
        Reconnect::new(link, source.clone()),
        config,
        receive_count.clone(),
    );
    (line, peer, source, receive_count)
}

impl Side {
    fn new() -> Self {
        Self::with_window(1 << 20)
    }

    fn with_window(window_bytes: usize) -> Self {
        let (line, peer, source, receive_count) = line(window_bytes);
        Self { line: spawn(line), peer, source, receive_count, tickets: 0 }
    }

    /// Makes it the side that dialled.
    fn dialled(&mut self) {
        self.line.enter(|_, line| *line.project().dialled = true);
    }

    fn poll_ready(&mut self) -> Poll<Result<(), Error>> {
        self.line.enter(|cx, line| line.poll_ready(cx))
    }

    fn poll_flush(&mut self) -> Poll<Result<(), Error>> {
        self.line.enter(|cx, line| line.poll_flush(cx))
    }

    /// Sends a message that must be taken.
    fn send(&mut self, message: impl Into<Message>) {
        assert_ready_ok!(self.poll_ready());
        self.tickets += 1;
        let message = Outgoing::new(self.tickets, message.into());
        self.line.enter(|_, line| line.start_send(message)).unwrap();
    }

    fn next(&mut self) -> Poll<Option<Result<LinkEvent<Message>, Error>>> {
        // The test is one task, and may take more than a task's turn.
        self.line.enter(|cx, mut line| {
            let next = poll_fn(|cx| line.as_mut().poll_next(cx));
            pin!(unconstrained(next)).poll(cx)
        })
    }

    #[track_caller]
    fn assert_receives(&mut self, text: &'static str) {
        let item = assert_ready!(self.next()).unwrap().unwrap();
        assert_eq!(item.item(), Some(Message::text(text)));
    }

    #[track_caller]
    fn assert_quiet(&mut self) {
        assert_pending!(self.next());
    }

    /// The text messages that went out since the last call.
    fn sent(&self) -> Vec<String> {
        self.peer.sent().iter().map(shown).collect()
    }

    /// The link is lost, and that is not told.
    #[track_caller]
    fn lose(&mut self) {
        self.peer.send(Message::Close(Some(CloseCode::GoingAway.into())));
        self.assert_quiet();
    }

    /// There is a new link for the session, on which the peer says how much it has `received`.
    #[track_caller]
    fn resume(&mut self, received: u64) -> u64 {
        let up = self.receive_count.freeze().resumed(received);
        self.peer = self.source.give(up);
        match assert_ready!(self.next()).unwrap().unwrap() {
            LinkEvent::Up(LinkUp::Resumed(resumed)) => {
                assert_eq!(resumed.received, received);
                resumed.replayed
            }
            other => panic!("{other:?}"),
        }
    }

    fn restart(&mut self) {
        self.peer = self.source.give(LinkUp::NewPeer);
    }
}

fn shown(message: &Message) -> String {
    match message {
        Message::Text(text) => text.as_str().to_owned(),
        Message::Binary(bytes) => format!("binary {}", String::from_utf8_lossy(bytes)),
        Message::Close(Some(reason)) => format!("close {}", u16::from(reason.code)),
        other => format!("{other:?}"),
    }
}

/// How many cases: `MCP_WS_CASES`, or what takes a second or two.
fn cases(default: u32) -> Cases {
    let cases = std::env::var("MCP_WS_CASES").ok().and_then(|cases| cases.parse().ok());
    Cases { failure_persistence: None, ..Cases::with_cases(cases.unwrap_or(default)) }
}

/// Runs `future` on a clock of its own.
fn on_its_own_clock<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

impl From<&'static str> for Message {
    fn from(text: &'static str) -> Self {
        Self::text(text)
    }
}

#[tokio::test(start_paused = true)]
async fn sixty_four_messages_are_acknowledged_at_once() {
    let mut side = Side::new();
    for _ in 0..64 {
        side.peer.send("{}".into());
        assert!(side.sent().is_empty());
        side.assert_receives("{}");
    }
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 64"]);
    // What is said in answer may take it along.
    assert_eq!((side.peer.flushes(), side.receive_count.received()), (0, 64));
    assert!(side.line.is_woken());
    side.assert_quiet();
    assert_eq!(side.peer.flushes(), 1);
}

#[tokio::test(start_paused = true)]
async fn sixty_four_kibibytes_are_acknowledged_at_once() {
    let mut side = Side::new();
    for size in [(64 << 10) - 1, 1] {
        side.assert_quiet();
        assert!(side.sent().is_empty());
        side.peer.send(Message::text("x".repeat(size)));
        assert!(assert_ready!(side.next()).unwrap().is_ok());
    }
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 2"]);
}

#[tokio::test(start_paused = true)]
async fn less_is_acknowledged_after_a_second() {
    let mut side = Side::new();
    side.assert_quiet();
    advance(100 * SECOND).await;
    assert!(!side.line.is_woken(), "no timer runs for nothing");
    for sent in [1, 3] {
        (0..sent).for_each(|_| side.peer.send("{}".into()));
        (0..sent).for_each(|_| side.assert_receives("{}"));
        side.assert_quiet();
        advance(SECOND - Duration::from_millis(1)).await;
        side.assert_quiet();
        assert!(side.sent().is_empty());
        advance(Duration::from_millis(1)).await;
        assert!(side.line.is_woken());
        side.assert_quiet();
        assert_eq!(side.sent().len(), 1);
    }
    assert_eq!(side.receive_count.received(), 4);
    side.assert_quiet();
    advance(100 * SECOND).await;
    assert!(!side.line.is_woken());
}

/// The timer is set again for what came while it ran, by when that came.
#[tokio::test(start_paused = true)]
async fn a_timer_that_runs_is_left_alone() {
    let mut side = Side::new();
    side.peer.send("{}".into());
    side.assert_receives("{}");
    side.assert_quiet();
    advance(SECOND / 2).await;
    for _ in 0..64 {
        side.peer.send("{}".into());
        side.assert_receives("{}");
    }
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 64"], "the 64th came with the first of them");
    advance(SECOND / 2).await;
    side.assert_quiet();
    assert!(side.sent().is_empty());
    advance(SECOND / 2).await;
    assert!(side.line.is_woken());
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 65"]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_had_to_wait_is_the_newest() {
    let mut side = Side::new();
    side.peer.block(true);
    for _ in 0..200 {
        side.peer.send("{}".into());
        side.assert_receives("{}");
    }
    side.assert_quiet();
    assert!(side.sent().is_empty());
    side.peer.block(false);
    assert!(side.line.is_woken());
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 200"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_sent_again_and_nothing_is_told_but_how_much() {
    let mut side = Side::new();
    for text in ["1", "2", "3", "4"] {
        side.send(text);
    }
    side.peer.send("@ack 1".into());
    side.assert_quiet();
    assert_eq!(side.sent(), ["1", "2", "3", "4"]);
    side.lose();
    assert_ready_err!(side.poll_ready());
    assert_ready_err!(side.poll_flush());
    assert_eq!(side.resume(2), 2);
    side.send("5");
    assert_ready_ok!(side.poll_flush());
    assert_eq!(side.sent(), ["3", "4", "5"]);
    side.lose();
    assert_eq!(side.resume(5), 0);
    side.assert_quiet();
    assert!(side.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_reader_alone_sends_again_as_the_link_takes_it() {
    let mut side = Side::new();
    ["1", "2"].into_iter().for_each(|text| side.send(text));
    side.lose();
    let up = side.receive_count.freeze().resumed(0);
    side.peer = side.source.give(up);
    side.peer.block(true);
    assert!(assert_ready!(side.next()).unwrap().is_ok());
    side.assert_quiet();
    assert_pending!(side.poll_ready());
    assert!(side.sent().is_empty());
    side.peer.block(false);
    assert!(side.line.is_woken());
    side.assert_quiet();
    assert_eq!((side.sent(), side.peer.flushes()), (vec!["1".into(), "2".into()], 1));
}

#[tokio::test(start_paused = true)]
async fn what_is_still_to_be_sent_again_cannot_be_acknowledged() {
    let mut side = Side::new();
    ["1", "2"].into_iter().for_each(|text| side.send(text));
    side.lose();
    let up = side.receive_count.freeze().resumed(1);
    side.peer = side.source.give(up);
    side.peer.block(true);
    assert!(assert_ready!(side.next()).unwrap().is_ok());
    side.peer.send("@ack 1".into());
    side.assert_quiet();
    side.peer.send("@ack 2".into());
    assert!(assert_ready!(side.next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_told_with_the_new_link_is_not_told_again() {
    let mut side = Side::new();
    side.peer.send("1".into());
    side.assert_receives("1");
    side.peer.block(true);
    side.assert_quiet();
    advance(SECOND).await;
    side.assert_quiet();
    side.lose();
    side.resume(0);
    side.assert_quiet();
    assert!(side.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_told_once_it_is_known_that_nothing_was_kept() {
    let mut side = Side::new();
    side.send("1");
    side.peer.send("a".into());
    side.assert_receives("a");
    side.lose();
    side.restart();
    let down = assert_ready!(side.next()).unwrap().unwrap();
    assert!(
        matches!(&down, LinkEvent::Down(down) if down.cause.to_string().contains("1001")),
        "{down:?}"
    );
    assert_ready_err!(side.poll_ready());
    let up = assert_ready!(side.next()).unwrap().unwrap();
    assert!(matches!(up, LinkEvent::Up(LinkUp::NewPeer)), "{up:?}");
    side.send("2");
    assert_eq!(side.sent(), ["2"]);
    side.peer.send("@ack 1".into());
    side.peer.send("b".into());
    side.assert_receives("b");
    side.assert_quiet();
    assert_eq!(side.receive_count.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_outlives_the_link_and_the_queue_keeps_what_no_link_was_handed() {
    let (line, peer, source, receive_count) = line(1 << 20);
    let mut shared = SharedLink::new(line, shared_link::Config::default());
    let mut reader = spawn(shared.clone());
    shared.start_send_unpin("1".into()).unwrap();
    peer.break_writes();
    let mut flushed = spawn(shared.flushed());
    assert_pending!(flushed.poll());
    peer.send(Message::Close(None));
    assert_pending!(reader.poll_next());
    shared.start_send_unpin("2".into()).unwrap();
    assert_pending!(flushed.poll());
    let next = source.give(receive_count.freeze().resumed(0));
    assert!(flushed.is_woken());
    assert_ready_ok!(flushed.poll());
    assert_eq!(next.sent(), ["1", "2"].map(Message::text));
    assert!(matches!(
        assert_ready!(reader.poll_next()),
        Some(Ok(LinkEvent::Up(LinkUp::Resumed(_))))
    ));

    next.send(Message::Close(None));
    assert_pending!(reader.poll_next());
    let slot = shared.reserve(Retention::AnyPeer).unwrap();
    let mut flushed = spawn(slot.send("3".into()).unwrap().1);
    assert_pending!(flushed.poll());
    let last = source.give(LinkUp::NewPeer);
    assert!(
        matches!(assert_ready!(reader.poll_next()), Some(Ok(LinkEvent::Down(down))) if down.handed == 2)
    );
    assert!(matches!(assert_ready!(reader.poll_next()), Some(Ok(LinkEvent::Up(LinkUp::NewPeer)))));
    assert!(flushed.is_woken());
    assert_ready_ok!(flushed.poll());
    assert_eq!(last.sent(), [Message::text("3")]);
}

#[tokio::test(start_paused = true)]
async fn a_final_error_is_passed_on_and_stays() {
    let mut side = Side::new();
    side.send("1");
    side.peer.send(Message::Close(Some(CloseCode::Normal.into())));
    for _ in 0..2 {
        let error = assert_ready!(side.next()).unwrap().unwrap_err();
        assert!(error.to_string().contains("1000"), "{error}");
        assert_ready_err!(side.poll_ready());
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_from_an_older_link_counts_once_the_count_is_told() {
    let mut side = Side::new();
    side.peer.send("1".into());
    side.assert_receives("1");
    let frozen = side.receive_count.freeze();
    assert_eq!(frozen.received(), 1);
    for text in ["2", "@ack 7", "@rubbish"] {
        side.peer.send(text.into());
    }
    side.assert_quiet();
    assert_eq!(side.receive_count.received(), 1);
    side.peer = side.source.give(frozen.resumed(0));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    assert!(!side.receive_count.is_heard());
    side.peer.send("2".into());
    side.assert_receives("2");
    assert!(side.receive_count.is_heard());
    assert_eq!(side.receive_count.received(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_overtaken_before_it_was_there_counts_for_nothing() {
    let mut side = Side::new();
    let (first, second) = (side.receive_count.freeze(), side.receive_count.freeze());
    side.peer = side.source.give(first.resumed(0));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    side.peer.send("1".into());
    side.assert_quiet();
    side.peer = side.source.give(second.resumed(0));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    side.peer.send("1".into());
    side.assert_receives("1");
}

/// A source must not do this. It ends in an error, not in silence.
#[tokio::test(start_paused = true)]
async fn a_link_for_a_count_that_has_moved_on_is_refused() {
    let mut side = Side::new();
    let (first, second) = (side.receive_count.freeze(), side.receive_count.freeze());
    side.peer = side.source.give(second.resumed(0));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    side.peer = side.source.give(first.resumed(0));
    let error = assert_ready!(side.next()).unwrap().unwrap_err();
    assert!(error.to_string().contains("1011 (internal error): by this side: resume:"), "{error}");
    assert_eq!(side.sent(), ["close 1011"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_session_keeps_is_known_without_a_link() {
    let mut side = Side::new();
    side.send("12345");
    side.send("12345");
    side.lose();
    assert_eq!(side.receive_count.kept_bytes(), 2 * (5 + 64));
}

#[tokio::test(start_paused = true)]
async fn only_data_is_counted_and_no_data_passes_for_control() {
    let mut side = Side::new();
    side.send(Message::Ping(Bytes::from_static(b"?")));
    side.send("@ack 7");
    side.peer.send(Message::Pong(Bytes::from_static(b"?")));
    assert!(assert_ready!(side.next()).unwrap().is_ok());
    side.peer.send(Message::Binary(Bytes::from_static(b"@ack 7")));
    assert!(assert_ready!(side.next()).unwrap().is_ok());
    side.peer.send("@ack 1".into());
    side.assert_quiet();
    assert_eq!(side.line.enter(|_, line| line.send_window.kept_bytes()), 0);
    assert_eq!(side.sent()[1..], ["binary @ack 7"]);
    assert_eq!(side.receive_count.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_byte_is_copied_for_the_first_time_or_again() {
    let mut side = Side::new();
    let text = Text::from("x".repeat(1000));
    let at = text.as_bytes().as_ptr();
    side.send(Message::Text(text));
    let sent_at = |message: &Message| match message {
        Message::Text(text) => text.as_bytes().as_ptr(),
        other => panic!("{other:?}"),
    };
    assert_eq!(sent_at(&side.peer.sent()[0]), at);
    side.lose();
    side.resume(0);
    side.assert_quiet();
    assert_eq!(sent_at(&side.peer.sent()[0]), at);
}
