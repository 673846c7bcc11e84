//! Typed decoding of JSON-RPC messages, in one pass.
//!
//! rmcp's own `Deserialize` buffers each message and tries the variants of nested untagged enums
//! one after the other. Here a request is dispatched on the name of its method, and a response on
//! the method of the request that it answers, which the [`Calls`] in flight know.
//!
//! rmcp remains the authority: whatever is unusual goes to its own `Deserialize`, and what is
//! decoded here is what rmcp would have made of it, value for value.

mod content;
mod malformed;
mod message;
mod method;
mod notification;
mod request;
mod result;
mod role;
mod strict;

use rmcp::{model::RequestId, service::RxJsonRpcMessage};

pub use self::{
    malformed::{Malformed, MalformedKind},
    method::Method,
    role::Role,
};

/// The calls in flight, lent to the decoder for one message.
///
/// `()` knows of none: responses are then told apart by their members.
pub trait Calls {
    /// The method of the request that was sent with this id and awaits its response.
    fn method(&self, id: &RequestId) -> Option<Method>;
}

impl Calls for () {
    fn method(&self, _: &RequestId) -> Option<Method> {
        None
    }
}

/// Decodes one message that the peer of a role `R` has sent.
///
/// A leading byte order mark is skipped.
///
/// # Errors
///
/// [`Malformed`] when rmcp refuses the message. An unknown method is no error, but a custom
/// request or notification.
pub fn decode<R: Role>(bytes: &[u8], calls: &dyn Calls) -> Result<RxJsonRpcMessage<R>, Malformed> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Once for all: serde_json would look at each string anew.
    let Ok(text) = str::from_utf8(bytes) else { return Err(Malformed::of(bytes)) };
    match message::usual::<R>(text, calls) {
        Some(message) => Ok(message),
        None => serde_json::from_str(text).map_err(|_| Malformed::of(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use rmcp::{RoleClient, RoleServer, model::ErrorCode};
    use serde_json::json;

    use super::*;

    struct Call(Method);

    impl Calls for Call {
        fn method(&self, id: &RequestId) -> Option<Method> {
            (*id == RequestId::Number(7)).then_some(self.0)
        }
    }

    fn is_usual<R: Role>(text: &str, calls: &dyn Calls) -> bool {
        message::usual::<R>(text, calls).is_some()
    }

    #[test]
    fn the_usual_messages_of_a_client_take_the_short_way() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"n","arguments":{"a":1}}}"#,
            r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"_meta":{"progressToken":1},"name":"n","extra":[{}]}}"#,
            r#"{"method":"tools/call","params":{"name":"n"},"jsonrpc":"2.0","id":7}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{"cursor":"c"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":"u"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"resources/list","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"prompts/get","params":{"name":"n"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"prompts/list"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"m"}}"#,
        ] {
            assert!(is_usual::<RoleServer>(text, &()), "{text}");
        }
    }

    #[test]
    fn the_usual_messages_of_a_server_take_the_short_way() {
        for (method, text) in [
            (Method::CallTool, r#"{"content":[{"type":"text","text":"t"}],"isError":false}"#),
            (Method::CallTool, r#"{"content":[],"structuredContent":{"a":1},"_meta":{}}"#),
            (Method::CallTool, r#"{"content":[{"type":"image","data":"aa","mimeType":"m"}]}"#),
            (Method::CallTool, r#"{"content":[{"text":"t","type":"text","annotations":{}}]}"#),
            (Method::ListTools, r#"{"tools":[{"name":"n","inputSchema":{},"extra":1}]}"#),
            (Method::ReadResource, r#"{"contents":[{"uri":"u","text":"t"}]}"#),
            (
                Method::GetPrompt,
                r#"{"messages":[{"role":"user","content":{"type":"text","text":"t"}}]}"#,
            ),
            (Method::Ping, "{}"),
        ] {
            let known = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{text}}}"#);
            assert!(is_usual::<RoleClient>(&known, &Call(method)), "{text}");
            assert!(is_usual::<RoleClient>(&known, &()), "{text}");
            let late = format!(r#"{{"result":{text},"jsonrpc":"2.0","id":7}}"#);
            assert!(is_usual::<RoleClient>(&late, &Call(method)), "{text}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#,
        ] {
            assert!(is_usual::<RoleClient>(text, &()), "{text}");
        }
    }

    #[test]
    fn a_call_is_found_by_its_id_as_rmcp_finds_it() {
        let result = r#"{"resultType":"complete","content":[]}"#;
        for (id, known) in [("7", true), (r#""7""#, true), ("8", false), (r#""x""#, false)] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
            assert_eq!(is_usual::<RoleClient>(&text, &Call(Method::CallTool)), known, "{text}");
        }
    }

    #[test]
    fn malformed_input_is_classified() {
        use MalformedKind as K;
        let parse = ErrorCode::PARSE_ERROR;
        let invalid = ErrorCode::INVALID_REQUEST;
        let one = Some(RequestId::Number(1));
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{}{}}}"#,
            "[".repeat(300),
            "]".repeat(300)
        );
        for (bytes, code, id, kind) in [
            (&b"{"[..], parse, None, K::NotJson),
            (b"", parse, None, K::NotJson),
            (br#"{"jsonrpc":"2.0","id":1,"method":"ping"}}"#, parse, None, K::NotJson),
            (b"\"\xff\"", parse, None, K::NotJson),
            (br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, invalid, None, K::Batch),
            (b"[]", invalid, None, K::Batch),
            (b"7", invalid, None, K::Other),
            (b"null", invalid, None, K::Other),
            (b"-1.5", invalid, None, K::Other),
            (b"{}", invalid, None, K::Other),
            (br#"{"jsonrpc":"2.0","id":1}"#, invalid, one.clone(), K::Other),
            (br#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, invalid, one.clone(), K::Request),
            (br#"{"id":1.0,"method":"ping"}"#, invalid, one.clone(), K::Request),
            (br#"{"jsonrpc":"2.0","id":1,"method":7}"#, invalid, one.clone(), K::Request),
            (
                br#"{"jsonrpc":"2.0","id":1,"method":"ping","result":1}"#,
                invalid,
                one.clone(),
                K::Request,
            ),
            (br#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, invalid, None, K::Request),
            (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, invalid, None, K::Request),
            (
                br#"{"jsonrpc":"2.0","method":"x","params":{"_meta":1}}"#,
                invalid,
                None,
                K::Notification,
            ),
            (br#"{"jsonrpc":"1.0","id":1,"result":{}}"#, invalid, one.clone(), K::Response),
            (br#"{"jsonrpc":"2.0","id":{},"result":{}}"#, invalid, None, K::Response),
            (br#"{"jsonrpc":"2.0","id":1,"error":"oops"}"#, invalid, one.clone(), K::Response),
            (deep.as_bytes(), invalid, one.clone(), K::Response),
        ] {
            let text = String::from_utf8_lossy(bytes);
            let malformed = decode::<RoleClient>(bytes, &()).expect_err(&text);
            assert_eq!(malformed.error.code, code, "{text}");
            assert_eq!((malformed.id.clone(), malformed.kind), (id, kind), "{text}");
            assert_eq!(malformed.is_response(), kind == K::Response, "{text}");
            assert!(malformed.error.message.len() < 120, "{malformed}");
        }
    }

    #[test]
    fn a_batch_is_told_so() {
        let malformed = decode::<RoleServer>(b"[{}]", &()).expect_err("a batch");
        assert_eq!(malformed.to_string(), "batching is not supported");
    }

    #[test]
    fn an_error_about_input_does_not_quote_it() {
        let secret = "s".repeat(500);
        for text in [
            format!(r#"{{"jsonrpc":"{secret}","id":1,"method":"{secret}"}}"#),
            secret.clone(),
            format!("\"{secret}"),
        ] {
            let malformed = decode::<RoleServer>(text.as_bytes(), &()).expect_err("malformed");
            assert!(!malformed.to_string().contains("sss"), "{malformed}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_a_final_newline_are_skipped() {
        let text = "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"acme/x\"}\n";
        let message = decode::<RoleServer>(text.as_bytes(), &()).expect("a custom request");
        let value = serde_json::to_value(message).expect("JSON");
        assert_eq!(value, json!({"jsonrpc": "2.0", "id": 7, "method": "acme/x", "params": null}));
    }
}
