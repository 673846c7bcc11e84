//! [`RawMessage`]: JSON-RPC messages that stay the text that they came as.

use std::{borrow::Cow, fmt, ops::Range};

use bytes::Bytes;
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, Extensions, GetExtensions, GetMeta,
        InitializeResult, JsonRpcMessage, NotificationMetaObject, ProgressToken, RequestId,
        RequestMetaObject,
    },
};
use serde_json::Value;

use super::id;
use crate::decode::{json::Reader, method::Method};

/// JSON-RPC message of a [relay](super): its text, and what has to be known of it on the way.
pub type RawMessage = JsonRpcMessage<RawRequest, RawResponse, RawNotification>;

/// Text of a message, with the place of each part that may have to be written anew.
#[derive(Clone)]
pub(super) struct Source {
    /// UTF-8, and one JSON object.
    pub(super) text: Bytes,
    /// Place of the id; empty where there is none.
    pub(super) id: Range<usize>,
    /// Place of the name of the method, with its quotes; empty where there is none.
    pub(super) method: Range<usize>,
    /// Place of `params`, `result` or `error`; empty where there is none.
    pub(super) body: Range<usize>,
}

impl Source {
    pub(super) fn get(&self, place: &Range<usize>) -> &str {
        let bytes = self.text.get(place.clone()).unwrap_or_default();
        str::from_utf8(bytes).unwrap_or_default()
    }

    pub(super) fn method(&self) -> Cow<'_, str> {
        let quoted = self.get(&self.method);
        if quoted.contains('\\') {
            return serde_json::from_str::<String>(quoted).unwrap_or_default().into();
        }
        quoted.trim_matches('"').into()
    }

    pub(super) fn body(&self) -> Option<&str> {
        Some(self.get(&self.body)).filter(|body| !body.is_empty())
    }

    /// Formats the method and the size, and no content, which may be secret.
    fn debug(&self, name: &'static str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("method", &self.method())
            .field("bytes", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// Request of a [`RawMessage`].
#[derive(Clone)]
pub struct RawRequest {
    pub(super) source: Source,
    pub(super) method: Method,
    /// Place of the progress token; empty where there is none.
    pub(super) token: Range<usize>,
    /// The progress token and the version of the protocol, and nothing else.
    pub(super) meta: RequestMetaObject,
    pub(super) extensions: Extensions,
}

impl RawRequest {
    /// Returns the name of the method.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        self.source.method()
    }

    /// Returns the JSON of the params, if there are any.
    #[must_use]
    pub fn params(&self) -> Option<&str> {
        self.source.body()
    }
}

/// Response of a [`RawMessage`]: the result of a request, or the error of its receiver.
#[derive(Clone)]
pub struct RawResponse {
    pub(super) source: Source,
    pub(super) is_error: bool,
    /// The result of `initialize`, if it is one that rmcp knows.
    pub(super) initialize: Option<Box<InitializeResult>>,
}

impl RawResponse {
    /// Returns the JSON of the result.
    ///
    /// # Errors
    /// The JSON of the error.
    pub fn result(&self) -> Result<&str, &str> {
        let body = self.source.body().unwrap_or_default();
        if self.is_error { Err(body) } else { Ok(body) }
    }

    /// Returns the error, if it is one.
    pub(super) fn error(&self) -> Option<ErrorData> {
        let error = self.result().err()?;
        let read = Reader::new(error).value().and_then(|raw| raw.parse());
        Some(read.unwrap_or_else(|| ErrorData::internal_error("an error of unknown form", None)))
    }
}

/// Notification of a [`RawMessage`].
#[derive(Clone)]
pub struct RawNotification {
    pub(super) source: Source,
    pub(super) about: About,
    /// The subscription that it belongs to, and nothing else.
    pub(super) meta: NotificationMetaObject,
    /// Place of the id of the subscription; empty where there is none.
    pub(super) subscription: Range<usize>,
    pub(super) extensions: Extensions,
}

/// Subject of a notification, as far as a relay has to know it.
#[derive(Debug, Clone)]
pub(super) enum About {
    Initialized,
    /// A request of its sender, and the place of its id.
    Cancelled(RequestId, Range<usize>),
    /// A request of its receiver.
    Progress(ProgressToken, Range<usize>),
    Other,
}

impl RawNotification {
    /// Returns the name of the method.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        self.source.method()
    }

    /// Returns the JSON of the params, if there are any.
    #[must_use]
    pub fn params(&self) -> Option<&str> {
        self.source.body()
    }
}

impl fmt::Debug for RawRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.debug("RawRequest", f)
    }
}

impl fmt::Debug for RawResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.debug("RawResponse", f)
    }
}

impl fmt::Debug for RawNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.debug("RawNotification", f)
    }
}

impl GetMeta for RawRequest {
    type Metadata = RequestMetaObject;

    fn get_meta(&self) -> &RequestMetaObject {
        &self.meta
    }

    fn get_meta_mut(&mut self) -> &mut RequestMetaObject {
        &mut self.meta
    }
}

impl GetMeta for RawNotification {
    type Metadata = NotificationMetaObject;

    fn get_meta(&self) -> &NotificationMetaObject {
        &self.meta
    }

    fn get_meta_mut(&mut self) -> &mut NotificationMetaObject {
        &mut self.meta
    }
}

macro_rules! extensions {
    ($($name:ident)*) => {$(
        impl GetExtensions for $name {
            fn extensions(&self) -> &Extensions {
                &self.extensions
            }

            fn extensions_mut(&mut self) -> &mut Extensions {
                &mut self.extensions
            }
        }
    )*};
}

extensions!(RawRequest RawNotification);

impl From<CancelledNotification> for RawNotification {
    fn from(cancelled: CancelledNotification) -> Self {
        const METHOD: &str = r#""notifications/cancelled""#;
        const BEFORE_METHOD: &str = r#"{"jsonrpc":"2.0","method":"#;
        const BEFORE_ID: &str = r#"{"requestId":"#;

        let CancelledNotificationParam { request_id, reason, .. } = cancelled.params;
        let id = request_id.as_ref().map(id::passed_on);
        let members = [
            id.as_ref().map(|id| format!(r#""requestId":{id}"#)),
            reason.map(|reason| format!(r#""reason":{}"#, Value::from(reason))),
        ];
        let members = members.into_iter().flatten().collect::<Vec<_>>().join(",");
        let before = format!(r#"{BEFORE_METHOD}{METHOD},"params":"#);
        let text = format!("{before}{{{members}}}}}");
        // Without an id, which rmcp allows, it is about no request.
        let about = match request_id.zip(id) {
            Some((request_id, id)) => {
                let start = before.len() + BEFORE_ID.len();
                About::Cancelled(request_id, start..start + id.len())
            }
            None => About::Other,
        };
        let source = Source {
            id: 0..0,
            method: BEFORE_METHOD.len()..BEFORE_METHOD.len() + METHOD.len(),
            body: before.len()..text.len() - 1,
            text: text.into(),
        };
        let (meta, extensions) = Default::default();
        Self { source, about, meta, subscription: 0..0, extensions }
    }
}

impl TryFrom<RawNotification> for CancelledNotification {
    type Error = RawNotification;

    fn try_from(notification: RawNotification) -> Result<Self, RawNotification> {
        match notification.about {
            About::Cancelled(id, _) => {
                Ok(Self::new(CancelledNotificationParam::new(Some(id), None)))
            }
            _ => Err(notification),
        }
    }
}

impl RawResponse {
    /// Creates the response with this result.
    pub(super) fn new(result: &Value) -> Self {
        const BEFORE_ID: &str = r#"{"jsonrpc":"2.0","id":"#;
        const BEFORE_RESULT: &str = r#"0,"result":"#;
        let text = format!("{BEFORE_ID}{BEFORE_RESULT}{result}}}");
        let at = BEFORE_ID.len();
        let body = at + BEFORE_RESULT.len()..text.len() - 1;
        let source = Source { id: at..at + 1, method: 0..0, body, text: text.into() };
        Self { source, is_error: false, initialize: None }
    }
}
