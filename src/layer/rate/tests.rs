use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::{advance, sleep, timeout};
use tokio_test::{
    assert_pending, assert_ready, assert_ready_err, assert_ready_ok,
    task::{Spawn, spawn},
};

use super::*;
use crate::layer::{
    Heartbeat,
    fake::{self, Link, Peer},
    heartbeat,
};

/// The time between two messages at [`RATE`].
const PERIOD: Duration = Duration::from_millis(10);
const RATE: u32 = 100;
const BURST: u32 = 5;

fn config(rate: u32, burst: u32) -> Config {
    Config::new(NonZeroU32::new(rate).unwrap()).burst(NonZeroU32::new(burst).unwrap())
}

/// A link with that many messages waiting.
fn flooded(messages: u32) -> (Spawn<Rate<Link>>, Peer) {
    let (link, peer) = fake::link();
    (0..messages).for_each(|number| peer.send(numbered(number)));
    (spawn(Rate::new(link, config(RATE, BURST))), peer)
}

fn numbered(number: u32) -> Message {
    Message::text(number.to_string())
}

#[track_caller]
fn assert_next(rate: &mut Spawn<Rate<Link>>, expected: &Message) {
    assert_eq!(&assert_ready!(rate.poll_next()).unwrap().unwrap(), expected);
}

#[test]
fn a_burst_is_as_much_as_in_one_second_unless_set() {
    let rate = NonZeroU32::new(7).unwrap();
    assert_eq!(Config::new(rate).burst, rate);
}

#[tokio::test(start_paused = true)]
async fn a_burst_passes_at_once_then_the_rate_is_exact() {
    let (mut rate, peer) = flooded(1000);
    for number in 0..BURST {
        assert_next(&mut rate, &numbered(number));
    }
    for number in BURST..500 {
        assert_pending!(rate.poll_next());
        advance(PERIOD - Duration::from_millis(1)).await;
        assert!(!rate.is_woken());
        assert_pending!(rate.poll_next());
        advance(Duration::from_millis(1)).await;
        assert!(rate.is_woken(), "{number} was not announced");
        assert_next(&mut rate, &numbered(number));
    }
    assert_eq!(peer.polls(), 500, "nothing is read past the one that is kept");
    assert_pending!(rate.poll_next());
    advance(3 * PERIOD).await;
    for number in 500..503 {
        assert_next(&mut rate, &numbered(number));
    }
    assert_pending!(rate.poll_next());
    advance(100 * PERIOD).await;
    for number in 503..503 + BURST {
        assert_next(&mut rate, &numbered(number));
    }
    assert_pending!(rate.poll_next());
}

#[tokio::test(start_paused = true)]
async fn a_rate_beyond_the_clock_holds_in_the_long_run() {
    let (link, peer) = fake::link();
    (0..31_000).for_each(|number| peer.send(numbered(number)));
    let rate = Rate::new(link, config(30_000, 1000));
    let start = Instant::now();
    assert_eq!(rate.take(31_000).count().await, 31_000);
    let late = start.elapsed() - Duration::from_secs(1);
    assert!(late <= Duration::from_millis(2), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn outbound_passes_while_inbound_waits() {
    let (mut rate, peer) = flooded(BURST + 1);
    (0..BURST).for_each(|number| assert_next(&mut rate, &numbered(number)));
    assert_pending!(rate.poll_next());
    for number in 0..100 {
        assert_ready_ok!(rate.enter(|cx, rate| rate.poll_ready(cx)));
        rate.enter(|_, rate| rate.start_send(numbered(number))).unwrap();
        assert_ready_ok!(rate.enter(|cx, rate| rate.poll_flush(cx)));
    }
    assert_eq!(peer.sent(), (0..100).map(numbered).collect::<Vec<_>>());
    assert_eq!(peer.flushes(), 100);
    assert_pending!(rate.poll_next());
    assert_ready_ok!(rate.enter(|cx, rate| rate.poll_close(cx)));
    assert!(peer.is_closed());
}

#[tokio::test(start_paused = true)]
async fn control_messages_cost_nothing_and_keep_their_place() {
    let (mut rate, peer) = flooded(BURST);
    (0..BURST).for_each(|number| assert_next(&mut rate, &numbered(number)));
    let control = [
        Message::Ping(Bytes::new()),
        Message::Pong(Bytes::from_static(b"?")),
        Message::Close(None),
    ];
    for message in &control {
        peer.send(message.clone());
        assert_next(&mut rate, message);
    }
    let (mut rate, peer) = flooded(BURST + 1);
    (0..BURST).for_each(|number| assert_next(&mut rate, &numbered(number)));
    control.iter().for_each(|message| peer.send(message.clone()));
    assert_pending!(rate.poll_next());
    advance(PERIOD).await;
    assert_next(&mut rate, &numbered(BURST));
    control.iter().for_each(|message| assert_next(&mut rate, message));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_write_all_that_has_arrived_passes() {
    let (mut rate, peer) = flooded(BURST + 2);
    peer.send(Message::Close(None));
    (0..BURST).for_each(|number| assert_next(&mut rate, &numbered(number)));
    assert_pending!(rate.poll_next());
    peer.break_writes();
    assert_ready_err!(rate.enter(|cx, rate| rate.poll_flush(cx)));
    (BURST..BURST + 2).for_each(|number| assert_next(&mut rate, &numbered(number)));
    assert_next(&mut rate, &Message::Close(None));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_reordered() {
    const MESSAGES: u32 = 10_000;
    let (link, peer) = fake::link();
    let mut rate = Box::pin(Rate::new(link, config(1000, 20)));
    let sending = async move {
        let mut seed: u32 = 1;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % below
        };
        let mut next = 0;
        while next < MESSAGES {
            for _ in 0..random(30).min(MESSAGES - next) {
                match random(3) {
                    0 => peer.send(Message::Ping(Bytes::copy_from_slice(&next.to_be_bytes()))),
                    1 => peer.send(Message::Binary(next.to_string().into())),
                    _ => peer.send(numbered(next)),
                }
                next += 1;
            }
            match random(3) {
                0 => tokio::task::yield_now().await,
                _ => sleep(Duration::from_millis(random(30).into())).await,
            }
        }
    };
    let start = Instant::now();
    let receiving = async {
        let mut data = 0;
        for number in 0..MESSAGES {
            let message = rate.next().await.unwrap().unwrap();
            data += u128::from(message.is_data());
            assert!(data <= 20 + start.elapsed().as_millis(), "{data} is more than 1 per ms");
            let read = match message {
                Message::Ping(bytes) => u32::from_be_bytes(bytes[..].try_into().unwrap()),
                Message::Binary(bytes) => str::from_utf8(&bytes).unwrap().parse().unwrap(),
                Message::Text(text) => text.as_str().parse().unwrap(),
                other => panic!("{other:?}"),
            };
            assert_eq!(read, number);
        }
    };
    tokio::spawn(sending);
    timeout(Duration::from_secs(60), receiving).await.expect("a waker was lost");
}

#[tokio::test(start_paused = true)]
async fn pongs_behind_what_is_too_much_end_no_link() {
    let (link, peer) = fake::link();
    let often = Some(Duration::from_millis(500));
    let heartbeat = heartbeat::Config { ping_interval: often, ..heartbeat::Config::default() };
    let mut rate = spawn(Rate::new(Heartbeat::new(link, heartbeat), config(1, 1)));
    let (mut read, mut pings) = (0, 0);
    for second in 0..600 {
        if second % 15 == 0 {
            (0..14).for_each(|_| peer.send(numbered(second)));
            for ping in peer.sent() {
                let Message::Ping(payload) = ping else { panic!("{ping:?}") };
                peer.send(Message::Pong(payload));
                pings += 1;
            }
        }
        while let Poll::Ready(item) = rate.poll_next() {
            assert_eq!(item.unwrap().unwrap(), numbered(second / 15 * 15));
            read += 1;
        }
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(read, 560);
    assert!(pings > 19, "{pings}");
}
