//! [`agree`]: the decoder compared with rmcp's own serde.

use mcp_ws_transport::{
    McpRole,
    decode::{Method, PendingMethods, decode},
};
use rmcp::{model::RequestId, service::RxJsonRpcMessage};
use serde_json::Value;

/// Methods of a call that an answer may be for.
pub(crate) const METHODS: &[Option<Method>] = &[
    None,
    Some(Method::CallTool),
    Some(Method::Complete),
    Some(Method::CreateMessage),
    Some(Method::Discover),
    Some(Method::Elicit),
    Some(Method::GetPrompt),
    Some(Method::Initialize),
    Some(Method::ListPrompts),
    Some(Method::ListResources),
    Some(Method::ListResourceTemplates),
    Some(Method::ListTools),
    Some(Method::Other),
    Some(Method::Ping),
    Some(Method::ReadResource),
];

/// Every id in flight stands for a call of this method.
pub(crate) struct AnyId(pub(crate) Option<Method>);

impl PendingMethods for AnyId {
    fn method(&self, _: &RequestId) -> Option<Method> {
        self.0
    }
}

/// Panics unless the decoder makes of the bytes what rmcp does; says whether that is a message.
pub(crate) fn agree<R: McpRole>(bytes: &[u8], method: Option<Method>) -> bool {
    let plain = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let theirs = serde_json::from_slice::<RxJsonRpcMessage<R>>(plain);
    let ours = decode::<R>(bytes, &AnyId(method));
    let (ours, theirs) = match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(_), Err(_)) => return false,
        // What rmcp makes of it depends on the features of serde_json.
        (Err(_), Ok(_)) if plain.windows(8).any(|name| name == b"$serde_j") => return false,
        (ours, theirs) => {
            let text = String::from_utf8_lossy(bytes);
            panic!("{text}\nafter {method:?}\nours: {ours:?}\nrmcp: {theirs:?}");
        }
    };
    let text = || String::from_utf8_lossy(bytes);
    assert_eq!(debug(&ours), debug(&theirs), "{} after {method:?}", text());
    assert_eq!(value(&ours), value(&theirs), "{} after {method:?}", text());
    true
}

/// Prints a message without the order, which a `HashMap` inside leaves to chance.
fn debug(message: &impl std::fmt::Debug) -> String {
    let text = format!("{message:?}");
    if !text.contains("CompletionContext") {
        return text;
    }
    let mut chars: Vec<char> = text.chars().collect();
    chars.sort_unstable();
    chars.into_iter().collect()
}

fn value(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap()
}
