//! What a client does with the lines that the server sends.

use rmcp::{
    ClientHandler, RoleClient, model::LoggingMessageNotificationParam, service::NotificationContext,
};
use tokio::sync::mpsc;

use crate::line::Line;

/// Handler that passes on the lines that the server sends.
pub(crate) struct Notifications(pub(crate) mpsc::UnboundedSender<Line>);

impl ClientHandler for Notifications {
    async fn on_logging_message(
        &self,
        message: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        if let Ok(line) = serde_json::from_value(message.data) {
            let _ = self.0.send(line);
        }
    }
}
