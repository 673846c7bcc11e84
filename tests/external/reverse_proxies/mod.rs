//! Two instances behind HAProxy, Caddy or Apache, configured as the deployment guide says.
//!
//! `cargo test --test external reverse_proxies -- --ignored`

pub mod server;

use std::{net::IpAddr, time::Duration};

use mcp_ws_transport::{
    CloseCode, Error, State,
    error::{HandshakeError, LinkError},
    event::Event,
};

use self::server::{Kind, Site};
use crate::{
    common::{limit, proxy::Proxy},
    instance::{ask, back, behind_proxy, heartbeat, immediate_reconnect, initialized, leave_idle},
};

/// The upgrade, `Host` and the address of the client, whatever that says, reach an instance.
async fn passes_on_what_matters(kind: Kind) {
    let site = Site::new(kind, behind_proxy()).await;
    for last in 1..=4 {
        let source = IpAddr::from([127, 0, 1, last]);
        let connect = site.dial_from(source, site.address).header("origin", site.origin());
        let connect = connect.header("x-forwarded-for", "192.0.2.1").no_reconnect();
        let client = initialized(connect).await;
        let place = ask(&client, 0).await;
        let instance = &site.instances[usize::from(place.starts_with('b'))];
        let registry = instance.as_ref().unwrap().registry();
        let peers: Vec<_> = registry.list().iter().map(|client| client.peer()).collect();
        let peers: Vec<_> = peers.into_iter().map(|peer| peer.unwrap().ip()).collect();
        assert!(peers.contains(&source), "{source}: {peers:?}");
        client.cancel().await.unwrap();
    }
    for (name, value) in [("host", "evil.example.com"), ("origin", "https://evil.example.com")] {
        let refused = site.dial().header(name, value).no_reconnect().await;
        let Err(Error::Handshake(HandshakeError::Refused(refusal))) = refused else {
            panic!("{name}: {refused:?}");
        };
        // Caddy knows no other host, and says 200 to it.
        let status = if (kind, name) == (Kind::Caddy, "host") { 200 } else { 403 };
        assert_eq!(refusal.status, status, "{name}");
    }
}

/// Pings of either side keep an idle connection; without them it is cut, unless by Caddy.
async fn pings_keep_an_idle_connection(kind: Kind) {
    let each = Some(Duration::from_secs(1));
    let site = |ping| Site::new(kind, behind_proxy().transport(heartbeat(ping)));
    let (pings, silent) = tokio::join!(site(each), site(None));
    let leave_idle =
        |site: &Site, ping: Option<Duration>| leave_idle(site.dial().transport(heartbeat(ping)));
    let (both, server, client, (after, end)) = tokio::join!(
        leave_idle(&pings, each),
        leave_idle(&pings, None),
        leave_idle(&silent, each),
        leave_idle(&silent, None)
    );
    for (_, state) in [both, server, client] {
        assert_eq!(state, State::Connected);
    }
    if kind == Kind::Caddy {
        assert_eq!(end, State::Connected);
    } else {
        assert!(matches!(end, State::Closed(_)), "{end:?}");
        assert!((2..6).contains(&after.as_secs()), "{after:?}");
    }
}

/// A client without a session id in its URL is led by the tag of its instance.
async fn a_lost_connection_comes_back_to_its_session(kind: Kind) {
    let site = Site::new(kind, behind_proxy()).await;
    let line = Proxy::new(site.address).await;
    let mut all = Vec::new();
    for _ in 0..6 {
        let connect =
            site.dial_from([127, 0, 0, 1].into(), line.address).reconnect(immediate_reconnect());
        let events = connect.events();
        let client = initialized(connect).await;
        let place = ask(&client, 0).await;
        all.push((client, events, place));
    }
    for round in 1..=3 {
        line.cut();
        for (client, events, place) in &mut all {
            let (_, event) = back(events).await;
            assert!(matches!(event, Event::Resumed { .. }), "{event:?}");
            let expected = place.replace(".1", &format!(".{}", round + 1));
            assert_eq!(ask(client, 0).await, expected);
        }
    }
}

/// An instance that is told to stop finishes its calls, and its clients find the other.
async fn a_drained_instance_is_left_for_the_other(kind: Kind) {
    let mut site = Site::new(kind, behind_proxy()).await;
    let connect = site.dial().reconnect(immediate_reconnect());
    let mut events = connect.events();
    let client = initialized(connect).await;
    let first = ask(&client, 0).await;
    let goes = site.instances[usize::from(first.starts_with('b'))].take().unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        goes.shutdown().await;
    };
    let (second, ()) = tokio::join!(ask(&client, 1500), stop);
    assert_eq!(second, first.replace(".1", ".2"));
    let (lost, event) = back(&mut events).await;
    let is_restart = matches!(&lost, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::Restart);
    assert!(is_restart, "{lost}");
    assert!(matches!(event, Event::Restarted { .. }), "{event:?}");
    assert_ne!(ask(&client, 0).await[..1], first[..1]);
}

macro_rules! tests {
    ($name:ident, $kind:ident, $needs:literal) => {
        mod $name {
            use super::*;

            #[tokio::test]
            #[ignore = $needs]
            async fn passes_on_what_matters() {
                limit(super::passes_on_what_matters(Kind::$kind)).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn pings_keep_an_idle_connection() {
                limit(super::pings_keep_an_idle_connection(Kind::$kind)).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn a_lost_connection_comes_back_to_its_session() {
                limit(super::a_lost_connection_comes_back_to_its_session(Kind::$kind)).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn a_drained_instance_is_left_for_the_other() {
                limit(super::a_drained_instance_is_left_for_the_other(Kind::$kind)).await;
            }
        }
    };
}

tests!(haproxy, Haproxy, "needs HAProxy: apt-get install haproxy");
tests!(caddy, Caddy, "needs Caddy: apt-get install caddy");
tests!(apache, Apache, "needs Apache, as root: apt-get install apache2");
