//! What the instances of a cluster show of a session that one relays to another.

use mcp_ws_transport::cluster::{Cluster, Local};
use serde_json::{Value, json};

use super::{RIGHT, assert_clean, assert_debug_clean, config, traced::Traced};
use crate::common::{
    handshake::{Recorder, upgrade},
    limit,
};

/// The token, id and secret of a session that one instance of a cluster relays to another.
#[tokio::test]
async fn those_of_a_session_in_a_cluster_show_nowhere() {
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
            assert_debug_clean("a registry", a.registry());
        }
        for server in [a, b] {
            assert_clean(
                "the health",
                &serde_json::to_string(&server.registry().health()).unwrap(),
            );
        }
        for (server, _) in instances {
            server.shutdown().await;
        }
    })
    .await;
    traced.assert_clean();
    for secret in secrets {
        // The tag of the instance, which stands before it, is no secret.
        let secret = secret.split_once('.').map_or(&*secret, |(_, id)| id);
        let (own, _) = traced.showing(secret);
        assert!(own.is_empty(), "{secret}: {own:#?}");
    }
    assert!(traced.showing("session=\"relayed\"").0.len() == 2, "both relays were logged");
}
