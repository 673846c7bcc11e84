//! The server.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mcp_ws_transport::{
    serve,
    server::{
        AuthError, Config, Connection, Credentials, Identity, Registry, Server, SessionConfig,
        SessionIdPolicy,
    },
};
use rmcp::{
    ErrorData, Json, RoleServer, ServerHandler,
    handler::server::wrapper::Parameters,
    model::{
        LoggingLevel, LoggingMessageNotification, LoggingMessageNotificationParam,
        ServerCapabilities, ServerConfig, SetLevelRequestParams,
    },
    schemars::{self, JsonSchema},
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::form_urlencoded;

pub(crate) type Error = Box<dyn std::error::Error>;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Line {
    /// When it was said, in milliseconds since 1970; no two have the same
    pub(crate) at: u64,
    pub(crate) from: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Lines {
    pub(crate) lines: VecDeque<Line>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Say {
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct After {
    /// The time of the last line that is known
    after: u64,
}

/// The server: every client has a service of its own, and all have the same room.
#[derive(Clone, Default)]
struct Room {
    registry: Registry,
    lines: Arc<Mutex<VecDeque<Line>>>,
}

#[tool_router]
impl Room {
    /// Says something to all the others
    #[tool]
    fn say(
        &self,
        Parameters(Say { text }): Parameters<Say>,
        context: RequestContext<RoleServer>,
    ) -> Result<Json<Line>, String> {
        let speaker = context.extensions.get::<Connection>().ok_or("nobody has said that")?;
        if text.len() > 4096 {
            return Err("too long".into());
        }
        // Locked until all are told, so that all hear the same order. Telling waits for nobody.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let at = lines.back().map_or(now, |last| now.max(last.at + 1));
        let line = Line { at, from: name_of(speaker), text };
        let message = LoggingMessageNotificationParam::new(LoggingLevel::Notice, json!(line));
        let message = LoggingMessageNotification::new(message).into();
        let told = self.registry.notify_where(message, |one| one.id() != speaker.id());
        told.map_err(|error| error.to_string())?;
        lines.push_back(line.clone());
        if lines.len() > 200 {
            lines.pop_front();
        }
        Ok(Json(line))
    }

    /// What has been said
    #[tool]
    fn history(&self, Parameters(After { after }): Parameters<After>) -> Json<Lines> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Json(Lines { lines: lines.iter().filter(|line| line.at > after).cloned().collect() })
    }

    /// Who is here, and who has lost the connection
    #[tool]
    fn who(&self) -> String {
        let list = self.registry.list().into_iter();
        let names = list.map(|one| name_of(&one) + if one.is_detached() { " (away)" } else { "" });
        names.collect::<Vec<_>>().join(", ")
    }
}

#[tool_handler]
impl ServerHandler for Room {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_logging().build())
    }

    async fn set_level(
        &self,
        _: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        Ok(()) // There is one.
    }
}

fn name_of(connection: &Connection) -> String {
    connection.identity().map_or("", |identity| identity.subject()).to_owned()
}

/// Believes everyone. A session is for the name that opened it alone, and it takes its id to return.
async fn introduce(visitor: Credentials) -> Result<Identity, AuthError> {
    let query = visitor.parts.uri.query().unwrap_or_default();
    let name = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "name");
    name.map(|(_, name)| Identity::new(name)).ok_or(AuthError::Unauthorized)
}

pub(crate) async fn open(address: &str) -> Result<Server, Error> {
    let room = Room::default();
    let config = Config::default()
        .registry(room.registry.clone())
        .authenticator(introduce)
        .sessions(SessionConfig::default().ids(SessionIdPolicy::Required));
    Ok(serve(address.to_owned(), move || room.clone()).config(config).await?)
}
