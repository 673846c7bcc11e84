//! The bus by NATS: by the tests of every bus, and what NATS has besides.

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

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use mcp_ws_transport::cluster::{AskError, Bus, PublishError, SubscribeError};
use mcp_ws_transport_nats::{Connect, ConnectError, Nats};
use tokio::{net::TcpListener, time::timeout};

use certificates::certificates;
use logs::Log;
use server::Server;
use suite::{Connection, Engine, subject};

const LONG: Duration = Duration::from_secs(20);

struct NatsServer(Server);

impl NatsServer {
    fn start() -> Self {
        Self(Server::start("nats-server", |port| {
            ["-a", "127.0.0.1", "-p", &port.to_string()].map(Into::into).into()
        }))
    }

    /// Starts one with this configuration file.
    fn with_config(path: &Path) -> Self {
        Self(Server::start("nats-server", |port| {
            let port = port.to_string();
            let config = path.as_os_str().into();
            vec!["-c".into(), config, "-a".into(), "127.0.0.1".into(), "-p".into(), port.into()]
        }))
    }

    fn url(&self) -> String {
        format!("nats://{}", self.0.address)
    }

    fn connect(&self) -> Connect {
        Nats::connect(self.url()).ping_interval(Duration::from_millis(200))
    }
}

impl Engine for NatsServer {
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
    use super::{NatsServer, suite};

    suite::run!(ignore = "needs nats-server", async { NatsServer::start() });
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_server_that_hangs_is_noticed_and_holds_nobody_up() {
    let server = NatsServer::start();
    // The server is taken for away when the third ping is due, after three intervals. Until then
    // the operating system, the client library and the queue of 1 MiB hold something.
    let bus = server.connect().max_queued_bytes(1 << 20).await.unwrap();
    suite::a_server_that_hangs_is_noticed(&bus, |signal| server.0.signal(signal), 119).await;
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_server_may_be_there_only_later() {
    let mut server = NatsServer::start();
    server.0.kill();
    let unreachable = server.connect().await.unwrap_err();
    assert!(matches!(unreachable, ConnectError::Unreachable(_)), "{unreachable}");
    let no_address = Nats::connect("http://127.0.0.1").await.unwrap_err();
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

/// Returns the configuration of the README, as a file within this folder.
fn config(folder: &Path) -> std::path::PathBuf {
    let readme = include_str!("../README.md");
    let (_, config) = readme.split_once("```text\n# nats-server.conf\n").unwrap();
    let (config, _) = config.split_once("```").unwrap();
    let path = folder.join("nats-server.conf");
    fs::write(&path, config.replace("/etc/nats/", &format!("{}/", folder.display()))).unwrap();
    path
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn the_rights_of_the_readme_are_enough_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let server = NatsServer::with_config(&config(folder.path()));
    let prefix = subject("prod.math");
    let connect = || server.connect().root_certificates(folder.path().join("ca.pem"));
    let bus = connect().prefix(&prefix).user_and_password("mcp", "change-me").await.unwrap();
    let on = subject("prod.math.i.a");
    let mut questions = bus.subscribe(&on, 1 << 20).await.unwrap();
    let answered = async {
        let question = questions.next().await.unwrap();
        bus.publish(&question.reply_to.unwrap(), "answer".into()).unwrap();
    };
    let (answer, ()) = futures::join!(bus.ask(&on, "?".into(), LONG), answered);
    assert_eq!(answer.unwrap(), "answer");
    let nobody = bus.ask(&subject("prod.math.i.b"), "?".into(), LONG).await;
    assert_eq!(nobody, Err(AskError::Nobody));

    let refused = bus.subscribe(&subject("prod.other"), 1000).await.unwrap_err();
    assert!(refused.to_string().contains("Permissions Violation"), "{refused}");
    // What is published without the right is lost, and told by the log alone.
    let short = Duration::from_millis(200);
    let asked = bus.ask(&subject("prod.other"), "?".into(), short).await;
    assert_eq!(asked, Err(AskError::TimedOut));

    let wrong = connect().user_and_password("mcp", "wrong").await.unwrap_err();
    assert!(matches!(wrong, ConnectError::Unauthorized(_)), "{wrong}");
    let untrusted = server.connect().user_and_password("mcp", "change-me").await.unwrap_err();
    assert!(matches!(untrusted, ConnectError::Unreachable(_)), "{untrusted}");
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_refusal_is_warned_of_now_and_then() {
    let (log, _capture) = Log::capture();
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let server = NatsServer::with_config(&config(folder.path()));
    let bus = server.connect().root_certificates(folder.path().join("ca.pem"));
    let bus =
        bus.prefix(&subject("prod.math")).user_and_password("mcp", "change-me").await.unwrap();
    for _ in 0..100 {
        bus.publish(&subject("prod.other"), "".into()).unwrap();
    }
    // What NATS says before its answers has come by then, and been told by another task.
    for _ in 0..2 {
        let nobody = bus.ask(&subject("prod.math.i.b"), "?".into(), LONG).await;
        assert_eq!(nobody, Err(AskError::Nobody));
    }
    assert_eq!(log.text().matches("WARN").count(), 3, "{}", log.text());
}

#[tokio::test]
async fn an_attempt_that_fails_is_warned_of_now_and_then() {
    let (log, _capture) = Log::capture();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let _bus = Nats::connect(url).in_background(true).await.unwrap();
    // No attempt is made before the last one has failed.
    for _ in 0..7 {
        drop(listener.accept().await.unwrap());
    }
    assert_eq!(log.text().matches("WARN").count(), 3, "{}", log.text());
}

/// More messages come at once than the client library lets wait by default, and than it tells of by
/// its events, 128.
#[tokio::test]
#[ignore = "needs nats-server"]
async fn no_message_is_lost_where_many_come_at_once() {
    const MESSAGES: u64 = 100_000;

    let mut published = b"CONNECT {\"verbose\":false}\r\n".to_vec();
    for number in 0..MESSAGES {
        published.extend(format!("PUB s 8\r\n{number:08}\r\n").as_bytes());
    }
    published.extend(b"PING\r\n");
    let server = NatsServer::start();
    let bus = Nats::connect(server.url()).await.unwrap();
    let mut subscription = bus.subscribe(&subject("s"), 1 << 30).await.unwrap();
    // Nothing else runs on this thread meanwhile, so that they come together.
    let mut raw = TcpStream::connect(server.0.address).unwrap();
    raw.write_all(&published).unwrap();
    let mut lines = BufReader::new(raw).lines();
    lines.find(|line| line.as_ref().unwrap() == "PONG").unwrap().unwrap();
    for number in 0..MESSAGES {
        let delivery = timeout(LONG, subscription.next()).await.unwrap().unwrap();
        assert_eq!(delivery.payload, format!("{number:08}"));
    }
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_prefix_without_the_right_to_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let server = NatsServer::with_config(&config(folder.path()));
    let bus = server
        .connect()
        .root_certificates(folder.path().join("ca.pem"))
        .user_and_password("mcp", "change-me")
        .await
        .unwrap();
    let refused = bus.subscribe(&subject("prod.math.n"), 1000).await.unwrap_err();
    let SubscribeError::Refused(why) = refused else { panic!("{refused}") };
    assert!(why.contains("_INBOX.") && why.contains("right"), "{why}");
}

#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_client_may_be_known_by_its_certificate_or_a_token() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let path = folder.path().join("tls.conf");
    let folder = folder.path();
    let shown = folder.display();
    let tls = format!(
        "tls {{ cert_file: \"{shown}/server.pem\", key_file: \"{shown}/server-key.pem\", \
         ca_file: \"{shown}/ca.pem\", verify: true }}\nauthorization {{ token: \"secret\" }}\n"
    );
    fs::write(&path, tls).unwrap();
    let server = NatsServer::with_config(&path);
    let connect = || server.connect().root_certificates(folder.join("ca.pem")).token("secret");
    let with_certificate =
        connect().client_certificate(folder.join("client.pem"), folder.join("client-key.pem"));
    let bus = with_certificate.await.unwrap();
    assert_eq!(bus.ask(&subject("q"), "?".into(), LONG).await, Err(AskError::Nobody));
    connect().await.unwrap_err();
}

#[cfg(feature = "nkeys")]
#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_client_may_be_known_by_its_nkey() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nkeys.conf");
    // The keys of async-nats's own tests.
    let (seed, public) = (
        "SUACH75SWCM5D2JMJM6EKLR2WDARVGZT4QC6LX3AGHSWOMVAKERABBBRWM",
        "UAFHG6FUD2UU4SDFVAFUL5LDFO2XM4WYM76UNXTPJYJK7EEMYRBHT2VE",
    );
    fs::write(&path, format!("authorization {{ users: [ {{ nkey: {public} }} ] }}\n")).unwrap();
    let server = NatsServer::with_config(&path);
    let bus = server.connect().nkey(seed).await.unwrap();
    assert_eq!(bus.ask(&subject("q"), "?".into(), LONG).await, Err(AskError::Nobody));
    server.connect().await.unwrap_err();
}

#[cfg(feature = "nkeys")]
#[tokio::test]
#[ignore = "needs nats-server"]
async fn a_client_may_be_known_by_a_credentials_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/credentials");
    let server = NatsServer::with_config(&folder.join("server.conf"));
    let bus = server.connect().credentials_file(folder.join("user.creds")).await.unwrap();
    assert_eq!(bus.ask(&subject("q"), "?".into(), LONG).await, Err(AskError::Nobody));
    let missing = server.connect().credentials_file(folder.join("none.creds")).await.unwrap_err();
    assert!(matches!(missing, ConnectError::Credentials { .. }), "{missing}");
    let without = server.connect().await.unwrap_err();
    assert!(matches!(without, ConnectError::Unauthorized(_)), "{without}");
}

/// Prints how long a question and its answer take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server; measures"]
async fn round_trip() {
    let server = NatsServer::start();
    let (a, b) = (server.connect().await.unwrap(), Arc::new(server.connect().await.unwrap()));
    suite::print_round_trip("NATS", &a, b).await;
}
