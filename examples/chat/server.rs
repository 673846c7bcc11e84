//! The server: a service for each client, and one session for each name.

use mcp_ws_transport::{
    serve,
    server::{AuthError, Config, Credentials, Identity, Server, SessionConfig, SessionIdPolicy},
};
use url::form_urlencoded;

use crate::{line::Error, room::Room};

/// Believes every name. A session is for the name that opened it alone, and it takes its id to
/// return.
async fn identify(credentials: Credentials) -> Result<Identity, AuthError> {
    let query = credentials.parts.uri.query().unwrap_or_default();
    let name = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "name");
    name.map(|(_, name)| Identity::new(name)).ok_or(AuthError::Unauthorized)
}

pub(crate) async fn serve_room(address: &str) -> Result<Server, Error> {
    let room = Room::default();
    let config = Config::default()
        .registry(room.registry.clone())
        .authenticator(identify)
        .sessions(SessionConfig::default().ids(SessionIdPolicy::Required));
    Ok(serve(address.to_owned(), move || room.clone()).config(config).await?)
}
