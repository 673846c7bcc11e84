//! The bus by Redis: by the tests of every bus, and what Redis has besides.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/bus/certificates.rs"]
mod certificates;
#[allow(unreachable_pub, reason = "it is shared with other tests")]
#[path = "../../../tests/common/logs.rs"]
mod logs;
#[path = "../../../tests/bus/server.rs"]
mod server;
#[path = "../../../tests/bus/suite.rs"]
mod suite;

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use mcp_ws_transport::cluster::{AskError, Bus, PublishError, SubscribeError};
use mcp_ws_transport_redis::{Connect, ConnectError, Redis};
use tokio::net::TcpListener;

use certificates::certificates;
use logs::Log;
use server::Server;
use suite::{Connection, Engine, subject};

const LONG: Duration = Duration::from_secs(20);

struct RedisServer(Server);

impl RedisServer {
    fn start() -> Self {
        Self::with_arguments(&[])
    }

    fn with_arguments(more: &[&str]) -> Self {
        Self(Server::start("redis-server", |port| {
            let port = port.to_string();
            let own = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"];
            own.iter().chain(more).map(|argument| argument.into()).collect()
        }))
    }

    fn connect(&self) -> Connect {
        let url = format!("redis://{}", self.0.address);
        Redis::connect(url).ping_interval(Duration::from_secs(1))
    }
}

impl Engine for RedisServer {
    fn connect(&mut self) -> BoxFuture<'_, Arc<dyn Connection>> {
        async { Arc::new(Self::connect(self).await.unwrap()) as Arc<dyn Connection> }.boxed()
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        async { self.0.kill() }.boxed()
    }

    fn start(&mut self) -> BoxFuture<'_, ()> {
        async { assert!(self.0.restart()) }.boxed()
    }
}

mod every_bus {
    use super::{RedisServer, suite};

    suite::run!(ignore = "needs redis-server", async { RedisServer::start() });
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_that_hangs_is_noticed_and_holds_nobody_up() {
    let server = RedisServer::start();
    let bus = server.connect().max_queued_bytes(1 << 20).await.unwrap();
    suite::a_server_that_hangs_is_noticed(&bus, |signal| server.0.signal(signal), 4).await;
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_may_be_there_only_later() {
    let mut server = RedisServer::start();
    server.0.kill();
    let unreachable = server.connect().await.unwrap_err();
    assert!(matches!(unreachable, ConnectError::Unreachable(_)), "{unreachable}");
    let no_address = Redis::connect("http://127.0.0.1").await.unwrap_err();
    assert!(matches!(no_address, ConnectError::Address(_)), "{no_address}");

    let bus = server.connect().in_background(true).await.unwrap();
    assert!(!*bus.watch_up().borrow());
    assert_eq!(bus.publish(&subject("s"), "".into()), Err(PublishError::Away));
    assert!(server.0.restart());
    suite::up(&bus, true).await;
    let mut subscription = bus.subscribe(&subject("s"), 1000).await.unwrap();
    bus.publish(&subject("s"), "here".into()).unwrap();
    assert_eq!(subscription.next().await.unwrap().payload, "here");
    assert_eq!(bus.ask(&subject("q"), "?".into(), LONG).await, Err(AskError::Nobody));
}

/// Writes the rights of the README into this folder, and returns the path of the file.
fn acl(folder: &Path) -> String {
    let readme = include_str!("../README.md");
    let (_, acl) = readme.split_once("```text\nuser default").unwrap();
    let (acl, _) = acl.split_once("```").unwrap();
    let path = folder.join("users.acl");
    fs::write(&path, format!("user default{acl}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn the_rights_of_the_readme_are_enough_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let server = RedisServer::with_arguments(&["--aclfile", &acl(folder.path())]);
    let connect = |password: &str| server.connect().user_and_password("mcp", password);
    let bus = connect("change-me").prefix(&subject("prod.math")).await.unwrap();
    let on = subject("prod.math.i.a");
    let mut questions = bus.subscribe(&on, 1 << 20).await.unwrap();
    let answered = async {
        let question = questions.next().await.unwrap();
        bus.publish(&question.reply_to.unwrap(), "answer".into()).unwrap();
    };
    let (answer, ()) = futures::join!(bus.ask(&on, "?".into(), LONG), answered);
    assert_eq!(answer.unwrap(), "answer");
    drop(questions);
    let refused = bus.subscribe(&subject("prod.other"), 1000).await.unwrap_err();
    assert!(matches!(refused, SubscribeError::Refused(_)), "{refused}");
    // What is refused ends no connection.
    bus.publish(&subject("prod.other"), "".into()).unwrap();
    assert_eq!(bus.ask(&subject("prod.math.b"), "?".into(), LONG).await, Err(AskError::Nobody));
    assert!(*bus.watch_up().borrow());

    let wrong = connect("wrong").await.unwrap_err();
    assert!(matches!(wrong, ConnectError::Refused(_)), "{wrong}");
    let no_right = connect("change-me").await.unwrap_err();
    assert!(matches!(no_right, ConnectError::Refused(_)), "{no_right}");
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_refusal_is_warned_of_now_and_then() {
    let (log, _capture) = Log::capture();
    let folder = tempfile::tempdir().unwrap();
    let server = RedisServer::with_arguments(&["--aclfile", &acl(folder.path())]);
    let bus = server.connect().user_and_password("mcp", "change-me");
    let bus = bus.prefix(&subject("prod.math")).await.unwrap();
    for _ in 0..100 {
        bus.publish(&subject("prod.other"), "".into()).unwrap();
    }
    // Redis answers in order.
    assert_eq!(bus.ask(&subject("prod.math.b"), "?".into(), LONG).await, Err(AskError::Nobody));
    assert_eq!(log.text().matches("WARN").count(), 3, "{}", log.text());
}

#[tokio::test]
async fn an_attempt_that_fails_is_warned_of_now_and_then() {
    let (log, _capture) = Log::capture();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let _bus = Redis::connect(url).in_background(true).await.unwrap();
    // No attempt is made before the last one has failed.
    for _ in 0..6 {
        drop(listener.accept().await.unwrap());
    }
    assert_eq!(log.text().matches("WARN").count(), 3, "{}", log.text());
}

#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_client_may_come_by_tls_and_show_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = RedisServer(Server::start("redis-server", |port| {
        let files = [file("server.pem"), file("server-key.pem"), file("ca.pem")];
        let [certificate, key, authority] = &files;
        [
            ["--bind", "127.0.0.1"],
            ["--port", "0"],
            ["--tls-port", &port.to_string()],
            ["--tls-cert-file", certificate],
            ["--tls-key-file", key],
            ["--tls-ca-cert-file", authority],
            ["--save", ""],
        ]
        .concat()
        .into_iter()
        .map(Into::into)
        .collect()
    }));
    let url = format!("rediss://{}", server.0.address);
    let connect = || Redis::connect(url.clone()).root_certificates(file("ca.pem"));
    let bus = connect().client_certificate(file("client.pem"), file("client-key.pem"));
    let bus = bus.await.unwrap();
    assert_eq!(bus.ask(&subject("q"), "?".into(), LONG).await, Err(AskError::Nobody));
    connect().await.unwrap_err();
    Redis::connect(url.clone()).await.unwrap_err();
    let missing = connect().root_certificates(file("none.pem")).await.unwrap_err();
    assert!(matches!(missing, ConnectError::File { .. }), "{missing}");
}

/// Prints how long a question and its answer take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server; measures"]
async fn round_trip() {
    let server = RedisServer::start();
    let (a, b) = (server.connect().await.unwrap(), Arc::new(server.connect().await.unwrap()));
    suite::print_round_trip("Redis", &a, b).await;
}
