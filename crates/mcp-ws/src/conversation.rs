//! [`Conversation`]: what has to be known of a client and a child for another child to take its
//! place.

use std::collections::{HashMap, HashSet};

use mcp_ws_transport::{
    decode::Malformed,
    layer::correlation::UNAVAILABLE,
    relay::{RawMessage, RawNotification, RawRequest},
};
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, JsonRpcMessage, JsonRpcRequest,
        RequestId,
    },
};
use serde_json::{Value, json};

/// Reason of what ends with a child.
const ENDED: &str = "the server has ended before it answered, and is started again";

/// Requests in flight between a client and one child after the other, and how they were
/// initialized.
#[derive(Default)]
pub(crate) struct Conversation {
    /// The last `initialize` of the client that was not refused.
    initialize: Option<JsonRpcRequest<RawRequest>>,
    initialized: Option<RawMessage>,
    /// Requests of the client that its child has not answered.
    of_client: HashSet<RequestId>,
    /// Requests of the child that the client has not answered: by the ids that the client knows,
    /// the child's own.
    of_child: HashMap<RequestId, RequestId>,
    /// Children that have ended.
    ended: u32,
}

impl Conversation {
    /// Takes a message of the client, and returns what its child gets. Answers to a former child
    /// are for nobody.
    pub(crate) fn on_client(&mut self, mut message: RawMessage) -> Option<RawMessage> {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                if request.request.method() == "initialize" {
                    self.initialize = Some(request.clone());
                    self.initialized = None;
                }
                self.of_client.insert(request.id.clone());
            }
            JsonRpcMessage::Response(response) => self.resolve(&mut response.id)?,
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &mut error.id {
                    self.resolve(id)?;
                }
            }
            JsonRpcMessage::Notification(notification) => {
                let notification = &notification.notification;
                if notification.method() == "notifications/initialized" {
                    self.initialized = Some(message.clone());
                } else if let Some(id) = cancelled(notification) {
                    self.of_client.remove(&id);
                }
            }
        }
        Some(message)
    }

    /// Changes the `id` of an answer to that of the child; `None` if the present child has not
    /// asked. The first is told in any case.
    fn resolve(&mut self, id: &mut RequestId) -> Option<()> {
        match self.of_child.remove(id) {
            Some(own) => *id = own,
            None if self.ended > 0 => return None,
            None => {}
        }
        Some(())
    }

    /// Takes a message of the child, and returns what its client gets.
    pub(crate) fn on_child(&mut self, mut message: RawMessage) -> RawMessage {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let known = self.known_as(&request.id);
                self.of_child.insert(known.clone(), request.id.clone());
                request.id = known;
            }
            JsonRpcMessage::Response(response) => {
                self.on_answer(&response.id, response.result.result().is_err());
            }
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &error.id {
                    self.on_answer(id, true);
                }
            }
            JsonRpcMessage::Notification(notification) => {
                let cancelled = cancelled(&notification.notification);
                if let Some(own) = cancelled {
                    let known = self.known_as(&own);
                    self.of_child.remove(&known);
                    if known != own {
                        let reason = reason(&notification.notification);
                        notification.notification = cancellation(known, reason);
                    }
                }
            }
        }
        message
    }

    fn on_answer(&mut self, id: &RequestId, is_error: bool) {
        let was_open = self.of_client.remove(id);
        if was_open && is_error {
            self.initialize.take_if(|initialize| initialize.id == *id);
        }
    }

    /// Takes what the child has said and is no message: its client is told of the answers among it.
    pub(crate) fn on_malformed(&mut self, malformed: &Malformed) {
        let answered = malformed.id.iter().filter(|_| malformed.is_response());
        for id in malformed.answers.iter().chain(answered) {
            self.on_answer(id, true);
        }
    }

    /// Returns the id by which the client knows a request of the present child. The first one's are
    /// its own: no other child has asked before.
    fn known_as(&self, id: &RequestId) -> RequestId {
        match (self.ended, id) {
            (0, id) => id.clone(),
            (ended, RequestId::Number(number)) => {
                RequestId::String(format!("{number} of child {ended}").into())
            }
            (ended, RequestId::String(text)) => {
                RequestId::String(format!("'{text}' of child {ended}").into())
            }
        }
    }

    /// Ends what was in flight when the child has ended, and returns what the client is told.
    pub(crate) fn on_end(&mut self) -> Vec<RawMessage> {
        self.ended = self.ended.saturating_add(1);
        let of_client = &self.of_client;
        self.initialize.take_if(|initialize| of_client.contains(&initialize.id));
        let data = json!({ "reason": "outcome_unknown" });
        let error = ErrorData::new(UNAVAILABLE, ENDED, Some(data));
        let answers =
            self.of_client.drain().map(|id| JsonRpcMessage::error(error.clone(), Some(id)));
        let cancellations = self.of_child.drain().map(|(known, _)| {
            JsonRpcMessage::notification(cancellation(known, Some(ENDED.to_owned())))
        });
        answers.chain(cancellations).collect()
    }

    /// Returns the client's `initialize`, to be repeated with an id of this side's own.
    pub(crate) fn initialize(&self) -> Option<JsonRpcRequest<RawRequest>> {
        let mut initialize = self.initialize.clone()?;
        initialize.id = RequestId::String(format!("initialize of child {}", self.ended).into());
        Some(initialize)
    }

    /// Returns the client's `notifications/initialized`, to be repeated.
    pub(crate) fn initialized(&self) -> Option<RawMessage> {
        self.initialized.clone()
    }
}

/// Returns the id of the request that a notification cancels, if it does.
fn cancelled(notification: &RawNotification) -> Option<RequestId> {
    if notification.method() != "notifications/cancelled" {
        return None;
    }
    CancelledNotification::try_from(notification.clone()).ok()?.params.request_id
}

/// Returns the reason of a cancellation.
fn reason(notification: &RawNotification) -> Option<String> {
    let params: Value = serde_json::from_str(notification.params()?).ok()?;
    params["reason"].as_str().map(str::to_owned)
}

fn cancellation(id: RequestId, reason: Option<String>) -> RawNotification {
    CancelledNotification::new(CancelledNotificationParam::new(Some(id), reason)).into()
}

#[cfg(test)]
mod tests {
    use mcp_ws_transport::relay::parse;

    use super::*;

    #[test]
    fn a_malformed_request_of_the_child_ends_no_request_of_its_client() {
        let malformed = |text: &'static str| parse(text).expect_err("malformed");
        for (said, open) in [
            (r#"{"jsonrpc":"2.0","id":1,"method":5}"#, 1),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":5}"#, 0),
            (r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#, 0),
        ] {
            let mut conversation = Conversation::default();
            let request = parse(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#).expect("a request");
            conversation.on_client(request).expect("passed on");
            conversation.on_malformed(&malformed(said));
            assert_eq!(conversation.on_end().len(), open, "{said}");
        }
    }
}
