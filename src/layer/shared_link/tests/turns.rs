//! Turns at the link, and what others can do meanwhile.

use super::*;

/// The link is taken for as long as the guard lives, as by somebody who reads from it.
macro_rules! take_link {
    ($shared:ident) => {
        $shared.inner.driver.try_lock().unwrap()
    };
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_who_reads_or_writes_to_queue_or_take_back() {
    let (shared, peer) = shared();
    let other = shared.clone();
    let busy = take_link!(other);
    let (first, kept) = shared.reserve(Retention::ThisPeer).unwrap().send("a".into()).unwrap();
    let (second, _) = shared.reserve(Retention::AnyPeer).unwrap().send("b".into()).unwrap();
    shared.try_send("c".into()).unwrap();
    assert_eq!((first, second, shared.last_seq(), shared.handed()), (1, 2, 3, 0));
    assert!(shared.withdraw(second));
    let (mut kept, mut reader) = (spawn(kept), spawn(shared.clone()));
    assert_pending!(kept.poll());
    assert_pending!(reader.poll_next());
    assert!(!kept.is_woken() && !reader.is_woken());
    drop(busy);
    assert!(kept.is_woken() && reader.is_woken(), "they were told when it was over");
    assert_ready_ok!(kept.poll());
    assert_eq!(peer.sent(), ["a", "c"].map(Message::text));
}

#[tokio::test(start_paused = true)]
async fn what_was_written_meanwhile_is_through_without_the_link() {
    let (shared, _peer) = shared();
    let send = |text: &'static str| shared.reserve(Retention::ThisPeer).unwrap().send(text.into());
    let ((_, a), (_, b)) = (send("a").unwrap(), send("b").unwrap());
    assert_ready_ok!(spawn(b).poll());
    let _busy = take_link!(shared);
    assert_ready_ok!(spawn(a).poll());
}

#[tokio::test(start_paused = true)]
async fn a_cut_waits_for_nobody_and_leaves_the_link_to_who_uses_it() {
    let (shared, peer) = shared();
    let other = shared.clone();
    let busy = take_link!(other);
    let (_, flushed) = shared.reserve(Retention::ThisPeer).unwrap().send("a".into()).unwrap();
    let (mut flushed, mut reader) = (spawn(flushed), spawn(shared.clone()));
    assert_pending!(flushed.poll());
    assert_pending!(reader.poll_next());
    shared.cut();
    assert!(flushed.is_woken() && reader.is_woken());
    assert_ready_err!(flushed.poll());
    assert!(assert_ready!(reader.poll_next()).unwrap().is_err());
    assert!(!peer.is_dropped());
    drop(busy);
    assert!(peer.is_dropped());
    assert!(peer.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_reader_takes_in_one_turn_what_has_arrived_within_bounds() {
    for (size, turns) in [(1, 4), (4 << 10, 7), (100 << 10, 100)] {
        let (shared, peer) = shared();
        (0..100).for_each(|_| peer.send(Message::text("x".repeat(size))));
        let mut reader = spawn(shared.clone());
        let mut taken = 0;
        for number in 0..100 {
            let before = peer.polls();
            assert!(assert_ready!(reader.poll_next()).unwrap().is_ok());
            taken += usize::from(peer.polls() > before);
            let ahead = (peer.polls() - number - 1) * size;
            assert!(ahead <= (64 << 10) + size, "{ahead} bytes are read ahead");
        }
        assert_eq!(taken, turns, "{size} bytes each");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_came_before_the_end_is_read() {
    let (mut shared, peer) = shared();
    (0..3).for_each(|_| peer.send(Message::text("a")));
    peer.send(Message::Close(Some(CloseCode::Restart.into())));
    for _ in 0..3 {
        assert!(assert_ready!(spawn(shared.next()).poll()).unwrap().is_ok());
    }
    let end = assert_ready!(spawn(shared.next()).poll()).unwrap().unwrap_err();
    assert!(end.to_string().contains("1012"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_dropped_leaves_what_it_has_read() {
    let (shared, peer) = shared();
    let texts = ["a", "b", "c"].map(Message::text);
    texts.iter().for_each(|text| peer.send(text.clone()));
    for text in texts {
        let read = assert_ready!(spawn(shared.clone()).poll_next()).unwrap().unwrap();
        assert_eq!(read.item(), Some(text));
    }
}
