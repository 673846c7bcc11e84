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

mod acknowledgements;
#[cfg(all(feature = "client", feature = "server"))]
mod both_ways;
mod full_window;
mod hostile;
mod losses;
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

type Layer = Resume<Reconnect<Source>>;

/// A side, the far end of its present link, and the source of the next.
struct Side {
    layer: Spawn<Layer>,
    peer: Peer,
    source: Source,
    receive_count: ReceiveCount,
    tickets: u64,
}

fn layer(window_bytes: usize) -> (Layer, Peer, Source, ReceiveCount) {
    let ((link, peer), source, receive_count) =
        (fake::link(), Source::default(), ReceiveCount::default());
    let config = Config::default().window_bytes(window_bytes);
    let layer = Resume::with_receive_count(
        Reconnect::new(link, source.clone()),
        config,
        receive_count.clone(),
    );
    (layer, peer, source, receive_count)
}

impl Side {
    fn new() -> Self {
        Self::with_window(1 << 20)
    }

    fn with_window(window_bytes: usize) -> Self {
        let (layer, peer, source, receive_count) = layer(window_bytes);
        Self { layer: spawn(layer), peer, source, receive_count, tickets: 0 }
    }

    /// Makes it the side that dialled.
    fn dialled(&mut self) {
        self.layer.enter(|_, layer| *layer.project().dialled = true);
    }

    fn poll_ready(&mut self) -> Poll<Result<(), Error>> {
        self.layer.enter(|cx, layer| layer.poll_ready(cx))
    }

    fn poll_flush(&mut self) -> Poll<Result<(), Error>> {
        self.layer.enter(|cx, layer| layer.poll_flush(cx))
    }

    /// Sends a message that must be taken.
    fn send(&mut self, message: impl Into<Message>) {
        assert_ready_ok!(self.poll_ready());
        self.tickets += 1;
        let message = Outgoing::new(self.tickets, message.into());
        self.layer.enter(|_, layer| layer.start_send(message)).unwrap();
    }

    fn next(&mut self) -> Poll<Option<Result<LinkEvent<Message>, Error>>> {
        // The test is one task, and may take more than a task's turn.
        self.layer.enter(|cx, mut layer| {
            let next = poll_fn(|cx| layer.as_mut().poll_next(cx));
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

    /// Brings up a new link for the session, on which the peer says how much it has `received`.
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

/// Returns the number of cases: `MCP_WS_CASES`, or what takes a second or two.
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
    assert!(!side.receive_count.has_received());
    side.peer.send("2".into());
    side.assert_receives("2");
    assert!(side.receive_count.has_received());
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
    assert_eq!(side.layer.enter(|_, layer| layer.send_window.kept_bytes()), 0);
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
