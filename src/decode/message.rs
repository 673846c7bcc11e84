//! The top level of a message, in one pass and as its members come.

use std::{fmt, marker::PhantomData};

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{Calls, Role, method::Method, notification::Notice, strict::Object};

/// The message, or `None` when rmcp's own `Deserialize` has to judge it.
pub(super) fn usual<R: Role>(text: &str, calls: &dyn Calls) -> Option<RxJsonRpcMessage<R>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let message = json.deserialize_map(Message::<R> { calls, role: PhantomData }).ok()?;
    json.end().ok()?;
    Some(message)
}

struct Message<'c, R> {
    calls: &'c dyn Calls,
    role: PhantomData<R>,
}

/// The member that says what a message is.
enum Body<R: Role> {
    Request(R::PeerReq),
    Notification(R::PeerNot),
    Result(R::PeerResp),
    Error(ErrorData),
}

impl<'de, R: Role> Visitor<'de> for Message<'_, R> {
    type Value = RxJsonRpcMessage<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC 2.0 message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut version = None;
        let mut id: Option<RequestId> = None;
        let mut name = None;
        let mut body: Option<Body<R>> = None;
        while let Some(member) = map.next_key::<Member>()? {
            match (member, &name, &body) {
                (Member::Jsonrpc, ..) if version.is_none() => {
                    version = Some(map.next_value::<Version>()?);
                }
                (Member::Id, ..) if id.is_none() => id = Some(map.next_value()?),
                (Member::Method, None, None) => name = Some(map.next_value::<Name>()?),
                (Member::Params, Some(Name::Request(method)), None) => {
                    body = Some(Body::Request(R::request(*method, &mut map)?));
                }
                (Member::Params, Some(Name::Notification(notice)), None) => {
                    body = Some(Body::Notification(R::notification(*notice, &mut map)?));
                }
                (Member::Result, None, None) => {
                    let method = id.as_ref().and_then(|id| method_of_call(self.calls, id));
                    body = Some(Body::Result(R::result(method, &mut map)?));
                }
                (Member::Error, None, None) => {
                    body = Some(Body::Error(map.next_value_seed(Object::SEED)?));
                }
                _ => return unusual(),
            }
        }
        if version.is_none() {
            return unusual();
        }
        match (name, id, body) {
            (Some(Name::Request(_)), Some(id), Some(Body::Request(request))) => {
                Ok(JsonRpcMessage::request(request, id))
            }
            (Some(Name::Request(method)), Some(id), None) => R::bare_request(method)
                .map_or_else(unusual, |request| Ok(JsonRpcMessage::request(request, id))),
            (Some(Name::Notification(_)), None, Some(Body::Notification(notification))) => {
                Ok(JsonRpcMessage::notification(notification))
            }
            (Some(Name::Notification(notice)), None, None) => R::bare_notification(notice)
                .map_or_else(unusual, |notification| {
                    Ok(JsonRpcMessage::notification(notification))
                }),
            (None, Some(id), Some(Body::Result(result))) => {
                Ok(JsonRpcMessage::response(result, id))
            }
            (None, id, Some(Body::Error(error))) => Ok(JsonRpcMessage::error(error, id)),
            _ => unusual(),
        }
    }
}

fn unusual<T, E: Error>() -> Result<T, E> {
    Err(E::custom("unusual"))
}

/// The method of the call that `id` answers; like rmcp, it takes "7" for 7.
fn method_of_call(calls: &dyn Calls, id: &RequestId) -> Option<Method> {
    calls.method(id).or_else(|| match id {
        RequestId::String(digits) => calls.method(&RequestId::Number(digits.parse().ok()?)),
        RequestId::Number(_) => None,
    })
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Member {
    Jsonrpc,
    Id,
    Method,
    Params,
    Result,
    Error,
}

/// The string "2.0".
struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|text: &str| (text == "2.0").then_some(Self)))
    }
}

/// The name of a method that is decoded here.
enum Name {
    Request(Method),
    Notification(Notice),
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text(|name: &str| match Method::from_name(name) {
            Method::Other => Notice::from_name(name).map(Name::Notification),
            method => Some(Self::Request(method)),
        }))
    }
}

/// A string that means something.
struct Text<F>(F);

impl<T, F: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a known string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_or_else(unusual, Ok)
    }
}
