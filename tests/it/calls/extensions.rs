//! Extensions of a request, as handlers find them. They say who sent it, over which connection, and
//! with which HTTP request, under the same type as with rmcp's own HTTP transport.

use std::net::SocketAddr;

use http::request::Parts;
use mcp_ws_transport::{
    accept,
    server::{BearerTokens, Config, Connection, Identity, WebSocketService},
};
use rmcp::{
    RoleServer, ServerHandler, ServiceExt,
    handler::server::tool::Extension,
    model::{CallToolResult, ContentBlock, ServerCapabilities, ServerConfig},
    tool, tool_handler, tool_router,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::{
    handshake::{Recorder, Seen, ask},
    limit,
    raw::{Raw, upgrade_request},
};

#[derive(Debug, Clone)]
struct Claims {
    scope: &'static str,
}

/// Extension that a router or a layer around the service adds to a request.
#[derive(Debug, Clone, PartialEq)]
struct Tenant(&'static str);

fn config() -> Config {
    let alice = Identity::new("alice").with_claims(Claims { scope: "read" });
    Config::default().authenticator(BearerTokens::default().token("s3cr3t", alice))
}

/// Asks for an upgrade of a kind, and calls a tool.
async fn call(address: SocketAddr) -> Raw {
    let request = upgrade_request(
        address,
        "Authorization: Bearer s3cr3t\r\nX-Trace: abc\r\nX-Trace: def\r\nCookie: a=b\r\n\
         Sec-WebSocket-Protocol: mcp, mcp.session-id.xyz\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n",
    );
    let (head, mut raw) = ask(address, request.replace("/mcp", "/mcp?room=7")).await;
    assert_eq!(head.status(), 101, "{head:?}");
    raw.initialize().await;
    raw.ping().await;
    raw
}

/// Checks what every way in passes on, and what it does not.
fn check(seen: &[Seen]) -> &Parts {
    let methods: Vec<_> = seen.iter().map(|seen| &*seen.method).collect();
    assert!(methods.starts_with(&["initialize"]) && methods.contains(&"ping"), "{methods:?}");
    assert!(methods.contains(&"a notification"));
    for seen in seen {
        let parts = seen.parts.as_ref().unwrap();
        assert_eq!((parts.uri.path(), parts.uri.query()), ("/mcp", Some("room=7")));
        assert_eq!(parts.method, http::Method::GET);
        let traces: Vec<_> = parts.headers.get_all("x-trace").iter().collect();
        assert_eq!(traces, ["abc", "def"]);
        assert!(parts.headers.contains_key("host"));
        // Tools may want to act for the client elsewhere. They are shown in no `Debug`.
        for secret in ["authorization", "cookie"] {
            assert!(parts.headers[secret].is_sensitive(), "{secret}");
        }
        // The handshake's own business is over.
        for gone in [
            "connection",
            "upgrade",
            "sec-websocket-key",
            "sec-websocket-version",
            "sec-websocket-protocol",
            "sec-websocket-extensions",
        ] {
            assert!(!parts.headers.contains_key(gone), "{gone}");
        }
        let identity = seen.identity.as_ref().unwrap();
        assert_eq!(identity.subject(), "alice");
        assert_eq!(identity.claims::<Claims>().unwrap().scope, "read");
    }
    seen[0].parts.as_ref().unwrap()
}

#[tokio::test]
async fn served() {
    limit(async {
        let recorder = Recorder::default();
        let (server, address) = recorder.start_server(config()).await;
        let raw = call(address).await;
        let seen = recorder.seen();
        check(&seen);
        let connection = seen[0].connection.as_ref().unwrap();
        assert_eq!(connection.peer(), Some(raw.stream.local_addr().unwrap()));
        assert_eq!(connection.id(), server.registry().list()[0].id());
        assert_eq!(connection.identity().unwrap().subject(), "alice");
    })
    .await;
}

#[tokio::test]
async fn mounted() {
    limit(async {
        let recorder = Recorder::default();
        let serving = recorder.clone();
        let service = WebSocketService::new(move || Ok(serving.clone()), config()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .route_service("/mcp", service)
            .layer(axum::Extension(Tenant("acme")));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let _raw = call(address).await;
        let seen = recorder.seen();
        let parts = check(&seen);
        assert_eq!(parts.extensions.get(), Some(&Tenant("acme")));
        assert_eq!(seen[0].connection.as_ref().unwrap().peer(), None);
    })
    .await;
}

#[tokio::test]
async fn accepted() {
    limit(async {
        let recorder = Recorder::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = recorder.clone();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let transport = accept::<RoleServer, _>(stream).config(config()).await.unwrap();
            let running = serving.serve(transport).await.unwrap();
            running.waiting().await
        });
        let _raw = call(address).await;
        let seen = recorder.seen();
        check(&seen);
        assert!(seen.iter().all(|seen| seen.connection.is_none()));
    })
    .await;
}

/// A client cannot put anything there itself.
#[tokio::test]
async fn what_a_message_claims_is_not_believed() {
    limit(async {
        let recorder = Recorder::default();
        let (_server, address) = recorder.start_server(config()).await;
        let mut raw = call(address).await;
        let forged = json!({ "identity": "root", "Identity": { "subject": "root" } });
        let mut request = crate::common::call(7, "echo", json!({ "text": "x" }));
        request["params"]["_meta"] = forged.clone();
        request["params"]["extensions"] = forged.clone();
        request["extensions"] = forged;
        raw.ask(&request).await;
        check(&recorder.seen());
    })
    .await;
}

/// Tools as rmcp's documentation has them.
#[derive(Debug, Clone)]
struct Documented;

#[tool_router]
impl Documented {
    #[tool(description = "Who asks")]
    async fn who(
        &self,
        Extension(parts): Extension<Parts>,
        Extension(identity): Extension<Identity>,
        Extension(connection): Extension<Connection>,
    ) -> CallToolResult {
        let room = parts.uri.query().unwrap_or_default();
        let text = format!("{} in {room} on {}", identity.subject(), connection.id());
        CallToolResult::success(vec![ContentBlock::text(text)])
    }
}

#[tool_handler]
impl ServerHandler for Documented {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::test]
async fn tools_extract_them() {
    limit(async {
        let server =
            mcp_ws_transport::serve("127.0.0.1:0", || Documented).config(config()).await.unwrap();
        let mut raw = call(server.local_addr()).await;
        let answer = raw.ask(&crate::common::call(1, "who", json!({}))).await;
        assert_eq!(crate::common::text_of(&answer), "alice in room=7 on 1");
    })
    .await;
}
