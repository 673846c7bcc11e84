//! Connectors of the user's own, and Unix sockets.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::StreamExt;
use mcp_ws_transport::{
    Error,
    client::{Connect, Target},
    connect,
    error::HandshakeError,
    event::{Event, Events},
    server::Config,
};
use rmcp::{RoleClient, ServiceExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::common::{
    Tools,
    counting::Counting,
    limit, ms,
    proxy::Proxy,
    raw::{Raw, accepted},
    reconnect_within, serve_tools, tool_call,
};

/// Keeps ten calls in flight and cuts the line under them, twenty times: each call is executed
/// once, and answered, and each cut is followed by `Resumed`.
pub async fn survives(connect: Connect<RoleClient>, counting: &Counting, cut: impl Fn()) {
    const CUTS: usize = 20;
    let connect = reconnect_within(ms(5), connect);
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let cuts = AtomicUsize::new(0);
    let calls = futures::stream::iter(0..).take_while(|_| {
        let goes_on = cuts.load(SeqCst) < CUTS;
        async move { goes_on }
    });
    let calls = calls.for_each_concurrent(10, |number: i64| {
        let client = &client;
        async move {
            let call = tool_call("count", json!({ "number": number, "ms": 1 }));
            let result = client.call_tool(call).await.unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
            assert_eq!(counting.times(number), 1, "{number}");
        }
    });
    let cutting = async {
        while cuts.load(SeqCst) < CUTS {
            cut();
            resumed(&mut events).await;
            cuts.fetch_add(1, SeqCst);
        }
    };
    tokio::join!(calls, cutting);
    client.cancel().await.unwrap();
}

async fn resumed(events: &mut Events<Event>) {
    loop {
        match events.next().await.unwrap() {
            Event::Resumed { .. } => return,
            event @ (Event::Restarted { .. } | Event::Closed(_)) => panic!("{event:?}"),
            _ => {}
        }
    }
}

/// A server that counts, and where it listens.
pub async fn counting() -> (mcp_ws_transport::server::Server, SocketAddr, Counting) {
    let counting = Counting::default();
    let service = counting.clone();
    let config = Config::default().allowed_hosts(["server.test", "localhost"]);
    let serve = mcp_ws_transport::serve("127.0.0.1:0", move || service.clone()).config(config);
    let server = serve.await.unwrap();
    let address = server.local_addr();
    (server, address, counting)
}

fn failure(outcome: Result<impl Sized, Error>) -> HandshakeError {
    match outcome {
        Err(Error::Handshake(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("connected"),
    }
}

#[tokio::test]
async fn a_connector_makes_every_link_and_calls_survive_their_loss() {
    limit(async {
        let (_server, address, counting) = counting().await;
        let line = Proxy::new(address).await;
        let targets = Arc::new(Mutex::new(Vec::new()));
        let (seen, way) = (targets.clone(), line.address);
        let connector = move |target: Target| {
            seen.lock().unwrap().push(target.to_string());
            TcpStream::connect(way)
        };
        let connect = connect("ws://server.test:81/mcp").connector(connector);
        survives(connect, &counting, || line.cut()).await;
        let targets = targets.lock().unwrap();
        assert_eq!(targets.len(), line.dials.load(SeqCst));
        assert!(targets.len() > 20 && targets.iter().all(|target| target == "server.test:81"));
    })
    .await;
}

/// Its stream need be none of the network's.
#[tokio::test]
async fn any_stream_will_do() {
    limit(async {
        let connector = async |target: Target| {
            assert_eq!((target.host(), target.port(), target.is_tls()), ("2001:db8::1", 80, false));
            assert_eq!(target.to_string(), "[2001:db8::1]:80");
            let (near, far) = tokio::io::duplex(1 << 10);
            tokio::spawn(async move {
                let config = Config::default().allowed_hosts(["2001:db8::1"]);
                let transport = mcp_ws_transport::accept(far).config(config).await.unwrap();
                Tools::default().serve(transport).await.unwrap().waiting().await.unwrap();
            });
            io::Result::Ok(near)
        };
        let connect = connect("ws://[2001:db8::1]/mcp").connector(connector);
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        client.list_all_tools().await.unwrap();
        client.cancel().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_connector_says_whether_there_is_another_attempt() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let attempts = Arc::new(AtomicUsize::new(0));
        let count = attempts.clone();
        let connector = move |_| {
            let attempt = count.fetch_add(1, SeqCst);
            async move {
                match attempt {
                    0 | 1 => Err(io::Error::other("the line is busy")),
                    _ => TcpStream::connect(address).await,
                }
            }
        };
        let client = reconnect_within(ms(5), connect("ws://localhost/mcp"))
            .retry_first()
            .connector(connector);
        ().serve(client.await.unwrap()).await.unwrap().cancel().await.unwrap();
        assert_eq!(attempts.load(SeqCst), 3);

        let attempts = Arc::new(AtomicUsize::new(0));
        let count = attempts.clone();
        let connector = move |_: Target| {
            count.fetch_add(1, SeqCst);
            async { Err::<TcpStream, _>(HandshakeError::Invalid("no such tunnel".into())) }
        };
        let client = reconnect_within(ms(5), connect::<RoleClient>("ws://localhost/mcp"));
        let error = failure(client.retry_first().connector(connector).await);
        assert_eq!(error.to_string(), "cannot dial: no such tunnel");
        assert_eq!(attempts.load(SeqCst), 1);

        let connector = async |_: Target| -> io::Result<TcpStream> { panic!("as it was told") };
        let client =
            reconnect_within(ms(5), connect::<RoleClient>("ws://localhost/mcp")).retry_first();
        let error = failure(client.connector(connector).await);
        assert!(!error.is_retryable() && error.to_string().contains("panicked"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_connector_that_never_ends_is_given_up() {
    limit(async {
        let connector = async |_: Target| std::future::pending::<io::Result<TcpStream>>().await;
        let client = connect::<RoleClient>("ws://localhost/mcp").connector(connector);
        let error = failure(client.handshake_timeout(Duration::from_millis(50)).await);
        assert!(matches!(error, HandshakeError::TimedOut(_)), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_redirect_is_connected_anew() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            let mut raw = Raw::over(listener.accept().await.unwrap().0, false);
            let head = raw.head().await.unwrap();
            assert_eq!(head.get("host"), Some("server.test"));
            let redirect = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /there\r\n\
                Content-Length: 0\r\n\r\n";
            raw.write(redirect).await;
            let mut raw = Raw::over(listener.accept().await.unwrap().0, false);
            let head = raw.head().await.unwrap();
            raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
            raw
        };
        let client = connect::<RoleClient>("ws://server.test/mcp").no_reconnect();
        let client = client.connector(move |_: Target| TcpStream::connect(address));
        let (connected, _raw) = tokio::join!(client, serving);
        drop(connected.unwrap());
    })
    .await;
}

/// A server that is reached by another name than its own.
#[tokio::test]
async fn the_host_can_be_another_than_that_of_the_url() {
    limit(async {
        let config = Config::default().allowed_hosts(["mcp.example.com"]);
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        let url = format!("ws://{address}/mcp");
        let error = failure(connect::<RoleClient>(&*url).no_reconnect().await);
        assert!(error.to_string().contains("403"), "{error}");
        let client = connect(&*url).header("host", "mcp.example.com");
        ().serve(client.await.unwrap()).await.unwrap().cancel().await.unwrap();
    })
    .await;
}

#[cfg(unix)]
mod unix {
    use std::{env::temp_dir, fs, path::PathBuf};

    use mcp_ws_transport::{client::UnixSocket, server::serve_on};
    use tokio::net::{UnixListener, UnixStream, unix::SocketAddr};

    use super::*;

    /// The path of a socket that is removed when it is dropped.
    struct SocketPath(PathBuf);

    impl SocketPath {
        fn new(name: &str) -> Self {
            Self(temp_dir().join(format!("mcp-{}-{name}.sock", std::process::id())))
        }

        fn url(&self) -> String {
            format!("ws+unix:{}:/mcp", self.0.display())
        }
    }

    impl Drop for SocketPath {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    /// Passes connections on until they are cut.
    fn forward_until_cut(from: UnixListener, to: PathBuf) -> tokio::sync::watch::Sender<usize> {
        let cuts = tokio::sync::watch::Sender::new(0);
        let cutting = cuts.clone();
        tokio::spawn(async move {
            while let Ok((mut near, _)) = from.accept().await {
                let (mut cuts, to) = (cutting.subscribe(), to.clone());
                tokio::spawn(async move {
                    let mut far = UnixStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        cuts
    }

    #[tokio::test]
    async fn a_unix_socket_is_reconnected_and_resumed_too() {
        limit(async {
            let (server, outside) = (SocketPath::new("server"), SocketPath::new("line"));
            let counting = Counting::default();
            let service = counting.clone();
            let listener = UnixListener::bind(&server.0).unwrap();
            let running = serve_on(listener, move || service.clone()).await.unwrap();
            let address: Arc<SocketAddr> = running.local_addr();
            assert_eq!(address.as_pathname(), Some(&*server.0));
            let cuts = forward_until_cut(UnixListener::bind(&outside.0).unwrap(), server.0.clone());
            let by_url = connect(outside.url());
            survives(by_url, &counting, || cuts.send_modify(|cuts| *cuts += 1)).await;

            let connector = UnixSocket::new(&outside.0);
            let client = connect("ws://localhost/mcp").connector(connector);
            ().serve(client.await.unwrap()).await.unwrap().cancel().await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_may_come() {
        limit(async {
            let socket = SocketPath::new("missing");
            let error = failure(connect::<RoleClient>(socket.url()).await);
            let text = error.to_string();
            assert!(error.is_retryable() && text.contains(&*socket.0.to_string_lossy()), "{text}");
            assert!(text.contains("is the server running"), "{text}");

            for (url, says) in [
                ("ws+unix:mcp.sock:/mcp", "absolute"),
                ("ws+unix://host/mcp.sock:/mcp", "absolute"),
            ] {
                let error = failure(connect::<RoleClient>(url).await);
                assert!(!error.is_retryable() && error.to_string().contains(says), "{error}");
            }
            let connector = UnixSocket::new("/elsewhere");
            let both = connect::<RoleClient>(socket.url()).connector(connector);
            assert!(failure(both.await).to_string().contains("no room"));
        })
        .await;
    }
}
