use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::UNIX_EPOCH,
};

use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task::spawn};

use super::*;
use crate::layer::fake;

const SECOND: Duration = Duration::from_secs(1);

fn pings(peer: &fake::Peer) -> Vec<Bytes> {
    let payload = |message| match message {
        Message::Ping(payload) => payload,
        other => panic!("{other:?} is no ping"),
    };
    peer.sent().into_iter().map(payload).collect()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_is_left_alone() {
    let (link, peer) = fake::link();
    let stats = Stats::default();
    let mut heartbeat = spawn(Heartbeat::with_stats(link, Config::default(), stats.clone()));
    for _ in 0..100 {
        assert_pending!(heartbeat.poll_next());
        advance(20 * SECOND).await;
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
        let [ping] = &pings(&peer)[..] else { panic!("one ping every 20 s") };
        advance(9 * SECOND).await;
        peer.send(Message::Pong(ping.clone()));
        assert_pending!(heartbeat.poll_next());
        assert_eq!(stats.snapshot().round_trip, Some(9 * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn pongs_for_the_layers_above_pass() {
    let (link, peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    assert_pending!(heartbeat.poll_next());
    advance(20 * SECOND).await;
    assert_pending!(heartbeat.poll_next());
    let own = Message::Pong(pings(&peer).remove(0));
    let other = Message::Pong(Bytes::from_static(b"of another"));
    for pong in [own, other.clone()] {
        peer.send(pong);
    }
    assert_eq!(assert_ready!(heartbeat.poll_next()).unwrap().unwrap(), other);
    assert_pending!(heartbeat.poll_next());
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_found_within_interval_and_timeout() {
    let (link, _peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    let start = Instant::now();
    let error = loop {
        match heartbeat.poll_next() {
            Poll::Ready(item) => break item.unwrap().unwrap_err(),
            Poll::Pending => advance(SECOND).await,
        }
    };
    assert!(matches!(error, Error::Link(LinkError::TimedOut(_))), "{error}");
    assert_eq!(start.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_counts_and_what_is_sent_does_not() {
    let (link, peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    for _ in 0..10 {
        assert_pending!(heartbeat.poll_next());
        advance(29 * SECOND).await;
        peer.send(Message::text("{}"));
        assert!(assert_ready!(heartbeat.poll_next()).is_some());
    }
    assert_pending!(heartbeat.poll_next());
    for _ in 0..29 {
        advance(SECOND).await;
        heartbeat.enter(|_, heartbeat| heartbeat.start_send(Message::text("{}"))).unwrap();
        assert_pending!(heartbeat.poll_next());
    }
    advance(SECOND).await;
    assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_link_is_woken_by_the_pings_of_the_peer_and_nothing_else() {
    let (link, peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    assert_pending!(heartbeat.poll_next());
    for _ in 0..100 {
        advance(17 * SECOND).await;
        assert!(!heartbeat.is_woken());
        peer.send(Message::Ping(Bytes::new()));
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
    }
    advance(20 * SECOND).await;
    assert!(heartbeat.is_woken());
    assert_pending!(heartbeat.poll_next());
    assert_eq!(pings(&peer).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_is_not_pinged() {
    let (link, peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    for _ in 0..100 {
        peer.send(Message::text("{}"));
        assert_ready!(heartbeat.poll_next()).unwrap().unwrap();
        assert_pending!(heartbeat.poll_next());
        advance(19 * SECOND).await;
        assert_pending!(heartbeat.poll_next());
        assert!(peer.sent().is_empty());
    }
    advance(SECOND).await;
    assert!(heartbeat.is_woken());
    assert_pending!(heartbeat.poll_next());
    assert_eq!(pings(&peer).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_quiet_sides_one_pings() {
    let ((near, near_peer), (far, far_peer)) = (fake::link(), fake::link());
    let mut near = spawn(Heartbeat::new(near, Config::default()).before_the_peer());
    let mut far = spawn(Heartbeat::new(far, Config::default()));
    let mut pings = [0, 0];
    for _ in 0..600 {
        advance(SECOND).await;
        let _ = near.poll_next();
        let _ = far.poll_next();
        for (side, sent, other) in [
            (0, near_peer.sent(), [&far_peer, &near_peer]),
            (1, far_peer.sent(), [&near_peer, &far_peer]),
        ] {
            for message in sent {
                let Message::Ping(payload) = &message else { panic!("{message:?}") };
                pings[side] += 1;
                // As sockets do, the other side answers.
                other[1].send(Message::Pong(payload.clone()));
                other[0].send(message);
            }
        }
    }
    assert!((30..=35).contains(&pings[0]), "{pings:?}");
    assert_eq!(pings[1], 0);
}

#[tokio::test(start_paused = true)]
async fn a_link_is_probed_as_soon_as_the_machine_wakes_up() {
    static SLEPT: AtomicU64 = AtomicU64::new(0);
    let clock = || UNIX_EPOCH + Duration::from_secs(SLEPT.load(Relaxed));
    let (link, peer) = fake::link();
    let heartbeat = Heartbeat::new(link, Config::default())
        .with_suspend_detector(SuspendDetector::with_clock(clock));
    let mut heartbeat = spawn(heartbeat);
    for _ in 0..12 {
        assert_pending!(heartbeat.poll_next());
        advance(SECOND).await;
    }
    assert!(pings(&peer).is_empty());
    SLEPT.store(3600, Relaxed);
    assert!(heartbeat.is_woken());
    assert_pending!(heartbeat.poll_next());
    assert_eq!(pings(&peer).len(), 1);
    for _ in 0..9 {
        advance(SECOND).await;
        assert_pending!(heartbeat.poll_next());
    }
    assert!(pings(&peer).is_empty());
    advance(SECOND).await;
    assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_link_without_pings_is_not_woken_to_look_at_the_clock() {
    let (link, _peer) = fake::link();
    let config = Config::default().ping_interval(None).idle_timeout(None);
    let mut heartbeat = spawn(Heartbeat::new(link, config).detect_suspend());
    assert_pending!(heartbeat.poll_next());
    advance(3600 * SECOND).await;
    assert!(!heartbeat.is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_takes_no_ping_is_left_to_the_watchdog() {
    let (link, peer) = fake::link();
    peer.block(true);
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    for _ in 0..44 {
        assert_pending!(heartbeat.poll_next());
        advance(SECOND).await;
    }
    assert_pending!(heartbeat.poll_next());
    advance(SECOND).await;
    assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_had_to_wait_goes_out_as_soon_as_it_can() {
    let (link, peer) = fake::link();
    let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
    assert_pending!(heartbeat.poll_next());
    peer.block(true);
    advance(20 * SECOND).await;
    assert_pending!(heartbeat.poll_next());
    assert!(pings(&peer).is_empty());
    advance(5 * SECOND).await;
    peer.block(false);
    assert!(heartbeat.is_woken());
    assert_pending!(heartbeat.poll_next());
    assert_eq!(pings(&peer).len(), 1);
    advance(9 * SECOND).await;
    assert_pending!(heartbeat.poll_next());
    // Its pong is due before the watchdog.
    advance(SECOND).await;
    assert!(heartbeat.is_woken());
    assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn with_all_off_it_waits_for_ever() {
    let (link, peer) = fake::link();
    let config = Config::default().ping_interval(None).idle_timeout(None);
    let mut heartbeat = spawn(Heartbeat::new(link, config));
    assert_pending!(heartbeat.poll_next());
    advance(86_400 * SECOND).await;
    assert_pending!(heartbeat.poll_next());
    assert!(peer.sent().is_empty());
}
