//! Ends of peers, and what is left of them.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use crate::common::{
    call,
    flood::{Flood, dial_and_open},
    raw::{Frame, PING, PONG, Raw, TEXT},
    text_of,
};

pub const FLOODS: [Flood; 10] = [
    Flood::Frames,
    Flood::Pings,
    Flood::Calls,
    Flood::Unknown,
    Flood::Rubbish,
    Flood::Notifications,
    Flood::Fragments,
    Flood::Answers,
    Flood::Large,
    Flood::Acks,
];

/// Way in which a peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reset,
    Fin,
    Silence,
    /// Reads a byte a second.
    Trickle,
}

pub const ENDS: [End; 4] = [End::Reset, End::Fin, End::Silence, End::Trickle];

impl End {
    /// Has a peer go. Returns what is to be kept where dropping it would end the connection.
    pub async fn apply(self, mut raw: Raw) -> Option<Gone> {
        match self {
            Self::Reset => {
                raw.reset();
                return None;
            }
            Self::Fin => _ = raw.stream.shutdown().await,
            Self::Silence => {}
            Self::Trickle => {
                let reading = tokio::spawn(async move {
                    while let Ok(1) = raw.stream.read(&mut [0]).await {
                        sleep(Duration::from_secs(1)).await;
                    }
                });
                return Some(Gone::Reading(reading));
            }
        }
        Some(Gone::Held(raw))
    }
}

/// The connection of a peer that has gone.
#[derive(Debug)]
pub enum Gone {
    Held(#[expect(dead_code, reason = "it is kept open")] Raw),
    Reading(tokio::task::JoinHandle<()>),
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Self::Reading(reading) = self {
            reading.abort();
        }
    }
}

/// The owner of this session returns, and is answered, whether it goes on or is over. What is sent
/// again it acknowledges.
pub async fn return_of_owner(address: SocketAddr, session: &Value) -> bool {
    let (id, secret) = (&session["session"], &session["secret"]);
    let wanted = json!({ "session": id, "secret": secret, "received": 1 });
    let (mut raw, session) = dial_and_open(address, &wanted).await;
    let resumed = session["resumed"].as_bool().expect("whether it is the same");
    let mut received = if resumed { 1 } else { 0 };
    if !resumed {
        raw.initialize().await;
        received += 1;
    }
    let asked = call("owner", "echo", json!({ "text": "hi" }));
    raw.json(&asked).await;
    loop {
        let frame = raw.next().await.expect("the stream ended");
        match frame.opcode {
            TEXT if frame.payload.starts_with(b"@ack ") => {}
            TEXT => {
                received += 1;
                raw.text(format!("@ack {received}")).await;
                let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                if message["id"] == "owner" {
                    // Requests of the flood have their places until their answers are read.
                    if message["error"]["data"]["reason"] == "too_many_requests" {
                        raw.json(&asked).await;
                        continue;
                    }
                    assert_eq!(text_of(&message), "hi");
                    break;
                }
            }
            PING => raw.send(Frame::new(PONG, frame.payload)).await,
            _ => panic!("{frame:?}"),
        }
    }
    raw.reset();
    resumed
}

/// Counts the sockets of this process at `port`, at the near end or at the far one. Listeners, and
/// those that are the kernel's own by now, are not counted.
pub fn descriptors(port: u16, at: Side) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let of_port = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields[at as usize], fields[3], fields[9]);
        (address.ends_with(&port) && state != "0A").then(|| format!("socket:[{inode}]"))
    });
    let of_port: std::collections::HashSet<String> = of_port.collect();
    let own = std::fs::read_dir("/proc/self/fd").unwrap();
    let own = own.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    own.filter(|link| link.to_str().is_some_and(|link| of_port.contains(link))).count()
}

/// An end of a connection, by its column in the kernel's table.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    Near = 1,
    Far = 2,
}
