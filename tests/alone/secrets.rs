//! Tokens show nowhere: not in what this crate traces at any level, not in the `Debug` or `Display`
//! of anything public, not in an answer, a close reason or a metric.
//!
//! What other crates trace is another matter: tungstenite (through `log`) and rmcp write whole
//! messages at TRACE and DEBUG, so a token that is sent within the connection, or as a tool's
//! argument, is in them. Filter those targets where that matters.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Write as _},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt;
use mcp_ws_transport::{
    accept,
    client::ReconnectPolicy,
    connect,
    event::Event as ConnectionEvent,
    serve,
    server::{BearerTokens, Config, Credentials, Identity, WebSocketService},
};
use rmcp::{RoleClient, RoleServer, ServiceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

use crate::common::{
    Tools,
    handshake::{Recorder, ask, try_upgrade, upgrade},
    limit, listen,
    proxy::Proxy,
    raw::{Frame, Raw, upgrade_request},
    scripted::{Link, immediate_reconnect, session},
};

/// A token that is right, and one that is wrong; both contain this.
const CANARY: &str = "canary";
const RIGHT: &str = "right-canary-4711";
const WRONG: &str = "wrong-canary-4711";

/// All that was traced so far, by target.
#[derive(Debug, Default)]
struct Traced(Mutex<BTreeMap<&'static str, String>>);

impl Traced {
    /// Collects all that is traced from now on, by everybody.
    fn all() -> &'static Self {
        static TRACED: OnceLock<Traced> = OnceLock::new();
        TRACED.get_or_init(|| {
            tracing_subscriber::registry().with(Noting).init();
            Self::default()
        })
    }

    fn note(&self, metadata: &Metadata<'static>, record: impl FnOnce(&mut Lines)) {
        let mut lines = Lines(String::new());
        record(&mut lines);
        let mut traced = self.0.lock().unwrap();
        traced.entry(metadata.target()).or_default().push_str(&lines.0);
    }

    /// The lines with a canary in them, of this crate and of others.
    fn canaries(&self) -> (Vec<String>, Vec<String>) {
        self.showing(CANARY)
    }

    /// The lines with this `secret` in them, of this crate and of others.
    fn showing(&self, secret: &str) -> (Vec<String>, Vec<String>) {
        let traced = self.0.lock().unwrap();
        let found = |(target, text): (&&str, &String)| -> Vec<String> {
            let lines = text.lines().filter(|line| line.contains(secret));
            lines.map(|line| format!("{target}: {line}")).collect()
        };
        let (own, foreign): (Vec<_>, Vec<_>) =
            traced.iter().partition(|(target, _)| target.starts_with("mcp_ws_transport"));
        let lines: usize = own.iter().map(|(_, text)| text.lines().count()).sum();
        println!("count: {lines} traced fields searched");
        (own.into_iter().flat_map(found).collect(), foreign.into_iter().flat_map(found).collect())
    }
}

struct Lines(String);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{field}={value:?}").unwrap();
    }
}

/// A layer that notes everything.
struct Noting;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Noting {
    fn on_new_span(&self, span: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        Traced::all().note(span.metadata(), |lines| span.record(lines));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        Traced::all().note(span.metadata(), |lines| values.record(lines));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        Traced::all().note(event.metadata(), |lines| event.record(lines));
    }
}

fn is_clean(what: &str, shown: &impl fmt::Display) {
    let shown = shown.to_string();
    assert!(!shown.contains(CANARY), "{what}: {shown}");
    for encoded in [RIGHT, WRONG].map(|token| URL_SAFE_NO_PAD.encode(token)) {
        assert!(!shown.contains(&encoded), "{what}: {shown}");
    }
}

fn hides(what: &str, value: &impl Debug) {
    is_clean(what, &format!("{value:?} {value:#?}"));
}

fn config() -> Config {
    Config::default()
        .authenticator(BearerTokens::default().token(RIGHT, Identity::new("alice")))
        .token_cookie("session")
        .allowed_origins(["https://app.example"])
}

/// Every way in which a request can carry `token`.
fn ways(token: &str) -> [String; 7] {
    [
        format!("Authorization: Bearer {token}\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Sec-WebSocket-Protocol: mcp, mcp.auth.{token}\r\n"),
        format!("Sec-WebSocket-Protocol: mcp.auth.{token}, mcp.auth.{token}\r\n"),
        format!(
            "Sec-WebSocket-Protocol: mcp, mcp.auth-base64url.{}\r\n",
            URL_SAFE_NO_PAD.encode(token)
        ),
        format!("Origin: https://app.example\r\nCookie: session={token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
    ]
}

#[tokio::test]
async fn those_of_requests_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let recorder = Recorder::default();
        let (server, address) = recorder.start_server(config()).await;
        let mut events = server.registry().events();
        for line in ways(RIGHT).into_iter().chain(ways(WRONG)) {
            let request = upgrade_request(address, &line).replace("/mcp", "/mcp?token=canary");
            let (head, mut raw) = ask(address, request).await;
            is_clean(&line, &head.0);
            if head.status() == 101 {
                raw.initialize().await;
                raw.ping().await;
                hides("the registry", server.registry());
                hides("the server", &server);
                for connection in server.registry().list() {
                    hides("a connection", &connection);
                    hides("what is known of it", &connection.info());
                    is_clean("the same", &serde_json::to_string(&connection.info()).unwrap());
                }
                raw.send(Frame::close(1000)).await;
                is_clean("a close reason", &raw.closed().await.1);
            } else {
                let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
                is_clean("a body", &raw.body(length).await);
            }
        }
        let health = server.registry().health();
        assert_eq!((health.total, health.rejected), (4, 10), "{health:?}");
        is_clean("the health", &serde_json::to_string(&health).unwrap());
        for _ in 0..14 {
            hides("an event", &events.next().await.unwrap());
        }
        // Handlers get the request, with what was secret in it marked as such; the query is as it came.
        for seen in recorder.seen() {
            let mut parts = seen.parts.unwrap();
            assert_eq!(parts.uri.query(), Some("token=canary"));
            parts.uri = "/".parse().unwrap();
            hides("a request's parts", &parts);
        }
        server.shutdown().await;
    })
    .await;
    let (own, _) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
    // What is recorded in a span after its beginning is searched too.
    for field in ["url.path=\"/mcp\"", "enduser.id=\"alice\""] {
        assert!(!traced.showing(field).0.is_empty(), "{field}");
    }
}

#[tokio::test]
async fn those_within_a_connection_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (server, address) = Recorder::default().start_server(config().in_band_authentication()).await;
        let (open, open_address) = Recorder::default().start_server(Config::default()).await;
        let authenticate = |token: &str| {
            json!({
                "jsonrpc": "2.0", "id": 1, "method": "authenticate", "params": { "token": token },
            })
        };
        let mut notification = authenticate(RIGHT);
        notification.as_object_mut().unwrap().remove("id");
        let mut array = authenticate(RIGHT);
        array["params"] = json!([RIGHT]);
        let mut version = authenticate(RIGHT);
        version["jsonrpc"] = json!(RIGHT);
        let mut twice = authenticate(RIGHT).to_string();
        twice.insert_str(1, "\"id\":2,");
        let mut messages =
            [authenticate(RIGHT), authenticate(WRONG), notification, array, version].map(|m| m.to_string()).to_vec();
        messages.extend([
            twice,
            RIGHT.to_owned(),
            format!("\"{RIGHT}\""),
            format!("[\"{RIGHT}\"]"),
            json!({ "jsonrpc": "2.0", "id": 1, "result": { "token": RIGHT } }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "error": RIGHT }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "token": RIGHT } }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": [RIGHT] } }).to_string(),
        ]);
        // Where it is asked for, and where it is not, which clients cannot know.
        for address in [address, open_address] {
            for message in &messages {
                let mut raw = upgrade(address, "").await;
                raw.text(message).await;
                raw.send(Frame::close(1000)).await;
                while let Some(frame) = raw.next().await {
                    is_clean(message, &String::from_utf8_lossy(&frame.payload));
                }
                // And when all is well.
                let mut raw = upgrade(address, "Authorization: Bearer right-canary-4711\r\n").await;
                raw.initialize().await;
                raw.text(message).await;
                raw.send(Frame::close(1000)).await;
                while let Some(frame) = raw.next().await {
                    is_clean(message, &String::from_utf8_lossy(&frame.payload));
                }
            }
        }
        hides("the registry", server.registry());
        server.shutdown().await;
        open.shutdown().await;
    })
    .await;
    let (own, foreign) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
    // What the essay of this file says of others; hyper traces nothing in a build like this.
    let targets = foreign.iter().filter_map(|line| line.split_once(": ")).map(|(target, _)| target);
    let mut targets: Vec<_> = targets.collect();
    targets.dedup();
    println!("also in what these trace: {targets:?}");
    assert!(targets.iter().all(|target| target.starts_with("rmcp") || target == &"log"));
}

#[tokio::test]
async fn those_of_a_client_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (_server, address) = Recorder::default().start_server(config()).await;
        let url = format!("ws://canary:canary@{address}/mcp?token=canary#canary");
        for token in [RIGHT, WRONG, "canary\n"] {
            let connect = connect::<rmcp::RoleClient>(&url)
                .header("x-token", CANARY)
                .header("x-canary", "bad\nvalue")
                .subprotocols([format!("mcp.auth.{CANARY}")])
                .bearer(token);
            is_clean("its Debug", &format!("{connect:?}").replace("x-canary", ""));
            let error = connect.await.unwrap_err();
            hides("an error", &error);
            is_clean("an error", &error.to_string().replace("x-canary", ""));
            let connecting = mcp_ws_transport::connect::<rmcp::RoleClient>(&url).bearer(token);
            match connecting.await {
                Ok(transport) => hides("a transport", &transport),
                Err(error) => hides("an error", &error),
            }
        }
        for url in [
            "ws://canary:canary@127.0.0.1:1/?canary",
            "ws://canary:canary@[/?canary",
            "ftp://canary:canary@127.0.0.1/?canary",
            "canary",
        ] {
            let error = connect::<rmcp::RoleClient>(url).await.unwrap_err();
            hides(url, &error);
            is_clean(url, &error);
        }
    })
    .await;
    let (own, _) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
}

/// Nor do the name of a session and its secret.
#[tokio::test]
async fn those_of_a_session_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (listener, url) = listen().await;
        let connecting = immediate_reconnect(connect::<RoleClient>(url));
        let (state, mut events) = (connecting.state(), connecting.events());
        let dialling = async {
            let transport = connecting.await.unwrap();
            hides("a transport", &transport);
            ().serve(transport).await.unwrap()
        };
        let opening = async {
            let mut link = Link::new(&listener).await;
            link.open().await;
            link.begins(session("s-canary", CANARY, 0, false)).await
        };
        let (client, link) = tokio::join!(dialling, opening);
        let (mut link, open) = link.cut(&listener).await;
        assert_eq!(open["secret"], CANARY);
        link.raw.text(session("another-canary", CANARY, 0, true)).await;
        is_clean("a close reason", &link.raw.closed().await.1);
        let link = link.cut(&listener).await.0;
        let link = link.begins(session("t-canary", CANARY, 0, false)).await;
        let mut link = link.cut(&listener).await.0;
        link.raw.text(session("t-canary", "canary-2", link.received, true)).await;
        loop {
            let event = events.next().await.unwrap();
            hides("an event", &event);
            hides("the state", &*state.borrow());
            if matches!(event, ConnectionEvent::Resumed { .. }) {
                break;
            }
        }
        drop(client);
    })
    .await;
    let (own, _) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
    let traced = traced.0.lock().unwrap().clone();
    let of_dialer = &traced["mcp_ws_transport::client::dialer"];
    for how in ["restarted", "resumed"] {
        assert!(of_dialer.contains(&format!("session={how:?}\n")), "{of_dialer}");
    }
}

/// Clients that are refused: at first, again and again, and when they come back.
#[tokio::test]
async fn those_of_a_client_that_is_refused_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (first, address) = Recorder::default().start_server(config()).await;
        let others = Config::default().authenticator(BearerTokens::from_iter(["another"]));
        let (_second, elsewhere) = Recorder::default().start_server(others).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let policy =
            || ReconnectPolicy::default().first(Duration::ZERO).min(Duration::ZERO).attempts(3);
        let url = |address| format!("ws://canary:canary@{address}/mcp?token=canary");
        for address in [elsewhere, nobody] {
            let connect = connect::<RoleClient>(url(address)).bearer(RIGHT).reconnect(policy());
            let error = connect.retry_first().await.unwrap_err();
            is_clean("an error", &error);
        }
        let proxy = Proxy::new(address).await;
        let token = async |_| Ok::<_, String>(RIGHT.to_owned());
        let connecting =
            connect::<RoleClient>(url(proxy.address)).bearer_provider(token).reconnect(policy());
        let mut events = connecting.events();
        let client = ().serve(connecting.await.unwrap()).await.unwrap();
        *proxy.target.lock().unwrap() = elsewhere;
        proxy.cut();
        loop {
            let event = events.next().await.unwrap();
            hides("an event", &event);
            if matches!(event, ConnectionEvent::Closed(_)) {
                break;
            }
        }
        drop(client);
        first.shutdown().await;
    })
    .await;
    let (own, _) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
    let traced = traced.0.lock().unwrap().clone();
    let refusals = &traced["mcp_ws_transport::server::registry::refusal"];
    assert!(refusals.contains("refused: authentication required"), "{refusals}");
    let ends = &traced["mcp_ws_transport::end_report"];
    assert!(ends.contains("connection ended"), "{ends}");
}

/// The user and password of a proxy, and the token that passes through it.
#[cfg(feature = "proxy")]
#[tokio::test]
async fn those_of_a_proxy_show_nowhere() {
    use base64::engine::general_purpose::STANDARD;

    use crate::common::forward::{ForwardProxy, Rules};

    alone!();
    let traced = Traced::all();
    limit(async {
        let (server, address) = Recorder::default().start_server(config()).await;
        let known =
            || Rules { credentials: Some((CANARY.into(), CANARY.into())), ..Rules::default() };
        let http = ForwardProxy::http(address, known()).await.address;
        let socks = ForwardProxy::socks5(address, known()).await.address;
        let url = format!("ws://{address}/mcp?token=canary");
        for (way, is_let_in) in [
            (format!("http://{CANARY}:{CANARY}@{http}"), true),
            (format!("socks5h://{CANARY}:{CANARY}@{socks}"), true),
            (format!("http://{CANARY}:wrong-{CANARY}@{http}"), false),
            (format!("socks5h://{CANARY}:wrong-{CANARY}@{socks}"), false),
        ] {
            for token in [RIGHT, WRONG] {
                let connect = connect::<RoleClient>(&url).bearer(token).proxy(&*way);
                hides("a client", &connect);
                match connect.await {
                    Ok(transport) => {
                        assert!(is_let_in && token == RIGHT);
                        ().serve(transport).await.unwrap().cancel().await.unwrap();
                    }
                    Err(error) => {
                        hides("an error", &error);
                        is_clean("an error", &error);
                    }
                }
            }
        }
        server.shutdown().await;
    })
    .await;
    // As they are, and as an HTTP proxy is shown them.
    for secret in [CANARY, &STANDARD.encode(format!("{CANARY}:{CANARY}"))] {
        let (own, _) = traced.showing(secret);
        assert!(own.is_empty(), "{own:#?}");
    }
}

/// The token, id and secret of a session that one instance of a cluster relays to another.
#[cfg(feature = "cluster")]
#[tokio::test]
async fn those_of_a_session_in_a_cluster_show_nowhere() {
    use mcp_ws_transport::cluster::{Cluster, Local};

    alone!();
    let traced = Traced::all();
    let mut secrets = Vec::new();
    limit(async {
        let local = Local::default();
        let mut instances = Vec::new();
        for tag in ["a", "b"] {
            let cluster = Cluster::join(local.connect(), "test").instance(tag).await.unwrap();
            let config = config().cluster(cluster);
            instances.push(Recorder::default().start_server(config).await);
        }
        let [(a, at_a), (b, at_b)] = &instances[..] else { unreachable!() };
        let lines = format!(
            "Authorization: Bearer {RIGHT}\r\nSec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n"
        );
        let mut open = json!({});
        // Begun at one, resumed by way of the other, with the wrong secret, and once more.
        for (address, proves) in [(at_a, true), (at_b, true), (at_b, false), (at_b, true)] {
            let mut raw = upgrade(*address, &lines).await;
            let mut asked = open.clone();
            if !proves {
                asked["secret"] = json!("canary-secret");
            }
            raw.text(format!("@open {asked}")).await;
            let text = String::from_utf8(raw.next().await.unwrap().payload).unwrap();
            let told: Value =
                serde_json::from_str(text.strip_prefix("@session ").unwrap()).unwrap();
            let (session, secret) = (told["session"].clone(), told["secret"].clone());
            secrets.extend([&session, &secret].map(|secret| secret.as_str().unwrap().to_owned()));
            if !proves {
                continue;
            }
            assert_eq!(told["resumed"], !open.as_object().unwrap().is_empty(), "{text}");
            if open.as_object().unwrap().is_empty() {
                raw.initialize().await;
            }
            raw.ping().await;
            let received = open["received"].as_u64().unwrap_or(1) + 1;
            open = json!({ "session": session, "secret": secret, "received": received });
            hides("a registry", a.registry());
        }
        for server in [a, b] {
            is_clean("the health", &serde_json::to_string(&server.registry().health()).unwrap());
        }
        for (server, _) in instances {
            server.shutdown().await;
        }
    })
    .await;
    let (own, _) = traced.canaries();
    assert!(own.is_empty(), "{own:#?}");
    for secret in secrets {
        // The tag of the instance, which stands before it, is no secret.
        let secret = secret.split_once('.').map_or(&*secret, |(_, id)| id);
        let (own, _) = traced.showing(secret);
        assert!(own.is_empty(), "{secret}: {own:#?}");
    }
    assert!(traced.showing("session=\"relayed\"").0.len() == 2, "both relays were logged");
}

#[tokio::test]
async fn nothing_public_shows_one() {
    alone!();
    limit(async {
        let tokens = BearerTokens::from_iter([RIGHT, WRONG]).token(RIGHT, Identity::new("alice"));
        hides("a list of tokens", &tokens);
        let identity = Identity::new("alice").with_claims(RIGHT);
        hides("an identity with claims", &identity);
        hides("a configuration", &config());
        hides("a service", &WebSocketService::new(|| Ok(Tools::default()), config()).unwrap());
        hides("a server to be", &serve("127.0.0.1:0", Tools::default).config(config()));
        let (near, far) = crate::common::pair().await;
        let (shown, showing) = std::sync::mpsc::channel();
        let config = Config::default().authenticator(move |credentials: Credentials| {
            hides("credentials", &credentials);
            hides("a token", &credentials.token);
            shown.send(credentials.token.unwrap().as_str().to_owned()).unwrap();
            async { Ok(Identity::new("alice")) }
        });
        let accept = accept::<RoleServer, _>(far).config(config);
        hides("an acceptance", &accept);
        let mut raw = Raw::over(near, true);
        let address = raw.stream.peer_addr().unwrap();
        raw.write(upgrade_request(address, &ways(RIGHT)[0])).await;
        hides("a transport", &accept.await.unwrap());
        assert_eq!(showing.recv().unwrap(), RIGHT);
    })
    .await;
}

/// An authenticator is asked with it, and what it panics with is its own affair; the client is not
/// told.
#[tokio::test]
async fn a_panic_does_not_reach_the_client() {
    alone!();
    limit(async {
        let config = Config::default().authenticator(|credentials: Credentials| async move {
            let token = credentials.token.unwrap();
            if token.as_str().len() > 1 {
                panic!("no {}", token.as_str())
            }
            Ok(Identity::new("short"))
        });
        let (_server, address) = Recorder::default().start_server(config).await;
        let (head, mut raw) = try_upgrade(address, &ways(RIGHT)[0]).await;
        assert_eq!(head.status(), 503);
        is_clean("the head", &head.0);
        let length = head.get("content-length").unwrap().parse().unwrap();
        is_clean("the body", &raw.body(length).await);
    })
    .await;
    assert!(Traced::all().canaries().0.is_empty());
}
