use std::{fmt, str};

use rmcp::{ErrorData, model::RequestId};
use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Input that is no message for anybody: not JSON, or JSON that is not a JSON-RPC 2.0 message.
///
/// What to do with it depends on [`kind`](Self::kind): a malformed request is answered with
/// [`error`](Self::error), a malformed response ends the call of that [`id`](Self::id).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Malformed {
    /// `PARSE_ERROR` (-32700) for what is not JSON, `INVALID_REQUEST` (-32600) for the rest.
    ///
    /// The message is short and holds nothing of the peer's input.
    pub error: ErrorData,
    /// The id, when there is exactly one and it is a string or an integer.
    pub id: Option<RequestId>,
    /// What the input looks like.
    pub kind: MalformedKind,
}

/// What malformed input looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedKind {
    /// It is not JSON in UTF-8.
    NotJson,
    /// An array: JSON-RPC 2.0 calls it a batch, MCP has none.
    Batch,
    /// An object with `method` and `id`.
    Request,
    /// An object with `method` and without `id`.
    Notification,
    /// An object with `result` or `error` and without `method`.
    Response,
    /// Any other JSON.
    Other,
}

impl Malformed {
    /// Whether this is an answer to a call of ours, which no error may answer in turn.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.kind == MalformedKind::Response
    }

    /// Says what is wrong with input that did not decode.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match outline(bytes) {
            Ok(outline) => outline.into(),
            Err(error) => Self {
                error: ErrorData::parse_error(format!("not JSON: {error}"), None),
                id: None,
                kind: MalformedKind::NotJson,
            },
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.message)
    }
}

impl std::error::Error for Malformed {}

impl From<Outline> for Malformed {
    fn from(outline: Outline) -> Self {
        let Members { jsonrpc, id, method, result, error } = match outline {
            Outline::Members(members) => members,
            Outline::Batch => {
                return Self::invalid(MalformedKind::Batch, "batching is not supported", None);
            }
            Outline::Scalar => {
                return Self::invalid(MalformedKind::Other, "not a JSON object", None);
            }
        };
        let answer = result.is_some() || error.is_some();
        let kind = match (&method, &id, answer) {
            (Some(_), Some(_), _) => MalformedKind::Request,
            (Some(_), None, _) => MalformedKind::Notification,
            (None, _, true) => MalformedKind::Response,
            (None, _, false) => MalformedKind::Other,
        };
        let why = if jsonrpc != Some(true) {
            "`jsonrpc` is not \"2.0\""
        } else if method.is_some() && answer {
            "`method` beside `result` or `error`"
        } else if result.is_some() && error.is_some() {
            "both `result` and `error`"
        } else if method.is_none() && !answer {
            "none of `method`, `result`, `error`"
        } else if id == Some(None) {
            "`id` is neither a string nor an integer"
        } else if method == Some(false) {
            "`method` is not a string"
        } else if result.is_some() && id.is_none() {
            "`result` without `id`"
        } else if error.is_some() {
            "`error` is not an error object"
        } else {
            "a member appears twice or has the wrong type"
        };
        Self::invalid(kind, why, id.flatten())
    }
}

impl Malformed {
    fn invalid(kind: MalformedKind, why: &'static str, id: Option<RequestId>) -> Self {
        Self { error: ErrorData::invalid_request(why, None), id, kind }
    }
}

/// The top level of some JSON; what is below is only skipped, however deep.
enum Outline {
    Members(Members),
    Batch,
    Scalar,
}

/// The members of a JSON-RPC object: `None` when absent, otherwise what matters of it.
#[derive(Default)]
struct Members {
    /// Whether it is "2.0".
    jsonrpc: Option<bool>,
    /// The id, unless it is malformed or repeated.
    id: Option<Option<RequestId>>,
    /// Whether it is a string.
    method: Option<bool>,
    result: Option<()>,
    error: Option<()>,
}

fn outline(bytes: &[u8]) -> Result<Outline, serde_json::Error> {
    let text = str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let outline = json.deserialize_any(OutlineVisitor)?;
    json.end()?;
    Ok(outline)
}

struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut members = Members::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "jsonrpc" => {
                    let version = map.next_value::<Scalar>()?;
                    let first = members.jsonrpc.is_none();
                    members.jsonrpc =
                        Some(first && matches!(version, Scalar::String(v) if v == "2.0"));
                }
                "id" => {
                    let id = map.next_value::<Scalar>()?.into_id();
                    members.id = Some(if members.id.is_none() { id } else { None });
                }
                "method" => {
                    members.method = Some(matches!(map.next_value()?, Scalar::String(_)));
                }
                "result" => members.result = Some(skip(&mut map)?),
                "error" => members.error = Some(skip(&mut map)?),
                _ => skip(&mut map)?,
            }
        }
        Ok(Outline::Members(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Outline, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Outline::Batch)
    }

    fn visit_unit<E>(self) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Outline, E> {
        Ok(Outline::Scalar)
    }
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(drop)
}

/// A value of which only strings and numbers matter.
enum Scalar {
    String(String),
    Number(serde_json::Number),
    Other,
}

impl Scalar {
    fn into_id(self) -> Option<RequestId> {
        let value = match self {
            Self::String(string) => string.into(),
            Self::Number(number) => serde_json::Value::Number(number),
            Self::Other => return None,
        };
        RequestId::deserialize(value).ok()
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        Ok(match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get()).map_or(Self::Other, Self::String),
            Some(b'-' | b'0'..=b'9') => {
                serde_json::from_str(raw.get()).map_or(Self::Other, Self::Number)
            }
            _ => Self::Other,
        })
    }
}
