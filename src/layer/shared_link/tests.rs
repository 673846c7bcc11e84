use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task::spawn};

use super::*;
use crate::layer::{Reconnect, fake};
use futures::{SinkExt, StreamExt};

mod turns;

fn shared() -> (SharedLink, fake::Peer) {
    let (link, peer) = fake::link();
    (SharedLink::new(Reconnect::single(link), Config::default().queue_bytes(10)), peer)
}

fn queue(shared: &mut SharedLink, text: &'static str) -> Flushed {
    shared.reserve(Retention::ThisPeer).unwrap().send(text.into()).unwrap().1
}

#[test]
fn answers_wait_for_a_peer_that_may_have_kept_the_session() {
    for may_resume in [true, false] {
        let mut state = state::State::new();
        state.reconnects();
        state.push("an answer".into(), Retention::ThisPeer).unwrap();
        assert!(state.down(may_resume));
        assert!(state.make_room(Retention::ThisPeer, true, 1));
        assert_eq!(state.queued_bytes() > 0, may_resume);
        assert_ne!(state.make_room(Retention::AnyPeer, false, 1), may_resume);
        // What has no room waits for the next link, while that may go on.
        assert_eq!(state.may_be_resumed(), may_resume);
    }
}

#[tokio::test(start_paused = true)]
async fn one_flush_serves_everyone_who_waits() {
    let (mut shared, peer) = shared();
    let tickets = ["a", "b", "c"].map(|text| queue(&mut shared, text));
    let [a, mut b, mut c] = tickets.map(spawn);
    drop(a);
    assert_ready_ok!(c.poll());
    assert_ready_ok!(b.poll());
    assert_eq!(peer.sent(), ["a", "b", "c"].map(Message::text));
    assert_eq!(peer.flushes(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_at_once_waits_for_nobody_and_keeps_nobody_waiting() {
    let (mut shared, peer) = shared();
    let (mut a, mut b) = (spawn(queue(&mut shared, "a")), spawn(queue(&mut shared, "b")));
    peer.block(true);
    assert_pending!(a.poll());
    shared.write_now();
    assert!(peer.sent().is_empty());
    peer.block(false);
    assert!(a.is_woken());
    shared.write_now();
    assert_eq!(peer.sent(), ["a", "b"].map(Message::text));
    assert_ready_ok!(a.poll());
    assert_ready_ok!(b.poll());
    assert_eq!(peer.flushes(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_wakes_the_others() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let (mut a, mut b) = (spawn(queue(&mut shared, "a")), spawn(queue(&mut shared, "b")));
    let mut reader = spawn(shared.clone());
    assert_pending!(reader.poll_next());
    assert_pending!(a.poll());
    assert_pending!(b.poll());
    peer.block(false);
    assert!(a.is_woken() && !b.is_woken() && reader.is_woken());
    assert_ready_ok!(a.poll());
    assert!(b.is_woken());
    assert_ready_ok!(b.poll());
}

#[tokio::test(start_paused = true)]
async fn who_was_woken_to_write_and_leaves_wakes_the_next() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let (mut a, mut b) = (spawn(queue(&mut shared, "a")), spawn(queue(&mut shared, "b")));
    assert_pending!(a.poll());
    assert_pending!(b.poll());
    peer.block(false);
    assert!(!b.is_woken());
    drop(a);
    assert!(b.is_woken());
    assert_ready_ok!(b.poll());
    assert_eq!(peer.sent(), ["a", "b"].map(Message::text));
}

#[tokio::test(start_paused = true)]
async fn a_send_that_is_kept_but_not_polled_is_written_all_the_same() {
    let (mut shared, peer) = shared();
    let kept = queue(&mut shared, "a");
    let mut reader = spawn(shared);
    assert_pending!(reader.poll_next());
    tokio::time::advance(std::time::Duration::from_millis(100)).await;
    assert!(reader.is_woken());
    assert_pending!(reader.poll_next());
    assert_eq!(peer.sent(), [Message::text("a")]);
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn the_cause_of_a_failed_write_may_come_a_little_later() {
    let (mut shared, peer) = shared();
    peer.break_writes();
    let mut a = spawn(queue(&mut shared, "a"));
    assert_pending!(a.poll());
    peer.send(Message::Close(Some(CloseCode::TooBig.into())));
    assert!(a.is_woken());
    assert!(assert_ready_err!(a.poll()).to_string().contains("1009"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_without_an_explanation_is_its_own() {
    let (mut shared, peer) = shared();
    peer.break_writes();
    let mut a = spawn(queue(&mut shared, "a"));
    let mut reader = spawn(shared);
    assert_pending!(a.poll());
    assert_pending!(reader.poll_next());
    tokio::time::advance(std::time::Duration::from_millis(100)).await;
    assert!(a.is_woken());
    assert!(assert_ready_err!(a.poll()).to_string().contains("1006"));
    assert!(assert_ready!(reader.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_reader_writes_what_nobody_waits_for() {
    let (mut shared, peer) = shared();
    drop(queue(&mut shared, "a"));
    assert_pending!(spawn(shared).poll_next());
    assert_eq!(peer.sent(), [Message::text("a")]);
}

#[tokio::test(start_paused = true)]
async fn the_reader_leaves_writing_to_who_waits_and_takes_it_over_from_them() {
    let (mut shared, peer) = shared();
    let a = queue(&mut shared, "a");
    let mut reader = spawn(shared);
    assert_pending!(reader.poll_next());
    assert!(peer.sent().is_empty());
    drop(a);
    assert!(reader.is_woken());
    assert_pending!(reader.poll_next());
    assert_eq!(peer.sent(), [Message::text("a")]);
}

#[tokio::test(start_paused = true)]
async fn a_link_without_news_is_not_polled_again() {
    let (shared, peer) = shared();
    let mut reader = spawn(shared);
    assert_pending!(reader.poll_next());
    let polls = peer.polls();
    for _ in 0..3 {
        assert_pending!(reader.poll_next());
    }
    assert!(peer.polls() <= polls + 1);
    peer.send(Message::text("a"));
    assert!(reader.is_woken());
    assert!(assert_ready!(reader.poll_next()).unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_try_to_send_does_not_wait_for_those_who_use_the_link() {
    let (shared, peer) = shared();
    let busy = shared.inner.driver.try_lock();
    shared.try_send(Message::text("12345")).unwrap();
    shared.try_send(Message::text("67890")).unwrap();
    assert!(matches!(shared.try_send(Message::text("")), Err(TrySendError::Full)));
    drop(busy);
    let mut reader = spawn(shared.clone());
    assert_pending!(reader.poll_next());
    assert_eq!(peer.sent(), ["12345", "67890"].map(Message::text));
    shared.try_send(Message::text("a")).unwrap();
    assert!(reader.is_woken());
    shared.cut();
    assert!(matches!(shared.try_send(Message::text("")), Err(TrySendError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_dropped_loses_nothing() {
    let (mut shared, peer) = shared();
    assert_pending!(spawn(shared.next()).poll());
    peer.send(Message::text("a"));
    let a = assert_ready!(spawn(shared.next()).poll());
    assert_eq!(a.unwrap().unwrap().item(), Some(Message::text("a")));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_takes_more_but_asks_for_none() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let mut sink = spawn(shared.clone());
    assert_ready_ok!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
    drop(queue(&mut shared, "0123456789"));
    assert_pending!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
    let mut over = spawn(queue(&mut shared, "over"));
    assert_pending!(over.poll());
    peer.block(false);
    assert!(sink.is_woken());
    assert_ready_ok!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
    assert_ready_ok!(over.poll());
    assert_eq!(peer.sent(), ["0123456789", "over"].map(Message::text));
}

#[tokio::test(start_paused = true)]
async fn everyone_hears_why_it_ended() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let mut a = spawn(queue(&mut shared, "a"));
    assert_pending!(a.poll());
    let restart = CloseReason::new(CloseCode::Restart, "back soon");
    peer.send(Message::Close(Some(restart.clone())));
    let error = assert_ready!(spawn(shared.next()).poll()).unwrap().unwrap_err();
    assert!(matches!(&error, Error::Link(LinkError::Closed(reason)) if *reason == restart));
    assert!(a.is_woken());
    assert_eq!(assert_ready_err!(a.poll()).to_string(), error.to_string());
    let late = shared.start_send_unpin(Message::text("late")).unwrap_err();
    assert_eq!(late.to_string(), error.to_string());
    assert_eq!(*shared.state().borrow(), State::Closed(restart));
}

#[tokio::test(start_paused = true)]
async fn what_this_side_has_closed_is_said_to_be() {
    let (mut shared, peer) = shared();
    let broken = CloseReason::new(CloseCode::Protocol, "resume: no number");
    shared.start_send_unpin(Message::Close(Some(broken.clone()))).unwrap();
    let told = "closed: 1002 (protocol error): by this side: resume: no number";
    let late = shared.start_send_unpin(Message::text("late")).unwrap_err();
    assert_eq!(late.to_string(), told);
    peer.send(Message::Close(Some(broken)));
    while assert_ready!(spawn(shared.next()).poll()).unwrap().is_ok() {}
    peer.break_writes();
    let _ = assert_ready!(spawn(shared.close()).poll());
    let late = shared.start_send_unpin(Message::text("late")).unwrap_err();
    assert_eq!(late.to_string(), told);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_explained_by_what_the_peer_said_before() {
    let (mut shared, peer) = shared();
    peer.send(Message::text("last words"));
    peer.send(Message::Close(Some(CloseCode::TooBig.into())));
    peer.break_writes();
    let error = assert_ready_err!(spawn(queue(&mut shared, "a")).poll());
    assert!(error.to_string().contains("1009"), "{error}");
    let words = assert_ready!(spawn(shared.next()).poll()).unwrap().unwrap();
    assert_eq!(words.item(), Some(Message::text("last words")));
    assert!(assert_ready!(spawn(shared.next()).poll()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_was_never_handed_over_is_known() {
    let (mut shared, peer) = shared();
    assert_ready_ok!(spawn(queue(&mut shared, "a")).poll());
    peer.block(true);
    assert_pending!(spawn(queue(&mut shared, "b")).poll());
    assert_eq!((shared.last_seq(), shared.handed()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn closing_writes_what_is_queued_first() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let mut a = spawn(queue(&mut shared, "a"));
    let mut closing = spawn(shared.close());
    assert_pending!(closing.poll());
    peer.block(false);
    assert_ready_ok!(closing.poll());
    assert_eq!(peer.sent(), [Message::text("a")]);
    assert!(peer.is_closed());
    assert_ready_ok!(a.poll());
}

#[tokio::test(start_paused = true)]
async fn a_cut_reaches_everyone_at_once() {
    let (mut shared, peer) = shared();
    peer.block(true);
    let mut a = spawn(queue(&mut shared, "a"));
    let mut reader = spawn(shared.clone());
    assert_pending!(a.poll());
    assert_pending!(reader.poll_next());
    shared.cut();
    assert!(a.is_woken() && reader.is_woken());
    assert_ready_err!(a.poll());
    assert!(assert_ready!(reader.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_behind_a_close() {
    let (mut shared, peer) = shared();
    peer.block(true);
    shared.try_send(Message::text("before")).unwrap();
    shared.close_with(CloseReason::new(CloseCode::Restart, "back soon"));
    let other = shared.clone();
    let mut closing = spawn(shared.close());
    assert_pending!(closing.poll());
    assert!(matches!(other.try_send(Message::text("behind")), Err(TrySendError::Closed)));
    peer.block(false);
    assert_ready_ok!(closing.poll());
    let restart = CloseReason::new(CloseCode::Restart, "back soon");
    assert_eq!(peer.sent(), [Message::text("before"), Message::Close(Some(restart))]);
}

/// Messages of others count in the numbers by which a request is known to have left or not.
#[tokio::test(start_paused = true)]
async fn what_others_send_between_requests_keeps_the_numbers_right() {
    let (mut shared, peer) = shared();
    shared.try_send(Message::text("a")).unwrap();
    assert_ready_ok!(spawn(queue(&mut shared, "sent")).poll());
    let sent = shared.last_seq();
    peer.block(true);
    shared.try_send(Message::text("b")).unwrap();
    let kept = queue(&mut shared, "kept");
    shared.try_send(Message::text("c")).unwrap();
    shared.cut();
    assert_eq!((sent, shared.last_seq(), shared.handed()), (2, 5, 2));
    assert_ready_err!(spawn(kept).poll());
    assert_eq!(peer.sent(), ["a", "sent"].map(Message::text));
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_makes_room() {
    let (mut shared, peer) = shared();
    peer.block(true);
    drop(queue(&mut shared, "1234567890"));
    let ticket = shared.last_seq();
    let mut other = shared.clone();
    let mut room = spawn(std::future::poll_fn(move |cx| other.poll_ready_unpin(cx)));
    assert_pending!(room.poll());
    assert!(shared.withdraw(ticket));
    assert!(room.is_woken());
    assert_ready_ok!(room.poll());
}

#[tokio::test(start_paused = true)]
async fn what_a_writer_reads_after_a_failed_write_is_bounded_in_number_and_bytes() {
    for (size, read) in [(2, 256), (400 << 10, 3), (4 << 20, 1)] {
        let (mut shared, peer) = shared();
        peer.break_writes();
        let mut a = spawn(queue(&mut shared, "a"));
        (0..300).for_each(|_| peer.send(Message::text("x".repeat(size))));
        for _ in 0..3 {
            assert_pending!(a.poll());
            assert_eq!(peer.polls(), read, "{size} bytes each");
        }
        // Its reader gets all of it, and the rest.
        let mut reader = spawn(shared.clone());
        for _ in 0..300 {
            assert!(assert_ready!(reader.poll_next()).unwrap().is_ok());
        }
    }
}
