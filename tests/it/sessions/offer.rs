//! `mcp.resume.v1` is offered, and servers that dislike that are served all the same.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use futures::StreamExt;
use mcp_ws_transport::{connect, event::Event, server::Config};
use rmcp::{RoleClient, ServiceExt, model::CallToolRequestParams};
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::{
    LIMIT, Tools, limit, listen,
    proxy::{Faults, Proxy},
    raw::{Head, accepted},
    scale,
    scripted::{Link, OFFER, Scene, client, immediate_reconnect, result, session},
    serve_tools, within,
};

/// Each case is another offer, and what the server does unless it is offered `mcp` alone.
#[tokio::test]
async fn servers_that_want_no_other_offer_are_served_without() {
    let dislikes = |how: &'static str| {
        move |head: &Head| match how {
            "400" => "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "whole" => {
                let offer = head.get("sec-websocket-protocol").unwrap();
                accepted(head, &format!("Sec-WebSocket-Protocol: {offer}\r\n"))
            }
            other => accepted(head, &format!("Sec-WebSocket-Protocol: {other}\r\n")),
        }
    };
    limit(async {
        for how in ["400", "whole", "mcp,mcp.resume.v1", "graphql-ws", "mcp, graphql-ws"] {
            let (listener, url) = listen().await;
            let answer = dislikes(how);
            let serving = async {
                let (mut raw, head) = Link::asked(&listener).await;
                assert_eq!(head.all("sec-websocket-protocol"), [OFFER], "{how}");
                raw.write(answer(&head)).await;
                drop(raw);
                let mut raw = only_mcp(&listener).await;
                raw.answer_initialize().await;
                raw.reset();
                // It is remembered.
                only_mcp(&listener).await.answer_initialize().await;
            };
            let dialling = client(url);
            let (client, ()) = tokio::join!(dialling, serving);
            drop(client);
        }
    })
    .await;
}

async fn only_mcp(listener: &TcpListener) -> crate::common::raw::Raw {
    let (mut raw, head) = Link::asked(listener).await;
    assert_eq!(head.all("sec-websocket-protocol"), ["mcp"]);
    raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
    raw
}

#[tokio::test]
async fn an_offer_of_ones_own_is_made_without_that_to_resume_too() {
    limit(async {
        let (listener, url) = listen().await;
        let own = ["mcp.resume.v1", "mcp.auth.x"];
        let dialling =
            tokio::spawn(immediate_reconnect(connect(url)).subprotocols(own).into_future());
        let (mut raw, head) = Link::asked(&listener).await;
        assert_eq!(head.all("sec-websocket-protocol"), ["mcp, mcp.resume.v1, mcp.auth.x"]);
        raw.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        let (mut raw, head) = Link::asked(&listener).await;
        assert_eq!(head.all("sec-websocket-protocol"), ["mcp, mcp.auth.x"]);
        raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp, mcp.auth.x\r\n")).await;
        assert_eq!(dialling.await.unwrap().unwrap().subprotocol(), Some("mcp"));
    })
    .await;
}

#[tokio::test]
async fn who_does_not_want_to_resume_does_not_offer_it() {
    limit(async {
        for once in [true, false] {
            let (listener, url) = listen().await;
            let connect =
                immediate_reconnect(connect::<RoleClient>(url)).subprotocols(["mcp.resume.v1"]);
            let connect = if once { connect.no_reconnect() } else { connect.resume(false) };
            let dialling = tokio::spawn(connect.into_future());
            only_mcp(&listener).await;
            let _ = dialling.await.unwrap().unwrap();
        }
        let (near, far) = crate::common::pair().await;
        let over = tokio::spawn(connect::<RoleClient>("ws://localhost/").over(near));
        let mut raw = crate::common::raw::Raw::over(far, false);
        let head = raw.head().await.unwrap();
        assert_eq!(head.all("sec-websocket-protocol"), ["mcp"]);
        raw.write(accepted(&head, "")).await;
        let _ = over.await.unwrap().unwrap();
    })
    .await;
}

/// Reads the request of the next connection, and drops it.
async fn drops(listener: &TcpListener, reset: bool) {
    let (raw, head) = Link::asked(listener).await;
    assert_eq!(head.all("sec-websocket-protocol"), [OFFER]);
    if reset {
        raw.reset();
    }
}

/// Nor is it taken for granted that a server which drops them always will.
#[tokio::test]
async fn servers_that_drop_other_offers_are_served_without() {
    limit(async {
        for reset in [true, false] {
            let (listener, url) = listen().await;
            let serving = async {
                drops(&listener, reset).await;
                drops(&listener, reset).await;
                let mut raw = only_mcp(&listener).await;
                raw.answer_initialize().await;
                raw.reset();
                drops(&listener, reset).await;
                let mut raw = only_mcp(&listener).await;
                raw.answer_initialize().await;
                raw.reset();
                let mut link = Link::new(&listener).await;
                assert_eq!(link.open().await, json!({}));
                link.begins(session("s-1", "one", 0, false)).await
            };
            let dialling = client(url);
            let (client, _link) = tokio::join!(dialling, serving);
            drop(client);
        }
    })
    .await;
}

#[tokio::test]
async fn after_a_while_a_server_that_refused_is_offered_all_again() {
    within(100 * LIMIT, async {
        let (listener, url) = listen().await;
        let refuses = async || {
            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("sec-websocket-protocol"), [OFFER]);
            raw.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        };
        let serving = async {
            refuses().await;
            let mut raw = only_mcp(&listener).await;
            raw.answer_initialize().await;
            for learned_anew in [true, false] {
                tokio::time::pause();
                tokio::time::advance(Duration::from_secs(601)).await;
                tokio::time::resume();
                raw.reset();
                if !learned_anew {
                    break;
                }
                refuses().await;
                raw = only_mcp(&listener).await;
                raw.answer_initialize().await;
            }
            let mut link = Link::new(&listener).await;
            assert_eq!(link.open().await, json!({}));
            link.begins(session("s-1", "one", 0, false)).await
        };
        let dialling = client(url);
        let (client, _link) = tokio::join!(dialling, serving);
        drop(client);
    })
    .await;
}

/// Whatever byte of the handshake the connection is cut at, the next one can be resumed.
#[tokio::test]
async fn a_cut_handshake_costs_no_session() {
    within(10 * LIMIT, async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let proxy = Proxy::new(address).await;
        let step = if scale(0, 1) == 1 { 1 } else { 13 };
        let (mut firsts, mut laters) = (0, 0);
        for bytes in (0..600).step_by(step) {
            for reset in [true, false] {
                // The first dial.
                let cut = Faults { cut_after: Some(bytes), reset, ..Faults::default() };
                let mut faults = vec![Faults::default(), cut];
                proxy.draw_faults(move || faults.pop().unwrap_or_default());
                let before = proxy.dials.load(SeqCst);
                let transport =
                    immediate_reconnect(connect::<RoleClient>(proxy.url())).await.unwrap();
                assert_eq!(transport.subprotocol(), Some("mcp.resume.v1"), "{bytes} {reset}");
                firsts += usize::from(proxy.dials.load(SeqCst) - before > 1);
            }
        }
        let connect = immediate_reconnect(connect(proxy.url()));
        let mut events = connect.events();
        proxy.faults(Faults::default());
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        for bytes in (0..600).step_by(step) {
            for reset in [true, false] {
                // A later one.
                let cut = Faults { cut_after: Some(bytes), reset, ..Faults::default() };
                let mut faults = vec![Faults::default(), cut];
                proxy.draw_faults(move || faults.pop().unwrap_or_default());
                proxy.cut();
                let call = CallToolRequestParams::new("echo");
                within(LIMIT, client.call_tool(call)).await.unwrap();
                loop {
                    match events.next().await.unwrap() {
                        Event::Resumed { .. } => break,
                        Event::Lost(_) => {}
                        Event::Failed { .. } => laters += 1,
                        other => panic!("{bytes} {reset}: {other:?}"),
                    }
                }
            }
        }
        println!("figure: cut in the handshake: {firsts} first dials and {laters} later ones, all resumed");
        assert!(firsts > 20 && laters > 20, "{firsts} {laters}");
    })
    .await;
}

/// A connection that is dropped in the handshake says nothing of an offer that was taken before.
#[tokio::test]
async fn a_bad_network_does_not_cost_the_session() {
    limit(async {
        let (scene, link) = Scene::new().await;
        let Link { raw, received, sent } = link;
        raw.reset();
        for _ in 0..3 {
            let (raw, head) = Link::asked(&scene.listener).await;
            assert_eq!(head.all("sec-websocket-protocol"), [OFFER]);
            raw.reset();
        }
        let mut link = Link { received, sent, ..Link::new(&scene.listener).await };
        assert_eq!(link.open().await["session"], "s-1");
        link.raw.text(session("s-1", "two", received, true)).await;
        let (calling, call) = scene.called(&mut link).await;
        link.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
    })
    .await;
}
