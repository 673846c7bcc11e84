//! Proxies that the environment names. Each client is a process with an environment of its own.

use std::{env, net::SocketAddr};

use mcp_ws_transport::{connect, server::Config};
use rmcp::ServiceExt;
use tokio::{net::TcpListener, process::Command};

use crate::common::{
    Tools,
    forward::{ForwardProxy, Rules},
    limit, serve_tools,
};

const URL: &str = "MCP_WS_DIAL";
const NO_PROXY: &str = "MCP_WS_NO_PROXY";

/// Dials as its environment says, and prints what came of it.
#[tokio::test]
#[ignore = "is run by the tests below"]
async fn dial() {
    let Ok(url) = env::var(URL) else { return };
    let connect = connect(url).no_reconnect();
    let connect = if env::var_os(NO_PROXY).is_some() { connect.no_proxy() } else { connect };
    match connect.await {
        Ok(transport) => {
            ().serve(transport).await.unwrap().cancel().await.unwrap();
            println!("outcome: connected;");
        }
        Err(error) => println!("outcome: {error};"),
    }
}

/// Returns what comes of a client for `url` in an environment with these variables alone.
async fn outcome(url: &str, variables: &[(&str, &str)]) -> String {
    let mut client = Command::new(env::current_exe().unwrap());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
        client.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    client.args(["--exact", "proxy_environment::dial", "--ignored", "--nocapture"]);
    client.env(URL, url).envs(variables.iter().copied()).kill_on_drop(true);
    let output = client.output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let outcome = said.split_once("outcome: ").unwrap_or_else(|| panic!("{said}")).1;
    outcome.split_once(";\n").unwrap().0.to_owned()
}

async fn server() -> (mcp_ws_transport::server::Server, SocketAddr) {
    let config = Config::default().allowed_hosts(["server.test", "127.0.0.1"]);
    serve_tools(&Tools::default(), config).await
}

#[tokio::test]
async fn the_environment_names_a_proxy_by_scheme_and_not_for_all_hosts() {
    limit(async {
        let (_server, address) = server().await;
        let rules =
            Rules { credentials: Some(("alice".into(), "s3cr3t".into())), ..Rules::default() };
        let http = ForwardProxy::http(address, rules).await;
        let socks = ForwardProxy::socks5(address, Rules::default()).await;
        let by_http = &*format!("http://alice:s3cr3t@{}", http.address);
        let by_socks = &*format!("socks5h://{}", socks.address);
        let url = "ws://server.test/mcp";
        let (connected, unknown) = ("connected", "the name server.test does not resolve");
        for (url, variables, expected, asked) in [
            (url, &[("HTTP_PROXY", by_http)][..], connected, 1),
            (url, &[("http_proxy", by_http)], connected, 1),
            (url, &[("ALL_PROXY", by_http)], connected, 1),
            (url, &[("all_proxy", by_socks)], connected, 1),
            (url, &[("HTTP_PROXY", by_http), ("ALL_PROXY", "http://127.0.0.1:1")], connected, 1),
            (url, &[("HTTPS_PROXY", by_http)], unknown, 0),
            ("wss://server.test/mcp", &[("HTTPS_PROXY", by_http)], "TLS", 1),
            ("wss://server.test/mcp", &[("https_proxy", by_socks)], "TLS", 1),
            ("wss://server.test/mcp", &[("HTTP_PROXY", by_http)], unknown, 0),
            (url, &[("HTTP_PROXY", by_http), ("NO_PROXY", "x.test, .server.test")], unknown, 0),
            (url, &[("HTTP_PROXY", by_http), ("no_proxy", "*")], unknown, 0),
            (url, &[("HTTP_PROXY", by_http), ("NO_PROXY", "other.test")], connected, 1),
            (url, &[("HTTP_PROXY", by_http), ("REQUEST_METHOD", "GET")], unknown, 0),
            (url, &[("HTTP_PROXY", by_http), (self::NO_PROXY, "1")], unknown, 0),
            (url, &[("HTTP_PROXY", "")], unknown, 0),
            (&format!("ws://{address}/mcp"), &[("ALL_PROXY", "http://127.0.0.1:1")], connected, 0),
        ] {
            let outcome = outcome(url, variables).await;
            assert!(outcome.contains(expected), "{url} {variables:?}: {outcome}");
            let seen =
                [&http, &socks].map(|proxy| std::mem::take(&mut *proxy.asked.lock().unwrap()));
            assert_eq!(seen.concat().len(), asked, "{url} {variables:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_variable_that_is_no_proxy_is_an_error_and_not_passed_by() {
    limit(async {
        for (name, value) in [
            ("HTTP_PROXY", "ftp://canary:canary@proxy"),
            ("http_proxy", "htttp://proxy:3128"),
            ("ALL_PROXY", "canary proxy"),
        ] {
            let outcome = outcome("ws://server.test/mcp", &[(name, value)]).await;
            assert!(outcome.contains(name) && outcome.contains("http://"), "{outcome}");
            assert!(!outcome.contains("canary"), "{outcome}");
            // It does not count for a host that needs no proxy.
            let exempt = [(name, value), ("NO_PROXY", "server.test")];
            let outcome = self::outcome("ws://server.test/mcp", &exempt).await;
            assert!(outcome.contains("does not resolve"), "{outcome}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_error_of_a_proxy_names_the_variable_that_it_is_from() {
    const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    limit(async {
        let (_server, address) = server().await;
        let rules = Rules { refusals: [FORBIDDEN.to_vec()].into(), ..Rules::default() };
        let refusing = ForwardProxy::http(address, rules).await;
        let refusing = &*format!("http://alice:canary@{}", refusing.address);
        let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let away = &*format!("socks5h://{away}");
        for (url, name, value, says) in [
            ("ws://server.test/mcp", "http_proxy", refusing, "refused: 403"),
            ("wss://server.test/mcp", "HTTPS_PROXY", away, "refused"),
            ("ws://server.test/mcp", "ALL_PROXY", "ftp://canary@proxy", "is not one of"),
            ("wss://server.test/mcp", "all_proxy", "http://proxy:canary", "is not one of"),
        ] {
            let outcome = outcome(url, &[(name, value)]).await;
            assert!(outcome.contains(name) && outcome.contains(says), "{name}: {outcome}");
            assert!(!outcome.contains("canary"), "{outcome}");
        }
    })
    .await;
}
