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

/// Each test, without an extension and with permessage-deflate.
macro_rules! on_each_kind {
    ($($(#[$attribute:meta])* async fn $name:ident($make:ident: Make) $body:block)*) => {
        mod plain {
            use super::Socket;
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

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_stalled_one_that_reads_slowly_is_not(make: Make) {
    let (near, mut far) = duplex(16);
    let mut socket = new(make, near, Side::Server, Config::default());
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
