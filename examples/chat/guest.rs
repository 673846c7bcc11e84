//! A client.

use std::sync::Arc;

use futures::StreamExt;
use mcp_ws_transport::{
    client::{ToolClient, ToolError},
    connect,
    event::Event,
};
use rmcp::{
    ClientHandler, RoleClient, model::LoggingMessageNotificationParam, service::NotificationContext,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use url::Url;

use crate::room::{Error, Line, Lines};

/// A client, and its connection.
pub(crate) struct Guest {
    pub(crate) name: String,
    room: ToolClient<Ears>,
    /// The last line that was heard.
    heard: watch::Sender<Line>,
}

/// Hears what the server tells.
pub(crate) struct Ears(mpsc::UnboundedSender<Line>);

impl ClientHandler for Ears {
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

impl Guest {
    /// Joins in a new session, and shows what it hears for as long as it lives.
    pub(crate) async fn join(url: &str, name: &str, resume: bool) -> Result<Arc<Self>, Error> {
        let (mut url, id) = (Url::parse(url)?, format!("{:032x}", rand::random::<u128>()));
        url.query_pairs_mut().append_pair("mcp_session_id", &id).append_pair("name", name);
        let connect = connect(url).resume(resume);
        let mut events = connect.events();
        let (ears, mut lines) = mpsc::unbounded_channel();
        let room = ToolClient::over(Ears(ears), connect.await?).await?;
        let guest = Arc::new(Self { name: name.to_owned(), room, heard: watch::Sender::default() });
        guest.catch_up().await;
        let listener = Arc::downgrade(&guest);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What was missed comes before what is said now.
                    biased;
                    Some(event) = events.next() => match (event, listener.upgrade()) {
                        (Event::Restarted { .. }, Some(guest)) => guest.catch_up().await,
                        (Event::Lost(why) | Event::Closed(why), Some(guest)) => println!("[{}] {why}", guest.name),
                        _ => {}
                    },
                    Some(line) = lines.recv() => match listener.upgrade() {
                        Some(guest) => guest.hear(line),
                        None => break,
                    },
                    else => break,
                }
            }
        });
        Ok(guest)
    }

    fn hear(&self, line: Line) {
        if line.at > self.heard.borrow().at {
            if line.from != self.name {
                println!("[{}] {}: {}", self.name, line.from, line.text);
            }
            self.heard.send_replace(line);
        }
    }

    /// Asks for what has been said since something was heard last.
    async fn catch_up(&self) {
        let after = self.heard.borrow().at;
        match self.room.call("history", json!({ "after": after })).await {
            Ok(Lines { lines }) => lines.into_iter().for_each(|line| self.hear(line)),
            Err(error) => println!("[{}] no history: {error}", self.name),
        }
    }

    pub(crate) async fn say(&self, text: &str) -> Result<(), ToolError> {
        self.room.call::<Value>("say", json!({ "text": text })).await.map(drop)
    }

    pub(crate) async fn who(&self) -> Result<(), ToolError> {
        self.room.call("who", ()).await.map(|names: String| println!("here are {names}"))
    }

    /// Waits until this is the last line that was heard.
    pub(crate) async fn heard(&self, text: &str) {
        let _ = self.heard.subscribe().wait_for(|heard| heard.text == text).await;
    }
}
