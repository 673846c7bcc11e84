use futures::SinkExt;
use tokio::io::AsyncReadExt;

use super::*;
use crate::message::Message;

/// Text that compresses, and bytes that do not.
fn samples() -> Vec<Message> {
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    let mut samples = Vec::new();
    for size in [0, 1, 1023, 1024, 1025, 16_383, 16_384, 16_385, 65_535, 65_536, 200_000] {
        let line = |at: usize| format!("{{\"n\":{at},\"größe\":\"{}\"}}\n", at * 7919);
        let text: String = (0..).map(line).take(size / 24 + 1).collect();
        let end = (0..=size.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        samples.push(Message::text(text[..end.unwrap()].to_owned()));
        samples.push(Message::Binary((0..size).map(|_| random()).collect::<Vec<_>>().into()));
        samples.push(Message::Binary(vec![0; size].into()));
    }
    samples
}

#[tokio::test]
async fn messages_of_all_sizes_cross_in_both_directions() {
    for (takeover, level, threshold) in
        [(false, 1, 1024), (true, 1, 1024), (false, 9, 0), (true, 9, 0), (true, 6, 1)]
    {
        let config = Config::default().context_takeover(takeover).level(level).threshold(threshold);
        let (of_client, of_server) = agreed(config);
        let (near, far) = duplex(32 << 10);
        let sockets = SocketConfig::default();
        let mut client = socket(near, Side::Client, &sockets, of_client);
        let mut server = socket(far, Side::Server, &sockets, of_server);
        for _ in 0..2 {
            for message in samples() {
                let (sent, received) = tokio::join!(client.send(message.clone()), server.next());
                sent.unwrap();
                assert_eq!(received.unwrap().unwrap(), message);
                let (sent, received) = tokio::join!(server.send(message.clone()), client.next());
                sent.unwrap();
                assert_eq!(received.unwrap().unwrap(), message);
            }
        }
    }
}

#[tokio::test]
async fn what_is_small_or_does_not_shrink_is_sent_as_it_is() {
    let (near, far) = duplex(64 << 10);
    let (mut near, config) = (near, SocketConfig::default());
    let mut server = socket(far, Side::Server, &config, agreed(Config::default()).1);
    let text = "all work and no play ".repeat(100);
    for (text, compressed) in [(&text[..1023], false), (&text[..1024], true)] {
        server.send(Message::text(text.to_owned())).await.unwrap();
        let mut header = [0; 2];
        near.read_exact(&mut header).await.unwrap();
        assert_eq!(header[0], if compressed { 0xc1 } else { 0x81 });
        let mut length = usize::from(header[1]);
        if length == 126 {
            length = usize::from(near.read_u16().await.unwrap());
        }
        assert_eq!(length < 200, compressed);
        near.read_exact(&mut vec![0; length]).await.unwrap();
    }
    let mut random = vec![0; 4096];
    rand::fill(&mut random[..]);
    server.send(Message::Binary(random.into())).await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), 0x82);
}

#[tokio::test]
async fn a_message_in_fragments_is_one_with_control_frames_between() {
    let text = "the quick brown fox jumps over the lazy dog ".repeat(2000);
    let payload = deflated(text.as_bytes());
    for (takeover, size) in [(false, 1), (true, 1), (false, 7), (false, payload.len())] {
        let mut wire = Vec::new();
        let count = payload.chunks(size).count();
        for (at, part) in payload.chunks(size).enumerate() {
            let first = if at == 0 { 0x41 } else { 0 } | if at + 1 == count { 0x80 } else { 0 };
            wire.extend(frame(first, part));
            if at + 1 < count {
                wire.extend(frame(if at % 2 == 0 { 0x89 } else { 0x8a }, &[at as u8]));
            }
        }
        // One that was not compressed, and one in empty fragments.
        wire.extend(frame(0x81, b"plain"));
        wire.extend(frame(0x41, b""));
        wire.extend(frame(0x00, &deflated(b"second")));
        wire.extend(frame(0x80, b""));
        let config = Config::default().context_takeover(takeover);
        let (_near, mut server) = received(config, &wire).await;
        for at in 0..count - 1 {
            let payload = Bytes::from(vec![at as u8]);
            let expected = match at % 2 {
                0 => Message::Ping(payload),
                _ => Message::Pong(payload),
            };
            assert_eq!(server.next().await.unwrap().unwrap(), expected);
        }
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text(text.clone()));
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("plain"));
        assert_eq!(server.next().await.unwrap().unwrap(), Message::text("second"));
    }
}

#[tokio::test]
async fn the_examples_of_rfc_7692_are_read() {
    let hello = Message::text("Hello");
    for (takeover, wire) in [
        // Sections 7.2.3.1 to 7.2.3.5, as a client masks them.
        (false, vec![frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])]),
        (false, vec![frame(0x41, &[0xf2, 0x48, 0xcd]), frame(0x80, &[0xc9, 0xc9, 0x07, 0x00])]),
        (
            true,
            vec![
                frame(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
                frame(0xc1, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
            ],
        ),
        (
            false,
            vec![frame(0xc1, &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00])],
        ),
        (
            true,
            vec![
                frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
                frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
            ],
        ),
        (
            false,
            vec![frame(
                0xc1,
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            )],
        ),
        // The same with a final block and nothing behind it.
        (false, vec![frame(0xc1, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])]),
    ] {
        let config = Config::default().context_takeover(takeover);
        let (_near, mut server) = received(config, &wire.concat()).await;
        for _ in wire.iter().filter(|frame| frame[0] & 0x80 != 0) {
            assert_eq!(server.next().await.unwrap().unwrap(), hello, "{wire:x?}");
        }
    }
    // Section 7.2.3.6, and what some send in its place.
    for empty in [&[0x00][..], &[0x02, 0x00], &[0x03, 0x00], &[]] {
        for takeover in [false, true] {
            let config = Config::default().context_takeover(takeover);
            let wire = [frame(0xc1, empty), frame(0xc1, &deflated(b"Hello"))].concat();
            let (_near, mut server) = received(config, &wire).await;
            assert_eq!(server.next().await.unwrap().unwrap(), Message::text(""), "{empty:x?}");
            assert_eq!(server.next().await.unwrap().unwrap(), hello, "{empty:x?}");
        }
    }
}

#[tokio::test]
async fn bytes_behind_the_handshake_come_first_and_all_are_counted() {
    let text = "x".repeat(5000);
    let wire = frame(0xc1, &deflated(text.as_bytes()));
    let (mut near, far) = duplex(1 << 10);
    let stats = Stats::default();
    let (leftover, rest) = wire.split_at(wire.len() / 2);
    let (_, agreement) = agreed(Config::default());
    let leftover = Bytes::copy_from_slice(leftover);
    let config = SocketConfig::default();
    let mut server =
        Socket::deflating(far, leftover, Side::Server, config, stats.clone(), agreement);
    near.write_all(rest).await.unwrap();
    assert_eq!(server.next().await.unwrap().unwrap(), Message::text(text.clone()));
    assert_eq!(stats.snapshot().bytes_received, wire.len() as u64);
    server.send(Message::text(text)).await.unwrap();
    let sent = stats.snapshot().bytes_sent;
    assert!(sent < 100, "{sent}");
    drop(server);
    let mut read = Vec::new();
    near.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len() as u64, sent);
}

#[tokio::test]
async fn small_windows_are_kept_to() {
    // 600 bytes that repeat: a window of 512 bytes does not see that, the one of 32 KiB does.
    let block: Vec<u8> =
        (0..600_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let data = Bytes::from(block.repeat(8));
    let mut sizes = Vec::new();
    for offer in ["permessage-deflate; server_max_window_bits=9", "permessage-deflate"] {
        let (agreement, _) = Config::default().level(9).answer([offer.as_bytes()]).unwrap();
        let (near, far) = duplex(64 << 10);
        let config = SocketConfig::default();
        let mut server = socket(far, Side::Server, &config, agreement);
        let mut client = socket(near, Side::Client, &config, agreement);
        server.send(Message::Binary(data.clone())).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), Message::Binary(data.clone()));
        sizes.push(server.stats().snapshot().bytes_sent);
    }
    assert!(sizes[0] > 3 * sizes[1], "{sizes:?}");
    let of_8 = Config::default().confirm([&b"permessage-deflate; server_no_context_takeover; \
                                             client_max_window_bits=8"[..]]);
    let (near, mut far) = duplex(64 << 10);
    let mut client = socket(near, Side::Client, &SocketConfig::default(), of_8.unwrap().unwrap());
    client.send(Message::Binary(data)).await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), 0x82);
}
