//! The service: the tools `say`, `history` and `who`.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use mcp_ws_transport::server::{Connection, Registry};
use rmcp::{
    ErrorData, Json, RoleServer, ServerHandler,
    handler::server::wrapper::Parameters,
    model::{
        LoggingLevel, LoggingMessageNotification, LoggingMessageNotificationParam,
        ServerCapabilities, ServerConfig, SetLevelRequestParams,
    },
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use serde_json::json;

use crate::line::{After, Line, Lines, Say};

/// The service of one client. All clones share the lines.
#[derive(Clone, Default)]
pub(crate) struct Room {
    pub(crate) registry: Registry,
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
        let speaker = context.extensions.get::<Connection>().ok_or("there is no connection")?;
        if text.len() > 4096 {
            return Err("too long".into());
        }
        // Locked until it is sent to all, so that all see the same order. Sending waits for nobody.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let now =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
        let at = lines.back().map_or(now, |last| now.max(last.at + 1));
        let line = Line { at, from: name_of(speaker), text };
        let message = LoggingMessageNotificationParam::new(LoggingLevel::Notice, json!(line));
        let message = LoggingMessageNotification::new(message).into();
        let sent = self.registry.notify_where(message, |one| one.id() != speaker.id());
        sent.map_err(|error| error.to_string())?;
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
