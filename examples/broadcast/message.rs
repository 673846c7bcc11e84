//! The messages of a room, as they go over the wire.

use std::collections::HashSet;

use chrono::Utc;
use rmcp::model::{CustomNotification, ServerNotification};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, json};

/// Size of the largest message, from clients and by `POST`, in bytes.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

/// Number of types that a client may ask for, and length of the name of one, in bytes.
const MAX_TYPES: usize = 64;
const MAX_TYPE: usize = 64;

/// Types that clients may not send.
const RESERVED: [&str; 3] = ["", "error", "you"];
pub(crate) const NO_TYPE: &str = "type is empty, or one that only the server says";

/// A message, in either direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RoomMessage {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "Value::deserialize")]
    pub(crate) payload: Value,
    #[serde(default = "now")]
    pub(crate) timestamp: Number,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sender: Option<String>,
    #[serde(default, skip_serializing)]
    pub(crate) target: Option<String>,
}

/// Returns the milliseconds since 1970.
fn now() -> Number {
    Utc::now().timestamp_millis().into()
}

impl RoomMessage {
    pub(crate) fn new(kind: &str, payload: Value) -> Self {
        Self { kind: kind.to_owned(), payload, timestamp: now(), sender: None, target: None }
    }

    pub(crate) fn error(message: &str) -> Self {
        Self::new("error", json!({ "message": message }))
    }

    /// Parses a message of a client.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        // A list would be taken for the members, one after the other.
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err("not a JSON object".to_owned());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    pub(crate) fn is_reserved(&self) -> bool {
        RESERVED.contains(&&*self.kind)
    }

    /// Returns the notification as which rmcp and the registry carry it.
    pub(crate) fn to_notification(&self) -> ServerNotification {
        let message = CustomNotification::new("message", Some(json!(self)));
        ServerNotification::CustomNotification(message)
    }
}

/// Parses the payload of a `subscribe`: the types to be heard, or `None` for all.
pub(crate) fn parse_types(payload: Value) -> Result<Option<HashSet<String>>, &'static str> {
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
