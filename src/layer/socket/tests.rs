use std::time::Duration;

use futures::SinkExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};

use super::*;

/// Makes a socket over a stream, the leftover of the handshake, a side, a config and counters.
type Make = fn(DuplexStream, Bytes, Side, Config, Stats) -> Socket<DuplexStream>;

#[cfg(feature = "deflate")]
fn deflating(
    stream: DuplexStream,
    leftover: Bytes,
    side: Side,
    config: Config,
    stats: Stats,
) -> Socket<DuplexStream> {
    let (agreement, _) = deflate::Config::default().answer([&b"permessage-deflate"[..]]).unwrap();
    Socket::deflating(stream, leftover, side, config, stats, agreement)
}

/// Runs each test without an extension and with permessage-deflate.
macro_rules! on_each_kind {
    ($($(#[$attribute:meta])* async fn $name:ident($make:ident: Make) $body:block)*) => {
        mod plain {
            use crate::layer::socket::Socket;
            $($(#[$attribute])* async fn $name() {
                super::$name(Socket::with_leftover).await;
            })*
        }
        #[cfg(feature = "deflate")]
        mod deflating {
            $($(#[$attribute])* async fn $name() {
                super::$name(super::deflating).await;
            })*
        }
        $(async fn $name($make: Make) $body)*
    };
}

fn new(make: Make, stream: DuplexStream, side: Side, config: Config) -> Socket<DuplexStream> {
    make(stream, Bytes::new(), side, config, Stats::default())
}

fn pair(make: Make, config: &Config) -> (Socket<DuplexStream>, Socket<DuplexStream>) {
    let (near, far) = duplex(256);
    (new(make, near, Side::Client, config.clone()), new(make, far, Side::Server, config.clone()))
}

async fn next_error(socket: &mut Socket<DuplexStream>) -> LinkError {
    match socket.next().await {
        Some(Err(Error::Link(error))) => error,
        other => panic!("{other:?} is no error of the link"),
    }
}

on_each_kind! {
#[tokio::test]
async fn messages_cross_in_both_directions(make: Make) {
    let (mut client, mut server) = pair(make, &Config::default());
    for message in [
        Message::text("text"),
        Message::text("é".repeat(100)),
        Message::Binary(Bytes::from_static(&[0, 255])),
        Message::Ping(Bytes::from_static(b"ping")),
    ] {
        client.send(message.clone()).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), message);
        server.send(message.clone()).await.unwrap();
        let mut received = client.next().await.unwrap().unwrap();
        if received == Message::Pong(Bytes::from_static(b"ping")) {
            received = client.next().await.unwrap().unwrap();
        }
        assert_eq!(received, message);
    }
}

#[tokio::test]
async fn the_closing_handshake_carries_the_reason(make: Make) {
    let (mut client, mut server) = pair(make, &Config::default());
    let reason = CloseReason::new(CloseCode::Restart, "back soon");
    server.send(Message::Close(Some(reason.clone()))).await.unwrap();
    let closed = async {
        let received = client.next().await.unwrap().unwrap();
        assert_eq!(received, Message::Close(Some(reason)));
        client.close().await.unwrap();
    };
    let (_, closing) = tokio::join!(closed, server.close());
    closing.unwrap();
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_so_even_while_it_is_sent(make: Make) {
    let (mut client, mut server) = pair(make, &Config::default().max_message_size(1000));
    let message = Message::text("x".repeat(1000));
    let (sent, received) = tokio::join!(client.send(message), server.next());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap().len(), 1000);
    let (sent, error) = tokio::join!(client.send(Message::text("x".repeat(100_000))), async {
        let error = next_error(&mut server).await;
        server.close().await.unwrap();
        error
    });
    let is_told = matches!(error, LinkError::TooBig { size, limit: 1000 } if size > 10_000);
    assert!(is_told, "{error}");
    drop(sent);
    let close = client.next().await.unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(reason)) if reason.code == CloseCode::TooBig));
}

#[tokio::test]
async fn a_broken_rule_is_named_and_ends_the_stream(make: Make) {
    for (frame, code) in [
        (&[0x81, 0x01, b'x'][..], CloseCode::Protocol),
        (&[0xa1, 0x80, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], CloseCode::InvalidPayload),
    ] {
        let (mut near, far) = duplex(256);
        let mut server = new(make, far, Side::Server, Config::default());
        near.write_all(frame).await.unwrap();
        let error = next_error(&mut server).await;
        assert_eq!(error.close_reason().code, code);
        assert!(server.next().await.is_none());
        let mut answer = [0; 4];
        near.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[0], 0x88);
        assert_eq!(answer[2..], u16::from(code).to_be_bytes());
    }
}

#[tokio::test]
async fn the_end_without_a_close_is_abnormal(make: Make) {
    let (client, mut server) = pair(make, &Config::default());
    drop(client);
    let error = next_error(&mut server).await;
    assert_eq!(error.close_reason().code, CloseCode::Abnormal);
}

#[tokio::test]
async fn what_has_arrived_behind_a_ping_is_read_though_no_pong_can_be_written(make: Make) {
    let (near, mut far) = duplex(256);
    let mut socket = new(make, near, Side::Client, Config::default());
    // A Ping, the text "hi", and a Close with 1008.
    let frames = [0x89, 0, 0x81, 2, b'h', b'i', 0x88, 2, 0x03, 0xF0];
    far.write_all(&frames).await.unwrap();
    drop(far);
    assert!(matches!(socket.next().await, Some(Ok(Message::Ping(_)))));
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hi"));
    let sent = socket.send(Message::text("late")).await;
    assert!(matches!(sent, Err(Error::Link(LinkError::Io(_)))), "{sent:?}");
    let close = socket.next().await.unwrap().unwrap();
    let Message::Close(Some(reason)) = close else { panic!("{close:?}") };
    assert_eq!(reason.code, CloseCode::Policy);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_stalled_one_that_reads_slowly_is_not(make: Make) {
    let (near, mut far) = duplex(16);
    let config = Config::default().min_send_rate(None);
    let mut socket = new(make, near, Side::Server, config);
    let start = Instant::now();
    let slow = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            far.read_exact(&mut [0; 8]).await.unwrap();
        }
        std::future::pending::<()>().await
    };
    let sent = tokio::select! {
        sent = socket.send(Message::text("x".repeat(1000))) => sent,
        () = slow => unreachable!(),
    };
    assert!(matches!(sent, Err(Error::Link(LinkError::Stalled(_)))), "{sent:?}");
    assert!(start.elapsed() >= Duration::from_secs(100), "{:?}", start.elapsed());
}

/// The stream has room for small messages before it when nothing is taken any more.
#[tokio::test(start_paused = true)]
async fn a_message_now_and_then_gives_a_peer_that_reads_nothing_no_more_time(make: Make) {
    for rate in [None, Some(1024)] {
        let (near, _far) = duplex(64);
        let mut socket = new(make, near, Side::Server, Config::default().min_send_rate(rate));
        let start = Instant::now();
        let error = loop {
            let message: String = (0..100).map(|_| rand::random_range('!'..'~')).collect();
            socket.feed(Message::text(message)).await.unwrap();
            let flush = tokio::time::timeout(Duration::from_secs(9), socket.flush());
            if let Ok(flushed) = flush.await {
                break flushed.unwrap_err();
            }
            assert!(start.elapsed() < Duration::from_secs(60), "it is found out");
        };
        assert!(matches!(error, Error::Link(LinkError::Stalled(_))), "{error}");
        let after = start.elapsed();
        assert!(after >= Duration::from_secs(10) && after < Duration::from_secs(11), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_a_byte_now_and_then_is_too_slow(make: Make) {
    // One large message, and many small ones, of which some are taken now and then.
    for (size, taken) in [(1 << 20, 1), (1 << 20, 8 << 10), (1000, 9000)] {
        let (near, mut far) = duplex(16 << 10);
        let mut socket = new(make, near, Side::Server, Config::default());
        let start = Instant::now();
        let slow = async {
            loop {
                tokio::time::sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut vec![0; taken]).await.unwrap();
            }
        };
        let sending = async {
            loop {
                let message: String = (0..size).map(|_| rand::random_range('!'..'~')).collect();
                if let Err(error) = socket.feed(Message::text(message)).await {
                    break error;
                }
            }
        };
        let error = tokio::select! {
            error = tokio::time::timeout(Duration::from_secs(100), sending) => error.unwrap(),
            () = slow => unreachable!(),
        };
        let Error::Link(error @ LinkError::ReadsTooSlowly { rate: 1024, .. }) = error else {
            panic!("{error}")
        };
        assert!(error.is_retryable());
        let took = start.elapsed().as_secs();
        assert!((30..75).contains(&took), "{size}, {taken}: {took}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_no_reason_to_end_its_link(make: Make) {
    // 1 MiB at 2 KiB/s, with a pause of 9 s every minute.
    let (near, mut far) = duplex(16 << 10);
    let mut socket = new(make, near, Side::Server, Config::default());
    let slow = async {
        let mut second = 0;
        while far.read(&mut [0; 2048]).await.unwrap() > 0 {
            second += 1;
            let pause = if second % 60 == 0 { 9 } else { 1 };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
    };
    let sending = async {
        let message: String = (0..1 << 20).map(|_| rand::random_range('!'..'~')).collect();
        socket.send(Message::text(message)).await.unwrap();
        drop(socket);
    };
    tokio::join!(slow, sending);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_begun_must_go_on(make: Make) {
    for side in [Side::Client, Side::Server] {
        // A frame of 4,000 bytes, and one of a message in several, of which a byte comes now and
        // then, with pings in between.
        let mask = if side == Side::Server { 0x80 } else { 0 };
        let zeros = |length| if side == Side::Server { vec![0; length + 4] } else { vec![0; length] };
        let large = [vec![0x82, mask | 126, 0x0f, 0xa0], zeros(0)].concat();
        let part = [vec![0x02, mask | 1], zeros(1)].concat();
        let next = [vec![0x00, mask | 1], zeros(1), vec![0x89, mask | 100], zeros(100)].concat();
        for (begin, go_on) in [(large.clone(), vec![0]), (part, next), (vec![0x82], vec![])] {
            let (near, mut far) = duplex(1 << 16);
            let mut socket = new(make, near, side, Config::default());
            far.write_all(&begin).await.unwrap();
            let start = Instant::now();
            let dripping = async {
                loop {
                    far.write_all(&go_on).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            };
            let error = async {
                loop {
                    match socket.next().await.unwrap() {
                        Ok(message) => assert!(!message.is_data()),
                        Err(error) => break error,
                    }
                }
            };
            let error = tokio::select! {
                error = error => error,
                () = dripping => unreachable!(),
            };
            let Error::Link(error @ LinkError::TooSlow { rate: 1024, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!(error.close_reason().code, CloseCode::Policy);
            let took = start.elapsed().as_secs();
            assert!((30..33).contains(&took), "{took}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_is_no_reason_to_end_it(make: Make) {
    // 4 MiB at 2 KiB/s, with a pause of 25 s every minute.
    let (near, mut far) = duplex(1 << 16);
    let mut socket = new(make, near, Side::Server, Config::default());
    let slow = async {
        let header = [0x82, 0xff, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0];
        far.write_all(&header).await.unwrap();
        for second in 0..2048 {
            far.write_all(&[0; 2048]).await.unwrap();
            let pause = if second % 60 == 0 { 15 } else { 1 };
            tokio::time::sleep(Duration::from_secs(pause)).await;
        }
        far
    };
    let (_far, message) = tokio::join!(slow, socket.next());
    assert_eq!(message.unwrap().unwrap().len(), 4 << 20);
}

#[tokio::test(start_paused = true)]
async fn time_in_which_this_side_does_not_read_is_not_the_peers(make: Make) {
    let (near, mut far) = duplex(1 << 16);
    let mut socket = new(make, near, Side::Server, Config::default());
    for _ in 0..3 {
        // A whole message and the beginning of another.
        far.write_all(&[0x82, 0x81, 0, 0, 0, 0, 0, 0x82, 0x81]).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().len(), 1);
        for _ in 0..2 {
            assert!(tokio::time::timeout(Duration::from_secs(10), socket.next()).await.is_err());
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        far.write_all(&[0, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().len(), 1);
    }
    // Nor is a connection on which nothing has begun.
    assert!(tokio::time::timeout(Duration::from_secs(86_400), socket.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn closing_takes_no_longer_than_its_timeout(make: Make) {
    let (near, _far) = duplex(16);
    let mut socket = new(make, near, Side::Client, Config::default());
    let start = Instant::now();
    socket.close().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn bytes_behind_the_handshake_come_first(make: Make) {
    let (near, _far) = duplex(16);
    let frame = Bytes::from_static(&[0x81, 0x02, b'h', b'i']);
    let stats = Stats::default();
    let mut socket =
        make(near, frame, Side::Client, Config::default(), stats.clone());
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hi"));
    assert_eq!(stats.snapshot().bytes_received, 4);
    assert_eq!(stats.snapshot().messages_received, 1);
}
}

/// Returns a frame of this many zeros from a client, whose mask is zero too.
fn masked(first: u8, length: usize) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    let mut frame = match length {
        0..126 => vec![first, 0x80 | low],
        _ => vec![first, 0x80 | 126, high, low],
    };
    frame.extend(vec![0; 4 + length]);
    frame
}

fn unauthenticated(stream: DuplexStream, leftover: impl Into<Bytes>) -> Socket<DuplexStream> {
    let (config, stats) = (Config::default(), Stats::default());
    Socket::unauthenticated(stream, &leftover.into(), Side::Server, config, stats, 1000)
}

#[tokio::test]
async fn before_authentication_a_message_is_small_however_it_is_cut() {
    let whole = |length| masked(0x82, length);
    let parts =
        |length| [masked(0x02, 400), masked(0x89, 100), masked(0x80, length - 400)].concat();
    for sent in [&whole as &dyn Fn(usize) -> Vec<u8>, &parts] {
        for step in [1, 7, 5000] {
            let (near, mut far) = duplex(1 << 16);
            let mut socket = unauthenticated(near, Bytes::new());
            let receiving = async {
                loop {
                    match socket.next().await.unwrap() {
                        Ok(Message::Ping(_)) => {}
                        Ok(message) => assert_eq!(message.len(), 1000),
                        Err(error) => break error,
                    }
                }
            };
            let sending = async {
                for bytes in [sent(1000), sent(1000), sent(1001)].concat().chunks(step) {
                    let _ = far.write_all(bytes).await;
                }
            };
            let (error, ()) = tokio::join!(receiving, sending);
            let is_told =
                matches!(error, Error::Link(LinkError::TooBig { size: 1001, limit: 1000 }));
            assert!(is_told, "{error}");
            let mut answer = Vec::new();
            drop(socket);
            far.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.ends_with("before authentication a message has at most 1000 bytes"));
        }
    }
}

#[tokio::test]
async fn no_room_is_made_for_a_message_that_is_only_announced() {
    let (near, mut far) = duplex(1 << 16);
    let mut socket = unauthenticated(near, Bytes::new());
    far.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0]).await.unwrap();
    assert!(matches!(next_error(&mut socket).await, LinkError::TooBig { size: 0x40_0000, .. }));

    // Nor is more taken over from the handshake than one message has.
    let mut socket =
        unauthenticated(duplex(1 << 16).0, [masked(0x82, 600), masked(0x82, 600)].concat());
    assert!(matches!(next_error(&mut socket).await, LinkError::TooBig { size: 1216, .. }));
}

#[tokio::test]
async fn nothing_is_lost_when_the_peer_has_authenticated() {
    let (near, mut far) = duplex(1 << 16);
    let mut socket = unauthenticated(near, [masked(0x82, 10), masked(0x82, 11)].concat());
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 10);
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 11);
    let large = masked(0x82, 30_000);
    // What comes at once is a message, a ping, and the beginning of one that is too large as yet.
    far.write_all(&[masked(0x82, 12), masked(0x89, 5), large[..500].to_vec()].concat())
        .await
        .unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 12);
    socket.send(Message::text("welcome")).await.unwrap();
    let mut socket = socket.authenticated().unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Ping(vec![0; 5].into()));
    far.write_all(&large[500..]).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 30_000);
    socket.send(Message::text("done")).await.unwrap();
    let mut answer = vec![0; 9 + 7 + 6];
    far.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"\x81\x07welcome") && answer.ends_with(b"\x81\x04done"));
}
