//! Lost links, and what is sent again.

use super::*;

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
    assert!(side.layer.is_woken());
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
    assert!(matches!(down, LinkEvent::Down(down) if !down.may_resume));
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
    let (layer, peer, source, receive_count) = layer(1 << 20);
    let mut shared = SharedLink::new(layer, shared_link::Config::default());
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
