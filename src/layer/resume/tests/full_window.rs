//! Reading while the window is full, or the link takes nothing.

use tokio::task::yield_now;

use super::{super::read_queue::OVERHEAD, *};

impl Side {
    /// A large message: four are as many as may wait uncounted, twenty as many as may wait at all.
    fn large() -> Message {
        Message::text("x".repeat((1 << 20) - OVERHEAD))
    }

    /// The pings that went out since the last call, among nothing else.
    fn pings(&self) -> Vec<Bytes> {
        let payload = |message| match message {
            Message::Ping(payload) => payload,
            other => panic!("{other:?}"),
        };
        self.peer.sent().into_iter().map(payload).collect()
    }

    /// Waits for room, until a ping is sent.
    #[track_caller]
    fn assert_pings(&mut self) -> Bytes {
        assert_pending!(self.poll_ready());
        let [ping] = &self.pings()[..] else { panic!("no ping") };
        ping.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_window_waits_for_an_acknowledgement() {
    let mut side = Side::with_window(200);
    side.send("1");
    side.send(Message::text("x".repeat(1000)));
    assert_pending!(side.poll_ready());
    side.peer.send("@ack 1".into());
    assert!(side.layer.is_woken());
    assert_pending!(side.poll_ready());
    side.peer.send("@ack 2".into());
    assert!(side.layer.is_woken());
    side.send("3");
    side.peer.send("@ack 2".into());
    side.assert_quiet();
}

/// The last bytes may be in the buffer of the link, and the peer acknowledges whole messages.
#[tokio::test(start_paused = true)]
async fn what_fills_the_window_is_flushed_while_more_waits() {
    let mut side = Side::with_window(1);
    side.assert_quiet();
    let before = side.peer.flushes();
    side.send("1");
    assert_pending!(side.poll_ready());
    assert_eq!(side.peer.flushes(), before + 1);
    side.peer.send("@ack 1".into());
    side.send("2");
    side.peer.block(true);
    assert_pending!(side.poll_ready());
    assert_eq!(side.peer.flushes(), before + 1);
    side.peer.block(false);
    assert!(side.layer.is_woken());
    for _ in 0..3 {
        assert_pending!(side.poll_ready());
        assert_eq!(side.peer.flushes(), before + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_reads_acknowledgements_and_leaves_messages_to_the_reader() {
    let mut side = Side::with_window(1);
    side.send("1");
    side.peer.send("a".into());
    assert_pending!(side.poll_ready());
    assert!(side.layer.is_woken(), "the reader would not know");
    side.peer.send("b".into());
    side.peer.send("@ack 1".into());
    side.peer.send("c".into());
    side.send("2");
    for text in ["a", "b", "c"] {
        side.assert_receives(text);
    }
    assert_eq!(side.receive_count.received(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_reader_has_taken_is_not_acknowledged_by_the_side_that_accepted() {
    let mut side = Side::with_window(1);
    side.send("1");
    (0..1000).for_each(|_| side.peer.send("{}".into()));
    assert_pending!(side.poll_ready());
    advance(2 * SECOND).await;
    assert_pending!(side.poll_ready());
    assert_eq!((side.sent(), side.receive_count.received()), (vec!["1".into()], 0));
    (0..64).for_each(|_| side.assert_receives("{}"));
    assert_pending!(side.poll_ready());
    assert_eq!((side.sent(), side.receive_count.received()), (vec!["@ack 64".into()], 64));
    side.peer.send("@ack 1".into());
    side.send("2");
    (64..1000).for_each(|_| side.assert_receives("{}"));
    side.assert_quiet();
    assert_eq!(
        (side.sent(), side.receive_count.received()),
        (vec!["2".into(), "@ack 1000".into()], 1000)
    );
}

#[tokio::test(start_paused = true)]
async fn the_side_that_dialled_acknowledges_what_arrives() {
    let mut side = Side::with_window(1);
    side.dialled();
    side.send("1");
    (0..100).for_each(|_| side.peer.send("{}".into()));
    assert_pending!(side.poll_ready());
    assert_eq!(
        (side.sent(), side.receive_count.received()),
        (vec!["1".into(), "@ack 64".into()], 100)
    );
    side.peer.send(Message::Close(None));
    assert_ready_err!(side.poll_ready());
    let frozen = side.receive_count.freeze();
    assert_eq!(frozen.received(), 100);
    side.peer = side.source.give(frozen.resumed(1));
    (0..100).for_each(|_| side.assert_receives("{}"));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    side.assert_quiet();
    assert_eq!(side.receive_count.received(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_ignores_its_window_is_closed() {
    for dialled in [false, true] {
        let mut side = Side::with_window(1);
        if dialled {
            side.dialled();
        }
        side.send("1");
        for _ in 0..if dialled { 20 } else { 4 } {
            side.peer.send(Side::large());
            assert_pending!(side.poll_ready());
        }
        side.peer.send("@ack 0".into());
        assert_pending!(side.poll_ready());
        side.peer.send("{}".into());
        let error = assert_ready_err!(side.poll_ready()).to_string();
        assert!(error.contains("1008") && error.contains("more was sent than a window"), "{error}");
        assert_eq!(side.sent().last().unwrap(), "close 1008");
        // What was acknowledged is delivered.
        assert_eq!(side.receive_count.received(), if dialled { 16 } else { 0 });
        for _ in 0..side.receive_count.received() {
            assert!(assert_ready!(side.next()).unwrap().is_ok());
        }
        assert!(assert_ready!(side.next()).unwrap().is_err());
        assert_ready_err!(side.poll_ready());
    }
}

/// The network tells the peer, and the link below knows for how long it may be so.
#[tokio::test(start_paused = true)]
async fn a_link_that_takes_nothing_is_read_as_far_as_any_window() {
    let mut side = Side::new();
    side.peer.block(true);
    (0..10).for_each(|_| side.peer.send(Side::large()));
    for _ in 0..2 {
        assert_pending!(side.poll_ready());
        assert_eq!(side.peer.polls(), 4);
    }
    assert!(assert_ready!(side.next()).unwrap().is_ok());
    assert_pending!(side.poll_ready());
    assert_eq!(side.peer.polls(), 5);
    side.peer.block(false);
    assert_ready_ok!(side.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn an_uncounted_message_is_sent_again_over_the_next_link() {
    let mut side = Side::with_window(1);
    side.send("1");
    ["a", "b"].into_iter().for_each(|text| side.peer.send(text.into()));
    assert_pending!(side.poll_ready());
    side.assert_receives("a");
    let frozen = side.receive_count.freeze();
    assert_eq!(frozen.received(), 1);
    side.peer = side.source.give(frozen.resumed(1));
    side.peer.send("b".into());
    assert_ready_ok!(side.poll_ready());
    let item = assert_ready!(side.next()).unwrap().unwrap();
    assert!(matches!(item, LinkEvent::Up(LinkUp::Resumed(_))), "{item:?}");
    side.assert_receives("b");
    side.assert_quiet();
    assert_eq!(side.receive_count.received(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_while_the_window_is_full_is_noticed_by_a_writer() {
    let mut side = Side::with_window(1);
    side.send("1");
    ["a", "b"].into_iter().for_each(|text| side.peer.send(text.into()));
    side.peer.send(Message::Close(Some(CloseCode::GoingAway.into())));
    assert_ready_err!(side.poll_ready());
    // What has arrived is taken and counted, until the count is told.
    side.assert_receives("a");
    let frozen = side.receive_count.freeze();
    side.assert_quiet();
    side.peer = side.source.give(frozen.resumed(1));
    side.peer.send("b".into());
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(LinkUp::Resumed(_))))));
    side.assert_receives("b");
    side.assert_quiet();
    assert_eq!(side.receive_count.received(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_session_that_is_over_does_not_count_in_the_next() {
    let mut side = Side::with_window(1);
    side.send("1");
    side.peer.send("a".into());
    assert_pending!(side.poll_ready());
    side.restart();
    side.peer.send("b".into());
    assert_ready_err!(side.poll_ready());
    side.assert_receives("a");
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Down(_)))));
    assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Up(_)))));
    side.assert_receives("b");
    assert_eq!(side.receive_count.received(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_read_all_and_acknowledges_nothing_is_closed_in_30_seconds() {
    let mut side = Side::with_window(100);
    side.send(Message::text("x".repeat(1000)));
    assert_eq!(side.sent().len(), 1);
    assert_pending!(side.poll_ready());
    for left in (0..3).rev() {
        advance(10 * SECOND - Duration::from_millis(1)).await;
        assert_pending!(side.poll_ready());
        assert!(side.pings().is_empty());
        advance(Duration::from_millis(1)).await;
        assert!(side.layer.is_woken());
        let ping = side.assert_pings();
        // Whatever else it says.
        ["@ack 0", "{}"].into_iter().for_each(|text| side.peer.send(text.into()));
        side.peer.send(Message::Pong(ping));
        if left > 0 {
            assert_pending!(side.poll_ready());
        }
    }
    let error = assert_ready_err!(side.poll_ready()).to_string();
    assert!(error.contains("1008") && error.contains("nothing acknowledged"), "{error}");
    assert_eq!(side.sent().last().unwrap(), "close 1008");
    (0..3).for_each(|_| side.assert_receives("{}"));
    assert!(assert_ready!(side.next()).unwrap().is_err());
}

/// The network may be as slow as it likes, as long as it takes and brings something.
#[tokio::test(start_paused = true)]
async fn a_peer_that_has_yet_to_read_all_is_waited_for() {
    let mut side = Side::with_window(100);
    side.send(Message::text("x".repeat(16 << 20)));
    assert_pending!(side.poll_ready());
    side.peer.sent();
    side.peer.block(true);
    advance(10 * SECOND).await;
    assert_pending!(side.poll_ready());
    advance(3000 * SECOND).await;
    assert_pending!(side.poll_ready());
    side.peer.block(false);
    let ping = side.assert_pings();
    // It is 16 MiB behind by now.
    advance(1000 * SECOND).await;
    assert_pending!(side.poll_ready());
    side.peer.send(Message::Pong(ping));
    assert_pending!(side.poll_ready());
    side.peer.send("@ack 1".into());
    assert_ready_ok!(side.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_between_two_pongs_begins_the_wait_anew() {
    let mut side = Side::with_window(200);
    (0..4).for_each(|_| side.send("1"));
    side.peer.sent();
    assert_pending!(side.poll_ready());
    for acked in 1..10 {
        for _ in 0..2 {
            advance(10 * SECOND).await;
            let ping = side.assert_pings();
            side.peer.send(Message::Pong(ping));
            assert_pending!(side.poll_ready());
        }
        advance(10 * SECOND).await;
        let ping = side.assert_pings();
        side.peer.send(Message::text(format!("@ack {acked}")));
        side.peer.send(Message::Pong(ping));
        side.send("1");
        assert_eq!(side.sent(), ["1"]);
        assert_pending!(side.poll_ready());
    }
    side.assert_quiet();
}

/// RFC 6455, section 5.5.3, lets a peer answer the newest of several pings alone. A pong that
/// nobody asked for proves nothing.
#[tokio::test(start_paused = true)]
async fn a_ping_without_a_pong_is_sent_again_and_foreign_pongs_prove_nothing() {
    let mut side = Side::with_window(1);
    side.send("1");
    side.peer.sent();
    assert_pending!(side.poll_ready());
    let mut old = Vec::new();
    for _ in 0..2 {
        advance(10 * SECOND).await;
        old.push(side.assert_pings());
        advance(10 * SECOND).await;
        let ping = side.assert_pings();
        old.iter().for_each(|old| assert_ne!(*old, ping));
        side.peer.send(Message::Pong(ping));
        assert_pending!(side.poll_ready());
    }
    advance(10 * SECOND).await;
    side.assert_pings();
    let foreign = [Bytes::new(), Bytes::from_static(b"ack?"), Bytes::from_static(&[0xFF; 12])];
    old.into_iter().chain(foreign).for_each(|old| side.peer.send(Message::Pong(old)));
    assert_pending!(side.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_neither_acknowledges_nor_pongs_is_closed_in_a_time_that_depends_on_the_window()
{
    for (size, time) in [(1, 60), (1 << 20, 124)] {
        let mut side = Side::with_window(1);
        side.send(Message::text("x".repeat(size)));
        assert_pending!(side.poll_ready());
        advance(10 * SECOND).await;
        assert_pending!(side.poll_ready());
        let start = Instant::now();
        let error = loop {
            // It is not silent.
            side.peer.send("{}".into());
            match side.poll_ready() {
                Poll::Ready(ended) => break ended.unwrap_err().to_string(),
                Poll::Pending => advance(SECOND).await,
            }
        };
        assert_eq!(start.elapsed(), time * SECOND);
        assert!(error.contains("1008") && error.contains("nor ponged"), "{error}");
        assert_eq!(side.sent().last().unwrap(), "close 1008");
    }
}

/// A process may be suspended, and so is the time it takes to read what came meanwhile.
#[tokio::test(start_paused = true)]
async fn what_has_arrived_is_read_before_the_peer_is_late() {
    let mut side = Side::with_window(1);
    side.send("1");
    side.peer.sent();
    for acked in 1..4 {
        assert_pending!(side.poll_ready());
        advance(10 * SECOND).await;
        let ping = side.assert_pings();
        side.peer.send(Message::Pong(ping));
        advance(1000 * SECOND).await;
        assert_pending!(side.poll_ready());
        advance(10 * SECOND).await;
        side.assert_pings();
        side.peer.send(Message::text(format!("@ack {acked}")));
        advance(1000 * SECOND).await;
        side.send("2");
        assert_eq!(side.sent(), ["2"]);
    }
}

/// The peer acknowledges over a link on which nothing counts any more.
#[tokio::test(start_paused = true)]
async fn a_peer_is_not_late_while_another_link_is_made() {
    let mut side = Side::with_window(1);
    side.send("1");
    side.peer.sent();
    assert_pending!(side.poll_ready());
    advance(10 * SECOND).await;
    let ping = side.assert_pings();
    let frozen = side.receive_count.freeze();
    side.peer.send("@ack 1".into());
    for _ in 0..10 {
        side.peer.send(Message::Pong(ping.clone()));
        advance(100 * SECOND).await;
        assert_pending!(side.poll_ready());
    }
    assert!(side.pings().is_empty());
    side.peer = side.source.give(frozen.resumed(0));
    assert_pending!(side.poll_ready());
    advance(10 * SECOND).await;
    assert_pending!(side.poll_ready());
    assert!(matches!(side.peer.sent().last(), Some(Message::Ping(_))));
    side.peer.send("@ack 1".into());
    assert_ready_ok!(side.poll_ready());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_pinged_where_the_window_has_room_or_nothing_waits() {
    let mut side = Side::with_window(70);
    side.send("1");
    for acked in 1..10 {
        side.send("2");
        assert_pending!(side.poll_ready());
        advance(9 * SECOND).await;
        side.peer.send(Message::text(format!("@ack {acked}")));
        assert_ready_ok!(side.poll_ready());
    }
    side.send("3");
    side.assert_quiet();
    advance(1000 * SECOND).await;
    side.assert_quiet();
    assert!(side.peer.sent().iter().all(Message::is_data));
}

/// A side that dials keeps to what any peer has room for.
#[tokio::test(start_paused = true)]
async fn the_window_of_the_side_that_dialled_is_a_mebibyte_at_most() {
    for (start, fits) in [(SessionStart::Opening, 1), (SessionStart::Open, 4)] {
        let ((link, _peer), receive_count) = (fake::link(), ReceiveCount::default());
        receive_count.begin(start);
        let config = Config::default().window_bytes(4 << 20);
        let reconnect = Reconnect::new(link, Source::default());
        let mut layer = spawn(Resume::with_receive_count(reconnect, config, receive_count));
        let mut taken = 0;
        while layer.enter(|cx, layer| layer.poll_ready(cx)).is_ready() {
            taken += 1;
            let message = Outgoing::new(taken, Message::text("x".repeat(1 << 20)));
            layer.enter(|_, layer| layer.start_send(message)).unwrap();
        }
        assert_eq!(taken, fits);
    }
}

/// A queue on top, and a task that waits for a flush, change nothing.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_lets_the_queue_go_on_at_once() {
    let (layer, peer, _, _) = layer(1);
    let mut shared = SharedLink::new(layer, shared_link::Config::default());
    shared.start_send_unpin("1".into()).unwrap();
    assert_ready_ok!(spawn(shared.flushed()).poll());
    shared.start_send_unpin("2".into()).unwrap();
    let mut flushed = spawn(shared.flushed());
    let mut reader = spawn(shared.clone());
    assert_pending!(flushed.poll());
    assert_pending!(reader.poll_next());
    for _ in 0..1000 {
        peer.send("{}".into());
    }
    peer.send("@ack 1".into());
    assert_ready_ok!(flushed.poll());
    assert_eq!(shown(peer.sent().last().unwrap()), "2");
    assert!(reader.is_woken());
    let mut taken = 0;
    let mut turns = 0;
    while taken < 1000 {
        turns += 1;
        yield_now().await;
        assert!(reader.is_woken());
        while let Poll::Ready(item) = reader.poll_next() {
            assert!(item.unwrap().is_ok());
            taken += 1;
        }
    }
    assert!((2..100).contains(&turns), "others have a turn too, {turns}");
    assert_pending!(reader.poll_next());
}
