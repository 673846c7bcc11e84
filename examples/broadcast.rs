//! A room: what one client says, all hear. Its messages have a form of their own, and no MCP in them:
//!
//! ```json
//! {"type":"chat","payload":"hello","timestamp":1682944496789}
//! {"type":"chat","payload":"hello","timestamp":1682944496789,"sender":"client-1"}
//! ```
//!
//! `cargo run --example broadcast -- --listen 127.0.0.1:8080`
//!
//! Clients connect to `/ws`; `POST /broadcast` says something to all of them. What comes without a
//! `timestamp` gets that of the server. A message has at most 64 KiB. Beyond that:
//!
//! - a `target` in a message sends it to one client alone, by the id that is the `sender` of what it says;
//! - `{"type":"subscribe","payload":["chat"],"timestamp":0}` asks for some types only, at most 64 of at most
//!   64 bytes each, `null` for all;
//! - `{"type":"whoami","payload":null,"timestamp":0}` is answered by a `you` with the own id;
//! - what is no message, or too much, is answered by an `error`, and reaches nobody.

#[path = "common/stop.rs"]
mod stop;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use chrono::Utc;
use clap::Parser;
use futures::StreamExt;
use mcp_ws_transport::{
    Message,
    decode::PendingMethods,
    error::MessageError,
    framing::{DecodeError, Framing, FramingProperties},
    layer::socket,
    server::{BearerTokens, Config, Connection, NotifyError, Registry, RegistryEvent},
    transport,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{ClientNotification, CustomNotification, JsonRpcMessage, ServerNotification},
    service::{NotificationContext, RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};
use tokio::time::timeout;

use self::stop::Stop;

/// What goes over the wire, in both directions.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "Value::deserialize")]
    payload: Value,
    #[serde(default = "now")]
    timestamp: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(default, skip_serializing)]
    target: Option<String>,
}

/// Milliseconds since 1970.
fn now() -> Number {
    Utc::now().timestamp_millis().into()
}

impl Said {
    fn new(kind: &str, payload: Value) -> Self {
        Self { kind: kind.to_owned(), payload, timestamp: now(), sender: None, target: None }
    }

    fn error(message: &str) -> Self {
        Self::new("error", json!({ "message": message }))
    }
}

/// A message of somebody else.
fn read(json: &[u8]) -> Result<Said, String> {
    // A list would be taken for the members, one after the other.
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err("not a JSON object".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The form of the messages: each is a notification of its own kind.
#[derive(Debug, Clone, Copy)]
struct Room;

impl Framing<RoleServer> for Room {
    fn encode(
        &mut self,
        message: &TxJsonRpcMessage<RoleServer>,
    ) -> Result<Option<Message>, MessageError> {
        let said = match message {
            JsonRpcMessage::Notification(told) => match &told.notification {
                ServerNotification::CustomNotification(told) => json!(told.params),
                _ => return Ok(None),
            },
            JsonRpcMessage::Error(error) => json!(Said::error(&error.error.message)),
            _ => return Ok(None),
        };
        Ok(Some(Message::text(said.to_string())))
    }

    fn decode(
        &mut self,
        message: Message,
        _: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<RoleServer>>, DecodeError> {
        let json = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => return Ok(None),
        };
        let said = read(json).map_err(|error| DecodeError::Request {
            id: None,
            error: ErrorData::invalid_request(error, None),
        })?;
        let mut told = CustomNotification::new("said", None);
        told.extensions.insert(said);
        Ok(Some(JsonRpcMessage::notification(ClientNotification::CustomNotification(told))))
    }

    fn properties(&self) -> FramingProperties {
        FramingProperties::default().has_initialize(false).uses_subprotocols(false)
    }
}

/// The largest message, from clients and by `POST`.
const MAX_MESSAGE: usize = 64 << 10;

/// How many types a client may ask for, and how long the name of one may be.
const MAX_TYPES: usize = 64;
const MAX_TYPE: usize = 64;

/// What only the server says, and nothing.
const RESERVED: [&str; 3] = ["", "error", "you"];
const NO_TYPE: &str = "type is empty, or one that only the server says";

/// What a client is called.
fn name(id: u64) -> String {
    format!("client-{id}")
}

fn notification(said: &Said) -> ServerNotification {
    ServerNotification::CustomNotification(CustomNotification::new("said", Some(json!(said))))
}

/// The types that the payload of a `subscribe` asks for; `None` for all.
fn types(payload: Value) -> Result<Option<HashSet<String>>, &'static str> {
    let types: Option<HashSet<String>> =
        serde_json::from_value(payload).map_err(|_| "payload is no list of types")?;
    let are_small = |types: &HashSet<String>| {
        types.len() <= MAX_TYPES && types.iter().all(|kind| kind.len() <= MAX_TYPE)
    };
    match types.as_ref().is_none_or(are_small) {
        true => Ok(types),
        false => Err("more than 64 types, or one of more than 64 bytes"),
    }
}

/// What is known of a client.
#[derive(Debug, Default)]
struct Client {
    /// The types it wants to hear of; `None` for all.
    types: Option<HashSet<String>>,
    /// When it has said something within the last second.
    said: VecDeque<Instant>,
}

/// Who is here, and what they want to hear.
#[derive(Debug, Clone)]
struct Hall {
    registry: Registry,
    clients: Arc<Mutex<HashMap<u64, Client>>>,
    /// How many messages of each client are passed on per second.
    rate: usize,
}

impl Hall {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_too_fast(&self, id: u64) -> bool {
        let mut clients = self.clients();
        let said = &mut clients.entry(id).or_default().said;
        let now = Instant::now();
        while said.front().is_some_and(|then| now - *then > Duration::from_secs(1)) {
            said.pop_front();
        }
        said.push_back(now);
        said.truncate(self.rate.saturating_add(1));
        said.len() > self.rate
    }

    /// Says it to all who want to hear it, or to the one it is for. To how many.
    fn tell(&self, said: &Said) -> Result<usize, String> {
        if let Some(target) = &said.target {
            let id = target.strip_prefix("client-").and_then(|id| id.parse().ok());
            let id = id.filter(|id| *target == name(*id));
            let sent = id
                .map_or(Err(NotifyError::Gone), |id| self.registry.notify(id, notification(said)));
            return sent.map(|()| 1).map_err(|_| format!("{target} is not here"));
        }
        let wants = |connection: &Connection| match self.clients().get(&connection.id()) {
            Some(Client { types: Some(types), .. }) => types.contains(&said.kind),
            _ => true,
        };
        let told = self.registry.notify_where(notification(said), wants);
        told.map(|told| told.sent).map_err(|error| error.to_string())
    }

    /// What becomes of a message, and what its sender is answered.
    fn hear(&self, id: u64, mut said: Said) -> Option<Said> {
        // Who has left is not noted any more.
        self.registry.get(id)?;
        if self.is_too_fast(id) {
            return Some(Said::error("too many messages"));
        }
        let sender = name(id);
        match &*said.kind {
            "whoami" => Some(Said::new("you", sender.into())),
            "subscribe" => match types(said.payload) {
                Ok(types) => {
                    self.clients().entry(id).or_default().types = types;
                    None
                }
                Err(error) => Some(Said::error(error)),
            },
            kind if RESERVED.contains(&kind) => Some(Said::error(NO_TYPE)),
            _ => {
                said.sender = Some(sender);
                self.tell(&said).err().map(|error| Said::error(&error))
            }
        }
    }
}

impl ServerHandler for Hall {
    async fn on_custom_notification(
        &self,
        mut told: CustomNotification,
        context: NotificationContext<RoleServer>,
    ) {
        let said = told.extensions.remove::<Said>().or_else(|| context.extensions.get().cloned());
        let connection = context.extensions.get::<Connection>();
        if let (Some(said), Some(connection)) = (said, connection)
            && let Some(answer) = self.hear(connection.id(), said)
        {
            // Who reads too slowly is told nothing.
            let _ = self.registry.notify(connection.id(), notification(&answer));
        }
    }
}

/// `POST /broadcast`: something to all, or to one.
async fn broadcast(State(hall): State<Hall>, request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = kind.is_some_and(|kind| {
        let essence = kind.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    // Else any web page could send it without being asked first.
    if !is_json {
        let what = "content-type is not application/json";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response();
    }
    let body = timeout(Duration::from_secs(10), to_bytes(request.into_body(), MAX_MESSAGE)).await;
    let Ok(Ok(body)) = body else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or too late")
            .into_response();
    };
    let said = read(&body).and_then(|said| match RESERVED.contains(&&*said.kind) {
        true => Err(NO_TYPE.to_owned()),
        false => Ok(said),
    });
    match said.and_then(|said| hall.tell(&Said { sender: None, ..said })) {
        Ok(reached) => (
            StatusCode::ACCEPTED,
            [("content-type", "application/json")],
            json!({ "reached": reached }).to_string(),
        )
            .into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

/// Passes on what each client says to all others
#[derive(Parser)]
struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A token that lets a client in; may be given several times. Without one, everyone may enter
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,
    /// How many messages per second of each client are passed on
    #[arg(long, value_name = "N", default_value_t = 20)]
    rate: usize,
}

// On one thread the notifications of a client are handled in their order.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut stop = Stop::new()?;
    let registry = Registry::default();
    let layers = transport::Config::default()
        .socket(socket::Config::default().max_message_size(MAX_MESSAGE));
    let config = Config::default().registry(registry.clone()).framing(Room).sessions(None);
    let mut config = config.transport(layers);
    if !args.tokens.is_empty() {
        config = config.authenticator(args.tokens.iter().cloned().collect::<BearerTokens>());
    }
    let mut events = registry.events();
    let hall = Hall { registry, clients: Arc::default(), rate: args.rate };
    let router = Router::new().route("/broadcast", post(broadcast)).with_state(hall.clone());

    let service = hall.clone();
    let serve = mcp_ws_transport::serve(args.listen, move || service.clone());
    let server = serve.config(config).path("/ws").fallback(router).await?;
    println!("listening on ws://{}/ws", server.local_addr());

    let forget = async {
        while let Some(event) = events.next().await {
            match event {
                RegistryEvent::Disconnected { connection, .. } => {
                    hall.clients().remove(&connection.id());
                }
                RegistryEvent::Lagged(_) => {
                    hall.clients().retain(|id, _| hall.registry.get(*id).is_some());
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = forget => {}
        () = stop.asked() => {}
    }
    server.shutdown().await;
    Ok(())
}
