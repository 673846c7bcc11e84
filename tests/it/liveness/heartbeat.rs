//! Peers that fall silent are found; those that are only slow or quiet are left alone. On virtual
//! time.

use std::time::Duration;

use bytes::Bytes;
use mcp_ws_transport::{
    State, WebSocketTransport, connect,
    layer::{
        heartbeat, shared_link,
        socket::{self, Side},
    },
    transport::Config,
};
use rmcp::{RoleClient, RoleServer, ServiceExt, transport::Transport};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    time::{Instant, sleep, timeout},
};

use crate::common::{
    Observer, Tools, call, client_and_raw, limit,
    raw::{Frame, PING, PONG, Raw, head},
    text_of, within,
};

fn config(ping: u64, pong: u64, idle: u64) -> Config {
    Config::default().heartbeat(
        heartbeat::Config::default()
            .ping_interval(Duration::from_millis(ping))
            .pong_timeout(Duration::from_millis(pong))
            .idle_timeout(Duration::from_millis(idle)),
    )
}

/// A raw client of a server, initialized, with room for `bytes` on the way.
async fn served(config: Config, bytes: usize) -> (Raw<DuplexStream>, Observer) {
    let (near, far) = duplex(bytes);
    let builder = WebSocketTransport::<RoleServer>::builder().transport(config);
    let transport = builder.over_stream(near, Bytes::new(), Side::Server);
    let observer = Observer { stats: transport.stats(), state: transport.state() };
    tokio::spawn(async move {
        Tools::default().serve(transport).await.unwrap().waiting().await.unwrap();
    });
    let mut raw = Raw::over(far, true);
    raw.initialize().await;
    (raw, observer)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_given_up() {
    limit(async {
        let (mut raw, mut observer) = served(config(100, 200, 60_000), 1 << 16).await;
        let start = Instant::now();
        let ended = observer.ended().await;
        assert!((250..350).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let State::Closed(reason) = ended else { unreachable!() };
        assert_eq!(u16::from(reason.code), 1006);
        assert!(reason.reason.contains("nothing received"), "{reason}");
        assert_eq!(raw.next().await.unwrap().opcode, PING);
    })
    .await;
}

#[tokio::test]
async fn pending_calls_learn_of_a_peer_that_answers_no_ping() {
    limit(async {
        let (client, _, _raw) =
            client_and_raw(|url| connect(url).transport(config(100, 200, 60_000))).await;
        let error = within(Duration::from_secs(10), client.list_tools(None)).await.unwrap_err();
        assert!(error.to_string().contains("before the response"), "{error}");
    })
    .await;
}

/// An answer that has begun and does not go on ends its call, and the link.
#[tokio::test]
async fn pending_calls_learn_of_an_answer_that_comes_too_slowly() {
    limit(async {
        let config = Config::default()
            .socket(socket::Config::default().receive_window(Duration::from_millis(300)));
        let (client, _, mut raw) = client_and_raw(|url| connect(url).transport(config)).await;
        let dripping = async {
            let _ = raw.receive().await;
            raw.write(head(&Frame::text(""), 1 << 20, false)).await;
            while raw.try_write("{").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let calling = within(Duration::from_secs(2), client.list_tools(None));
        let (answer, ()) = tokio::join!(calling, dripping);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("fewer than 1024 bytes per second"), "{error}");
    })
    .await;
}

/// Only what arrives is life: a peer that takes all and says nothing is dead.
#[tokio::test(start_paused = true)]
async fn writing_is_no_life() {
    limit(async {
        let (near, mut far) = duplex(1 << 16);
        let mut transport = WebSocketTransport::<RoleClient>::builder()
            .transport(config(100, 300, 60_000))
            .over_stream(near, Bytes::new(), Side::Client);
        tokio::spawn(async move {
            let mut scratch = vec![0; 4096];
            while far.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
        });
        let start = Instant::now();
        loop {
            let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
            let message = serde_json::from_value(message).unwrap();
            let sent = transport.send(message);
            let received = async {
                tokio::select! {
                    none = transport.receive() => { assert!(none.is_none()); true }
                    () = sleep(Duration::from_millis(20)) => false,
                }
            };
            let (_, ended) = tokio::join!(sent, received);
            if ended {
                break;
            }
        }
        assert!((350..450).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_peer_that_answers_lives_for_ever() {
    limit(async {
        let (mut raw, observer) = served(config(30, 200, 400), 1 << 16).await;
        let start = Instant::now();
        let mut payloads = Vec::new();
        while start.elapsed() < Duration::from_millis(1000) {
            let frame = raw.next().await.unwrap();
            assert_eq!(frame.opcode, PING);
            payloads.push(frame.payload.clone());
            raw.send(Frame::new(PONG, frame.payload)).await;
        }
        assert!(payloads.len() >= 10, "{}", payloads.len());
        payloads.dedup();
        assert!(payloads.len() >= 10, "pings differ");
        raw.ping().await;
        assert!(observer.stats().round_trip.is_some());
    })
    .await;
}

/// Pongs of others, or none at all but other frames, are life as well.
#[tokio::test(start_paused = true)]
async fn whatever_arrives_is_life() {
    limit(async {
        for frame in [Frame::new(PONG, "mine"), Frame::new(PING, ""), Frame::text("rubbish")] {
            let (mut raw, observer) = served(config(50, 150, 300), 1 << 16).await;
            for _ in 0..16 {
                sleep(Duration::from_millis(50)).await;
                raw.send(frame.clone()).await;
            }
            assert_eq!(*observer.state.borrow(), State::Connected, "{frame:?}");
            assert_eq!(observer.stats().round_trip, None);
        }
    })
    .await;
}

/// A large message over a slow line takes longer than any pong, and holds the pong up.
#[tokio::test(start_paused = true)]
async fn a_message_that_arrives_slowly_is_life() {
    limit(async {
        let (mut raw, observer) = served(config(100, 200, 500), 1 << 16).await;
        let message = call(1, "echo", json!({ "text": "x".repeat(40_000) })).to_string();
        raw.write(head(&Frame::text(""), message.len() as u64, true)).await;
        for piece in message.as_bytes().chunks(1000) {
            sleep(Duration::from_millis(25)).await;
            raw.write(piece).await;
        }
        assert_eq!(*observer.state.borrow(), State::Connected);
        assert_eq!(text_of(&raw.receive().await).len(), 40_000);
    })
    .await;
}

/// The other direction: no ping can be written meanwhile, so no pong is missing.
#[tokio::test(start_paused = true)]
async fn a_message_that_leaves_slowly_is_no_silence() {
    limit(async {
        let (near, mut far) = duplex(1024);
        let mut transport = WebSocketTransport::<RoleServer>::builder()
            .transport(config(100, 200, 1500))
            .over_stream(near, Bytes::new(), Side::Server);
        let result = json!({ "content": [{ "type": "text", "text": "x".repeat(60_000) }] });
        let message = json!({ "jsonrpc": "2.0", "id": 1, "result": result });
        let sent = transport.send(serde_json::from_value(message).unwrap());
        let reader = tokio::spawn(async move {
            let mut piece = [0; 1024];
            for _ in 0..40 {
                far.read_exact(&mut piece).await.unwrap();
                sleep(Duration::from_millis(25)).await;
            }
            far
        });
        tokio::select! {
            sent = sent => panic!("{sent:?}"),
            received = transport.receive() => panic!("{received:?}"),
            reader = reader => drop(reader.unwrap()),
        }
    })
    .await;
}

/// A request that waits for room in the queue stops the reading: what the peer says meanwhile is
/// life all the same.
#[tokio::test(start_paused = true)]
async fn a_pause_of_the_reader_is_not_mistaken_for_silence() {
    limit(async {
        let queue = shared_link::Config::default().queue_bytes(1000);
        let config = config(100, 200, 600).shared_link(queue);
        let (mut raw, observer) = served(config, 1024).await;
        for (id, size) in [(1, 30_000), (2, 10), (3, 30_000), (4, 10)] {
            raw.json(&call(id, "big", json!({ "size": size }))).await;
        }
        let mut bytes = 0;
        let mut piece = [0; 1024];
        while bytes < 60_000 {
            sleep(Duration::from_millis(25)).await;
            // In time, or later when it is read again: there is room for a few only.
            let ping = Frame::new(PONG, "").bytes(true);
            let _ = timeout(Duration::from_millis(1), raw.write(ping)).await;
            bytes += raw.stream.read(&mut piece).await.unwrap();
            assert_eq!(*observer.state.borrow(), State::Connected, "after {bytes} bytes");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_defaults_find_a_silent_peer_in_thirty_seconds() {
    for (side, seconds) in [(Side::Client, 27.5), (Side::Server, 30.0)] {
        let (near, _far) = duplex(1 << 16);
        let mut transport =
            WebSocketTransport::<RoleClient>::builder().over_stream(near, Bytes::new(), side);
        let start = Instant::now();
        assert!(transport.receive().await.is_none());
        let elapsed = start.elapsed().as_secs_f64();
        assert!((seconds..seconds + 0.01).contains(&elapsed), "{elapsed}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_heartbeat_silence_is_no_end() {
    let config = Config::default()
        .heartbeat(heartbeat::Config::default().ping_interval(None).idle_timeout(None));
    let (near, _far) = duplex(1 << 16);
    let mut transport = WebSocketTransport::<RoleClient>::builder().transport(config).over_stream(
        near,
        Bytes::new(),
        Side::Client,
    );
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, transport.receive()).await.is_err());
}
