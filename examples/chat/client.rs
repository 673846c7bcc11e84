//! A client.

use std::sync::Arc;

use futures::StreamExt;
use mcp_ws_transport::{
    client::{ToolClient, ToolError},
    connect,
    event::Event,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use url::Url;

use crate::{
    line::{Error, Line, Lines},
    notifications::Notifications,
};

/// A member of the chat, and its connection.
pub(crate) struct Client {
    pub(crate) name: String,
    room: ToolClient<Notifications>,
    /// Last line that was received.
    last: watch::Sender<Line>,
}

impl Client {
    /// Joins in a new session, and prints the lines that arrive until the client is dropped.
    pub(crate) async fn join(url: &str, name: &str, resume: bool) -> Result<Arc<Self>, Error> {
        let (mut url, id) = (Url::parse(url)?, format!("{:032x}", rand::random::<u128>()));
        url.query_pairs_mut().append_pair("mcp_session_id", &id).append_pair("name", name);
        let connect = connect(url).resume(resume);
        let mut events = connect.events();
        let (sender, mut lines) = mpsc::unbounded_channel();
        let room = ToolClient::over(Notifications(sender), connect.await?).await?;
        let client = Arc::new(Self { name: name.to_owned(), room, last: watch::Sender::default() });
        client.catch_up().await;
        let weak = Arc::downgrade(&client);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What was missed comes before what is said now.
                    biased;
                    Some(event) = events.next() => match (event, weak.upgrade()) {
                        (Event::Restarted { .. }, Some(client)) => client.catch_up().await,
                        (Event::Lost(why) | Event::Closed(why), Some(client)) => println!("[{}] {why}", client.name),
                        _ => {}
                    },
                    Some(line) = lines.recv() => match weak.upgrade() {
                        Some(client) => client.receive(line),
                        None => break,
                    },
                    else => break,
                }
            }
        });
        Ok(client)
    }

    fn receive(&self, line: Line) {
        if line.at > self.last.borrow().at {
            if line.from != self.name {
                println!("[{}] {}: {}", self.name, line.from, line.text);
            }
            self.last.send_replace(line);
        }
    }

    /// Asks for the lines after the last that was received.
    async fn catch_up(&self) {
        let after = self.last.borrow().at;
        match self.room.call("history", json!({ "after": after })).await {
            Ok(Lines { lines }) => lines.into_iter().for_each(|line| self.receive(line)),
            Err(error) => println!("[{}] no history: {error}", self.name),
        }
    }

    pub(crate) async fn say(&self, text: &str) -> Result<(), ToolError> {
        self.room.call::<Value>("say", json!({ "text": text })).await.map(drop)
    }

    pub(crate) async fn who(&self) -> Result<(), ToolError> {
        self.room.call("who", ()).await.map(|names: String| println!("here are {names}"))
    }

    /// Waits until this is the last line that was received.
    pub(crate) async fn received(&self, text: &str) {
        let _ = self.last.subscribe().wait_for(|last| last.text == text).await;
    }
}
