//! Autobahn's cases against every entrance of the server and against the client, by `kosoku`, their
//! port to Python 3. With `MCP_WS_FULL` set, those for compression with messages of all sizes
//! (`--release`). It needs, in `tests/interop`:
//!
//! ```sh
//! python3 -m venv .venv && .venv/bin/pip install --requirement requirements-autobahn.txt
//! ```

use std::{
    env,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    process::{Output, Stdio},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use futures::{Sink, Stream};
#[cfg(feature = "deflate")]
use mcp_ws_transport::layer::socket::deflate;
use mcp_ws_transport::{
    Message, accept, connect,
    duplex::Duplex,
    layer::socket,
    serve,
    server::{self, WebSocketService},
    transport,
};
use pin_project_lite::pin_project;
use rmcp::{RoleClient, RoleServer, transport::Transport};
use tokio::{net::TcpListener, process::Command, sync::mpsc, time::timeout};

use crate::{common::Tools, free_port};

/// Longer than one run takes, unless a case hangs.
const LIMIT: Duration = Duration::from_secs(900);

/// Cases, which all have to pass.
struct Cases {
    /// Options of `kosoku`.
    chosen: &'static [&'static str],
    count: usize,
    what: &'static str,
    socket: fn() -> socket::Config,
}

/// All cases but those for compression.
const PROTOCOL: Cases = Cases {
    chosen: &["-x", "12.*", "-x", "13.*"],
    count: 301,
    what: "cases",
    socket: uncompressed,
};

/// Cases for compression. Each has 1,000 messages, of up to 128 KiB.
#[cfg(feature = "deflate")]
const COMPRESSION: Cases = Cases {
    chosen: &["-i", "12.*", "-i", "13.*"],
    count: 216,
    what: "cases for compression",
    socket: compressing_each,
};

/// Cases for compression whose messages have 256 bytes.
#[cfg(feature = "deflate")]
const COMPRESSION_OF_SMALL_MESSAGES: Cases =
    Cases { chosen: &["-i", "12.*.3", "-i", "13.*.3"], count: 12, ..COMPRESSION };

pin_project! {
    /// Layer that sends each message back, and lets none pass.
    struct Echo<S> {
        #[pin]
        inner: S,
        to_send: ToSend,
        answer: Answer,
    }
}

/// Message that is to be sent back, if there is one.
enum ToSend {
    Nothing,
    Waiting(Message),
    Unflushed,
}

/// Answer to each message.
#[derive(Clone)]
enum Answer {
    /// The message as it is.
    Same,
    /// The message as binary, which no case allows of a text.
    AsBinary,
    /// Nothing: the message is taken.
    Taken(mpsc::UnboundedSender<Message>),
}

impl<S: Duplex<Message, Message>> Stream for Echo<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let mut this = self.project();
        loop {
            match std::mem::replace(this.to_send, ToSend::Nothing) {
                ToSend::Waiting(message) => {
                    if this.inner.as_mut().poll_ready(cx)?.is_pending() {
                        *this.to_send = ToSend::Waiting(message);
                        return Poll::Pending;
                    }
                    this.inner.as_mut().start_send(message)?;
                    *this.to_send = ToSend::Unflushed;
                }
                ToSend::Unflushed => {
                    if this.inner.as_mut().poll_flush(cx)?.is_pending() {
                        *this.to_send = ToSend::Unflushed;
                        return Poll::Pending;
                    }
                }
                ToSend::Nothing => {
                    let message = match ready!(this.inner.as_mut().poll_next(cx)) {
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                        other => return Poll::Ready(other),
                    };
                    match (&*this.answer, message) {
                        (Answer::Taken(taken), message) => {
                            let _ = taken.send(message);
                        }
                        (Answer::AsBinary, Message::Text(text)) => {
                            *this.to_send = ToSend::Waiting(Message::Binary(text.into()));
                        }
                        (_, message) => *this.to_send = ToSend::Waiting(message),
                    }
                }
            }
        }
    }
}

impl<S: Duplex<Message, Message>> Sink<Message> for Echo<S> {
    type Error = S::Error;

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), S::Error> {
        self.project().inner.start_send(message)
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_ready(cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_close(cx)
    }
}

/// Returns the settings of sockets that take messages as large as the cases have.
fn uncompressed() -> socket::Config {
    socket::Config::default().max_message_size(32 << 20)
}

/// Returns the settings of sockets that compress each message by itself. In some of the cases the
/// server asks for that, which the client's offer has to allow.
#[cfg(feature = "deflate")]
fn compressing_each() -> socket::Config {
    uncompressed().deflate(deflate::Config::default().threshold(0))
}

/// Returns the settings of sockets that compress a message by those before it.
#[cfg(feature = "deflate")]
fn compressing_all() -> socket::Config {
    uncompressed().deflate(deflate::Config::default().threshold(0).context_takeover(true))
}

/// Returns the settings of a transport whose links give this answer to each message.
fn echoing(socket: socket::Config, answer: Answer) -> transport::Config {
    transport::Config::default().socket(socket).layer(move |inner| Echo {
        inner,
        to_send: ToSend::Nothing,
        answer: answer.clone(),
    })
}

/// Returns the settings of a server of such links, which no client initializes.
fn server(socket: socket::Config, answer: Answer) -> server::Config {
    server::Config::default().transport(echoing(socket, answer)).handshake_timeout(LIMIT)
}

/// Returns the command of `kosoku`, which reports in a folder of this name.
fn kosoku(reports: &str, arguments: &[&str]) -> Command {
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    assert!(interop.join(".venv/bin/kosoku").exists(), "it needs kosoku: see the top of this file");
    let mut kosoku = Command::new(interop.join(".venv/bin/python"));
    kosoku.arg(interop.join("kosoku_compression.py"));
    let reports = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn").join(reports);
    kosoku.arg("-o").arg(reports).args(arguments).kill_on_drop(true).stdin(Stdio::null());
    kosoku
}

/// Runs cases against the server at `path`.
async fn run_against(address: SocketAddr, path: &str, cases: &[&str]) -> Output {
    let mut kosoku = kosoku(&address.port().to_string(), &["-p", "4"]);
    kosoku.args(cases).arg(format!("ws://{address}{path}"));
    timeout(LIMIT, kosoku.output()).await.unwrap().unwrap()
}

impl Cases {
    /// Fails unless all have passed.
    fn assert_passed(&self, who: &str, output: &Output) {
        let said = String::from_utf8_lossy(&output.stdout);
        let count = self.count;
        assert!(
            output.status.success() && said.contains(&format!("{count} cases passed")),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!("figure: {who}: {count} of {count} {}", self.what);
    }

    async fn run_against_listener(&self) {
        let config = server((self.socket)(), Answer::Same);
        let server = serve("127.0.0.1:0", Tools::default).config(config).await.unwrap();
        let output = run_against(server.local_addr(), "/mcp", self.chosen).await;
        self.assert_passed("listener", &output);
    }

    async fn run_against_client(&self) {
        let address = free_port();
        let reports = format!("client-{}", address.port());
        let mut fuzzing = kosoku(&reports, &["-m", "fuzzingserver"]);
        fuzzing.args(self.chosen).arg(address.to_string());
        let fuzzing = fuzzing.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut fuzzing = fuzzing.unwrap();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert_eq!(fuzzing.try_wait().unwrap(), None, "kosoku has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (taken, mut counts) = mpsc::unbounded_channel();
        dial(address, "getCaseCount", uncompressed(), Answer::Taken(taken)).await;
        assert_eq!(counts.recv().await, Some(Message::text(self.count.to_string())));
        for case in 1..=self.count {
            let path = format!("runCase?case={case}&agent=crate");
            dial(address, &path, (self.socket)(), Answer::Same).await;
        }
        dial(address, "updateReports?agent=crate", uncompressed(), Answer::Same).await;
        let output = timeout(LIMIT, fuzzing.wait_with_output()).await.unwrap().unwrap();
        self.assert_passed("client", &output);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_listener_passes_all_cases() {
    PROTOCOL.run_against_listener().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_mount_in_axum_passes_all_cases() {
    let mcp = WebSocketService::new(|| Ok(Tools::default()), server(uncompressed(), Answer::Same))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route_service("/", mcp);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let output = run_against(address, "/", PROTOCOL.chosen).await;
    PROTOCOL.assert_passed("mount in axum", &output);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_raw_stream_passes_all_cases() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async {
                let accepting =
                    accept::<RoleServer, _>(stream).config(server(uncompressed(), Answer::Same));
                if let Ok(mut transport) = accepting.await {
                    transport.receive().await;
                }
            });
        }
    });
    PROTOCOL.assert_passed("raw stream", &run_against(address, "/", PROTOCOL.chosen).await);
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn an_echo_of_text_as_binary_fails() {
    let serving =
        serve("127.0.0.1:0", Tools::default).config(server(uncompressed(), Answer::AsBinary));
    let server = serving.await.unwrap();
    let output = run_against(server.local_addr(), "/mcp", &["-i", "1.*"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("1.1.2: behavior=FAILED"), "{said}");
}

/// Dials, and answers until the link ends.
async fn dial(address: SocketAddr, path: &str, socket: socket::Config, answer: Answer) {
    let dialling = connect::<RoleClient>(format!("ws://{address}/{path}"))
        .no_reconnect()
        .transport(echoing(socket, answer));
    let mut transport = timeout(LIMIT, dialling).await.unwrap().unwrap();
    timeout(LIMIT, transport.receive()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_client_passes_all_cases() {
    PROTOCOL.run_against_client().await;
}

/// Returns all cases for compression, or by default those with small messages.
#[cfg(feature = "deflate")]
fn compression() -> Cases {
    let is_full = env::var_os("MCP_WS_FULL").is_some();
    if is_full { COMPRESSION } else { COMPRESSION_OF_SMALL_MESSAGES }
}

#[cfg(feature = "deflate")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn compressed_messages_pass_all_cases_at_a_listener() {
    Cases { socket: compressing_all, ..compression() }.run_against_listener().await;
}

#[cfg(feature = "deflate")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn compressed_messages_pass_all_cases_at_a_client() {
    compression().run_against_client().await;
}

#[cfg(feature = "deflate")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn messages_that_are_compressed_by_those_before_pass_at_a_client() {
    let cases = Cases {
        chosen: &["-i", "12.*"],
        count: 90,
        what: "cases with context takeover",
        socket: compressing_all,
    };
    let small = Cases { chosen: &["-i", "12.*.3"], count: 5, ..cases };
    let is_full = env::var_os("MCP_WS_FULL").is_some();
    if is_full { cases } else { small }.run_against_client().await;
}
