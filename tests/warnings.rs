//! What an operator is warned of. These tests read the log of their process, and have it for themselves.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    Frame, LIMIT, listen,
    raw::{PING, PONG},
    scripted::{Link, hasty, session},
    within,
};
use mcp_ws_transport::connect;
use rmcp::ServiceExt;

/// What the crate has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
    }
}

/// As by a balancer that cuts whatever is 30 s old.
#[tokio::test]
async fn connections_that_are_lost_at_the_same_age_are_told_once() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("mcp_ws_transport=warn")
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    within(100 * LIMIT, async {
        let (listener, url) = listen().await;
        let serving = async {
            let mut link = Link::new(&listener).await;
            link.open().await;
            let mut link = link.begins(session("s-1", "s", 0, false)).await;
            for told in [0, 0, 1, 1, 1] {
                // What there is to do is done before the clock is moved.
                link.raw.send(Frame::new(PING, "x")).await;
                while link.raw.next().await.unwrap().opcode != PONG {}
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(30)).await;
                tokio::time::resume();
                (link, _) = link.cut(&listener).await;
                link.raw.text(session("s-1", "s", link.received, true)).await;
                assert_eq!(log.lines("idle timeout on the way?").len(), told);
            }
            link
        };
        let dialling = async { ().serve(hasty(connect(url)).await.unwrap()).await.unwrap() };
        let (client, link) = tokio::join!(dialling, serving);
        drop((client, link));
    })
    .await;
    let [line] = &log.lines("idle timeout on the way?")[..] else { panic!() };
    assert!(line.contains("WARN") && line.contains("age=30"), "{line}");
    assert!(line.contains("ping_interval"), "{line}");
}
