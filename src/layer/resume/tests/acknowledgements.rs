//! Times at which messages are acknowledged.

use super::*;

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
    assert!(side.layer.is_woken());
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
    assert!(!side.layer.is_woken(), "no timer runs for nothing");
    for sent in [1, 3] {
        (0..sent).for_each(|_| side.peer.send("{}".into()));
        (0..sent).for_each(|_| side.assert_receives("{}"));
        side.assert_quiet();
        advance(SECOND - Duration::from_millis(1)).await;
        side.assert_quiet();
        assert!(side.sent().is_empty());
        advance(Duration::from_millis(1)).await;
        assert!(side.layer.is_woken());
        side.assert_quiet();
        assert_eq!(side.sent().len(), 1);
    }
    assert_eq!(side.receive_count.received(), 4);
    side.assert_quiet();
    advance(100 * SECOND).await;
    assert!(!side.layer.is_woken());
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
    assert!(side.layer.is_woken());
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
    assert!(side.layer.is_woken());
    side.assert_quiet();
    assert_eq!(side.sent(), ["@ack 200"]);
}
