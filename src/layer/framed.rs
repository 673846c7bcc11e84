//! [`Framed`]: JSON-RPC messages out of WebSocket messages, and back.
//!
//! Outbound items are rmcp's [`TxJsonRpcMessage`]s, inbound ones its [`RxJsonRpcMessage`]s. What
//! cannot be read is answered, or ends the call it answers, without harm to the link; what cannot
//! be sent fails alone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};

pub use super::codec::Config;
use super::{codec::Codec, replies::Replies};
use crate::{
    decode::PendingMethods,
    duplex::{Duplex, forward_sink},
    error::Error,
    framing::Framing,
    link::{LinkEvent, PeerLimits},
    message::Message,
    role::McpRole,
    stats::Stats,
};

pin_project! {
    /// Encodes and decodes by a [`Framing`] for the MCP role `R`.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Framed<R, S, F> {
        codec: Codec<R, F>,
        replies: Replies,
        #[pin]
        inner: S,
    }
}

impl<R, S, F> Framed<R, S, F>
where
    R: McpRole,
    F: Framing<R>,
{
    /// Speaks `framing` over `inner`.
    pub fn new(inner: S, framing: F, config: Config) -> Self {
        Self::with_stats(inner, framing, config, Stats::default())
    }

    /// Speaks `framing` over `inner`, and counts unreadable messages in `stats`.
    pub fn with_stats(inner: S, framing: F, config: Config, stats: Stats) -> Self {
        Self { codec: Codec::new(framing, config, stats), replies: Replies::default(), inner }
    }

    /// Keeps to what the `peer` takes.
    pub fn within(mut self, peer: PeerLimits) -> Self {
        self.codec = self.codec.within(peer);
        self
    }

    /// Returns the layer below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the layer below.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the codec, the state of its replies, and the layer below.
    pub(super) fn into_parts(self) -> (Codec<R, F>, Replies, S) {
        (self.codec, self.replies, self.inner)
    }

    /// Decodes the next message with the help of the requests in flight.
    pub fn poll_decode<I>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        calls: &dyn PendingMethods,
    ) -> Poll<Option<Result<LinkEvent<RxJsonRpcMessage<R>>, Error>>>
    where
        S: Duplex<Message, I> + Stream<Item = Result<I, Error>>,
        I: Into<LinkEvent<Message>>,
    {
        let this = self.project();
        this.replies.poll_decode(this.codec, this.inner, calls, |_| false, cx)
    }
}

impl<R, S, I, F> Stream for Framed<R, S, F>
where
    R: McpRole,
    S: Duplex<Message, I> + Stream<Item = Result<I, Error>>,
    I: Into<LinkEvent<Message>>,
    F: Framing<R>,
{
    type Item = Result<LinkEvent<RxJsonRpcMessage<R>>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_decode(cx, &())
    }
}

impl<R, S, F> Sink<TxJsonRpcMessage<R>> for Framed<R, S, F>
where
    R: McpRole,
    S: Sink<Message, Error = Error>,
    F: Framing<R>,
{
    type Error = Error;

    forward_sink!(inner, TxJsonRpcMessage<R>: poll_ready, poll_flush, poll_close);

    fn start_send(self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let mut this = self.project();
        let message = this.codec.encode_to_send(item)?;
        for message in message.into_iter().chain(std::iter::from_fn(|| this.codec.next_reply())) {
            this.inner.as_mut().start_send(message)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use rmcp::{
        ErrorData, RoleClient, RoleServer,
        model::{CustomResult, JsonRpcMessage, RequestId},
    };
    use serde_json::{Value, json};
    use tokio_test::{
        assert_pending, assert_ready, assert_ready_ok,
        task::{Spawn, spawn},
    };

    use super::*;
    use crate::{
        close::CloseCode,
        error::{LinkError, MessageError},
        framing::{Envelope, JsonRpc},
        layer::{
            fake::{self, Peer},
            replies::MAX_UNFLUSHED,
        },
    };

    fn framed<R: McpRole>(config: Config) -> (Framed<R, fake::Link, JsonRpc>, Peer) {
        let (link, peer) = fake::link();
        (Framed::new(link, JsonRpc::default(), config), peer)
    }

    fn sent(peer: &Peer) -> Vec<Value> {
        let json = |message| match message {
            Message::Text(text) => serde_json::from_slice(text.as_bytes()).unwrap(),
            other => panic!("{other:?} is no text"),
        };
        peer.sent().into_iter().map(json).collect()
    }

    #[test]
    fn a_server_answers_rubbish_and_reads_on() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        for (rubbish, code, id) in [
            ("{", -32700, Value::Null),
            ("[]", -32600, Value::Null),
            (r#"{"jsonrpc":"1.0","id":7,"method":"ping"}"#, -32600, json!(7)),
        ] {
            peer.send(Message::text(rubbish));
            assert_pending!(framed.poll_next());
            let [answer] = &sent(&peer)[..] else { panic!("one answer to {rubbish}") };
            assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(code), &id), "{rubbish}");
            assert!(answer.as_object().unwrap().contains_key("id"));
        }
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        assert!(assert_ready!(framed.poll_next()).unwrap().is_ok());
    }

    #[test]
    fn a_response_that_cannot_be_read_ends_its_call_and_is_not_answered() {
        let (framed, peer) = framed::<RoleClient>(Config::default());
        let mut framed = spawn(framed);
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":7,"error":"sorry"}"#));
        let item = assert_ready!(framed.poll_next()).unwrap().unwrap();
        assert!(
            matches!(item, LinkEvent::Item(JsonRpcMessage::Error(error)) if error.id == Some(RequestId::Number(7)))
        );
        // The layer above may know whose an error without an id is.
        peer.send(Message::text(r#"{"jsonrpc":"2.0","error":"sorry"}"#));
        let item = assert_ready!(framed.poll_next()).unwrap().unwrap();
        assert!(
            matches!(item, LinkEvent::Item(JsonRpcMessage::Error(error)) if error.id.is_none())
        );
        peer.send(Message::text("rubbish"));
        assert_pending!(framed.poll_next());
        assert!(peer.sent().is_empty());
    }

    #[test]
    fn no_more_rubbish_is_read_than_answers_are_taken() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        peer.block(true);
        for _ in 0..MAX_UNFLUSHED / 10 {
            peer.send(Message::text("rubbish"));
        }
        assert_pending!(framed.poll_next());
        let size = |sent: Vec<Message>| sent.iter().map(Message::len).sum::<usize>();
        assert!((MAX_UNFLUSHED..MAX_UNFLUSHED + 200).contains(&size(peer.sent())));
        assert_pending!(framed.poll_next());
        assert!(peer.sent().is_empty());
        peer.block(false);
        assert!(framed.is_woken());
        assert_pending!(framed.poll_next());
        assert!(size(peer.sent()) > MAX_UNFLUSHED);
    }

    /// The end of a link is noticed even if its peer says nothing else.
    #[test]
    fn rubbish_is_read_and_not_answered_without_end_where_nothing_can_be_written() {
        let (framed, peer) = framed::<RoleServer>(Config::default());
        let mut framed = spawn(framed);
        peer.block(true);
        for _ in 0..MAX_UNFLUSHED / 10 {
            peer.send(Message::text("rubbish"));
        }
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        assert!(assert_ready!(poll(&mut framed, true)).unwrap().is_ok());
        let size = peer.sent().iter().map(Message::len).sum::<usize>();
        assert!((MAX_UNFLUSHED..MAX_UNFLUSHED + 200).contains(&size), "{size}");
        peer.block(false);
        peer.send(Message::text("rubbish"));
        assert_pending!(poll(&mut framed, false));
        assert_eq!(peer.sent().len(), 1, "answered again as soon as there is room");
    }

    /// A server whose peer has sent enough pings that no more of what it says is answered.
    fn muted() -> (Spawn<Framed<RoleServer, fake::Link, Envelope>>, Peer) {
        let (link, peer) = fake::link();
        let mut framed = spawn(Framed::new(link, Envelope::default(), Config::default()));
        peer.block(true);
        for _ in 0..MAX_UNFLUSHED / 10 {
            peer.send(Message::text(r#"{"type":"ping"}"#));
        }
        assert_pending!(poll(&mut framed, true));
        (framed, peer)
    }

    type Polled = Poll<Option<Result<LinkEvent<RxJsonRpcMessage<RoleServer>>, Error>>>;

    fn poll<F>(framed: &mut Spawn<Framed<RoleServer, fake::Link, F>>, stuck: bool) -> Polled
    where
        F: Framing<RoleServer>,
    {
        framed.enter(|cx, framed| {
            let this = framed.project();
            this.replies.poll_decode(this.codec, this.inner, &(), |_| stuck, cx)
        })
    }

    #[test]
    fn signs_of_life_are_read_and_not_answered_without_end_where_nothing_can_be_written() {
        let (mut framed, peer) = muted();
        let size = peer.sent().iter().map(Message::len).sum::<usize>();
        assert!((MAX_UNFLUSHED..MAX_UNFLUSHED + 200).contains(&size), "{size}");
        peer.block(false);
        peer.send(Message::text(r#"{"type":"ping"}"#));
        assert_pending!(poll(&mut framed, false));
        assert_eq!(peer.sent().len(), 1, "answered again as soon as there is room");
    }

    #[test]
    fn a_refusal_that_is_not_sent_leaves_the_id_of_its_request_free() {
        let (mut framed, peer) = muted();
        let ask = |params: Value| {
            let request = json!({"method": "add", "params": params});
            json!({"type": "mcp_request", "request": request, "requestId": "x"}).to_string()
        };
        peer.send(Message::text(ask(json!(5))));
        assert_pending!(poll(&mut framed, true));
        peer.send(Message::text(ask(json!({}))));
        let item = assert_ready!(poll(&mut framed, true)).unwrap().unwrap();
        assert!(matches!(item, LinkEvent::Item(JsonRpcMessage::Request(_))), "{item:?}");
    }

    /// The peer would take the answer to its next request for the one to this.
    #[test]
    fn where_a_refusal_without_an_id_is_not_sent_the_link_is_closed() {
        let (mut framed, peer) = muted();
        peer.send(Message::text(r#"{"type":"mcp_request"}"#));
        let error = assert_ready!(poll(&mut framed, true)).unwrap().unwrap_err();
        assert!(
            matches!(error, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::Policy)
        );
        assert!(matches!(peer.sent().last(), Some(Message::Close(Some(_)))));
    }

    #[test]
    fn what_is_too_big_fails_alone_and_a_response_is_replaced() {
        let (framed, peer) = framed::<RoleServer>(Config::default().max_message_size(200));
        let mut framed = spawn(framed);
        let big = CustomResult::new(json!("x".repeat(200)));
        let response = JsonRpcMessage::response(big.into(), RequestId::Number(7));
        framed.start_send_unpin(response).unwrap();
        let [answer] = &sent(&peer)[..] else { panic!("an answer all the same") };
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32603)));

        let big = ErrorData::internal_error("x".repeat(200), None);
        let error = framed.start_send_unpin(JsonRpcMessage::error(big, None)).unwrap_err();
        assert!(matches!(error, Error::Message(MessageError::TooBig { limit: 200, .. })));
        assert!(peer.sent().is_empty());
        assert_ready_ok!(spawn(framed.flush()).poll());
    }

    #[test]
    fn a_close_is_the_end() {
        let (mut framed, peer) = framed::<RoleClient>(Config::default());
        peer.send(Message::Close(None));
        let error = assert_ready!(spawn(framed.next()).poll()).unwrap().unwrap_err();
        assert!(
            matches!(error, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::NoStatus)
        );
    }
}
