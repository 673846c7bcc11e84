//! [`Inbound`]: requests and notifications of the peer, and when they are handed up.

use std::{
    collections::HashSet,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Sink;
use rmcp::{
    ErrorData,
    model::{Extensions, GetExtensions, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::RxJsonRpcMessage,
};
use serde_json::json;

use super::{
    Config, UNAVAILABLE,
    aliases::Aliases,
    backlog::Backlog,
    slots::{HandlerSlot, HandlerSlots},
};
use crate::{
    decode::Role,
    framing::Framing,
    layer::{
        SharedLink,
        codec::{Codec, LastDecoded, too_large},
    },
    stats::Stats,
};

/// How many notifications may be handled at once, where fewer requests may: most are over in a moment.
pub(super) const MIN_NOTIFICATIONS: usize = 64;

/// Requests and notifications of the peer.
#[derive(Debug)]
pub(super) struct Inbound<R: Role> {
    /// Ids of the requests in flight, as the layers above know them.
    ids: HashSet<RequestId>,
    /// Real ids of requests, where other peers may follow.
    aliases: Option<Box<Aliases>>,
    /// Slots of all handlers that still run, those of cancelled requests included.
    slots: Arc<HandlerSlots>,
    /// Requests that wait until the outbound queue has room, and notifications that wait for a
    /// slot. All else is read on, since two ends that both wait for the other to read would wait
    /// for ever.
    backlog: Backlog<R>,
    /// Extensions that each request and notification carries.
    extensions: Extensions,
    stats: Stats,
}

impl<R: Role> Inbound<R> {
    pub(super) fn new(stats: Stats) -> Self {
        // Every clone of the map has the key then, and setting it later does not rehash.
        let mut extensions = Extensions::new();
        extensions.insert(HandlerSlot::default());
        Self {
            ids: HashSet::new(),
            aliases: None,
            slots: Arc::default(),
            backlog: Backlog::default(),
            extensions,
            stats,
        }
    }

    /// Prepares for peers that follow one another.
    pub(super) fn expect_peers(&mut self) {
        self.aliases = Some(Box::default());
    }

    /// Returns the number of requests in flight.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns `true` if the request that the layers above know by this id is in flight.
    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.ids.contains(id)
    }

    /// Returns what each request and notification carries in its extensions.
    pub(super) fn extensions(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// Adds `request`, or has `codec` refuse it. Returns `true` if it is for the layers above.
    ///
    /// It gets another id if a handler of a former peer may still run for one with the same.
    pub(super) fn accept<F: Framing<R>>(
        &mut self,
        request: &mut JsonRpcRequest<R::PeerReq>,
        config: &Config,
        codec: &mut Codec<R, F>,
    ) -> bool {
        if let Some(alias) = self.aliases.as_mut().and_then(|aliases| aliases.inward(&request.id)) {
            request.id = alias;
        }
        let error = if self.ids.contains(&request.id) {
            ErrorData::invalid_request("a request with this id is already in flight", None)
        } else if let Some(error) = self.overload(config, codec.last_decoded()) {
            error
        } else {
            self.ids.insert(request.id.clone());
            return true;
        };
        self.refuse(request.id.clone(), error, codec);
        false
    }

    /// Returns the error for a request that is one too many, or takes too much.
    fn overload(&self, config: &Config, last: LastDecoded) -> Option<ErrorData> {
        let Config { max_inbound, max_inbound_memory, .. } = *config;
        let (handled, taken) = self.slots.requests();
        let own = last.decoded_size;
        if let Some(error) = too_large(own, max_inbound_memory) {
            return Some(error);
        }
        let data = if self.ids.len().max(handled) >= max_inbound {
            json!({ "reason": "too_many_requests", "limit": max_inbound })
        } else if own > max_inbound_memory / 1024 && taken + own > max_inbound_memory {
            json!({ "reason": "too_many_requests", "limit_bytes": max_inbound_memory })
        } else {
            return None;
        };
        Some(ErrorData::new(UNAVAILABLE, "too many requests in flight", Some(data)))
    }

    fn refuse<F: Framing<R>>(&mut self, id: RequestId, error: ErrorData, codec: &mut Codec<R, F>) {
        // The same id may belong to another that is in flight.
        let in_flight = self.ids.contains(&id);
        let real = self.aliases.as_mut().and_then(|aliases| aliases.refused(&id, in_flight));
        let id = real.unwrap_or(id);
        self.stats.refused();
        tracing::debug!(%id, %error.message, "request refused");
        codec.queue_reply(&JsonRpcMessage::error(error, Some(id)));
    }

    /// Hands `message` up, unless it has to wait.
    pub(super) fn deliver<F: Framing<R>>(
        &mut self,
        mut message: RxJsonRpcMessage<R>,
        config: &Config,
        codec: &mut Codec<R, F>,
        link: &mut SharedLink,
        cx: &mut Context<'_>,
    ) -> Option<RxJsonRpcMessage<R>> {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let slot = self.slots.take_request(codec.last_decoded().decoded_size);
                attach_extensions(request.request.extensions_mut(), &self.extensions, slot);
            }
            JsonRpcMessage::Notification(notification)
                if R::cancelled_by_peer(&notification.notification).is_none() =>
            {
                let extensions = notification.notification.extensions_mut();
                attach_extensions(extensions, &self.extensions, HandlerSlot::default());
            }
            _ => return Some(message),
        }
        if !self.backlog.precedes(&message)
            && may_be_handled::<R>(&mut message, &self.slots, config, link, cx)
        {
            return Some(message);
        }
        self.enqueue(message, config, codec);
        None
    }

    /// Returns the first message of the backlog that may be handled now.
    pub(super) fn next_of_backlog(
        &mut self,
        config: &Config,
        link: &mut SharedLink,
        cx: &mut Context<'_>,
    ) -> Option<RxJsonRpcMessage<R>> {
        if self.backlog.is_empty() {
            return None;
        }
        let slots = &self.slots;
        self.backlog.pop(|message| may_be_handled::<R>(message, slots, config, link, cx))
    }

    /// Keeps a message until it may be handled, if there is room for that.
    fn enqueue<F: Framing<R>>(
        &mut self,
        message: RxJsonRpcMessage<R>,
        config: &Config,
        codec: &mut Codec<R, F>,
    ) {
        match self.backlog.push(message, codec.last_decoded().size, config.max_held_bytes) {
            Ok(()) => {}
            Err(JsonRpcMessage::Request(request)) => {
                self.ids.remove(&request.id);
                let data = json!({ "reason": "too_many_requests" });
                let error = "earlier messages have not been dealt with";
                let error = ErrorData::new(UNAVAILABLE, error, Some(data));
                self.refuse(request.id, error, codec);
            }
            Err(_) => {
                self.stats.refused();
                tracing::debug!("notification dropped: too many are being handled");
            }
        }
    }

    /// Ends the request that the peer cancels. Returns the id by which the layers above know it,
    /// or else the `id`, if it was not in flight.
    pub(super) fn cancel(&mut self, id: RequestId) -> Result<RequestId, RequestId> {
        let alias = self.aliases.as_mut().and_then(|aliases| aliases.cancelled(&id));
        let above = alias.as_ref().unwrap_or(&id);
        self.backlog.forget(above);
        match self.ids.remove(above) {
            true => Ok(alias.unwrap_or(id)),
            false => Err(id),
        }
    }

    /// Ends the request that this side answers or cancels, and changes `id` to that on the wire.
    /// Returns `false` if it was one of a former peer.
    pub(super) fn end(&mut self, id: &mut RequestId) -> bool {
        self.ids.remove(id);
        self.aliases.as_mut().is_none_or(|aliases| aliases.end(id))
    }

    /// Returns `true` if a notification of ours is for the present peer. The subscription that it
    /// belongs to is now named as that peer has it.
    pub(super) fn is_for_peer(&self, notification: &mut R::Not) -> bool {
        let Some(aliases) = self.aliases.as_ref().filter(|aliases| !aliases.is_plain()) else {
            return true;
        };
        let Some(meta) = R::meta(notification) else { return true };
        let Some(mut id) = meta.subscription_id() else { return true };
        let is_present = aliases.resolve(&mut id);
        if is_present {
            meta.set_subscription_id(id);
        }
        is_present
    }

    /// Begins with another peer. Returns the ids of the requests of the former one that the layers
    /// above still handle.
    pub(super) fn begin_peer(&mut self) -> impl Iterator<Item = RequestId> + use<R> {
        for id in self.backlog.forget_requests() {
            self.ids.remove(&id);
        }
        if let Some(aliases) = &mut self.aliases {
            aliases.restart();
        }
        std::mem::take(&mut self.ids).into_iter()
    }

    /// Forgets what waits: the last link has ended.
    pub(super) fn clear_backlog(&mut self) {
        self.backlog = Backlog::default();
    }

    #[cfg(test)]
    pub(super) fn backlog_is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    #[cfg(test)]
    pub(super) fn aliases(&self) -> usize {
        self.aliases.as_ref().map_or(0, |aliases| aliases.len())
    }
}

/// Decides whether `message` may be handled now, and takes a slot for it if it is a notification.
fn may_be_handled<R: Role>(
    message: &mut RxJsonRpcMessage<R>,
    slots: &Arc<HandlerSlots>,
    config: &Config,
    link: &mut SharedLink,
    cx: &mut Context<'_>,
) -> bool {
    let JsonRpcMessage::Notification(notification) = message else {
        // Where the link has ended, whoever it is from is gone.
        return matches!(Pin::new(link).poll_ready(cx), Poll::Ready(Ok(())));
    };
    let most = config.max_inbound.max(MIN_NOTIFICATIONS);
    let Poll::Ready(slot) = slots.poll_notification(most, cx) else { return false };
    if let Some(empty) = notification.notification.extensions_mut().get_mut::<HandlerSlot>() {
        *empty = slot;
    }
    true
}

/// Puts what a handler finds there into `extensions`.
fn attach_extensions(extensions: &mut Extensions, all: &Extensions, slot: HandlerSlot) {
    // Into the copy goes what came with the message, which is less.
    let own = std::mem::replace(extensions, all.clone());
    extensions.extend(own);
    match extensions.get_mut::<HandlerSlot>() {
        Some(taken) => *taken = slot,
        None => drop(extensions.insert(slot)),
    }
}
