//! [`Inbound`]: requests and notifications of the peer, and when they are handed up.

use std::{
    collections::{HashMap, hash_map::Entry},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::Sink;
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, Extensions, GetExtensions, GetMeta,
        JsonRpcMessage, JsonRpcRequest, RequestId,
    },
    service::RxJsonRpcMessage,
};
use serde_json::json;

use super::{
    aliases::Aliases,
    backlog::Backlog,
    config::Config,
    extensions::{attach_extensions, roomy_extensions},
    panics::Panics,
    shortage::Shortage,
    slots::{HandlerSlot, HandlerSlots},
};
use crate::{
    decode::method::Method,
    framing::Framing,
    layer::{
        codec::{Codec, LastDecoded, too_large},
        shared_link::SharedLink,
    },
    role::McpRole,
    rpc_code::UNAVAILABLE,
    stats::Stats,
    warn_limit::WarnLimit,
};

/// Notifications that may be handled at once where fewer requests may: most are over in a moment.
pub(super) const MIN_NOTIFICATIONS: usize = 64;

/// Reason of a cancellation where that of the peer is not kept.
pub(super) const CANCELLED: &str = "cancelled by the peer";

/// Request of the peer that is in flight.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    /// Number of the request in the order of all.
    number: u64,
    method: Method,
}

/// Requests and notifications of the peer.
#[derive(Debug)]
pub(super) struct Inbound<R: McpRole> {
    /// Requests in flight, by their ids as the layers above know them.
    ids: HashMap<RequestId, InFlight>,
    /// Number of the last request.
    number: u64,
    /// Real ids of requests, where other peers may follow.
    aliases: Option<Box<Aliases>>,
    /// Slots of all handlers that still run, those of cancelled requests included.
    slots: Arc<HandlerSlots>,
    panics: Panics,
    /// Requests that wait until the outbound queue has room, and notifications that wait for a
    /// slot. All else is read on, since two ends that both wait for the other to read would wait
    /// for ever.
    backlog: Backlog<R>,
    /// Extensions that each request and notification carries.
    extensions: Extensions,
    stats: Stats,
    warnings: WarnLimit,
}

impl<R: McpRole> Inbound<R> {
    pub(super) fn new(stats: Stats) -> Self {
        // Every clone of the map has the key then, and room for the metadata of a message, so that
        // setting them does not rehash.
        let mut extensions = roomy_extensions();
        extensions.insert(HandlerSlot::default());
        Self {
            ids: HashMap::new(),
            number: 0,
            aliases: None,
            slots: Arc::default(),
            panics: Panics::default(),
            backlog: Backlog::default(),
            extensions,
            stats,
            warnings: WarnLimit::default(),
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

    /// Returns the ids of the requests in flight, in the order in which they came.
    pub(super) fn in_flight(&self) -> Vec<RequestId> {
        let mut ids: Vec<_> = self.ids.iter().map(|(id, call)| (call.number, id.clone())).collect();
        ids.sort_unstable_by_key(|(number, _)| *number);
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Returns `true` if the request that the layers above know by this id is in flight.
    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.ids.contains_key(id)
    }

    /// Returns the slots of what is being handled, or waits for it.
    #[cfg(feature = "server")]
    pub(super) fn slots(&self) -> Arc<HandlerSlots> {
        self.slots.clone()
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
        let overload = self.overload(config, codec.last_decoded());
        let error = match (self.ids.entry(request.id.clone()), overload) {
            (Entry::Occupied(_), _) => {
                ErrorData::invalid_request("a request with this id is already in flight", None)
            }
            (Entry::Vacant(_), Some(error)) => error,
            (Entry::Vacant(vacant), None) => {
                self.number += 1;
                let method = R::method_of_peer(&request.request);
                vacant.insert(InFlight { number: self.number, method });
                self.rename_token(&mut request.request);
                return true;
            }
        };
        self.refuse(request.id.clone(), error, codec);
        false
    }

    /// Changes the progress token of a request if handlers of a former peer may report progress by
    /// it.
    fn rename_token(&self, request: &mut R::PeerReq) {
        let Some(aliases) = &self.aliases else { return };
        let token = request.get_meta().get_progress_token();
        if let Some(token) = token.and_then(|token| aliases.token_inward(&token)) {
            request.get_meta_mut().set_progress_token(token);
        }
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
        // Another request in flight may have the same id.
        let in_flight = self.ids.contains_key(&id);
        let real = self.aliases.as_mut().and_then(|aliases| aliases.refused(&id, in_flight));
        let id = real.unwrap_or(id);
        self.stats.record_refused();
        tracing::debug!(%id, %error.message, "request refused");
        codec.queue_reply(&JsonRpcMessage::error(error, Some(id)));
    }

    /// Returns why there is no room for a notification that takes `own` bytes of memory.
    fn shortage(&self, own: usize, limit: usize) -> Option<Shortage> {
        let (_, taken) = self.slots.notifications();
        match own {
            _ if own > limit => Some(Shortage::TooLarge { decoded_bytes: own, limit }),
            _ if taken + own > limit => Some(Shortage::Memory { limit }),
            _ => None,
        }
    }

    /// Counts a cancellation among the notifications that are handled. It is never dropped or
    /// kept, since it ends what takes room; where there is a `shortage` it loses all but the id.
    fn begin_cancellation(
        &self,
        notification: &mut R::PeerNot,
        size: usize,
        shortage: Option<Shortage>,
    ) {
        let id = R::cancelled_by_peer(notification).filter(|_| shortage.is_some()).cloned();
        let size = if id.is_some() { 0 } else { size };
        if let Some(id) = id {
            *notification = cancellation(id, CANCELLED.into()).into();
        }
        let mut slot = self.slots.take_notification(size);
        slot.begin();
        notification.extensions_mut().insert(slot);
    }

    /// Counts a notification that is dropped, and warns of it.
    fn drop_notification(&mut self, shortage: Shortage) {
        self.stats.record_refused();
        match self.warnings.admit() {
            Some(suppressed) => tracing::warn!(suppressed, "notification dropped: {shortage}"),
            None => tracing::debug!("notification dropped: {shortage}"),
        }
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
                let size = codec.last_decoded().decoded_size;
                let slot = self.slots.take_request(self.number, size);
                attach_extensions(request.request.extensions_mut(), &self.extensions, slot);
            }
            JsonRpcMessage::Notification(notification) => {
                let size = codec.last_decoded().decoded_size;
                let shortage = self.shortage(size, config.max_inbound_memory);
                if R::cancelled_by_peer(&notification.notification).is_some() {
                    self.begin_cancellation(&mut notification.notification, size, shortage);
                    return Some(message);
                }
                if let Some(shortage) = shortage {
                    self.drop_notification(shortage);
                    return None;
                }
                let slot = self.slots.take_notification(size);
                let extensions = notification.notification.extensions_mut();
                attach_extensions(extensions, &self.extensions, slot);
            }
            _ => return Some(message),
        }
        // A relay keeps the order, and reads on only when it has passed each message on.
        if R::IS_TEXT {
            return Some(message);
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
            Err(_) => self.drop_notification(Shortage::Backlog { limit: config.max_held_bytes }),
        }
    }

    /// Ends the request that the peer cancels. Returns the id by which the layers above know it,
    /// or else the `id`, if it was not in flight.
    pub(super) fn cancel(&mut self, id: RequestId) -> Result<RequestId, RequestId> {
        let alias = self.aliases.as_mut().and_then(|aliases| aliases.cancelled(&id));
        let above = alias.as_ref().unwrap_or(&id);
        self.backlog.forget(above);
        match self.ids.remove(above) {
            Some(_) => Ok(alias.unwrap_or(id)),
            None => Err(id),
        }
    }

    /// Ends the request that this side answers, and changes `id` to that on the wire.
    /// Returns `false` if it was one of a former peer.
    pub(super) fn end(&mut self, id: &mut RequestId) -> bool {
        self.ids.remove(id);
        self.aliases.as_mut().is_none_or(|aliases| aliases.end(id))
    }

    /// Ends the subscription of the peer that this side cancels, and changes `id` to that on the
    /// wire. Returns `false` if the present peer has none with this id.
    pub(super) fn end_subscription(&mut self, id: &mut RequestId) -> bool {
        let method = self.ids.get(id).map(|request| request.method);
        method == Some(Method::SubscriptionsListen) && self.end(id)
    }

    /// Looks for handlers that have panicked, and has the reader woken when one does.
    pub(super) fn watch_handlers(&mut self, cx: &mut Context<'_>) {
        if !self.ids.is_empty()
            && let Poll::Ready(panicked) = self.slots.poll_panicked(cx)
        {
            self.panics.extend(panicked);
        }
    }

    /// Ready with the id of a request whose handler has panicked and which has not been answered
    /// since.
    pub(super) fn poll_panicked(&mut self, cx: &mut Context<'_>) -> Poll<RequestId> {
        loop {
            let panicked = ready!(self.panics.poll(cx));
            if let Some((id, _)) = self.ids.iter().find(|(_, request)| request.number == panicked) {
                return Poll::Ready(id.clone());
            }
        }
    }

    /// Changes the subscription or request of a notification to its id at the present peer. Returns
    /// `false` if it is one of a former peer.
    pub(super) fn rename_for_peer(&self, notification: &mut R::Not) -> bool {
        let Some(aliases) = &self.aliases else { return true };
        if let Some(token) = R::progress(notification) {
            return aliases.resolve_token(token);
        }
        if aliases.is_plain() {
            return true;
        }
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
            aliases.on_new_peer();
        }
        std::mem::take(&mut self.ids).into_keys()
    }

    /// Removes all that waits: the last link has ended.
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

/// Returns the notification that cancels the request with this id.
pub(super) fn cancellation(id: RequestId, reason: String) -> CancelledNotification {
    CancelledNotification::new(CancelledNotificationParam::new(Some(id), Some(reason)))
}

/// Decides whether `message` may be handled now, and takes a slot for it if it is a notification.
fn may_be_handled<R: McpRole>(
    message: &mut RxJsonRpcMessage<R>,
    slots: &Arc<HandlerSlots>,
    config: &Config,
    link: &mut SharedLink,
    cx: &mut Context<'_>,
) -> bool {
    let JsonRpcMessage::Notification(notification) = message else {
        // If the link has ended, the peer is gone.
        return matches!(Pin::new(link).poll_ready(cx), Poll::Ready(Ok(())));
    };
    let limit = config.max_inbound.max(MIN_NOTIFICATIONS);
    match notification.notification.extensions_mut().get_mut::<HandlerSlot>() {
        Some(slot) => slots.poll_begin(slot, limit, cx).is_ready(),
        None => true,
    }
}
