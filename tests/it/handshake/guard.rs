//! The guard, over real sockets: other services ask the same of a client as the upgrade does. That
//! is `Host`, `Origin`, and who it is.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing::any};
use http::{Request, Version};
use mcp_ws_transport::{
    connect, serve,
    server::{
        AuthError, BearerTokens, Config, Credentials, Identity, Limits, Server, WebSocketService,
    },
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::{TcpListener, TcpStream};
use tower_layer::Layer as _;
use tower_service::Service;

use crate::common::{
    handshake::ask,
    limit,
    logs::{Capture, Log},
    raw::{Head, Raw, initialize, upgrade_request},
};

/// Has one tool, which says who calls it.
#[derive(Clone)]
struct Mirror;

impl ServerHandler for Mirror {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let who = Identity::of(&context.extensions).map_or("nobody", Identity::subject);
        Ok(CallToolResult::success(vec![ContentBlock::text(who)]).into())
    }
}

/// rmcp's own server, which itself asks nobody who they are and would serve any host.
fn streamable_http() -> StreamableHttpService<Mirror, LocalSessionManager> {
    let config = StreamableHttpServerConfig::default().disable_allowed_hosts();
    StreamableHttpService::new(|| Ok(Mirror), Arc::new(LocalSessionManager::default()), config)
}

fn tokens() -> BearerTokens {
    BearerTokens::default().token("s3cr3t", Identity::new("alice"))
}

/// `POST /mcp` with an `initialize`, and these lines in the head.
fn post(host: impl fmt::Display, more: &str) -> String {
    let body = initialize("first").to_string();
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

async fn served() -> (Server, SocketAddr) {
    let server = serve("127.0.0.1:0", || Mirror).config(Config::default().authenticator(tokens()));
    let server = server.or(streamable_http()).fallback(page()).await.unwrap();
    let address = server.local_addr();
    (server, address)
}

async fn mounted(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Answers whatever reaches it.
fn page() -> Router {
    Router::new().fallback(any(async || "reached"))
}

/// Requests that are refused, and their status. `HOST` stands for the server's own.
const REFUSED: &[(&str, &str, u16)] = &[
    ("HOST", "", 401),
    ("HOST", "Authorization: Bearer wrong\r\n", 401),
    ("HOST", "Authorization: Bearer \r\n", 401),
    ("HOST", "Authorization: Basic czNjcjN0\r\n", 401),
    ("HOST", "Sec-WebSocket-Protocol: mcp.auth.wrong\r\n", 401),
    ("HOST", "Authorization: Bearer s3cr3t\r\nAuthorization: Bearer s3cr3t\r\n", 400),
    ("HOST", "Authorization: Bearer s3cr3t\r\nOrigin: http://evil.example\r\n", 403),
    ("HOST", "Authorization: Bearer s3cr3t\r\nOrigin: null\r\n", 403),
    ("HOST", "Authorization: Bearer s3cr3t\r\nOrigin: http://localhost.evil.example\r\n", 403),
    ("evil.example", "Authorization: Bearer s3cr3t\r\n", 403),
    ("localhost.evil.example", "Authorization: Bearer s3cr3t\r\n", 403),
    ("127.0.0.1\r\nHost: evil.example", "Authorization: Bearer s3cr3t\r\n", 403),
];

/// The answer to `request` but for what differs from one to the next.
async fn answer(address: SocketAddr, request: String) -> (Head, String) {
    let (head, mut raw) = ask(address, request).await;
    let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
    (head, raw.body(length).await)
}

/// Checks that who is refused gets from HTTP at `address` what an upgrade would get.
async fn refuses_as_an_upgrade(address: SocketAddr) {
    for (host, more, status) in REFUSED {
        let host = host.replace("HOST", &address.to_string());
        let (head, body) = answer(address, post(&host, more)).await;
        assert_eq!(head.status(), *status, "{host} {more}: {head:?}");
        let upgrade = upgrade_request(address, more).replacen(
            &format!("Host: {address}"),
            &format!("Host: {host}"),
            1,
        );
        let (expected, words) = answer(address, upgrade).await;
        assert_eq!(body, words, "{host} {more}");
        for name in ["www-authenticate", "retry-after", "content-type"] {
            assert_eq!(head.all(name), expected.all(name), "{host} {more}: {name}");
        }
        assert_eq!(head.get("www-authenticate").is_some(), *status == 401, "{head:?}");
    }
}

async fn lets_in_who_has_a_token(address: SocketAddr) {
    for more in [
        "Authorization: Bearer s3cr3t\r\n".to_owned(),
        "Sec-WebSocket-Protocol: mcp.auth.s3cr3t\r\n".to_owned(),
        format!("Authorization: Bearer s3cr3t\r\nOrigin: http://{address}\r\n"),
    ] {
        let (head, _) = ask(address, post(address, &more)).await;
        assert_eq!(head.status(), 200, "{more}: {head:?}");
    }
    let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}/mcp"));
    let http = StreamableHttpClientTransport::from_config(config.auth_header("s3cr3t"));
    let over_http = ().serve(http).await.unwrap();
    let websocket = connect(format!("ws://{address}/mcp")).bearer("s3cr3t");
    let over_websocket = ().serve(websocket.await.unwrap()).await.unwrap();
    for client in [over_http, over_websocket] {
        let result = client.call_tool(CallToolRequestParams::new("whoami")).await.unwrap();
        assert_eq!(result.content[0].as_text().unwrap().text, "alice");
        client.cancel().await.unwrap();
    }
}

#[tokio::test]
async fn streamable_http_asks_for_the_token_that_an_upgrade_needs() {
    limit(async {
        let (server, address) = served().await;
        refuses_as_an_upgrade(address).await;
        let refused = server.registry().health().rejected_by;
        assert_eq!(refused["unauthorized"], 12, "twice each: {refused:?}");
        assert_eq!(refused["origin"] + refused["host"], 12);
        lets_in_who_has_a_token(address).await;
    })
    .await;
}

#[tokio::test]
async fn it_does_so_in_a_router_of_axum() {
    limit(async {
        let config = Config::default().authenticator(tokens());
        let both = WebSocketService::new(|| Ok(Mirror), config).unwrap().or(streamable_http());
        let address = mounted(Router::new().route_service("/mcp", both)).await;
        refuses_as_an_upgrade(address).await;
        lets_in_who_has_a_token(address).await;
    })
    .await;
}

#[tokio::test]
async fn the_layer_guards_any_route() {
    limit(async {
        let config = Config::default().authenticator(tokens());
        let guard = config.guard().unwrap();
        let websocket = WebSocketService::new(|| Ok(Mirror), config).unwrap();
        let http = guard.layer(streamable_http());
        let guarded = Router::new().route_service("/mcp", websocket.or_unguarded(http));
        let router = guarded.route("/page", any(async || "reached").layer(guard));
        let address = mounted(router.route("/open", any(async || "reached"))).await;
        refuses_as_an_upgrade(address).await;
        lets_in_who_has_a_token(address).await;
        for (path, more, status) in [
            ("/page", "", 401),
            ("/page", "Authorization: Bearer s3cr3t\r\n", 200),
            ("/open", "", 200),
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n");
            assert_eq!(ask(address, request).await.0.status(), status, "{path} {more}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_other_path_is_guarded_too() {
    limit(async {
        let (_server, address) = served().await;
        for (host, more, status) in [
            (address.to_string(), "", 401),
            (address.to_string(), "Authorization: Bearer s3cr3t\r\n", 200),
            ("evil.example".into(), "Authorization: Bearer s3cr3t\r\n", 403),
        ] {
            let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
            let (head, body) = answer(address, request).await;
            assert_eq!(head.status(), status, "{host} {more}");
            assert_eq!(body == "reached", status == 200, "{host} {more}: {body}");
        }
    })
    .await;
}

#[tokio::test]
async fn without_an_authenticator_hosts_and_origins_are_checked_alone() {
    limit(async {
        let with = Config::<RoleServer>::default().authenticator(tokens()).guard().unwrap();
        let without = Config::<RoleServer>::default().guard().unwrap();
        for guard in [with.without_authenticator(), without] {
            let address = mounted(page().layer(guard)).await;
            for (host, more, status) in [
                (address.to_string(), String::new(), 200),
                (address.to_string(), format!("Origin: http://{address}\r\n"), 200),
                (address.to_string(), "Origin: http://evil.example\r\n".into(), 403),
                ("evil.example".into(), String::new(), 403),
            ] {
                let head = ask(address, post(&host, &more)).await.0;
                assert_eq!(head.status(), status, "{host} {more}");
            }
        }
    })
    .await;
}

/// An authenticator that fails does to a request what it does to an upgrade.
#[tokio::test]
async fn an_authenticator_that_fails_lets_nobody_in() {
    limit(async {
        let when = Config::<RoleServer>::default().handshake_timeout(Duration::from_millis(300));
        for (config, status, more) in [
            (
                when.clone().authenticator(|_: Credentials| async {
                    Err(AuthError::Unavailable(Duration::from_secs(7)))
                }),
                503,
                ("retry-after", "7"),
            ),
            (
                when.clone().authenticator(|_: Credentials| async { panic!("no database") }),
                503,
                ("retry-after", "5"),
            ),
            (
                when.clone().authenticator(|_: Credentials| std::future::pending()),
                503,
                ("retry-after", "5"),
            ),
            (
                when.clone().authenticator(|_: Credentials| async {
                    Err(AuthError::Challenge("Bearer scope=\"x\"".into()))
                }),
                401,
                ("www-authenticate", "Bearer scope=\"x\""),
            ),
            (
                when.clone().authenticator(|_: Credentials| async { Err(AuthError::Forbidden) }),
                403,
                ("connection", "-"),
            ),
            (when.clone().peer_addr(|_| panic!("no address")), 500, ("connection", "-")),
        ] {
            let server = serve("127.0.0.1:0", || Mirror).config(config).or(page()).await.unwrap();
            let address = server.local_addr();
            let (head, body) = answer(address, post(address, "")).await;
            assert_eq!(head.status(), status);
            assert_eq!(head.get(more.0).unwrap_or("-"), more.1);
            let (head, words) = answer(address, upgrade_request(address, "")).await;
            assert_eq!((head.status(), words), (status, body));
        }
    })
    .await;
}

/// A browser sends a preflight without a token, and whatever is behind the guard is not for it.
#[tokio::test]
async fn a_preflight_is_a_request_like_any_other() {
    limit(async {
        let open = Config::<RoleServer>::default().allowed_origins(["https://app.example"]);
        for (config, origin, status) in [
            (open.clone(), "https://app.example", 200),
            (open.clone(), "https://evil.example", 403),
            (open.clone().authenticator(tokens()), "https://app.example", 401),
            (open.authenticator(tokens()), "https://evil.example", 403),
        ] {
            let address = mounted(page().layer(config.guard().unwrap())).await;
            let request = format!(
                "OPTIONS /mcp HTTP/1.1\r\nHost: {address}\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: authorization\r\n\r\n"
            );
            assert_eq!(ask(address, request).await.0.status(), status, "{origin}");
        }
    })
    .await;
}

/// The request as an authenticator gets it, and as the service behind does.
#[tokio::test]
async fn secrets_are_marked_and_the_identity_is_passed_on() {
    limit(async {
        let config =
            Config::<RoleServer>::default().authenticator(|asked: Credentials| async move {
                assert_eq!(asked.token.unwrap().as_str(), "s3cr3t");
                assert_eq!((asked.parts.method.as_str(), asked.parts.uri.path()), ("POST", "/mcp"));
                assert!(asked.parts.headers["authorization"].is_sensitive());
                Ok(Identity::new("bob"))
            });
        let router = Router::new().fallback(async |request: Request<Body>| {
            assert!(request.headers()["authorization"].is_sensitive());
            assert!(request.headers()["cookie"].is_sensitive());
            let identity = request.extensions().get::<Identity>().unwrap().subject().to_owned();
            identity
                + &String::from_utf8_lossy(
                    &axum::body::to_bytes(request.into_body(), 9999).await.unwrap(),
                )
        });
        let address = mounted(router.layer(config.guard().unwrap())).await;
        let more = "Authorization: Bearer s3cr3t\r\nCookie: a=b\r\n";
        let (head, body) = answer(address, post(address, more)).await;
        assert_eq!(head.status(), 200);
        assert_eq!(body, format!("bob{}", initialize("first")));
    })
    .await;
}

/// RFC 9113, section 8.3.1: in HTTP/2 the host is that of the target.
#[tokio::test]
async fn the_authority_of_http_2_is_its_host() {
    let config = Config::<RoleServer>::default();
    let mut guarded = config.guard().unwrap().layer(page());
    for (version, target, host, status) in [
        (Version::HTTP_2, "https://localhost/mcp", None, 200),
        (Version::HTTP_2, "https://localhost:8443/mcp", None, 200),
        (Version::HTTP_2, "https://evil.example/mcp", None, 403),
        (Version::HTTP_2, "https://evil.example/mcp", Some("localhost"), 400),
        (Version::HTTP_2, "https://localhost/mcp", Some("evil.example"), 400),
        (Version::HTTP_2, "https://localhost/mcp", Some("localhost"), 200),
        (Version::HTTP_2, "/mcp", None, 403),
        (Version::HTTP_3, "https://localhost/mcp", None, 200),
        (Version::HTTP_11, "http://localhost/mcp", None, 400),
        (Version::HTTP_11, "http://localhost/mcp", Some("localhost"), 200),
        (Version::HTTP_11, "http://evil.example/mcp", Some("localhost"), 400),
        (Version::HTTP_11, "/mcp", Some("localhost"), 200),
        (Version::HTTP_10, "/mcp", None, 403),
    ] {
        let request = Request::builder().version(version).uri(target);
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        let answer = guarded.call(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{version:?} {target} {host:?}");
    }
}

#[test]
fn a_guard_of_a_configuration_that_cannot_be_read_is_an_error() {
    for config in [
        Config::<RoleServer>::default().allowed_hosts(["http://example.com"]),
        Config::default().allowed_origins(["example.com"]),
    ] {
        let error = config.guard().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("example.com"), "{error}");
    }
}

/// An unauthenticated client has no more than a slot, whatever it asks for.
#[tokio::test]
async fn who_waits_for_the_authenticator_is_still_unauthenticated() {
    limit(async {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let config = Config::default().limits(Limits::default().handshakes(2)).authenticator(
            move |_: Credentials| {
                count.fetch_add(1, SeqCst);
                std::future::pending()
            },
        );
        let server = serve("127.0.0.1:0", || Mirror).config(config).or(page()).await.unwrap();
        let address = server.local_addr();
        let mut first = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        first.write(post(address, "")).await;
        while asked.load(SeqCst) < 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(TcpStream::connect(address).await.unwrap());
        }
        first.end().await;
        assert_eq!(server.registry().health().rejected_by["evicted"], 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_unguarded_answers_whoever_asks_and_is_warned_of() {
    limit(async {
        let warnings = Warnings::all();
        let config = Config::default().authenticator(tokens());

        let serve = || serve("127.0.0.1:0", || Mirror);
        let guarded = serve().config(config.clone()).or(page()).fallback(page()).await.unwrap();
        let open = serve().or_unguarded(page()).fallback_unguarded(page()).await.unwrap();
        assert_eq!(warnings.about("unguarded"), Vec::<String>::new());

        let neighbour = serve().config(config.clone()).or_unguarded(page()).await.unwrap();
        let said = warnings.about("unguarded");
        assert!(said.len() == 1 && said[0].contains("or_unguarded"), "{said:?}");
        let elsewhere = serve().config(config.clone()).fallback_unguarded(page()).await.unwrap();
        let said = warnings.about("unguarded");
        assert!(said.len() == 2 && said[1].contains("Config::guard"), "{said:?}");
        let websocket = WebSocketService::new(|| Ok(Mirror), config.clone()).unwrap();
        let mount = mounted(Router::new().route_service("/mcp", websocket.or_unguarded(page())));
        let mount = mount.await;
        assert_eq!(warnings.about("unguarded").len(), 3);

        // Who has made a guard knows that there is one.
        let _guard = config.guard().unwrap();
        let aware = serve().config(config).or_unguarded(page()).await.unwrap();
        assert_eq!(warnings.about("unguarded").len(), 3);

        for (address, status) in [
            (guarded.local_addr(), 401),
            (open.local_addr(), 200),
            (neighbour.local_addr(), 200),
            (mount, 200),
            (aware.local_addr(), 200),
        ] {
            assert_eq!(
                ask(address, post("evil.example", "")).await.0.status(),
                match status {
                    401 => 403,
                    status => status,
                }
            );
            assert_eq!(ask(address, post(address, "")).await.0.status(), status);
        }
        let request = format!("GET /x HTTP/1.1\r\nHost: {}\r\n\r\n", elsewhere.local_addr());
        assert_eq!(ask(elsewhere.local_addr(), request).await.0.status(), 200);
    })
    .await;
}

/// Whoever runs the server sees who was refused and why, and nobody can fill the log.
#[tokio::test]
async fn a_refused_host_or_origin_is_logged_with_its_setting() {
    limit(async {
        let warnings = Warnings::all();
        let config = Config::default().authenticator(tokens());
        let server = serve("127.0.0.1:0", || Mirror).config(config).or(page()).await.unwrap();
        let address = server.local_addr();
        let origin = "Origin: http://logged.example\x1b[31m\r\n";
        assert_eq!(ask(address, post("logged.example", "")).await.0.status(), 403);
        assert_eq!(ask(address, upgrade_request(address, origin)).await.0.status(), 400);
        let origin = "Origin: http://logged.example/\u{e9}\r\n";
        assert_eq!(ask(address, upgrade_request(address, origin)).await.0.status(), 403);
        let said = warnings.about("logged.example");
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("Host \"logged.example\"") && said[0].contains("allowed_hosts"));
        assert!(said[1].contains("Origin \"http://logged.example/\\xc3\\xa9\""), "{said:?}");
        assert!(said[1].contains("allowed_origins"), "{said:?}");
        for _ in 0..50 {
            assert_eq!(ask(address, post("logged.example", "")).await.0.status(), 403);
        }
        let said = warnings.about("logged.example").len();
        assert!((4..10).contains(&said), "{said} lines");
    })
    .await;
}

/// The warnings of one test.
struct Warnings(Log, Capture);

impl Warnings {
    fn all() -> Self {
        let (log, capture) = Log::capture();
        Self(log, capture)
    }

    fn about(&self, words: &str) -> Vec<String> {
        let text = self.0.text();
        let warnings = text.lines().filter(|line| line.contains(" WARN ") && line.contains(words));
        warnings.map(str::to_owned).collect()
    }
}
