//! Typed decoding of JSON-RPC messages, in one pass.
//!
//! rmcp's own `Deserialize` buffers each message and tries the variants of nested untagged enums
//! one after the other. Here a request is dispatched on the name of its method, and a response on
//! the method of the request that it answers, which the [`PendingMethods`] in flight know.
//!
//! rmcp remains the authority: whatever is unusual goes to its own `Deserialize`, and what is
//! decoded here is what rmcp would have made of it, value for value.

mod content;
pub(crate) mod json;
pub(crate) mod malformed;
pub(crate) mod message;
pub(crate) mod method;
mod notification;
mod of_role;
pub(crate) mod peer;
mod request;
mod result;
pub(crate) mod size;
mod strict;
pub(crate) mod typed;

use rmcp::{ErrorData, model::RequestId};

pub use self::of_role::decode;
pub use self::{
    malformed::{Malformed, MalformedKind},
    method::Method,
};

/// The calls in flight, lent to the decoder for one message.
///
/// `()` knows of none: responses are then told apart by their members.
pub trait PendingMethods {
    /// Returns the method of the request that was sent with this id and awaits its response.
    fn method(&self, id: &RequestId) -> Option<Method>;

    /// Returns the error for a message that only rmcp's own `Deserialize` can judge. `None`, the
    /// default, lets that judge it, which takes twice the memory.
    fn refuses_buffering(&self) -> Option<ErrorData> {
        None
    }
}

/// The calls in flight, for a message that is too large to be buffered.
pub(crate) struct Unbuffered<'a> {
    pub(crate) calls: &'a dyn PendingMethods,
    pub(crate) error: ErrorData,
}

impl PendingMethods for Unbuffered<'_> {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.calls.method(id)
    }

    fn refuses_buffering(&self) -> Option<ErrorData> {
        Some(self.error.clone())
    }
}

impl PendingMethods for () {
    fn method(&self, _: &RequestId) -> Option<Method> {
        None
    }
}

#[cfg(test)]
mod tests {
    use rmcp::{RoleClient, RoleServer, model::ErrorCode};
    use serde_json::json;

    use super::{peer::Peer, *};

    struct Call(Method);

    impl PendingMethods for Call {
        fn method(&self, id: &RequestId) -> Option<Method> {
            (*id == RequestId::Number(7)).then_some(self.0)
        }
    }

    fn is_usual<R: Peer>(text: &str, calls: &dyn PendingMethods) -> bool {
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
            (&b"{"[..], parse, None, K::Fragment),
            (b"", parse, None, K::NotJson),
            (br#"{"jsonrpc":"2.0","id":1,"method":"ping"}}"#, parse, one.clone(), K::Request),
            (
                br#"{"jsonrpc":"2.0","id":1,"method":"x","params":NaN}"#,
                parse,
                one.clone(),
                K::Request,
            ),
            (br#"{"jsonrpc":"2.0","method":"x","params":NaN}"#, parse, None, K::Notification),
            (br#"{"jsonrpc":"2.0","method":"x","params":{"#, parse, None, K::NotJson),
            (br#"{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}"#, parse, one.clone(), K::Response),
            (br#"{"jsonrpc":"2.0","result":{"a":NaN},"id":1}"#, parse, one.clone(), K::Response),
            (
                b"{\"jsonrpc\":\"2.0\",\"result\":\"a\nb\",\"id\":1}",
                parse,
                one.clone(),
                K::Response,
            ),
            (
                br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type""#,
                parse,
                one.clone(),
                K::Response,
            ),
            (br#"{"jsonrpc":"2.0","id":1,"result":NaN,"id":2}"#, parse, None, K::Response),
            (br#"{"jsonrpc":"2.0","result":{"id":1,"a":NaN}}"#, parse, None, K::Response),
            (br#"{"jsonrpc":"2.0","result":"a"b","id":1}"#, parse, None, K::Response),
            (br#"{"jsonrpc":"2.0","id":1"#, parse, None, K::Fragment),
            (br#"{"jsonrpc":"2.0","id":1,"#, parse, one.clone(), K::Fragment),
            (br#"{"jso"#, parse, None, K::Fragment),
            (b"{\"id\":1,\"result\":\"\xff\"}", parse, one.clone(), K::Response),
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
    fn malformed_input_is_told_its_fault() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (rest, what) in [
            (&*format!(r#""id":1,"method":"x","params":{{"a":{deep}}}"#), "127 levels"),
            (r#""id":1,"method":"x","params":{"a":1e999}"#, "64-bit float"),
            (r#""id":1,"method":"x","params":{"a":"\ud800"}"#, "surrogate"),
            (r#""id":1,"method":"x","params":[]"#, "`params` is not an object"),
            (r#""id":1,"method":"x","params":{"_meta":7}"#, "`params._meta` is not an object"),
            (r#""id":9223372036854775808,"method":"x""#, "64 bits"),
            (r#""id":null,"method":"x""#, "`id` is null"),
            (r#""id":1.5,"method":"x""#, "neither a string nor an integer"),
            (r#""id":"\ud800","method":"x""#, "surrogate pair"),
            (r#""id":1,"id":1,"method":"x""#, "`id` appears twice"),
            (r#""id":1,"result":1,"result":2"#, "`result` appears twice"),
            (r#""id":1,"error":"boom""#, "`error` is not an object"),
            (r#""id":1,"error":{"code":1}"#, "no `message`"),
            (r#""id":1,"error":{"message":"m"}"#, "no `code`"),
            (r#""id":1,"error":{"code":1,"message":2}"#, "not a string"),
            (r#""id":1,"result":{"a":NaN}"#, "NaN is no JSON value"),
            (r#""id":1,"result":{"a":-Infinity}"#, "-Infinity is no JSON value"),
            (r#""id":1,"result":{"$serde_json::private::RawValue":"1"}"#, "reserved"),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0",{rest}}}"#);
            let told = decode::<RoleClient>(text.as_bytes(), &()).expect_err(&text).to_string();
            assert!(told.contains(what), "{text}: {told}");
        }
    }

    #[test]
    fn an_error_that_is_none_keeps_the_words_of_the_peer() {
        let text = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"reason":"asleep"}}"#;
        let malformed = decode::<RoleClient>(text.as_bytes(), &()).expect_err("no message");
        assert_eq!(malformed.error.code, ErrorCode(-32001));
        let data = json!({"error": {"code": -32001, "reason": "asleep"}});
        assert_eq!(malformed.error.data, Some(data));
    }

    #[test]
    fn the_answers_of_a_batch_are_told() {
        let ids = |ids: &[i64]| ids.iter().copied().map(RequestId::Number).collect::<Vec<_>>();
        for (text, expected, has_requests) in [
            (
                r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"id":2,"error":{}},{"id":3,"method":"x"}]"#,
                ids(&[1, 2]),
                true,
            ),
            (r#"[{"jsonrpc":"2.0","id":1,"result":NaN},{"id":2,"res"#, ids(&[1]), false),
            ("{\"id\":1,\"result\":{}}\n{\"id\":2,\"result\":{}}\n", ids(&[1, 2]), false),
            ("{\"id\":1,\"method\":\"x\"}\n{\"id\":2,\"result\":{}}\n", ids(&[2]), true),
            (r#"[{"id":1,"result":{}},{"method":"x"}]"#, ids(&[1]), false),
            (r#"[{"id":1,"method":"x"}]"#, ids(&[]), false),
        ] {
            let malformed = decode::<RoleClient>(text.as_bytes(), &()).expect_err(text);
            assert_eq!(
                (malformed.answers, malformed.has_requests),
                (expected, has_requests),
                "{text}"
            );
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
