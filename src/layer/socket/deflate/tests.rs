//! The extension between two sockets, and against hand-made frames.

mod hostile;
mod negotiation;
mod roundtrip;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::{
    super::{Config as SocketConfig, Side, Socket},
    Agreement, Config,
};
use crate::{
    error::{Error, LinkError},
    stats::Stats,
};

/// Returns the agreement of a client and a server of this `config`, as each of them sees it.
fn agreed(config: Config) -> (Agreement, Agreement) {
    let (server, answer) = config.answer([config.offer().as_bytes()]).unwrap();
    (config.confirm([answer.as_bytes()]).unwrap().unwrap(), server)
}

fn socket(
    stream: DuplexStream,
    side: Side,
    config: &SocketConfig,
    agreement: Agreement,
) -> Socket<DuplexStream> {
    Socket::deflating(stream, Bytes::new(), side, config.clone(), Stats::default(), agreement)
}

/// A socket of the server's side, and the wire to it.
fn server(config: Config, limit: usize) -> (DuplexStream, Socket<DuplexStream>) {
    let (near, far) = duplex(64 << 10);
    let config_of_socket = SocketConfig::default().max_message_size(limit);
    (near, socket(far, Side::Server, &config_of_socket, agreed(config).1))
}

/// The payload of a compressed message: as peers send it, without the last four bytes.
fn deflated(data: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(data.len() + 1024);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(data, &mut compressed, FlushCompress::Sync).unwrap();
    assert_eq!(compressed.split_off(compressed.len() - 4), [0, 0, 0xff, 0xff]);
    compressed
}

/// A frame of a client, with a mask that tells its bytes apart.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x44, 0x88];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
        huge => {
            frame.push(0x80 | 127);
            frame.extend((huge as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn next_error(socket: &mut Socket<DuplexStream>) -> LinkError {
    match socket.next().await {
        Some(Err(Error::Link(error))) => error,
        other => panic!("{other:?} is no error of the link"),
    }
}

/// Returns the reader of these bytes, and of whatever follows, by `config`.
async fn received(config: Config, wire: &[u8]) -> (DuplexStream, Socket<DuplexStream>) {
    let (mut near, socket) = server(config, 4 << 20);
    near.write_all(wire).await.unwrap();
    (near, socket)
}
