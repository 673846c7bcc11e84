//! What the `Debug` of public types shows.

use mcp_ws_transport::{
    accept, serve,
    server::{BearerTokens, Config, Credentials, Identity, WebSocketService},
};
use rmcp::RoleServer;

use super::{RIGHT, WRONG, assert_debug_clean, config, ways};
use crate::common::{
    Tools, limit, pair,
    raw::{Raw, upgrade_request},
};

#[tokio::test]
async fn nothing_public_shows_a_token() {
    alone!();
    limit(async {
        let tokens = BearerTokens::from_iter([RIGHT, WRONG]).token(RIGHT, Identity::new("alice"));
        assert_debug_clean("a list of tokens", &tokens);
        let identity = Identity::new("alice").with_claims(RIGHT);
        assert_debug_clean("an identity with claims", &identity);
        assert_debug_clean("a configuration", &config());
        assert_debug_clean(
            "a service",
            &WebSocketService::new(|| Ok(Tools::default()), config()).unwrap(),
        );
        assert_debug_clean(
            "a server to be",
            &serve("127.0.0.1:0", Tools::default).config(config()),
        );
        let (near, far) = pair().await;
        let (shown, showing) = std::sync::mpsc::channel();
        let config = Config::default().authenticator(move |credentials: Credentials| {
            assert_debug_clean("credentials", &credentials);
            assert_debug_clean("a token", &credentials.token);
            shown.send(credentials.token.unwrap().as_str().to_owned()).unwrap();
            async { Ok(Identity::new("alice")) }
        });
        let accept = accept::<RoleServer, _>(far).config(config);
        assert_debug_clean("an acceptance", &accept);
        let mut raw = Raw::over(near, true);
        let address = raw.stream.peer_addr().unwrap();
        raw.write(upgrade_request(address, &ways(RIGHT)[0])).await;
        assert_debug_clean("a transport", &accept.await.unwrap());
        assert_eq!(showing.recv().unwrap(), RIGHT);
    })
    .await;
}
