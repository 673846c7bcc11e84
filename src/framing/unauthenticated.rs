//! Messages of peers that have yet to authenticate, of which only an id and a token are read.

use std::fmt;

use rmcp::{ErrorData, model::RequestId};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::MapAccessDeserializer,
    },
};
use serde_json::Value;

use super::{
    decode_error::DecodeError,
    json::{invalid_request, text_of},
};
use crate::{decode::json::parse, message::Message, role::AUTHENTICATE};

/// Message of a peer that has yet to authenticate. Its `Debug` shows no token.
#[non_exhaustive]
pub enum UnauthenticatedMessage {
    /// The peer authenticates.
    Authenticate {
        /// The id of its request.
        id: RequestId,
        /// The token; `None` where there is none, or it is no string.
        token: Option<String>,
    },
    /// The peer asks for something else.
    Request {
        /// The id of its request.
        id: RequestId,
    },
    /// Message that gets no response: a notification, a ping or pong, a response.
    Other,
}

impl fmt::Debug for UnauthenticatedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authenticate { id, .. } => {
                f.debug_struct("Authenticate").field("id", id).finish_non_exhaustive()
            }
            Self::Request { id } => f.debug_struct("Request").field("id", id).finish(),
            Self::Other => f.write_str("Other"),
        }
    }
}

/// Defines the methods of a visitor that treats `null`, scalars and lists alike.
macro_rules! scalars {
    ($value:expr; $($method:ident: $type:ty),*) => {
        $(fn $method<E: Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($value)
        })*

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok($value)
        }
    };
}

/// The members of a JSON-RPC request that are read.
#[derive(Deserialize)]
pub(super) struct Request {
    #[serde(default)]
    jsonrpc: Scalar,
    #[serde(default)]
    id: Member<Scalar>,
    #[serde(default)]
    pub(super) method: Member<Scalar>,
    #[serde(default)]
    pub(super) params: Params,
}

impl Request {
    /// Reads a JSON-RPC message.
    pub(super) fn read(json: &str) -> Result<UnauthenticatedMessage, DecodeError> {
        read::<Self>(json)?.judge()
    }

    /// Judges the message by the rules of JSON-RPC 2.0.
    pub(super) fn judge(self) -> Result<UnauthenticatedMessage, DecodeError> {
        let id = self.id.id().map_err(|()| invalid_request(None, INVALID_ID))?;
        let method = match self.method {
            Member::Absent => return Ok(UnauthenticatedMessage::Other),
            Member::Present(method) => method,
        };
        // A notification is not answered, whatever is wrong with it.
        let Some(id) = id else { return Ok(UnauthenticatedMessage::Other) };
        if self.jsonrpc != Scalar::String("2.0".to_owned()) {
            return Err(invalid_request(Some(id), "`jsonrpc` is not \"2.0\""));
        }
        match method {
            Scalar::String(method) if method == AUTHENTICATE => match self.params {
                Params::Named(token) => Ok(UnauthenticatedMessage::Authenticate { id, token }),
                Params::Other => Err(invalid_request(Some(id), "`params` is no object")),
            },
            Scalar::String(_) => Ok(UnauthenticatedMessage::Request { id }),
            _ => Err(invalid_request(Some(id), "`method` is no string")),
        }
    }
}

/// Largest message that may be the reply to a token, in bytes.
const MAX_REPLY: usize = 64 << 10;

/// Decodes a message that may be the reply to a token. A larger one cannot be, and is not decoded,
/// since that may take a hundred times its size.
pub(super) fn parse_reply(message: &Message) -> Option<Value> {
    if message.len() > MAX_REPLY {
        return None;
    }
    parse(text_of(message)?.ok()?).ok()
}

/// Returns the text of an error: its `message`, or the whole of it.
pub(super) fn error_text(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// Reads a message that is an object.
pub(super) fn read<T: DeserializeOwned>(json: &str) -> Result<T, DecodeError> {
    // A list would be taken for the members of a struct, one after the other.
    let is_list = json.trim_ascii_start().starts_with('[');
    match serde_json::from_str(json) {
        Ok(message) if !is_list => Ok(message),
        Err(error) if !error.is_data() => {
            let error = ErrorData::parse_error(format!("not JSON: {error}"), None);
            Err(DecodeError::Request { id: None, error })
        }
        _ => Err(invalid_request(None, "no object, or a member appears twice")),
    }
}

/// The fault of an id that is neither.
pub(super) const INVALID_ID: &str = "`id` is neither a string nor an integer";

/// The token in `params`, where those are an object and it is a string.
#[derive(PartialEq)]
pub(super) enum Params {
    Named(Option<String>),
    Other,
}

impl Default for Params {
    fn default() -> Self {
        Self::Named(None)
    }
}

impl<'de> Deserialize<'de> for Params {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Params;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the params of a request")
            }

            fn visit_unit<E: Error>(self) -> Result<Params, E> {
                Ok(Params::default())
            }

            scalars!(Params::Other; visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
                let mut token = None;
                while let Some(Scalar::String(name)) = map.next_key()? {
                    if name != "token" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if token.is_some() {
                        return Err(A::Error::duplicate_field("token"));
                    }
                    token = Some(map.next_value::<Scalar>()?);
                }
                Ok(Params::Named(token.and_then(Scalar::string)))
            }
        }

        deserializer.deserialize_any(Members)
    }
}

/// A member that may be absent; `null` is present.
#[derive(Default)]
pub(super) enum Member<T> {
    #[default]
    Absent,
    Present(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::Present)
    }
}

/// A string or an integer. Of anything else nothing is kept.
#[derive(PartialEq, Default)]
pub(super) enum Scalar {
    String(String),
    Integer(i64),
    #[default]
    Other,
}

impl Scalar {
    pub(super) fn string(self) -> Option<String> {
        match self {
            Self::String(string) => Some(string),
            Self::Integer(_) | Self::Other => None,
        }
    }
}

impl Member<Scalar> {
    /// The member as an id, which may be absent but not `null`.
    pub(super) fn id(self) -> Result<Option<RequestId>, ()> {
        match self {
            Self::Absent => Ok(None),
            Self::Present(Scalar::String(id)) => Ok(Some(RequestId::String(id.into()))),
            Self::Present(Scalar::Integer(id)) => Ok(Some(RequestId::Number(id))),
            Self::Present(Scalar::Other) => Err(()),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            scalars!(Scalar::Other; visit_bool: bool);

            fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(i64::try_from(value).map_or(Scalar::Other, Scalar::Integer))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar, E> {
                // Beyond 2^53 not every integer can be told from its neighbours.
                let is_whole = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                Ok(if is_whole { Scalar::Integer(value as i64) } else { Scalar::Other })
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::String(value.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// A request, where the value is an object.
#[derive(Default)]
pub(super) struct Content(pub(super) Option<Request>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E: Error>(self) -> Result<Content, E> {
                Ok(Content(None))
            }

            scalars!(Content(None); visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Content, A::Error> {
                Request::deserialize(MapAccessDeserializer::new(map)).map(Some).map(Content)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> String {
        match Request::read(json) {
            Ok(UnauthenticatedMessage::Authenticate { id, token }) => {
                format!("{id} shows {token:?}")
            }
            Ok(other) => format!("{other:?}"),
            Err(DecodeError::Request { id, error }) => format!("{} {id:?}", error.code.0),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn of_a_json_rpc_message_only_the_id_and_the_token_are_read() {
        let deep = format!(r#"{}"x"{}"#, "[".repeat(100), "]".repeat(100));
        for (json, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"authenticate","params":{"token":"t"}}"#,
                r#"7 shows Some("t")"#,
            ),
            (
                r#"{"params":{"a":{"":[0]},"token":"t"},"method":"authenticate","id":"a","jsonrpc":"2.0"}"#,
                r#"a shows Some("t")"#,
            ),
            (r#"{"jsonrpc":"2.0","id":1.0,"method":"authenticate","params":null}"#, "1 shows None"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"authenticate","params":{"token":[{"":0}]}}"#,
                "1 shows None",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"authenticate","params":["t"]}"#,
                "-32600 Some(Number(1))",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"authenticate","params":{"token":"a","token":"b"}}"#,
                "-32600 None",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "Request { id: Number(1) }"),
            (r#"{"jsonrpc":"2.0","method":"authenticate","params":{"token":"t"}}"#, "Other"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "Other"),
            (r#"{"id":1,"method":"ping"}"#, "-32600 Some(Number(1))"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "-32600 None"),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "-32600 Some(Number(1))"),
            (r#"{"jsonrpc":"2.0","id":9223372036854775808,"method":"ping"}"#, "-32600 None"),
            ("[]", "-32600 None"),
            ("{", "-32700 None"),
            ("7", "-32600 None"),
        ] {
            assert_eq!(read(json), expected, "{json}");
        }
        let json = format!(r#"{{"jsonrpc":"2.0","id":{deep},"method":{deep},"params":{deep}}}"#);
        assert_eq!(read(&json), "-32600 None");
        let message = UnauthenticatedMessage::Authenticate {
            id: RequestId::Number(1),
            token: Some("s3cr3t".to_owned()),
        };
        assert!(!format!("{message:?}").contains("s3cr3t"));
    }
}
