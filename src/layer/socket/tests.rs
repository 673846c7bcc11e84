use futures::SinkExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use tokio::time::Instant;

use super::*;

fn pair(config: &Config) -> (Socket<DuplexStream>, Socket<DuplexStream>) {
    let (near, far) = duplex(256);
    (
        Socket::new(near, Side::Client, config.clone()),
        Socket::new(far, Side::Server, config.clone()),
    )
}

async fn next_error(socket: &mut Socket<DuplexStream>) -> LinkError {
    match socket.next().await {
        Some(Err(Error::Link(error))) => error,
        other => panic!("{other:?} is no error of the link"),
    }
}

#[tokio::test]
async fn messages_cross_in_both_directions() {
    let (mut client, mut server) = pair(&Config::default());
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
async fn the_closing_handshake_carries_the_reason() {
    let (mut client, mut server) = pair(&Config::default());
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
async fn a_message_over_the_limit_is_told_so_even_while_it_is_sent() {
    let (mut client, mut server) = pair(&Config::default().max_message_size(1000));
    let message = Message::text("x".repeat(1000));
    let (sent, received) = tokio::join!(client.send(message), server.next());
    sent.unwrap();
    assert_eq!(received.unwrap().unwrap().len(), 1000);
    let (sent, error) = tokio::join!(client.send(Message::text("x".repeat(100_000))), async {
        let error = next_error(&mut server).await;
        server.close().await.unwrap();
        error
    });
    assert!(matches!(error, LinkError::TooBig { size: 100_000, limit: 1000 }), "{error}");
    drop(sent);
    let close = client.next().await.unwrap().unwrap();
    assert!(matches!(&close, Message::Close(Some(reason)) if reason.code == CloseCode::TooBig));
}

#[tokio::test]
async fn a_broken_rule_is_named_and_ends_the_stream() {
    for (frame, code) in [
        (&[0x81, 0x01, b'x'][..], CloseCode::Protocol),
        (&[0xc1, 0x80, 0, 0, 0, 0], CloseCode::Protocol),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], CloseCode::InvalidPayload),
    ] {
        let (mut near, far) = duplex(256);
        let mut server = Socket::new(far, Side::Server, Config::default());
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
async fn the_end_without_a_close_is_abnormal() {
    let (client, mut server) = pair(&Config::default());
    drop(client);
    let error = next_error(&mut server).await;
    assert_eq!(error.close_reason().code, CloseCode::Abnormal);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_nothing_is_stalled_one_that_reads_slowly_is_not() {
    let (near, mut far) = duplex(16);
    let mut socket = Socket::new(near, Side::Server, Config::default());
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
async fn closing_takes_no_longer_than_its_timeout() {
    let (near, _far) = duplex(16);
    let mut socket = Socket::new(near, Side::Client, Config::default());
    let start = Instant::now();
    socket.close().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn bytes_behind_the_handshake_come_first() {
    let (near, _far) = duplex(16);
    let frame = Bytes::from_static(&[0x81, 0x02, b'h', b'i']);
    let stats = Stats::default();
    let mut socket =
        Socket::with_leftover(near, frame, Side::Client, Config::default(), stats.clone());
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hi"));
    assert_eq!(stats.snapshot().bytes_received, 4);
    assert_eq!(stats.snapshot().messages_received, 1);
}
