//! The members of SEP-1288 that name the session: `mcpSessionId` in the result of `initialize`, and in
//! the params of what the client sends from then on.

use std::any::Any;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, ServerResult},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::Deserialize;

use crate::{
    decode::{
        json::{Raw, Reader, without_bom},
        method::Method,
    },
    framing::{decode_error::DecodeError, session_id::SessionIdCell},
    role::McpRole,
};

const MEMBER: &str = "mcpSessionId";

/// What the framing of one connection knows of the session. A clone is for another connection.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) session: SessionIdCell,
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Fields {
    /// Puts the name of the session into the `json` of `message`, where it belongs there.
    pub(super) fn write<R: McpRole>(&self, message: &TxJsonRpcMessage<R>, json: &mut Vec<u8>) {
        let write = match message {
            JsonRpcMessage::Request(request)
                if R::IS_CLIENT && R::method_of(&request.request) != Method::Initialize =>
            {
                write_params
            }
            JsonRpcMessage::Notification(_) if R::IS_CLIENT => write_params,
            JsonRpcMessage::Response(response) if initializes(&response.result) => write_result,
            _ => return,
        };
        if let Some(id) = self.session.get()
            && let Ok(id) = serde_json::to_string(&*id)
        {
            write(json, &id);
        }
    }

    /// The `json` of a request or notification of ours that was for a former session.
    pub(super) fn rename(&self, mut json: Vec<u8>) -> Vec<u8> {
        remove_name(&mut json);
        if let Some(id) = self.session.get()
            && let Ok(id) = serde_json::to_string(&*id)
        {
            write_params(&mut json, &id);
        }
        json
    }

    /// Looks for the name in the `json` of `message`, which the peer has sent. What becomes of the
    /// message.
    pub(super) fn read<R: McpRole>(
        &self,
        message: RxJsonRpcMessage<R>,
        json: &[u8],
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        match message {
            JsonRpcMessage::Response(response) if R::IS_CLIENT => {
                if R::initialize_result(&response.result).is_some() {
                    let answer = parse::<Answer>(json);
                    self.session.set(answer.and_then(|answer| answer.result.id));
                }
                Ok(Some(JsonRpcMessage::Response(response)))
            }
            JsonRpcMessage::Request(request) if !R::IS_CLIENT && self.is_wrong(json) => {
                let error = ErrorData::invalid_params("Invalid mcpSessionId", None);
                Err(DecodeError::Request { id: Some(request.id), error })
            }
            JsonRpcMessage::Notification(_) if !R::IS_CLIENT && self.is_wrong(json) => {
                tracing::debug!("notification dropped: it is for another session");
                Ok(None)
            }
            message => Ok(Some(message)),
        }
    }

    /// Whether the message names a session that is not this one.
    fn is_wrong(&self, json: &[u8]) -> bool {
        // Who names none is spared the rest.
        if !str::from_utf8(json).is_ok_and(|json| json.contains(MEMBER)) {
            return false;
        }
        let Some(id) = self.session.get() else { return false };
        match parse::<Call>(json) {
            Some(Call { params: Some(Named { id: Some(named) }) }) => *named != *id,
            Some(_) => false,
            None => true,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Named,
}

#[derive(Deserialize)]
struct Call {
    params: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "mcpSessionId")]
    id: Option<String>,
}

/// The params of a message of ours, also where they are `null`; `None` if it is no object.
fn params(json: &[u8]) -> Option<Option<Raw<'_>>> {
    let mut params = None;
    let text = str::from_utf8(json).ok()?;
    let is_closed = Reader::new(text).object(|name, value| {
        if name == "params" {
            params = value;
        }
    });
    is_closed.then_some(params)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    serde_json::from_slice(without_bom(json)).ok()
}

fn initializes(result: &dyn Any) -> bool {
    matches!(result.downcast_ref(), Some(ServerResult::InitializeResult(_)))
}

/// Puts the `id` behind the other members of the result of `initialize`, of which there are some.
fn write_result(json: &mut Vec<u8>, id: &str) {
    if json.ends_with(b"}}") {
        json.truncate(json.len() - 2);
        json.extend_from_slice(format!(",\"{MEMBER}\":{id}}}}}").as_bytes());
    }
}

/// Puts the `id` first among the params, which may be missing, unless they have one or are a list.
fn write_params(json: &mut Vec<u8>, id: &str) {
    let Some(params) = params(json) else { return };
    let Some(params) = params else {
        json.pop();
        json.extend_from_slice(format!(",\"params\":{{\"{MEMBER}\":{id}}}}}").as_bytes());
        return;
    };
    let start = params.get().as_ptr() as usize - json.as_ptr() as usize;
    if params.get() == "null" {
        json.splice(start..start + 4, format!("{{\"{MEMBER}\":{id}}}").into_bytes());
        return;
    }
    let Some(members) = params.get().strip_prefix('{') else { return };
    if params.get().contains(MEMBER)
        && serde_json::from_str(params.get()).map_or(true, |named: Named| named.id.is_some())
    {
        return;
    }
    let comma = if members.trim_start() == "}" { "" } else { "," };
    json.splice(start + 1..start + 1, format!("\"{MEMBER}\":{id}{comma}").into_bytes());
}

/// Takes out again what [`write_params`] has put there.
fn remove_name(json: &mut Vec<u8>) {
    let Some(Some(params)) = params(json) else { return };
    let Some(value) = params.get().strip_prefix(&format!("{{\"{MEMBER}\":")) else { return };
    let mut reader = Reader::new(value);
    if reader.value().is_none() {
        return;
    }
    let rest = &value[reader.position()..];
    let rest = rest.strip_prefix(',').unwrap_or(rest);
    let base = json.as_ptr() as usize;
    let (start, end) = (params.get().as_ptr() as usize + 1 - base, rest.as_ptr() as usize - base);
    json.drain(start..end);
}

#[cfg(test)]
mod tests {
    use rmcp::{
        RoleClient, RoleServer,
        model::{
            CallToolRequest, CallToolRequestParams, ClientNotification, ClientRequest,
            CustomRequest, InitializeRequest, InitializeRequestParams, InitializedNotification,
            ListToolsRequest, PingRequest, RequestId, ServerConfig,
        },
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        decode::PendingMethods,
        framing::{Framing, JsonRpc},
        message::Message,
    };

    struct Initializes;

    impl PendingMethods for Initializes {
        fn method(&self, _: &RequestId) -> Option<Method> {
            Some(Method::Initialize)
        }
    }

    fn client() -> JsonRpc {
        client_of("a\"b")
    }

    /// A client whose server names the session so.
    fn client_of(name: &str) -> JsonRpc {
        let mut client = JsonRpc::default().session_fields();
        let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "mcpSessionId": name,
            "serverInfo": {"name": "peer", "version": "1"},
        }});
        let decoded = decode::<RoleClient>(&mut client, &answer, &Initializes).unwrap();
        assert!(matches!(decoded, Some(JsonRpcMessage::Response(_))));
        client
    }

    fn server() -> JsonRpc {
        let server = JsonRpc::default().session_fields();
        Framing::<RoleServer>::session_id(&server).unwrap().set(Some("a".to_owned()));
        server
    }

    fn decode<R: McpRole>(
        framing: &mut JsonRpc,
        message: &Value,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        <JsonRpc as Framing<R>>::decode(framing, Message::text(message.to_string()), calls)
    }

    fn encode<R: McpRole>(framing: &mut JsonRpc, message: &TxJsonRpcMessage<R>) -> Value {
        let Some(Message::Text(text)) = Framing::<R>::encode(framing, message).unwrap() else {
            panic!("it is text");
        };
        serde_json::from_slice(text.as_bytes()).unwrap()
    }

    fn request(request: impl Into<ClientRequest>) -> TxJsonRpcMessage<RoleClient> {
        JsonRpcMessage::request(request.into(), RequestId::Number(1))
    }

    fn initialize() -> TxJsonRpcMessage<RoleClient> {
        request(InitializeRequest::new(InitializeRequestParams::default()))
    }

    fn initialize_result() -> TxJsonRpcMessage<RoleServer> {
        let result = ServerResult::InitializeResult(ServerConfig::default());
        JsonRpcMessage::response(result, RequestId::Number(0))
    }

    #[test]
    fn a_client_names_the_session_in_all_that_follows_initialize() {
        let mut client = client();
        let arguments = json!({"mcp": "{}"}).as_object().unwrap().clone();
        let add = CallToolRequest::new(CallToolRequestParams::new("add").with_arguments(arguments));
        let custom = |params| ClientRequest::CustomRequest(CustomRequest::new("x", params));
        let initialized = ClientNotification::from(InitializedNotification::default());
        let other = JsonRpc::default().session_fields();
        Framing::<RoleClient>::session_id(&other).unwrap().set(Some("other".to_owned()));
        for (message, rest) in [
            (request(add), json!({"name": "add", "arguments": {"mcp": "{}"}})),
            (request(PingRequest::default()), json!({})),
            (request(ListToolsRequest::default()), json!({})),
            (request(custom(None)), json!({})),
            (request(custom(Some(json!({})))), json!({})),
            (request(custom(Some(json!({"a": "mcpSessionId"})))), json!({"a": "mcpSessionId"})),
            (JsonRpcMessage::notification(initialized), json!({})),
        ] {
            let plain = encode::<RoleClient>(&mut JsonRpc::default(), &message);
            let mut named = encode::<RoleClient>(&mut client, &message);
            let json = Framing::<RoleClient>::encode(&mut client, &message).unwrap().unwrap();
            let Message::Text(again) = Framing::<RoleClient>::reencode(&other, json) else {
                panic!()
            };
            let again: Value = serde_json::from_slice(again.as_bytes()).unwrap();
            assert_eq!(again["params"]["mcpSessionId"], "other", "{again}");
            let params = named["params"].as_object_mut().unwrap();
            assert_eq!(params.remove("mcpSessionId"), Some(json!("a\"b")), "{plain}");
            assert_eq!(Value::from(params.clone()), rest);
            assert_eq!((&named["method"], &named["id"]), (&plain["method"], &plain["id"]));
        }
        let own = json!({"mcpSessionId": "own"});
        let message = request(custom(Some(own.clone())));
        assert_eq!(encode::<RoleClient>(&mut client, &message)["params"], own);
        let plain = encode::<RoleClient>(&mut JsonRpc::default(), &initialize());
        assert_eq!(encode::<RoleClient>(&mut client, &initialize()), plain);
    }

    #[test]
    fn a_client_repeats_no_name_that_is_too_long() {
        for (length, is_said) in [(1024, true), (1025, false), (1 << 20, false)] {
            let mut client = client_of(&"x".repeat(length));
            let sent = encode::<RoleClient>(&mut client, &request(PingRequest::default()));
            assert_eq!(sent.to_string().len() > length, is_said, "{length}");
        }
    }

    #[test]
    fn a_server_that_names_none_is_told_none() {
        let mut client = client();
        let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "serverInfo": {"name": "peer", "version": "1"},
        }});
        decode::<RoleClient>(&mut client, &answer, &Initializes).unwrap();
        let ping = request(PingRequest::default());
        assert_eq!(encode::<RoleClient>(&mut client, &ping).get("params"), None);
    }

    #[test]
    fn a_server_names_the_session_when_it_is_initialized() {
        let plain = encode::<RoleServer>(&mut JsonRpc::default(), &initialize_result());
        let mut named = encode::<RoleServer>(&mut server(), &initialize_result());
        let result = named["result"].as_object_mut().unwrap();
        assert_eq!(result.remove("mcpSessionId"), Some(json!("a")));
        assert_eq!(named, plain);
        let other = JsonRpcMessage::response(ServerResult::empty(()), RequestId::Number(0));
        assert_eq!(encode::<RoleServer>(&mut server(), &other)["result"], json!({}));
        // Where the connection has no session with a name, none is told.
        let mut nameless = JsonRpc::default().session_fields();
        assert_eq!(encode::<RoleServer>(&mut nameless, &initialize_result()), plain);
    }

    #[test]
    fn a_server_refuses_what_is_for_another_session() {
        let ping =
            |params: Value| json!({"jsonrpc": "2.0", "id": 7, "method": "ping", "params": params});
        for params in [
            json!({}),
            json!({"mcpSessionId": "a"}),
            json!({"mcpSessionId": null}),
            json!({"_meta": {"mcpSessionId": "b"}}),
        ] {
            let decoded = decode::<RoleServer>(&mut server(), &ping(params.clone()), &());
            assert!(matches!(decoded, Ok(Some(JsonRpcMessage::Request(_)))), "{params}");
        }
        for params in [json!({"mcpSessionId": "b"}), json!({"mcpSessionId": 7})] {
            let refused = decode::<RoleServer>(&mut server(), &ping(params.clone()), &());
            let Err(DecodeError::Request { id, error }) = refused else { panic!("{params}") };
            assert_eq!((id, error.code.0), (Some(RequestId::Number(7)), -32602));
            assert_eq!(error.message, "Invalid mcpSessionId");
            // Nobody who has not asked for it is concerned.
            let mut plain = JsonRpc::default();
            assert!(matches!(decode::<RoleServer>(&mut plain, &ping(params), &()), Ok(Some(_))));
        }
        let initialized = |id| {
            let method = "notifications/initialized";
            json!({"jsonrpc": "2.0", "method": method, "params": {"mcpSessionId": id}})
        };
        let decoded = decode::<RoleServer>(&mut server(), &initialized("a"), &()).unwrap();
        let Some(JsonRpcMessage::Notification(told)) = decoded else { panic!("it is for us") };
        assert!(RoleServer::is_initialized_by_peer(&told.notification));
        assert!(decode::<RoleServer>(&mut server(), &initialized("b"), &()).unwrap().is_none());
    }

    #[test]
    fn a_clone_is_for_another_session() {
        let mut other = client().clone();
        let ping = request(PingRequest::default());
        assert_eq!(encode::<RoleClient>(&mut other, &ping).get("params"), None);
    }
}
