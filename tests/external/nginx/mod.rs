//! Two instances behind nginx, configured as the deployment guide says.
//!
//! `cargo test --test external nginx -- --ignored`

pub mod server;
mod site;

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use mcp_ws_transport::{
    CloseCode, Error, State,
    error::{HandshakeError, LinkError},
    event::Event,
};
use rmcp::{ServiceError, ServiceExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::{server::Nginx, site::Site};
use crate::{
    common::{limit, proxy::Proxy, tool_call, within},
    instance::{
        Client, ask, back, behind_proxy, heartbeat, immediate_reconnect, initialized, leave_idle,
    },
    process::{Process, math},
};

#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn a_name_always_leads_to_the_same_instance_and_names_spread() {
    limit(async {
        let site = Site::new().await;
        let mut at = Vec::new();
        for round in 1..=2 {
            for name in 0..40 {
                let client =
                    initialized(site.dial(&format!("session-{name}")).no_reconnect()).await;
                let place = ask(&client, 0).await;
                match round {
                    1 => at.push(place[..1].to_owned()),
                    _ => assert_eq!(place[..1], at[name]),
                }
                client.cancel().await.unwrap();
            }
        }
        let a = at.iter().filter(|at| *at == "a").count();
        assert!((10..=30).contains(&a), "{a} of 40 are at the first instance");
        let log = site.nginx.log("access.log");
        assert!(log.contains("/mcp 101") && !log.contains("session-"), "{log}");
    })
    .await;
}

/// Every ping makes nginx wait anew, whichever side sends it.
#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn pings_of_either_side_keep_an_idle_connection_and_without_them_nginx_cuts_it() {
    limit(async {
        let each = Some(Duration::from_secs(1));
        let site =
            |ping| Site::with(behind_proxy().transport(heartbeat(ping)), |as_it_is| as_it_is);
        let (pings, silent) = tokio::join!(site(each), site(None));
        let leave_idle = |site: &Site, ping: Option<Duration>| {
            leave_idle(site.dial(&format!("idle-{}", ping.is_some())).transport(heartbeat(ping)))
        };
        let (both, server, client, (after, end)) = tokio::join!(
            leave_idle(&pings, each),
            leave_idle(&pings, None),
            leave_idle(&silent, each),
            leave_idle(&silent, None)
        );
        for (_, state) in [both, server, client] {
            assert_eq!(state, State::Connected);
        }
        assert!(matches!(end, State::Closed(_)), "{end:?}");
        assert!((2..6).contains(&after.as_secs()), "{after:?}");
    })
    .await;
}

/// Sessions by the extension with a name and without one, and by the name alone.
#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn a_client_that_loses_its_connection_comes_back_to_its_session() {
    limit(async {
        let site = Site::new().await;
        let line = Proxy::new(site.nginx.address).await;
        let names = ["one", "two", "three", "four", "five", "six", ""];
        let clients = names.iter().flat_map(|name| [(*name, true), (*name, false)]);
        // Without name and extension, no session outlives its connection.
        let clients = clients.filter(|(name, resumes)| *resumes || !name.is_empty());
        let mut all = Vec::new();
        for (name, resumes) in clients {
            let name =
                if resumes || name.is_empty() { name.to_owned() } else { format!("{name}-plain") };
            let connect = site
                .nginx
                .dial(line.address, &name)
                .resume(resumes)
                .reconnect(immediate_reconnect());
            let events = connect.events();
            let client = initialized(connect).await;
            let place = ask(&client, 0).await;
            all.push((name, resumes, client, events, place));
        }
        assert!(site.connections().iter().all(|connections| *connections > 0));
        for round in 1..=3 {
            line.cut();
            for (name, resumes, client, events, place) in &mut all {
                let (_, event) = back(events).await;
                match event {
                    Event::Resumed { .. } => assert!(*resumes, "{name}"),
                    Event::Restarted { .. } => assert!(!*resumes, "{name}"),
                    event => panic!("{event:?}"),
                }
                let expected = place.replace(".1", &format!(".{}", round + 1));
                assert_eq!(ask(client, 0).await, expected, "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn a_call_goes_on_while_nginx_reloads() {
    limit(async {
        let site = Site::new().await;
        let connect = site.dial("reload").reconnect(immediate_reconnect());
        let mut events = connect.events();
        let client = initialized(connect).await;
        let reload = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            site.nginx.reload().await;
            back(&mut events).await.1
        };
        let (place, event) = tokio::join!(ask(&client, 3000), reload);
        assert!(matches!(event, Event::Resumed { .. }), "{event:?}");
        assert_eq!(place[1..], *"1.1");
        assert_eq!(ask(&client, 0).await[1..], *"1.2");
    })
    .await;
}

/// Clients without a name go by an address, which is also what the server is told, whatever they
/// say.
#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn clients_without_a_name_go_by_their_addresses() {
    limit(async {
        let site = Site::new().await;
        let mut at = String::new();
        for last in 1..=40 {
            let source = IpAddr::from([127, 0, 1, last]);
            let mut places = Vec::new();
            for _ in 0..2 {
                let connect = site.dial("").header("x-forwarded-for", "192.0.2.1");
                let client = ().serve(site.nginx.enter_from(source, connect).await).await.unwrap();
                let place = ask(&client, 0).await.remove(0);
                let registry = if place == 'a' { site.a.registry() } else { site.b.registry() };
                let peers: Vec<_> = registry.list().iter().map(|client| client.peer()).collect();
                assert!(peers.contains(&Some((source, 0).into())), "{source}: {peers:?}");
                places.push(place);
                client.cancel().await.unwrap();
            }
            assert_eq!(places[0], places[1], "{source}");
            at.push(places[0]);
        }
        let a = at.matches('a').count();
        assert!((10..=30).contains(&a), "{a} of 40 are at the first instance");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn a_page_of_another_origin_is_refused_and_the_sites_own_is_not() {
    limit(async {
        let site = Site::new().await;
        let own = format!("https://{}", site.nginx.address);
        let client = initialized(site.dial("own").header("origin", own).no_reconnect()).await;
        ask(&client, 0).await;
        for origin in ["https://evil.example", "https://127.0.0.1", "null"] {
            let refused = site.dial("own").header("origin", origin).no_reconnect().await;
            let Err(Error::Handshake(HandshakeError::Refused(refusal))) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(refusal.status, 403, "{origin}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn a_call_in_flight_is_finished_before_its_instance_goes() {
    limit(async {
        let site = Site::new().await;
        let connect = site.dial("busy").reconnect(immediate_reconnect());
        let mut events = connect.events();
        let client = initialized(connect).await;
        let first = ask(&client, 0).await;
        let Site { nginx: _nginx, a, b } = site;
        let (goes, _stays) = if first.starts_with('a') { (a, b) } else { (b, a) };
        let stop = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            goes.shutdown().await;
        };
        let (second, ()) = tokio::join!(ask(&client, 1500), stop);
        assert_eq!(second, first.replace(".1", ".2"));
        let (lost, event) = back(&mut events).await;
        assert!(is_restart(&lost), "{lost}");
        assert!(matches!(event, Event::Restarted { .. }), "{event:?}");
        assert_ne!(ask(&client, 0).await[..1], first[..1]);
    })
    .await;
}

fn is_restart(error: &Error) -> bool {
    matches!(error, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::Restart)
}

/// Calls until it is told to stop: how many were answered, and why the others were not.
async fn keep_calling(client: &Client, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answered, mut errors) = (0, Vec::new());
    while !stop.load(SeqCst) {
        let call = tool_call("add", json!({ "a": answered, "b": 1 }));
        match client.call_tool(call).await {
            Ok(result) => {
                assert_eq!(result.structured_content.unwrap()["result"], answered + 1);
                answered += 1;
            }
            Err(ServiceError::McpError(error)) => {
                errors.push(error.data.unwrap()["reason"].as_str().unwrap().to_owned());
            }
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (answered, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx: apt-get install nginx-light"]
async fn when_an_instance_is_told_to_stop_the_other_takes_over_and_gives_back() {
    const CLIENTS: usize = 24;
    let math = math().await;
    within(Duration::from_secs(60), async {
        let serve = async |address: &str| {
            let (process, url) = Process::server(math, &["serve", "--listen", address]).await;
            let address = url.strip_prefix("ws://").unwrap().strip_suffix("/mcp").unwrap();
            (process, address.parse::<SocketAddr>().unwrap())
        };
        let (mut a, at_a) = serve("127.0.0.1:0").await;
        let (_b, at_b) = serve("127.0.0.1:0").await;
        let nginx = Nginx::start([at_a, at_b], |as_it_is| as_it_is).await;
        let mut clients = Vec::new();
        for name in 0..CLIENTS {
            let connect = nginx.dial(nginx.address, &format!("client-{name}"));
            let connect = connect.reconnect(immediate_reconnect());
            let events = connect.events();
            clients.push((initialized(connect).await, events));
        }
        let theirs = health(at_a).await["active"].as_u64().unwrap();
        assert!(
            (1..CLIENTS as u64).contains(&theirs),
            "{theirs} clients are at the first instance"
        );

        let stop = AtomicBool::new(false);
        let calls = join_all(clients.iter().map(|(client, _)| keep_calling(client, &stop)));
        let drain = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            a.terminate().await;
            a.success().await;
            while health(at_b).await["active"] != CLIENTS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.store(true, SeqCst);
        };
        let (calls, ()) = tokio::join!(calls, drain);
        let answered: usize = calls.iter().map(|(answered, _)| answered).sum();
        let errors: Vec<_> = calls.iter().flat_map(|(_, errors)| errors).collect();
        println!("{theirs} of {CLIENTS} moved; {answered} calls answered, not: {errors:?}");
        // One that crosses the Close on its way need not be known to have gone no further.
        let crossed = errors.iter().filter(|reason| **reason == "outcome_unknown").count();
        assert!(crossed <= theirs as usize, "{crossed}");
        assert!(errors.iter().all(|reason| {
            ["not_sent", "outcome_unknown", "stopping"].contains(&reason.as_str())
        }));

        let mut moved = 0;
        for (client, mut events) in clients {
            let told = back(&mut events).now_or_never();
            client.cancel().await.unwrap();
            let Some((lost, event)) = told else { continue };
            assert!(is_restart(&lost), "{lost}");
            assert!(matches!(event, Event::Restarted { .. }), "{event:?}");
            moved += 1;
        }
        assert_eq!(moved, theirs);

        let (_a, _) = serve(&at_a.to_string()).await;
        for name in 0..CLIENTS {
            let client =
                initialized(nginx.dial(nginx.address, &format!("client-{name}")).no_reconnect())
                    .await;
            client.cancel().await.unwrap();
        }
        assert_eq!(health(at_a).await["total"], theirs);
    })
    .await;
}

async fn health(address: SocketAddr) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
