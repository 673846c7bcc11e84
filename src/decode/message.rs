//! The top level of a message, in one pass and as its members come.

use std::fmt;

use rmcp::{
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use super::{PendingMethods, method::Method, notification::Notice, peer::Peer, strict::Object};

/// The message, or `None` when rmcp's own `Deserialize` has to judge it.
pub(super) fn usual<R: Peer>(
    text: &str,
    calls: &dyn PendingMethods,
) -> Option<RxJsonRpcMessage<R>> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut message = None;
    json.deserialize_map(Message::<R> { calls, message: &mut message }).ok()?;
    json.end().ok()?;
    message
}

/// Reads a message into its place. As a value it would be moved at every step of the way out, and
/// it is half a kilobyte.
struct Message<'a, R: Peer> {
    calls: &'a dyn PendingMethods,
    message: &'a mut Option<RxJsonRpcMessage<R>>,
}

/// Stands for an id that is not known yet.
const NO_ID: RequestId = RequestId::Number(0);

impl<'de, R: Peer> Visitor<'de> for Message<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON-RPC 2.0 message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { calls, message } = self;
        let mut version = None;
        let mut id: Option<RequestId> = None;
        let mut name = None;
        while let Some(member) = map.next_key::<Member>()? {
            match (member, &name, &message) {
                (Member::Jsonrpc, ..) if version.is_none() => {
                    version = Some(map.next_value::<Version>()?);
                }
                (Member::Id, ..) if id.is_none() => id = Some(map.next_value()?),
                (Member::Method, None, None) => name = Some(map.next_value::<Name>()?),
                (Member::Params, Some(Name::Request(method)), None) => {
                    let request = R::request(*method, &mut map)?;
                    *message = Some(JsonRpcMessage::request(request, NO_ID));
                }
                (Member::Params, Some(Name::Notification(notice)), None) => {
                    let notification = R::notification(*notice, &mut map)?;
                    *message = Some(JsonRpcMessage::notification(notification));
                }
                (Member::Result, None, None) => {
                    let method = id.as_ref().and_then(|id| method_of_call(calls, id));
                    let result = R::result(method, &mut map)?;
                    *message = Some(JsonRpcMessage::response(result, NO_ID));
                }
                (Member::Error, None, None) => {
                    let error = map.next_value_seed(Object::SEED)?;
                    *message = Some(JsonRpcMessage::error(error, None));
                }
                _ => return unusual(),
            }
        }
        if version.is_none() {
            return unusual();
        }
        match (name, id, &mut *message) {
            (Some(Name::Request(_)), Some(id), Some(JsonRpcMessage::Request(request))) => {
                request.id = id;
            }
            (Some(Name::Request(method)), Some(id), None) => {
                let Some(request) = R::bare_request(method) else { return unusual() };
                *message = Some(JsonRpcMessage::request(request, id));
            }
            (Some(Name::Notification(_)), None, Some(JsonRpcMessage::Notification(_))) => {}
            (Some(Name::Notification(notice)), None, None) => {
                let Some(notification) = R::bare_notification(notice) else { return unusual() };
                *message = Some(JsonRpcMessage::notification(notification));
            }
            (None, Some(id), Some(JsonRpcMessage::Response(response))) => response.id = id,
            (None, id, Some(JsonRpcMessage::Error(error))) => error.id = id,
            _ => return unusual(),
        }
        Ok(())
    }
}

fn unusual<T, E: Error>() -> Result<T, E> {
    Err(E::custom("unusual"))
}

/// Returns the method of the call that `id` answers; like rmcp, it takes "7" for 7.
pub(crate) fn method_of_call(calls: &dyn PendingMethods, id: &RequestId) -> Option<Method> {
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
