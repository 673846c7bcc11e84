//! Serialization of raw messages, in the form of rmcp's own types. rmcp asks for it of every role;
//! relays have no use for it.

use std::borrow::Cow;

use bytes::Bytes;
use rmcp::model::JsonRpcMessage;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::Value;

use super::{
    message::{RawMessage, RawNotification, RawRequest, RawResponse, Source},
    parse::parse,
};

/// Members of a request or notification, as rmcp's own types serialise.
#[derive(Serialize, Deserialize)]
struct Call<'a> {
    method: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    params: Option<Value>,
}

impl<'a> Call<'a> {
    fn of<E: ser::Error>(source: &'a Source) -> Result<Self, E> {
        let params = source.body().map(serde_json::from_str).transpose().map_err(E::custom)?;
        Ok(Self { method: source.method(), params })
    }

    /// Returns the text of a message with these members; with an id, which is to be replaced, if
    /// `has_id`.
    fn text<E: de::Error>(self, has_id: bool) -> Result<Bytes, E> {
        let id = if has_id { r#""id":0,"# } else { "" };
        let call = serde_json::to_string(&self).map_err(E::custom)?;
        let members = call.strip_prefix('{').unwrap_or_default();
        Ok(format!(r#"{{"jsonrpc":"2.0",{id}{members}"#).into())
    }
}

/// Parses a message that is meant to be of one kind.
fn parsed<T, E: de::Error>(text: Bytes, kind: fn(RawMessage) -> Option<T>) -> Result<T, E> {
    let message = parse(&text, &()).map_err(E::custom)?;
    kind(message).ok_or_else(|| E::custom("a message of another kind"))
}

impl Serialize for RawRequest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Call::of(&self.source)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(Call::deserialize(deserializer)?.text(true)?, |message| match message {
            JsonRpcMessage::Request(request) => Some(request.request),
            _ => None,
        })
    }
}

impl Serialize for RawNotification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Call::of(&self.source)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawNotification {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(Call::deserialize(deserializer)?.text(false)?, |message| match message {
            JsonRpcMessage::Notification(notification) => Some(notification.notification),
            _ => None,
        })
    }
}

impl Serialize for RawResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let result = self.result().map_err(|_| ser::Error::custom("an error is no result"))?;
        let result: Value = serde_json::from_str(result).map_err(ser::Error::custom)?;
        result.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawResponse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&Value::deserialize(deserializer)?))
    }
}
