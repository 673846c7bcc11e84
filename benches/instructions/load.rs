//! The calls, as JSON and as rmcp has them.

use std::fmt::Display;

use rmcp::model::{CallToolRequestParams, JsonObject};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Bytes that are written at once, and read before they are acknowledged.
const BURST: usize = 256 << 10;

/// Unit of the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A call with two numbers, answered with their sum.
    Small,
    /// A call with 64 KiB of text, answered with the same.
    Large,
    /// A connection, from the TCP handshake over `initialize` to the closing handshake.
    Connection,
}

#[derive(Debug, Clone)]
pub(crate) struct Load {
    unit: Unit,
    pub(crate) in_flight: usize,
    pub(crate) calls: usize,
    /// Messages that the peer writes at once, and reads before it acknowledges them.
    pub(crate) burst: usize,
    text: String,
}

impl Load {
    pub(crate) fn new(unit: Unit, in_flight: usize, calls: usize) -> Self {
        // Lines, as text has them: what is escaped is decoded otherwise than what is not.
        let line = format!("{}\n", "The quick brown fox jumps over the lazy dog. ".repeat(2));
        let (text, burst) = match unit {
            Unit::Small | Unit::Connection => (String::new(), in_flight),
            Unit::Large => (line.repeat((64 << 10) / line.len()), in_flight.min(BURST >> 16)),
        };
        Self { unit, in_flight, calls, burst, text }
    }

    fn arguments(&self) -> JsonObject {
        let arguments = match self.unit {
            Unit::Small | Unit::Connection => json!({ "a": 999, "b": 1 }),
            Unit::Large => json!({ "text": self.text }),
        };
        arguments.as_object().cloned().unwrap_or_default()
    }

    fn tool(&self) -> &'static str {
        match self.unit {
            Unit::Small | Unit::Connection => "add",
            Unit::Large => "echo",
        }
    }

    /// Returns the call as a client makes it.
    pub(crate) fn params(&self) -> CallToolRequestParams {
        CallToolRequestParams::new(self.tool()).with_arguments(self.arguments())
    }

    /// Returns the message of a call, with its members in the order in which rmcp writes them.
    pub(crate) fn call(&self, id: usize) -> Utf8Bytes {
        let (tool, arguments) = (self.tool(), Value::Object(self.arguments()));
        let meta = format!(r#"{{"progressToken":{id}}}"#);
        let params = format!(r#"{{"_meta":{meta},"name":"{tool}","arguments":{arguments}}}"#);
        request(id, "tools/call", &params)
    }

    /// Returns the answer to a call without its start: what follows behind the id. Members are in
    /// the order in which rmcp writes them.
    pub(crate) fn answer(&self) -> String {
        let (text, more) = match self.unit {
            Unit::Small | Unit::Connection => {
                (r#"{"sum":1000}"#, r#""structuredContent":{"sum":1000},"#)
            }
            Unit::Large => (&*self.text, ""),
        };
        let content = format!(r#"[{{"type":"text","text":{}}}]"#, Value::from(text));
        format!(r#","result":{{"content":{content},{more}"isError":false}}}}"#)
    }
}

pub(crate) fn request(id: usize, method: &str, params: &impl Display) -> Utf8Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}
