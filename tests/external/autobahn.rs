//! Autobahn's cases against every entrance of the server and against the client, by `kosoku`, their
//! port to Python 3. It needs, in `tests/interop`:
//!
//! ```sh
//! python3 -m venv .venv && .venv/bin/pip install --requirement requirements-autobahn.txt
//! ```

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Output, Stdio},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::Router;
use futures::{Sink, Stream};
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

/// Longer than one run of all cases takes, unless one hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Number of the cases but those for compression.
const CASES: usize = 301;

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

/// A transport whose links answer so, of messages as large as the cases have.
fn echoing(answer: Answer) -> transport::Config {
    let socket = socket::Config::default().max_message_size(32 << 20);
    transport::Config::default().socket(socket).layer(move |inner| Echo {
        inner,
        to_send: ToSend::Nothing,
        answer: answer.clone(),
    })
}

/// A server of such links, which no client initializes.
fn server(answer: Answer) -> server::Config {
    server::Config::default().transport(echoing(answer)).handshake_timeout(LIMIT)
}

/// `kosoku`, which reports in a folder of this name.
fn kosoku(reports: &str, arguments: &[&str]) -> Command {
    let program: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/.venv/bin/kosoku");
    assert!(program.exists(), "it needs kosoku: see the top of this file");
    let mut kosoku = Command::new(program);
    let reports = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn").join(reports);
    kosoku.arg("-o").arg(reports).args(arguments).kill_on_drop(true).stdin(Stdio::null());
    kosoku
}

const BUT_COMPRESSION: [&str; 4] = ["-x", "12.*", "-x", "13.*"];

/// Runs cases against the server at `path`.
async fn run_against(address: SocketAddr, path: &str, cases: &[&str]) -> Output {
    let mut kosoku = kosoku(&address.port().to_string(), &["-p", "4"]);
    kosoku.args(cases).arg(format!("ws://{address}{path}"));
    timeout(LIMIT, kosoku.output()).await.unwrap().unwrap()
}

/// Fails unless all cases but those for compression have passed.
fn assert_passed(who: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let passed = said.contains(&format!("{CASES} cases passed"));
    assert!(output.status.success() && passed, "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("figure: {who}: {CASES} of {CASES} cases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_listener_passes_all_cases() {
    let server = serve("127.0.0.1:0", Tools::default).config(server(Answer::Same)).await.unwrap();
    let output = run_against(server.local_addr(), "/mcp", &BUT_COMPRESSION).await;
    assert_passed("listener", &output);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_mount_in_axum_passes_all_cases() {
    let mcp = WebSocketService::new(|| Ok(Tools::default()), server(Answer::Same)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route_service("/", mcp);
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    assert_passed("mount in axum", &run_against(address, "/", &BUT_COMPRESSION).await);
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
                let accepting = accept::<RoleServer, _>(stream).config(server(Answer::Same));
                if let Ok(mut transport) = accepting.await {
                    transport.receive().await;
                }
            });
        }
    });
    assert_passed("raw stream", &run_against(address, "/", &BUT_COMPRESSION).await);
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn an_echo_of_text_as_binary_fails() {
    let serving = serve("127.0.0.1:0", Tools::default).config(server(Answer::AsBinary));
    let server = serving.await.unwrap();
    let output = run_against(server.local_addr(), "/mcp", &["-i", "1.*"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("1.1.2: behavior=FAILED"), "{said}");
}

/// Dials, and answers until the link ends.
async fn dial(address: SocketAddr, path: &str, answer: Answer) {
    let dialling = connect::<RoleClient>(format!("ws://{address}/{path}"))
        .no_reconnect()
        .transport(echoing(answer));
    let mut transport = timeout(LIMIT, dialling).await.unwrap().unwrap();
    timeout(LIMIT, transport.receive()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs kosoku: see the top of this file"]
async fn a_client_passes_all_cases() {
    let address = free_port();
    let mut fuzzing = kosoku("client", &["-m", "fuzzingserver"]);
    fuzzing.args(BUT_COMPRESSION).arg(address.to_string()).stdout(Stdio::piped());
    let fuzzing = fuzzing.spawn().unwrap();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (taken, mut counts) = mpsc::unbounded_channel();
    dial(address, "getCaseCount", Answer::Taken(taken)).await;
    assert_eq!(counts.recv().await, Some(Message::text(CASES.to_string())));
    for case in 1..=CASES {
        dial(address, &format!("runCase?case={case}&agent=crate"), Answer::Same).await;
    }
    dial(address, "updateReports?agent=crate", Answer::Same).await;
    let output = timeout(LIMIT, fuzzing.wait_with_output()).await.unwrap().unwrap();
    assert_passed("client", &output);
}
