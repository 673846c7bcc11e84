//! What a client shows of its token, its session and its proxy.

use std::time::Duration;

use futures::StreamExt;
use mcp_ws_transport::{
    client::ReconnectPolicy,
    connect,
    event::Event,
    server::{BearerTokens, Config},
};
use rmcp::{RoleClient, ServiceExt};
use tokio::net::TcpListener;

use super::{CANARY, RIGHT, WRONG, assert_clean, assert_debug_clean, config, traced::Traced};
use crate::common::{
    handshake::Recorder,
    limit, listen,
    proxy::Proxy,
    scripted::{Link, immediate_reconnect, session},
};

#[tokio::test]
async fn those_of_a_client_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (_server, address) = Recorder::default().start_server(config()).await;
        let url = format!("ws://canary:canary@{address}/mcp?token=canary#canary");
        for token in [RIGHT, WRONG, "canary\n"] {
            let connect = connect::<RoleClient>(&url)
                .header("x-token", CANARY)
                .header("x-canary", "bad\nvalue")
                .subprotocols([format!("mcp.auth.{CANARY}")])
                .bearer(token);
            assert_clean("its Debug", &format!("{connect:?}").replace("x-canary", ""));
            let error = connect.await.unwrap_err();
            assert_debug_clean("an error", &error);
            assert_clean("an error", &error.to_string().replace("x-canary", ""));
            let connecting = mcp_ws_transport::connect::<RoleClient>(&url).bearer(token);
            match connecting.await {
                Ok(transport) => assert_debug_clean("a transport", &transport),
                Err(error) => assert_debug_clean("an error", &error),
            }
        }
        for url in [
            "ws://canary:canary@127.0.0.1:1/?canary",
            "ws://canary:canary@[/?canary",
            "ftp://canary:canary@127.0.0.1/?canary",
            "canary",
        ] {
            let error = connect::<RoleClient>(url).await.unwrap_err();
            assert_debug_clean(url, &error);
            assert_clean(url, &error);
        }
    })
    .await;
    traced.assert_clean();
}

/// The id of a session, and its secret.
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
            assert_debug_clean("a transport", &transport);
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
        assert_clean("a close reason", &link.raw.closed().await.1);
        let link = link.cut(&listener).await.0;
        let link = link.begins(session("t-canary", CANARY, 0, false)).await;
        let mut link = link.cut(&listener).await.0;
        link.raw.text(session("t-canary", "canary-2", link.received, true)).await;
        loop {
            let event = events.next().await.unwrap();
            assert_debug_clean("an event", &event);
            assert_debug_clean("the state", &*state.borrow());
            if matches!(event, Event::Resumed { .. }) {
                break;
            }
        }
        drop(client);
    })
    .await;
    traced.assert_clean();
    let of_dialer = traced.of("mcp_ws_transport::client::dialer");
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
            assert_clean("an error", &error);
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
            assert_debug_clean("an event", &event);
            if matches!(event, Event::Closed(_)) {
                break;
            }
        }
        drop(client);
        first.shutdown().await;
    })
    .await;
    traced.assert_clean();
    let refusals = traced.of("mcp_ws_transport::server::registry::refusal");
    assert!(refusals.contains("refused: authentication required"), "{refusals}");
    let ends = traced.of("mcp_ws_transport::end_report");
    assert!(ends.contains("connection ended"), "{ends}");
}

/// The user and password of a proxy, and the token that passes through it.
#[cfg(feature = "proxy")]
#[tokio::test]
async fn those_of_a_proxy_show_nowhere() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

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
                assert_debug_clean("a client", &connect);
                match connect.await {
                    Ok(transport) => {
                        assert!(is_let_in && token == RIGHT);
                        ().serve(transport).await.unwrap().cancel().await.unwrap();
                    }
                    Err(error) => {
                        assert_debug_clean("an error", &error);
                        assert_clean("an error", &error);
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
