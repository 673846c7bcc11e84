//! What `math serve` answers besides `/mcp`: the page, agents, the other forms of messages, and health.

use std::{convert::Infallible, io, net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use mcp_ws_transport::{
    CloseCode, CloseReason,
    framing::{Envelope, ToolCall},
    layer::{heartbeat, socket},
    server::{
        AuthError, Config, Credentials, Drain, GuardLayer, Identity, Limits, Token,
        WebSocketService,
    },
    transport,
};
use rmcp::{
    RoleClient, RoleServer, ServiceError,
    model::{CallToolRequestParams, JsonObject},
    service::serve_directly,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_service::Service;

use crate::{
    agents::{Agent, Agents},
    page,
    service::{ANONYMOUS, Math},
};

/// The largest body of a request.
const MAX_BODY: usize = 1 << 20;

/// Most time that a request may take.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Services with paths of their own.
#[derive(Clone)]
pub(crate) struct Web {
    math: Math,
    agents: Agents,
    /// Guards of what is for those who have a token, and of what is for everybody.
    guard: GuardLayer,
    pages: GuardLayer,
    /// Envelopes, at `/agent/{agentId}/websocket`.
    agent: WebSocketService,
    /// JSON-RPC for clients that authenticate within the connection, at `/ws`.
    standalone: WebSocketService,
    /// Calls of tools after a first message, at `/mcp-ws`.
    guide: WebSocketService,
}

impl Web {
    /// `config` is that of `/mcp`.
    pub(crate) fn new(
        math: &Math,
        config: &Config,
        limits: Limits,
        socket: socket::Config,
        tokens: Vec<String>,
    ) -> io::Result<Self> {
        let agents = Agents::default();
        let guard = {
            let known: Arc<[String]> = tokens.clone().into();
            config
                .clone()
                .authenticator(move |credentials| authenticate(known.clone(), credentials))
                .guard()?
        };
        let pages = guard.clone().without_authenticator();
        let agent = {
            let agent = Agent::connected(math.clone());
            let config = config.clone().framing(Envelope::default()).sessions(None);
            WebSocketService::new(move || Ok(agent.clone()), config)?
        };
        let standalone = {
            let layers = transport::Config::default()
                .socket(socket.max_message_size(10 << 20))
                .heartbeat(heartbeat::Config::default().ping_interval(Duration::from_secs(30)));
            let reason = CloseReason::new(CloseCode::Normal, "Server shutting down");
            let config = config
                .clone()
                .transport(layers)
                .in_band_authentication()
                .limits(limits.reject_after_upgrade(true))
                .drain(Drain::default().reason(reason));
            let math = math.clone();
            WebSocketService::new(move || Ok(math.clone()), config)?
        };
        let guide = {
            let known: Arc<[String]> = tokens.into();
            let config = config
                .clone()
                .framing(ToolCall::default())
                .authenticator(move |credentials| authenticate_in_band(known.clone(), credentials))
                .in_band_authentication()
                .request_timeout(Duration::from_secs(30))
                .sessions(None);
            let math = math.clone();
            WebSocketService::new(move || Ok(math.clone()), config)?
        };
        Ok(Self { math: math.clone(), agents, guard, pages, agent, standalone, guide })
    }

    /// Returns what is at `/mcp` besides WebSockets.
    pub(crate) fn beside(self) -> Router {
        let guard = self.guard.clone();
        Router::new().route("/mcp", post(ask).layer(guard)).with_state(self)
    }

    pub(crate) fn router(self) -> Router {
        let (guard, pages) = (self.guard.clone(), self.pages.clone());
        page::router()
            .layer(pages)
            .route("/health", get(health).layer(guard.clone()))
            .route("/agent", post(create).layer(guard.clone()))
            .route("/agent/{id}/websocket", any(upgrade).layer(guard))
            .route_service("/ws", self.standalone.clone())
            .route_service("/mcp-ws", self.guide.clone())
            .with_state(self)
    }

    /// Resolves when all its connections have ended, once they were told to.
    pub(crate) async fn closed(self) {
        tokio::join!(self.agent.closed(), self.standalone.closed(), self.guide.closed());
    }
}

/// The body of a request, if that is JSON.
async fn body<T: for<'a> Deserialize<'a>>(request: Request) -> Result<T, Failure> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Else any web page could send it without being asked first.
    let is_json = kind.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if !is_json {
        let what = "content-type is not application/json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, -32600, what));
    }
    let body = timeout(MAX_TIME, to_bytes(request.into_body(), MAX_BODY)).await;
    let body = body.map_err(|_| {
        Failure::new(StatusCode::REQUEST_TIMEOUT, -32600, "the body takes too long")
    })?;
    let body = body.map_err(|_| {
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, -32600, "the body is too large")
    })?;
    // A list would be taken for the members of a struct, one after the other.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Failure::new(StatusCode::BAD_REQUEST, -32600, "not an object"));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() { -32600 } else { -32700 };
        Failure::new(StatusCode::BAD_REQUEST, code, &error.to_string())
    })
}

/// Lets in who has one of the tokens, where there are any. The claim is the address that they come
/// from, of one of IPv6 the part that a provider hands out.
async fn authenticate(
    tokens: Arc<[String]>,
    credentials: Credentials,
) -> Result<Identity, AuthError> {
    let is_known = |token: &Token| tokens.iter().any(|known| token.is(known));
    if !tokens.is_empty() && !credentials.token.as_ref().is_some_and(is_known) {
        return Err(AuthError::Unauthorized);
    }
    let identity = Identity::new("client");
    Ok(match credentials.peer.map(|peer| peer.ip().to_canonical()) {
        Some(IpAddr::V6(address)) => {
            identity.with_claims(IpAddr::from((address.to_bits() >> 64 << 64).to_be_bytes()))
        }
        Some(address) => identity.with_claims(address),
        None => identity,
    })
}

/// Lets in who authenticates by a first message: an anonymous client may do less.
async fn authenticate_in_band(
    tokens: Arc<[String]>,
    credentials: Credentials,
) -> Result<Identity, AuthError> {
    let token = credentials.token.ok_or(AuthError::Unauthorized)?;
    if token.is(ANONYMOUS) {
        return Ok(Identity::new(ANONYMOUS));
    }
    // Without a list every client is accepted.
    if tokens.is_empty() || tokens.iter().any(|known| token.is(known)) {
        return Ok(Identity::new("client"));
    }
    Err(AuthError::Unauthorized)
}

fn json(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// An error of JSON-RPC as an answer of HTTP.
struct Failure(StatusCode, Value);

impl Failure {
    fn new(status: StatusCode, code: i32, message: &str) -> Self {
        Self(status, json!({ "error": { "code": code, "message": message } }))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        json(self.0, &self.1)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::McpError(error) => {
                Self(StatusCode::BAD_REQUEST, json!({ "error": error }))
            }
            other => Self::new(StatusCode::INTERNAL_SERVER_ERROR, -32603, &other.to_string()),
        }
    }
}

/// `GET /health`: the figures of the server, and how many tool calls were executed.
async fn health(State(web): State<Web>) -> Response {
    let mut health = json!(web.agent.registry().health());
    health["tool_calls"] = json!(web.math.calls());
    json(StatusCode::OK, &health)
}

/// `POST /agent`: an agent for whoever asks.
async fn create(State(web): State<Web>, request: Request) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct New {
        #[serde(rename = "name")]
        _name: Option<String>,
    }
    let identity = request.extensions().get::<Identity>();
    let from = identity.and_then(Identity::claims).copied();
    body::<New>(request).await?;
    Ok(json(StatusCode::OK, &json!({ "agentId": web.agents.create(from) })))
}

/// `/agent/{agentId}/websocket`.
async fn upgrade(
    State(mut web): State<Web>,
    Path(id): Path<String>,
    mut request: Request,
) -> Response {
    let Some(history) = web.agents.find(&id) else {
        return (StatusCode::NOT_FOUND, "no such agent").into_response();
    };
    request.extensions_mut().insert(history);
    let Ok::<_, Infallible>(response) = web.agent.call(request).await;
    response.map(Body::new)
}

/// `POST /mcp`: a request for an agent, as in an envelope, and its result.
async fn ask(State(web): State<Web>, request: Request) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct Asked {
        #[serde(rename = "agentId")]
        agent: String,
        request: Call,
    }
    #[derive(Deserialize)]
    struct Call {
        method: String,
        params: Option<JsonObject>,
    }
    let Asked { agent, request } = body::<Asked>(request).await?;
    let history = web.agents.find(&agent);
    let history =
        history.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, -32602, "no such agent"))?;

    let (near, far) = tokio::io::duplex(64 << 10);
    let agent = Agent::new(web.math, history);
    let _server = serve_directly::<RoleServer, _, _, _, _>(agent, far, None);
    let client = serve_directly::<RoleClient, _, _, _, _>((), near, None);
    let Call { method, params } = request;
    let params = params.unwrap_or_default();
    let result = match &*method {
        "tools/list" => json!(client.list_tools(None).await?),
        "tools/call" => {
            let params = serde_json::from_value::<CallToolRequestParams>(params.into());
            let params = params.map_err(|error| {
                Failure::new(StatusCode::BAD_REQUEST, -32602, &error.to_string())
            })?;
            json!(client.call_tool(params).await?)
        }
        other if other.contains('/') => {
            return Err(Failure::new(StatusCode::BAD_REQUEST, -32601, &method));
        }
        _ => {
            let params = CallToolRequestParams::new(method).with_arguments(params);
            let result = client.call_tool(params).await?;
            match result.structured_content {
                Some(content) => content,
                None => {
                    let text = result.content.first().and_then(|block| block.as_text());
                    let text = text.map_or("the tool failed", |text| &text.text);
                    return Err(Failure::new(StatusCode::BAD_REQUEST, -32000, text));
                }
            }
        }
    };
    Ok(json(StatusCode::OK, &result))
}
