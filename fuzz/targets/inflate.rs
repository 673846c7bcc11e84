//! A side reads frames and compressed messages, and gets back what it has compressed itself.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use mcp_ws_transport::{
    Message,
    layer::socket::{Config, Side, Socket, deflate},
    stats::Stats,
};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use crate::runtime;

/// Largest message that is taken.
const LIMIT: usize = 2048;

/// The first byte chooses what the rest is: frames, the payload of one, or a message.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let takeover = first & 4 != 0;
    runtime::block_on(async {
        match first & 3 {
            0 => read(rest, Side::Client, takeover).await,
            1 => read(rest, Side::Server, takeover).await,
            2 => read(&compressed_frames(rest), Side::Client, takeover).await,
            _ => round_trip(rest, takeover).await,
        }
    });
}

fn socket(stream: DuplexStream, side: Side, takeover: bool) -> Socket<DuplexStream> {
    let deflate = deflate::Config::default().threshold(1).context_takeover(takeover);
    let (agreement, _) = deflate.answer([&b"permessage-deflate"[..]]).expect("an agreement");
    let config = Config::default().max_message_size(LIMIT).deflate(deflate);
    Socket::deflating(stream, Bytes::new(), side, config, Stats::default(), agreement)
}

/// Returns `payload` as compressed messages of two frames each. A byte 0xa5 stands between messages.
fn compressed_frames(payload: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for message in payload.split(|byte| *byte == 0xa5) {
        let (head, tail) = message.split_at(message.len() / 2);
        for (first, part) in [(0x42, head), (0x80, tail)] {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            frames.extend([first, 126]);
            frames.extend(length.to_be_bytes());
            frames.extend(&part[..usize::from(length)]);
        }
    }
    frames
}

/// Reads all messages of a peer that sends `bytes`.
async fn read(bytes: &[u8], side: Side, takeover: bool) {
    let (near, mut far) = duplex(1 << 20);
    let mut socket = socket(near, side, takeover);
    far.write_all(bytes).await.expect("room");
    far.shutdown().await.expect("an end");
    while let Some(message) = socket.next().await {
        let Ok(message) = message else { break };
        assert!(message.len() <= LIMIT, "{} bytes", message.len());
    }
    // An error is that of a link which has ended before.
    let _ = socket.close().await;
}

/// Sends messages of which some begin alike, so that a window helps.
async fn round_trip(data: &[u8], takeover: bool) {
    let (near, far) = duplex(1 << 20);
    let mut client = socket(near, Side::Client, takeover);
    let mut server = socket(far, Side::Server, takeover);
    for message in data.chunks(LIMIT / 2) {
        let message = Message::Binary(Bytes::copy_from_slice(&message.repeat(2)));
        client.send(message.clone()).await.expect("it is sent");
        assert_eq!(server.next().await.expect("a message").expect("no error"), message);
        server.send(message.clone()).await.expect("it is sent");
        assert_eq!(client.next().await.expect("a message").expect("no error"), message);
    }
}
