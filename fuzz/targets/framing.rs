//! The framings decode what a peer sends, message after message, and answer it.

use bytes::Bytes;
use mcp_ws_transport::{
    McpRole, Message,
    decode::{Method, PendingMethods},
    framing::{BinaryPolicy, DecodeError, Envelope, Framing, JsonRpc, ToolCall},
};
use rmcp::{
    ErrorData, RoleClient, RoleServer,
    model::{JsonRpcMessage, RequestId},
};

/// The calls in flight: one, of a tool.
struct OneCall;

impl PendingMethods for OneCall {
    fn method(&self, id: &RequestId) -> Option<Method> {
        (*id == RequestId::Number(1)).then_some(Method::CallTool)
    }
}

/// The first byte chooses the framing and the role, a line is a message.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let is_server = first & 1 == 0;
    let is_binary = first & 2 != 0;
    let messages = rest.split(|byte| *byte == b'\n').filter_map(|line| message(line, is_binary));
    match first / 4 % 6 {
        0 => on(is_server, JsonRpc::default().binary(BinaryPolicy::Accept), messages),
        1 => on(is_server, JsonRpc::default().session_fields(), messages),
        2 => on(is_server, Envelope::default(), messages),
        3 => on(is_server, Envelope::default().general().bare_tools(), messages),
        4 => on(is_server, Envelope::default().sep_1288(), messages),
        _ => on(is_server, ToolCall::default(), messages),
    }
}

fn message(line: &[u8], is_binary: bool) -> Option<Message> {
    if is_binary {
        return Some(Message::Binary(Bytes::copy_from_slice(line)));
    }
    std::str::from_utf8(line).ok().map(|text| Message::text(text.to_owned()))
}

fn on<F>(is_server: bool, framing: F, messages: impl Iterator<Item = Message>)
where
    F: Framing<RoleServer> + Framing<RoleClient>,
{
    if is_server {
        exchange::<RoleServer, F>(framing, messages);
    } else {
        exchange::<RoleClient, F>(framing, messages);
    }
}

/// Decodes each message, and answers each request with an error.
fn exchange<R: McpRole, F: Framing<R>>(mut framing: F, messages: impl Iterator<Item = Message>) {
    for message in messages {
        let _ = framing.decode_unauthenticated(&message);
        let error = ErrorData::internal_error("too large", None);
        let attributed = framing.attribute_error(&message, &OneCall, error);
        assert!(!matches!(attributed, DecodeError::Unacceptable(_)), "{attributed:?}");
        if let Ok(Some(JsonRpcMessage::Request(request))) = framing.decode(message, &OneCall) {
            let error = ErrorData::internal_error("no", None);
            answer(&mut framing, JsonRpcMessage::error(error, Some(request.id)));
        }
        while framing.next_reply().is_some() {}
    }
}

fn answer<R: McpRole>(framing: &mut impl Framing<R>, message: rmcp::service::TxJsonRpcMessage<R>) {
    if let Ok(Some(message)) = framing.encode(&message) {
        let Message::Text(text) = &message else { panic!("{message:?}") };
        serde_json::from_str::<serde_json::Value>(text.as_str()).expect("JSON");
        framing.enqueue_in_order(message);
    }
}
