//! What of the peer's requests and notifications is handed up, and when.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Sink;
use rmcp::{
    ErrorData,
    model::{Extensions, GetExtensions, JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use serde_json::json;

use super::{Config, Correlation, Held, Place, Places, UNAVAILABLE, cancellation, overload};
use crate::{
    decode::{Calls, Method, Role},
    framing::Framing,
    layer::{Framed, SharedLink, framed::too_large},
};

/// How many notifications may be handled at once, where fewer requests may: most are over in a moment.
pub(super) const MIN_NOTIFICATIONS: usize = 64;

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Whether `message` is for the service above.
    pub(super) fn admit(&mut self, message: &mut RxJsonRpcMessage<R>) -> bool {
        if self.restart.as_ref().is_some_and(|restart| restart.returned) {
            self.recognise(message);
        }
        match message {
            JsonRpcMessage::Request(request) => {
                self.prepare(request);
                let error = if self.inbound.contains(&request.id) {
                    ErrorData::invalid_request("a request with this id is already in flight", None)
                } else if let Some(error) = self.overload() {
                    error
                } else {
                    self.inbound.insert(request.id.clone());
                    return true;
                };
                self.refuse(request.id.clone(), error);
                false
            }
            JsonRpcMessage::Response(response) => {
                let result = Ok(R::initialize_result(&response.result));
                let id = self.settle(Some(&response.id));
                self.overload.note_answered();
                id.is_some_and(|id| self.note_answer(&id, result))
            }
            JsonRpcMessage::Error(error) => {
                if error.id.is_none() {
                    error.id = self.guess();
                    if error.id.is_none() {
                        self.tell_unmatched(&error.error);
                        return false;
                    }
                }
                if self.retry_refused(error) {
                    return false;
                }
                let id = self.settle(error.id.as_ref());
                if !overload::is_too_many(&error.error) {
                    self.overload.note_answered();
                }
                id.is_some_and(|id| self.note_answer(&id, Err(&error.error)))
            }
            JsonRpcMessage::Notification(notification) => {
                if R::is_initialized_by_peer(&notification.notification) {
                    self.peer_is_ready();
                }
                let Some(id) = R::cancelled_by_peer(&notification.notification).cloned() else {
                    self.note_progress(&notification.notification);
                    return true;
                };
                // It cancels a request of its own or, in the era without `initialize`, a
                // subscription of ours.
                let alias =
                    self.restart.as_mut().and_then(|restart| restart.aliases.cancelled(&id));
                let inward = alias.as_ref().unwrap_or(&id);
                self.held.forget(inward);
                if self.inbound.remove(inward) {
                    if let Some(alias) = alias {
                        let reason = "cancelled by the peer".into();
                        notification.notification = cancellation(alias, reason).into();
                    }
                    return true;
                }
                let ours = self.outbound.method(&id) == Some(Method::SubscriptionsListen);
                ours && self.give_up(&id).is_some()
            }
        }
    }

    /// Reports an error of the peer that names no request, while none or several are in flight.
    fn tell_unmatched(&mut self, error: &ErrorData) {
        self.stats.orphan();
        if let Some(restart) = &self.restart {
            restart.tell_unmatched(error);
        }
        let in_flight = self.outbound.len();
        tracing::debug!(%error.message, "error without an id");
        if let Some(suppressed) = self.warnings.admit() {
            let code = error.code.0;
            tracing::warn!(
                code,
                in_flight,
                suppressed,
                "the peer sent an error that names no request"
            );
        }
    }

    /// Returns the error for a request that is one too many, or takes too much.
    fn overload(&self) -> Option<ErrorData> {
        let Config { max_inbound, max_inbound_memory, .. } = self.config;
        let (handled, weight) = self.places.requests();
        let own = self.framed.last_weight();
        if let Some(error) = too_large(own, max_inbound_memory) {
            return Some(error);
        }
        let data = if self.inbound.len().max(handled) >= max_inbound {
            json!({ "reason": "too_many_requests", "limit": max_inbound })
        } else if own > max_inbound_memory / 1024 && weight + own > max_inbound_memory {
            json!({ "reason": "too_many_requests", "limit_bytes": max_inbound_memory })
        } else {
            return None;
        };
        Some(ErrorData::new(UNAVAILABLE, "too many requests in flight", Some(data)))
    }

    /// Hands `message` up, unless it has to wait.
    pub(super) fn pass(
        &mut self,
        mut message: RxJsonRpcMessage<R>,
        cx: &mut Context<'_>,
    ) -> Option<RxJsonRpcMessage<R>> {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let place = self.places.take_request(self.framed.last_weight());
                equip(request.request.extensions_mut(), &self.extensions, place);
            }
            JsonRpcMessage::Notification(notification)
                if R::cancelled_by_peer(&notification.notification).is_none() =>
            {
                let extensions = notification.notification.extensions_mut();
                equip(extensions, &self.extensions, Place::default());
            }
            _ => return Some(message),
        }
        if !self.held.precedes(&message) && self.gate().1.opens(&mut message, cx) {
            return Some(message);
        }
        self.hold(message);
        None
    }

    /// The first of what was kept whose moment has come.
    pub(super) fn next_held(&mut self, cx: &mut Context<'_>) -> Option<RxJsonRpcMessage<R>> {
        let (held, mut gate) = self.gate();
        held.pop(|message| gate.opens(message, cx))
    }

    fn gate(&mut self) -> (&mut Held<R>, Gate<'_, R, F>) {
        let notifications = self.config.max_inbound.max(MIN_NOTIFICATIONS);
        let gate = Gate { framed: &mut self.framed, places: &self.places, notifications };
        (&mut self.held, gate)
    }

    fn refuse(&mut self, id: RequestId, error: ErrorData) {
        // The same id may belong to another that is in flight.
        let in_flight = self.inbound.contains(&id);
        let real =
            self.restart.as_mut().and_then(|restart| restart.aliases.refused(&id, in_flight));
        let id = real.unwrap_or(id);
        self.stats.refused();
        tracing::debug!(%id, %error.message, "request refused");
        Pin::new(&mut self.framed).reply(JsonRpcMessage::error(error, Some(id)));
    }

    /// Keeps a message until its moment comes, if there is room for that.
    fn hold(&mut self, message: RxJsonRpcMessage<R>) {
        let (size, limit) = (self.framed.last_size(), self.config.max_held_bytes);
        match self.held.push(message, size, limit) {
            Ok(()) => {}
            Err(JsonRpcMessage::Request(request)) => {
                self.inbound.remove(&request.id);
                let data = json!({ "reason": "too_many_requests" });
                let error = "earlier messages have not been dealt with";
                self.refuse(request.id, ErrorData::new(UNAVAILABLE, error, Some(data)));
            }
            Err(_) => {
                self.stats.refused();
                tracing::debug!("notification dropped: too many are being handled");
            }
        }
    }
}

/// Before requests and notifications of the peer.
struct Gate<'a, R: Role, F> {
    framed: &'a mut Framed<R, SharedLink, F>,
    places: &'a Arc<Places>,
    notifications: usize,
}

impl<R: Role, F: Framing<R>> Gate<'_, R, F> {
    /// Whether this is the moment for `message`.
    fn opens(&mut self, message: &mut RxJsonRpcMessage<R>, cx: &mut Context<'_>) -> bool {
        let JsonRpcMessage::Notification(notification) = message else {
            // Where the link has ended, whoever it is from is gone.
            return matches!(Pin::new(&mut *self.framed).poll_ready(cx), Poll::Ready(Ok(())));
        };
        let place = self.places.poll_notification(self.notifications, cx);
        let Poll::Ready(place) = place else { return false };
        if let Some(empty) = notification.notification.extensions_mut().get_mut::<Place>() {
            *empty = place;
        }
        true
    }
}

/// Puts what a handler finds there into `extensions`.
fn equip(extensions: &mut Extensions, all: &Extensions, place: Place) {
    if extensions.is_empty() {
        *extensions = all.clone();
    } else {
        extensions.extend(all.clone());
    }
    match extensions.get_mut::<Place>() {
        Some(taken) => *taken = place,
        None => drop(extensions.insert(place)),
    }
}
