use std::time::Duration;

use futures::SinkExt;
use tokio::io::AsyncReadExt;

use super::*;
use crate::{close::CloseCode, message::Message};

/// The code with which a server of `config` closes after `wire`.
async fn closed(config: Config, wire: &[u8]) -> CloseCode {
    let (mut near, mut server) = received(config, wire).await;
    let code = loop {
        match server.next().await {
            Some(Ok(_)) => {}
            Some(Err(Error::Link(error))) => break error.close_reason().code,
            other => panic!("{other:?} is no error of the link"),
        }
    };
    assert!(server.next().await.is_none());
    let mut answer = [0; 4];
    near.read_exact(&mut answer).await.unwrap();
    while answer[0] == 0x8a {
        near.read_exact(&mut answer).await.unwrap();
    }
    assert_eq!(answer[0], 0x88);
    assert_eq!(answer[2..], u16::from(code).to_be_bytes());
    drop(near);
    server.close().await.unwrap();
    code
}

#[tokio::test]
async fn a_broken_rule_is_named() {
    let payload = deflated(&b"some text ".repeat(100));
    let (head, tail) = payload.split_at(5);
    let message = frame(0xc1, &payload);
    let mut unmasked = message.clone();
    unmasked[1] &= 0x7f;
    let mut too_long = frame(0xc1, &[]);
    too_long.splice(1..2, [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]);
    for (wire, code) in [
        // RSV1 where it means nothing.
        (frame(0xc9, b"ping"), CloseCode::Protocol),
        (frame(0xca, b"pong"), CloseCode::Protocol),
        (frame(0xc8, &[]), CloseCode::Protocol),
        (frame(0xc0, tail), CloseCode::Protocol),
        ([frame(0x41, head), frame(0xc0, tail)].concat(), CloseCode::Protocol),
        ([frame(0x01, b"a"), frame(0xc0, b"b")].concat(), CloseCode::Protocol),
        // The other reserved bits, and reserved opcodes.
        (frame(0xe1, &payload), CloseCode::Protocol),
        (frame(0xd1, &payload), CloseCode::Protocol),
        (frame(0xa1, b"plain"), CloseCode::Protocol),
        (frame(0xc3, &payload), CloseCode::Protocol),
        (frame(0xcb, b""), CloseCode::Protocol),
        // Out of order.
        (frame(0x80, b"continued"), CloseCode::Protocol),
        ([frame(0x41, head), frame(0xc1, tail)].concat(), CloseCode::Protocol),
        ([frame(0x41, head), frame(0x81, b"plain")].concat(), CloseCode::Protocol),
        ([frame(0x01, b"a"), frame(0xc1, &payload)].concat(), CloseCode::Protocol),
        ([message.clone(), frame(0x80, b"")].concat(), CloseCode::Protocol),
        // Fragments of a control frame, and one that is too long.
        (frame(0x09, b"ping"), CloseCode::Protocol),
        (frame(0x89, &[0; 126]), CloseCode::Protocol),
        (unmasked, CloseCode::Protocol),
        (too_long, CloseCode::Protocol),
        // What does not inflate.
        (frame(0xc1, &[0xff; 64]), CloseCode::InvalidPayload),
        (frame(0xc1, b"\x06"), CloseCode::InvalidPayload),
        (frame(0xc1, b"{\"jsonrpc\":\"2.0\"}"), CloseCode::InvalidPayload),
        (frame(0xc1, &payload[..payload.len() - 4]), CloseCode::InvalidPayload),
        (frame(0xc1, &[0, 100, 0, 155, 255, 1, 2, 3]), CloseCode::InvalidPayload),
        (frame(0xc1, &[0x03, 0x80, 0xff, 0xff]), CloseCode::InvalidPayload),
        // What inflates to what is no text, also across pieces.
        (frame(0xc1, &deflated(b"\xff")), CloseCode::InvalidPayload),
        (frame(0xc1, &deflated(&[b'x'; 20_000].map(|_| 0xc3))), CloseCode::InvalidPayload),
    ] {
        for takeover in [false, true] {
            let config = Config::default().context_takeover(takeover);
            let message: &[u8] = &wire;
            // Cut off, a message cannot be told from a whole one where the next may go on with it.
            let is_cut = message == frame(0xc1, &payload[..payload.len() - 4])
                || message == frame(0xc1, &[0, 100, 0, 155, 255, 1, 2, 3])
                || message == frame(0xc1, b"\x06");
            if takeover && is_cut {
                continue;
            }
            assert_eq!(closed(config, message).await, code, "{takeover} {message:x?}");
        }
    }
}

#[tokio::test]
async fn a_distance_beyond_what_was_sent_is_corrupt() {
    let (first, second) = (b"hello ".repeat(50), b"hello ".repeat(50));
    let mut compress = Compress::new(Compression::best(), false);
    let mut wire = Vec::new();
    for message in [first, second] {
        let mut out = Vec::with_capacity(1024);
        compress.compress_vec(&message, &mut out, FlushCompress::Sync).unwrap();
        wire.extend(frame(0xc2, &out[..out.len() - 4]));
    }
    // A peer that keeps its window although it said that it would not.
    assert_eq!(closed(Config::default(), &wire).await, CloseCode::InvalidPayload);
    let (_near, mut server) = received(Config::default().context_takeover(true), &wire).await;
    for _ in 0..2 {
        assert_eq!(server.next().await.unwrap().unwrap().len(), 300);
    }
}

#[tokio::test]
async fn the_limit_holds_for_what_is_inflated() {
    for limit in [100, 16 << 10, (16 << 10) + 1, 100_000] {
        for (size, fits) in [(limit, true), (limit + 1, false), (limit * 100, false)] {
            let (mut near, mut server) = server(Config::default(), limit);
            near.write_all(&frame(0xc1, &deflated(&vec![b'x'; size]))).await.unwrap();
            if fits {
                assert_eq!(server.next().await.unwrap().unwrap().len(), size);
                continue;
            }
            let error = next_error(&mut server).await;
            assert!(matches!(error, LinkError::TooBig { .. }), "{limit} {size}: {error}");
            let mut answer = [0; 4];
            near.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer[2..], 1009_u16.to_be_bytes());
        }
    }
}

#[tokio::test]
async fn without_the_extension_rsv1_is_a_broken_rule() {
    let (mut near, far) = duplex(1 << 10);
    let config = SocketConfig::default().deflate(Config::default());
    let mut server = Socket::new(far, Side::Server, config);
    near.write_all(&frame(0xc1, &deflated(b"text"))).await.unwrap();
    assert_eq!(next_error(&mut server).await.close_reason().code, CloseCode::Protocol);
}

#[tokio::test]
async fn random_bytes_never_panic_or_hang() {
    let mut seed = 11_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    for round in 0..4000 {
        let config = Config::default().context_takeover(round % 2 == 0);
        let mut wire = Vec::new();
        for _ in 0..1 + random() % 4 {
            let text: Vec<u8> = (0..random() % 400).map(|_| b'a' + (random() % 4) as u8).collect();
            let mut payload = deflated(&text);
            for _ in 0..random() % 3 {
                let at = random() as usize % payload.len();
                payload[at] = random() as u8;
            }
            payload.truncate(payload.len() - (random() as usize % 4).min(payload.len()));
            let first = [0xc1, 0xc2, 0x41, 0x80, 0x00, 0x81, random() as u8][random() as usize % 7];
            wire.extend(frame(first, &payload));
        }
        let (near, mut server) = received(config, &wire).await;
        drop(near);
        let all = async {
            while let Some(received) = server.next().await {
                if received.is_err() {
                    break;
                }
            }
            let _ = server.close().await;
        };
        tokio::time::timeout(Duration::from_secs(5), all).await.expect("it hangs");
    }
}

#[tokio::test]
async fn a_long_message_of_nothing_lets_others_have_a_turn() {
    let (mut near, mut server) = server(Config::default(), 4 << 20);
    let empty_blocks = [0, 0, 0, 0xff, 0xff].repeat(2000);
    let peer = async {
        near.write_all(&frame(0x41, &empty_blocks)).await.unwrap();
        for _ in 0..100 {
            near.write_all(&frame(0x00, &empty_blocks)).await.unwrap();
        }
        near.write_all(&frame(0x80, &deflated(b"end"))).await.unwrap();
    };
    let (received, ()) = tokio::join!(server.next(), peer);
    assert_eq!(received.unwrap().unwrap(), Message::text("end"));
}

#[tokio::test]
async fn what_came_whole_before_something_broken_is_read() {
    let message = frame(0xc1, &deflated(&b"some text ".repeat(100)));
    for config in [Config::default(), Config::default().context_takeover(true)] {
        let broken = frame(0xc1, b"\xff\xff\xff");
        let (_near, mut server) = received(config, &[message.clone(), broken].concat()).await;
        assert!(matches!(server.next().await, Some(Ok(Message::Text(_)))));
        assert!(matches!(next_error(&mut server).await, LinkError::Deflate(_)));
    }
}

#[tokio::test]
async fn much_that_stands_for_nothing_is_too_much() {
    // Stored blocks of no length.
    let nothing = [0, 0, 0, 0xff, 0xff].repeat(4096);
    let wire = [frame(0x41, &nothing), frame(0x00, &nothing).repeat(300)].concat();
    let (mut near, mut server) = server(Config::default(), 4 << 20);
    let writing = tokio::spawn(async move {
        let _ = near.write_all(&wire).await;
        near
    });
    let error = next_error(&mut server).await;
    assert!(matches!(error, LinkError::TooBig { .. }), "{error}");
    drop(server);
    drop(writing.await);
}
