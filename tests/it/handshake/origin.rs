//! `Host` and `Origin` over real sockets (proof against cross-site hijacking and DNS rebinding). A
//! page of somebody else's never gets a 101, whatever it or its name server makes of the headers.

use std::net::SocketAddr;

use mcp_ws_transport::{
    accept,
    server::{Config, WebSocketService},
};
use rmcp::RoleServer;
use tokio::net::TcpListener;

use crate::common::{
    handshake::{ask, tools},
    limit,
    raw::KEY,
};

/// No such header.
const NONE: &str = "-";

/// `Host`, `Origin` and the status; `PORT` stands for the server's.
type Row = (&'static str, &'static str, u16);

fn request(target: &str, host: &str, origin: &str) -> String {
    let line = |name, value: &str| match value {
        NONE => String::new(),
        value => format!("{name}: {value}\r\n"),
    };
    format!(
        "GET {target} HTTP/1.1\r\n{}{}Connection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n",
        line("Host", host),
        line("Origin", origin),
    )
}

/// Checks that each row has its status, and that only a 101 grants anything.
async fn check(address: SocketAddr, rows: &[Row]) {
    let port = address.port().to_string();
    let mut wrong = Vec::new();
    for (host, origin, status) in rows {
        let request = request("/mcp", &host.replace("PORT", &port), &origin.replace("PORT", &port));
        let (head, _) = ask(address, request).await;
        if head.status() != *status {
            wrong.push((host, origin, status, head.status()));
        }
        let granted = head.get("sec-websocket-accept").is_some();
        assert_eq!(granted, head.status() == 101, "{host} {origin}");
    }
    assert!(wrong.is_empty(), "host, origin, expected, found: {wrong:#?}");
    println!("count: {} rows as documented", rows.len());
}

/// Rows for the default: the loopback interface's names, and their own pages.
const DEFAULT: &[Row] = &[
    // Programs, which send no `Origin`.
    ("127.0.0.1:PORT", NONE, 101),
    ("localhost:PORT", NONE, 101),
    ("LocalHost:PORT", NONE, 101),
    ("localhost", NONE, 101),
    ("localhost:1", NONE, 101),
    ("[::1]:PORT", NONE, 101),
    ("[::1]", NONE, 101),
    ("[0:0:0:0:0:0:0:1]:PORT", NONE, 101),
    ("  localhost:PORT\t", NONE, 101),
    // Their own pages.
    ("127.0.0.1:PORT", "http://127.0.0.1:PORT", 101),
    ("localhost:PORT", "http://localhost:PORT", 101),
    ("localhost:PORT", "http://LOCALHOST:PORT", 101),
    ("localhost:PORT", "HTTP://localhost:PORT", 101),
    ("localhost:PORT", "https://localhost:PORT", 101),
    ("[::1]:PORT", "http://[::1]:PORT", 101),
    ("localhost", "http://localhost", 101),
    ("localhost", "http://localhost:80", 101),
    ("localhost:443", "https://localhost", 101),
    ("localhost:PORT", "\thttp://localhost:PORT  ", 101),
    // Pages of others.
    ("localhost:PORT", "http://evil.example", 403),
    ("localhost:PORT", "https://evil.example:PORT", 403),
    ("localhost:PORT", "http://localhost", 403),
    ("localhost:PORT", "http://localhost:1", 403),
    ("localhost:PORT", "http://localhost:0PORT.evil.example", 403),
    ("localhost:PORT", "http://127.0.0.1:PORT", 403),
    ("127.0.0.1:PORT", "http://localhost:PORT", 403),
    ("localhost:PORT", "http://[::1]:PORT", 403),
    ("localhost:PORT", "null", 403),
    ("localhost:PORT", "NULL", 403),
    ("localhost:PORT", "", 403),
    ("localhost:PORT", "   ", 403),
    ("localhost:PORT", "*", 403),
    ("localhost:PORT", "localhost:PORT", 403),
    ("localhost:PORT", "//localhost:PORT", 403),
    // Prefixes and suffixes.
    ("localhost:PORT", "http://localhost.evil.example:PORT", 403),
    ("localhost:PORT", "http://evil-localhost:PORT", 403),
    ("localhost:PORT", "http://evil.example/localhost:PORT", 403),
    ("localhost:PORT", "http://evil.example#localhost:PORT", 403),
    ("localhost:PORT", "http://evil.example?http://localhost:PORT", 403),
    ("localhost:PORT", "http://localhost:PORT/", 403),
    ("localhost:PORT", "http://localhost:PORT/page", 403),
    ("localhost:PORT", "http://localhost:PORT?", 403),
    ("localhost:PORT", "http://localhost:PORT#", 403),
    ("localhost:PORT", "http://localhost:PORT\\@evil.example", 403),
    // Users, and hosts that read as users.
    ("localhost:PORT", "http://user@localhost:PORT", 403),
    ("localhost:PORT", "http://user:password@localhost:PORT", 403),
    ("localhost:PORT", "http://localhost:PORT@evil.example", 403),
    ("localhost:PORT", "http://@localhost:PORT", 403),
    // Other schemes.
    ("localhost:PORT", "ws://localhost:PORT", 403),
    ("localhost:PORT", "file://localhost:PORT", 403),
    ("localhost:PORT", "file://", 403),
    ("localhost:PORT", "chrome-extension://localhost:PORT", 403),
    ("localhost", "tauri://localhost", 403),
    ("localhost:80", "tauri://localhost", 403),
    ("localhost:80", "tauri://localhost:80", 403),
    ("localhost:443", "tauri://localhost", 403),
    ("localhost", "vscode-webview://localhost", 403),
    ("localhost:PORT", "httpx://localhost:PORT", 403),
    ("localhost:PORT", "javascript:localhost:PORT", 403),
    // Several, in one line or two.
    ("localhost:PORT", "http://localhost:PORT, http://evil.example", 403),
    ("localhost:PORT", "http://localhost:PORT http://evil.example", 403),
    ("localhost:PORT", "http://localhost:PORT\thttp://evil.example", 403),
    ("localhost:PORT", "http://localhost:PORT\r\nOrigin: http://evil.example", 403),
    ("localhost:PORT", "http://localhost:PORT\r\norigin: http://localhost:PORT", 403),
    ("localhost:PORT\r\nHost: evil.example", NONE, 403),
    ("localhost:PORT\r\nhost: localhost:PORT", NONE, 403),
    // Ports that are none.
    ("localhost:PORT", "http://localhost:", 403),
    ("localhost:PORT", "http://localhost:99999", 403),
    ("localhost:PORT", "http://localhost:-1", 403),
    ("localhost:", NONE, 403),
    ("localhost:99999", NONE, 403),
    ("localhost:+80", NONE, 403),
    ("localhost:PORT", "http://localhost:+PORT", 403),
    ("localhost:PORT:PORT", NONE, 403),
    // Rebinding: the page's own name, pointed here.
    ("evil.example:PORT", "http://evil.example:PORT", 403),
    ("evil.example", NONE, 403),
    ("localhost.evil.example:PORT", "http://localhost.evil.example:PORT", 403),
    ("127.0.0.1.nip.io:PORT", "http://127.0.0.1.nip.io:PORT", 403),
    ("localhost.:PORT", "http://localhost.:PORT", 403),
    ("127.0.0.1.:PORT", NONE, 403),
    // This machine, by names that are not listed.
    ("127.0.0.2:PORT", NONE, 403),
    ("127.1:PORT", NONE, 403),
    ("2130706433:PORT", NONE, 403),
    ("0x7f000001:PORT", NONE, 403),
    ("0.0.0.0:PORT", NONE, 403),
    ("[::]:PORT", NONE, 403),
    ("[::ffff:127.0.0.1]:PORT", NONE, 403),
    ("[::1%25lo]:PORT", NONE, 403),
    ("::1", NONE, 403),
    ("[[::1]]:PORT", NONE, 403),
    ("[::1]x:PORT", NONE, 403),
    ("[localhost]:PORT", NONE, 403),
    // Punycode, homographs and what a parser may fold.
    ("xn--lcalhost-54a:PORT", NONE, 403),
    ("loc\u{430}lhost:PORT", NONE, 403),
    ("\u{ff4c}ocalhost:PORT", NONE, 403),
    ("localhost%00:PORT", NONE, 403),
    ("local%68ost:PORT", NONE, 403),
    ("localhost:PORT", "http://loc\u{430}lhost:PORT", 403),
    ("localhost:PORT", "http://local%68ost:PORT", 403),
    // Hosts with more in them than a host.
    ("user@localhost:PORT", NONE, 403),
    ("localhost:PORT, evil.example", NONE, 403),
    ("localhost:PORT evil.example", NONE, 403),
    ("localhost\t:PORT", NONE, 403),
    ("http://localhost:PORT", NONE, 403),
    ("localhost:PORT/mcp", NONE, 403),
    ("localhost:PORT?x", NONE, 403),
    ("localhost:PORT#x", NONE, 403),
    ("*", NONE, 403),
    ("", NONE, 403),
    (NONE, NONE, 403),
    (NONE, "http://localhost:PORT", 403),
    // No HTTP at all.
    ("localhost\0:PORT", NONE, 400),
    ("localhost:PORT\r\n evil.example", NONE, 400),
    ("localhost:PORT\r\nOrigin : http://localhost:PORT", NONE, 400),
];

#[tokio::test]
async fn by_default_only_loopback_and_its_own_pages_are_let_in() {
    limit(async {
        let (server, address) = tools(Config::default()).await;
        check(address, DEFAULT).await;
        let granted = DEFAULT.iter().filter(|row| row.2 == 101).count() as u64;
        let refused = DEFAULT.iter().filter(|row| row.2 == 403).count() as u64;
        let health = server.registry().health();
        assert_eq!(health.rejected_by["host"] + health.rejected_by["origin"], refused);
        assert!(health.total <= granted, "{health:?}");
    })
    .await;
}

#[tokio::test]
async fn configured_hosts_replace_those_of_loopback() {
    limit(async {
        let config = Config::default().allowed_hosts([
            "Example.com",
            "other.example:8443",
            "::1",
            "xn--bcher-kva.example",
        ]);
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("example.com", NONE, 101),
                ("EXAMPLE.com:1", NONE, 101),
                ("other.example:8443", NONE, 101),
                ("[::1]:PORT", NONE, 101),
                ("xn--bcher-kva.example", "https://xn--bcher-kva.example", 101),
                ("example.com:8443", "https://example.com:8443", 101),
                ("other.example", NONE, 403),
                ("other.example:443", NONE, 403),
                ("other.example:84430", NONE, 403),
                ("localhost:PORT", NONE, 403),
                ("127.0.0.1:PORT", NONE, 403),
                ("sub.example.com", NONE, 403),
                ("example.com.", NONE, 403),
                ("example.com.evil.example", NONE, 403),
                ("notexample.com", NONE, 403),
                ("b\u{fc}cher.example", NONE, 403),
                ("example.com", "http://localhost:PORT", 403),
                ("example.com", "https://sub.example.com", 403),
                ("example.com", "https://evil.example", 403),
            ],
        )
        .await;
    })
    .await;
}

/// `Host` and the port of the scheme: `https` or `http`, where that is not known.
const PORTS: &[Row] = &[
    ("a.example", NONE, 101),
    ("A.example:443", NONE, 101),
    ("a.example:80", NONE, 403),
    ("a.example:8443", NONE, 403),
    ("a.example:", NONE, 403),
    ("sub.a.example", NONE, 403),
    ("b.example", NONE, 101),
    ("b.example:80", NONE, 101),
    ("b.example:443", NONE, 403),
    ("c.example", NONE, 403),
    ("c.example:443", NONE, 403),
    ("c.example:8443", NONE, 101),
    // A page is the host's own where its port is served too.
    ("a.example", "https://a.example", 101),
    ("a.example", "https://a.example:443", 101),
    ("a.example:443", "https://a.example", 101),
    ("a.example", "http://a.example", 403),
    ("a.example", "http://a.example:443", 403),
    ("a.example", "https://a.example:80", 403),
    ("a.example", "http://a.example:80", 403),
    ("a.example", "https://b.example", 403),
    ("b.example", "http://b.example", 101),
    ("b.example:80", "http://b.example", 101),
    ("b.example", "https://b.example", 403),
    ("b.example", "https://b.example:80", 403),
    ("b.example", "http://b.example:443", 403),
    ("c.example", "https://c.example:8443", 403),
    ("c.example:8443", "https://c.example:8443", 101),
    ("c.example:8443", "https://c.example", 403),
    // A listed page may be anywhere.
    ("a.example", "http://app.example", 101),
    ("b.example", "http://app.example", 101),
    ("c.example", "http://app.example", 403),
];

/// RFC 9110, section 7.2: clients leave out the port that is their scheme's own.
#[tokio::test]
async fn a_host_without_a_port_has_that_of_its_scheme() {
    limit(async {
        let config = Config::default()
            .allowed_hosts(["a.example:443", "b.example:80", "c.example:8443"])
            .allowed_origins(["http://app.example"]);
        let (_server, address) = tools(config.clone()).await;
        check(address, PORTS).await;
        check(mounted(config).await, PORTS).await;
    })
    .await;
}

#[tokio::test]
async fn apps_and_extensions_are_let_in_where_their_origin_is_listed() {
    limit(async {
        let config = Config::default().allowed_origins([
            "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
            "Tauri://LocalHost",
            "vscode-webview://0q1w2e:3000",
            "app://-",
        ]);
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop", 101),
                ("localhost", "CHROME-extension://ABCDEFGHIJKLMNOPabcdefghijklmnop", 101),
                ("localhost", "tauri://localhost", 101),
                ("localhost:PORT", "tauri://localhost", 101),
                ("localhost", "vscode-webview://0q1w2e:3000", 101),
                ("localhost", "app://-", 101),
                ("evil.example", "tauri://localhost", 403),
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnoq", 403),
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmno", 403),
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop.evil", 403),
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop/", 403),
                ("localhost", "chrome-extension://abcdefghijklmnopabcdefghijklmnop:1", 403),
                ("localhost", "chrome-extension://x@abcdefghijklmnopabcdefghijklmnop", 403),
                ("localhost", "moz-extension://abcdefghijklmnopabcdefghijklmnop", 403),
                ("localhost", "chrome-extension://", 403),
                ("localhost", "chrome-extension:abcdefghijklmnopabcdefghijklmnop", 403),
                ("localhost", "tauri://localhost:80", 403),
                ("localhost", "tauri://localhost:443", 403),
                ("localhost", "tauri://localhost.evil.example", 403),
                ("localhost:PORT", "tauri://localhost:PORT", 403),
                ("localhost", "http://tauri.localhost", 403),
                ("localhost", "vscode-webview://0q1w2e", 403),
                ("localhost", "vscode-webview://0q1w2e:3001", 403),
                ("localhost", "app://", 403),
                ("localhost", "app://--", 403),
            ],
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn configured_origins_are_let_in_beside_the_own_pages() {
    limit(async {
        let config = Config::default().allowed_origins([
            "https://app.example",
            "http://localhost:*",
            "null",
        ]);
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("127.0.0.1:PORT", "https://app.example", 101),
                ("127.0.0.1:PORT", "https://APP.example:443", 101),
                ("127.0.0.1:PORT", "http://localhost:3000", 101),
                ("127.0.0.1:PORT", "http://localhost", 101),
                ("127.0.0.1:PORT", "null", 101),
                ("127.0.0.1:PORT", "http://127.0.0.1:PORT", 101),
                ("evil.example", "https://app.example", 403),
                ("127.0.0.1:PORT", "http://app.example", 403),
                ("127.0.0.1:PORT", "https://app.example:444", 403),
                ("127.0.0.1:PORT", "https://app.example.", 403),
                ("127.0.0.1:PORT", "https://app.example.evil.example", 403),
                ("127.0.0.1:PORT", "https://sub.app.example", 403),
                ("127.0.0.1:PORT", "https://user@app.example", 403),
                ("127.0.0.1:PORT", "https://localhost:3000", 403),
                ("127.0.0.1:PORT", "http://localhost:*", 403),
                ("127.0.0.1:PORT", "null, https://evil.example", 403),
                ("127.0.0.1:PORT", "null:80", 403),
                ("127.0.0.1:PORT", "http://null", 403),
            ],
        )
        .await;
    })
    .await;
}

/// Rows for each pattern: what it covers, and what comes close.
const PATTERNS: &[Row] = &[
    // `http://localhost:*`
    ("127.0.0.1:PORT", "http://localhost", 101),
    ("127.0.0.1:PORT", "http://localhost:80", 101),
    ("127.0.0.1:PORT", "http://localhost:65535", 101),
    ("127.0.0.1:PORT", "HTTP://LocalHost:3000", 101),
    ("127.0.0.1:PORT", "https://localhost:3000", 403),
    ("127.0.0.1:PORT", "http://localhost:65536", 403),
    ("127.0.0.1:PORT", "http://localhost:", 403),
    ("127.0.0.1:PORT", "http://localhost:*", 403),
    ("127.0.0.1:PORT", "http://localhost:3000.evil.example", 403),
    ("127.0.0.1:PORT", "http://localhost:3000@evil.example", 403),
    ("127.0.0.1:PORT", "http://localhost.evil.example:3000", 403),
    ("127.0.0.1:PORT", "http://evil-localhost:3000", 403),
    ("127.0.0.1:PORT", "http://sub.localhost:3000", 403),
    ("127.0.0.1:PORT", "http://localhost.:3000", 403),
    ("127.0.0.1:PORT", "http://[::1]:3000", 403),
    // `https://*.example.com`
    ("127.0.0.1:PORT", "https://app.example.com", 101),
    ("127.0.0.1:PORT", "https://a.b.c.example.com", 101),
    ("127.0.0.1:PORT", "https://APP.Example.COM:443", 101),
    ("127.0.0.1:PORT", "https://xn--bcher-kva.example.com", 101),
    ("127.0.0.1:PORT", "https://example.com.example.com", 101),
    ("127.0.0.1:PORT", "https://example.com", 403),
    ("127.0.0.1:PORT", "https://.example.com", 403),
    ("127.0.0.1:PORT", "https://a..example.com", 403),
    ("127.0.0.1:PORT", "https://..example.com", 403),
    ("127.0.0.1:PORT", "https://notexample.com", 403),
    ("127.0.0.1:PORT", "https://not-example.com", 403),
    ("127.0.0.1:PORT", "https://appXexample.com", 403),
    ("127.0.0.1:PORT", "https://app.example.comx", 403),
    ("127.0.0.1:PORT", "https://app.example.com.", 403),
    ("127.0.0.1:PORT", "https://app.example.com.evil.example", 403),
    ("127.0.0.1:PORT", "https://evil.example/.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example?.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example#.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example\\.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example%2f.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example%00.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example:1.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example:443@app.example.com", 403),
    ("127.0.0.1:PORT", "https://app.example.com@evil.example", 403),
    ("127.0.0.1:PORT", "https://evil.example, https://app.example.com", 403),
    ("127.0.0.1:PORT", "https://evil.example https://app.example.com", 403),
    ("127.0.0.1:PORT", "http://app.example.com", 403),
    ("127.0.0.1:PORT", "https://app.example.com:8443", 403),
    ("127.0.0.1:PORT", "wss://app.example.com", 403),
    ("127.0.0.1:PORT", "https://*.example.com", 403),
    ("127.0.0.1:PORT", "https://app.ex\u{430}mple.com", 403),
    // `https://*.ports.example.net:*` and `https://*.one.example.net:8443`
    ("127.0.0.1:PORT", "https://a.ports.example.net", 101),
    ("127.0.0.1:PORT", "https://a.ports.example.net:1", 101),
    ("127.0.0.1:PORT", "http://a.ports.example.net:1", 403),
    ("127.0.0.1:PORT", "https://ports.example.net:1", 403),
    ("127.0.0.1:PORT", "https://a.one.example.net:8443", 101),
    ("127.0.0.1:PORT", "https://a.one.example.net", 403),
    ("127.0.0.1:PORT", "https://a.one.example.net:84430", 403),
    // `vscode-webview://*` and `chrome-extension://*`
    ("127.0.0.1:PORT", "vscode-webview://0q1w2e3r4t", 101),
    ("127.0.0.1:PORT", "vscode-webview://0q1w2e3r4t:3000", 101),
    ("127.0.0.1:PORT", "chrome-extension://abcdefghijklmnopabcdefghijklmnop", 101),
    ("127.0.0.1:PORT", "Chrome-Extension://abcdefghijklmnopabcdefghijklmnop", 101),
    ("127.0.0.1:PORT", "chrome-extension://", 403),
    ("127.0.0.1:PORT", "chrome-extension:", 403),
    ("127.0.0.1:PORT", "chrome-extension:abcdefghijklmnopabcdefghijklmnop", 403),
    ("127.0.0.1:PORT", "chrome-extension://a/b", 403),
    ("127.0.0.1:PORT", "chrome-extension://a@b", 403),
    ("127.0.0.1:PORT", "chrome-extension://*", 403),
    ("127.0.0.1:PORT", "chrome-extensions://abcdefghijklmnopabcdefghijklmnop", 403),
    ("127.0.0.1:PORT", "xchrome-extension://abcdefghijklmnopabcdefghijklmnop", 403),
    ("127.0.0.1:PORT", "moz-extension://abcdefghijklmnopabcdefghijklmnop", 403),
    ("127.0.0.1:PORT", "https://chrome-extension", 403),
    ("127.0.0.1:PORT", "https://chrome-extension://abcdefghijklmnopabcdefghijklmnop", 403),
    ("127.0.0.1:PORT", "vscode-webview.evil://x", 403),
    ("127.0.0.1:PORT", "vscode-file://vscode-app", 403),
    // None of them is for a page without an origin, nor for a host that is not served.
    ("127.0.0.1:PORT", "null", 403),
    ("evil.example", "https://app.example.com", 403),
    ("evil.example", "vscode-webview://0q1w2e3r4t", 403),
];

#[tokio::test]
async fn patterns_let_in_what_they_say_and_no_more() {
    limit(async {
        let config = Config::default().allowed_origins([
            "http://localhost:*",
            "https://*.Example.com",
            "https://*.ports.example.net:*",
            "https://*.one.example.net:8443",
            "vscode-webview://*",
            "Chrome-Extension://*",
        ]);
        let (_server, address) = tools(config).await;
        check(address, PATTERNS).await;
    })
    .await;
}

#[tokio::test]
async fn hosts_may_be_all_below_a_domain_or_at_any_port() {
    limit(async {
        let config = Config::default().allowed_hosts(["x.example:*", "*.Tenants.example"]);
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("x.example", NONE, 101),
                ("x.example:1", NONE, 101),
                ("x.example:*", NONE, 403),
                ("x.example.evil.example", NONE, 403),
                ("a.x.example", NONE, 403),
                ("a.tenants.example", NONE, 101),
                ("a.b.tenants.example:8443", NONE, 101),
                ("tenants.example", NONE, 403),
                (".tenants.example", NONE, 403),
                ("nottenants.example", NONE, 403),
                ("a.tenants.example.evil.example", NONE, 403),
                ("evil.example/.tenants.example", NONE, 403),
                ("a.tenants.example", "https://a.tenants.example", 101),
                ("a.tenants.example", "https://b.tenants.example", 403),
                ("a.tenants.example:8443", "https://a.tenants.example:8443", 101),
                ("a.tenants.example:8443", "https://a.tenants.example", 403),
            ],
        )
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_predicate_chooses_among_origins_that_can_be_read() {
    limit(async {
        let config = Config::default().allowed_origins(["https://listed.example"]);
        let config = config.allowed_origins_if(|origin| {
            assert_ne!(origin.host(), "panic.example");
            assert!(!["listed.example", "null"].contains(&origin.host()), "not asked about these");
            let preview = origin.host().strip_suffix(".pages.example").unwrap_or_default();
            origin.scheme() == "https" && origin.port() == Some(443) && preview.starts_with("pr-")
        });
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("127.0.0.1:PORT", "https://pr-7.pages.example", 101),
                ("127.0.0.1:PORT", "HTTPS://PR-7.pages.example:443", 101),
                ("127.0.0.1:PORT", "https://listed.example", 101),
                ("127.0.0.1:PORT", "http://127.0.0.1:PORT", 101),
                ("127.0.0.1:PORT", "https://pr-7.pages.example:444", 403),
                ("127.0.0.1:PORT", "https://x.pages.example", 403),
                ("127.0.0.1:PORT", "https://pr-7.pages.example.evil.example", 403),
                ("127.0.0.1:PORT", "https://pr-7.pages.example/", 403),
                ("127.0.0.1:PORT", "https://x@pr-7.pages.example", 403),
                ("127.0.0.1:PORT", "https://panic.example", 403),
                ("127.0.0.1:PORT", "null", 403),
                ("evil.example", "https://pr-7.pages.example", 403),
            ],
        )
        .await;
    })
    .await;
}

/// The body names what was refused and the setting, for the one who looks at it and for no browser.
#[tokio::test]
async fn a_refusal_says_what_would_allow_it() {
    limit(async {
        let (_server, address) = tools(Config::default()).await;
        let long = format!("http://{}.example", "x".repeat(5000));
        let local = address.to_string();
        for (host, origin, words) in [
            ("evil.example", NONE, &["\"evil.example\"", "allowed_hosts"][..]),
            ("evil.example", "http://also.example", &["\"evil.example\"", "allowed_hosts"]),
            (NONE, NONE, &["without a Host"]),
            ("a.example\r\nHost: b.example", NONE, &["more than one Host"]),
            (&local, "http://evil.example", &["\"http://evil.example\"", "allowed_origins"]),
            (&local, "null", &["\"null\"", "allowed_origins"]),
            (&local, "<script>alert(1)</script>", &["\\x3cscript\\x3e", "allowed_origins"]),
            (&local, "http://user:hunter2@evil.example", &["\u{2026}@evil.example"]),
            (&local, &long, &["xxx\u{2026}\""]),
            (&local, "http://a.example\r\nOrigin: null", &["more than one Origin"]),
        ] {
            let (head, mut raw) = ask(address, request("/mcp", host, origin)).await;
            assert_eq!(head.status(), 403);
            assert_eq!(head.get("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(head.get("x-content-type-options"), Some("nosniff"));
            let body = raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
            assert!(words.iter().all(|words| body.contains(words)), "{host} {origin}: {body}");
            assert!(body.len() < 300 && !body.contains(['<', '>']), "{body}");
            assert!(!body.contains("hunter2"), "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn where_every_host_is_served_only_listed_pages_connect() {
    limit(async {
        let config =
            Config::default().disable_allowed_hosts().allowed_origins(["https://app.example"]);
        let (_server, address) = tools(config).await;
        check(
            address,
            &[
                ("anything.example", NONE, 101),
                (NONE, NONE, 400),
                ("anything.example", "https://app.example", 101),
                ("evil.example", "http://evil.example", 403),
                ("localhost:PORT", "http://localhost:PORT", 403),
                ("anything.example", "null", 403),
                ("a.example\r\nHost: b.example", NONE, 403),
            ],
        )
        .await;
    })
    .await;
}

/// RFC 9112, section 3.2.2: an absolute target overrules `Host`.
#[tokio::test]
async fn an_absolute_target_gets_no_other_host_in() {
    limit(async {
        let (_server, address) = tools(Config::default()).await;
        for (target, host, origin, status) in [
            (format!("http://{address}/mcp"), address.to_string(), NONE, 101),
            (format!("http://{address}/mcp"), "localhost".into(), NONE, 400),
            ("http://evil.example/mcp".into(), address.to_string(), NONE, 400),
            (format!("http://{address}/mcp"), "evil.example".into(), NONE, 400),
            ("http://evil.example/mcp".into(), "evil.example".into(), NONE, 403),
            ("http://evil.example/mcp".into(), NONE.into(), NONE, 400),
            (format!("http://user@{address}/mcp"), format!("user@{address}"), NONE, 403),
            (format!("http://user@{address}/mcp"), address.to_string(), NONE, 400),
            (format!("http://{address}/mcp"), address.to_string(), "http://evil.example", 403),
            (format!("//{address}/mcp"), address.to_string(), NONE, 404),
        ] {
            let (head, _) = ask(address, request(&target, &host, origin)).await;
            assert_eq!(head.status(), status, "{target} {host} {origin}");
            assert_eq!(head.get("sec-websocket-accept").is_some(), status == 101);
        }
    })
    .await;
}

/// Returns a few rows of each kind, for the other ways in.
fn some() -> Vec<Row> {
    DEFAULT.iter().copied().step_by(3).collect()
}

async fn mounted(config: Config) -> SocketAddr {
    let service = WebSocketService::new(|| Ok(crate::common::Tools::default()), config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn a_mounted_service_asks_the_same() {
    limit(async {
        check(mounted(Config::default()).await, &some()).await;
    })
    .await;
}

#[tokio::test]
async fn accept_asks_the_same() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move { drop(accept::<RoleServer, _>(stream).await) });
            }
        });
        check(address, &some()).await;
    })
    .await;
}
