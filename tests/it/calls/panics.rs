//! A handler that panics ends its own request, and nothing else: in a client and in a server,
//! whichever side dialled.

use std::{sync::Arc, time::Duration};

use mcp_ws_transport::{
    CatchPanic,
    client::{Connect, ToolClient},
    connect,
    layer::correlation::TIMED_OUT,
    serve,
};
use rmcp::{
    ClientHandler, ErrorData, Peer, RoleClient, RoleServer, ServerHandler, ServiceError,
    ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ClientConfig,
        ClientResult, ContentBlock, ElicitRequest, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationSchema, ErrorCode, Implementation, ServerCapabilities,
        ServerConfig, ServerRequest,
    },
    service::RequestContext,
};
use tokio::sync::Notify;

use super::{Dials, connect_ends};
use crate::common::{limit, logs::Log};

/// A client whose user answers when the `gate` opens, unless the question makes the handler panic,
/// `holding` its context or not.
#[derive(Clone, Default)]
struct User {
    asked: Arc<Notify>,
    gate: Arc<Notify>,
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(capabilities, Implementation::new("user", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            panic!("{request:?}");
        };
        let _holds = message.ends_with("-holding").then_some(context);
        match message.trim_end_matches("-holding") {
            "panic" => panic!("a s3cr3t"),
            "panic-later" => {
                tokio::task::yield_now().await;
                std::panic::panic_any(7)
            }
            _ => {
                self.asked.notify_one();
                self.gate.notified().await;
                Ok(ElicitResult::new(ElicitationAction::Decline))
            }
        }
    }
}

/// A server that asks the user what the name of the called tool says, and then answers, or panics
/// itself: `fail`. After `forget` it never answers.
#[derive(Clone)]
struct Asking;

impl ServerHandler for Asking {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if call.name == "panic-itself" {
            panic!("a s3cr3t");
        }
        let peer = context.peer.clone();
        // As rmcp's macros do.
        drop(context);
        let text = match &*call.name {
            "fail" => panic!("a s3cr3t"),
            "forget" => {
                ask(&peer, "panic").await.unwrap_err();
                std::future::pending().await
            }
            question => match ask(&peer, question).await {
                Ok(result) => format!("{:?}", result.action),
                Err(ServiceError::McpError(error)) => {
                    format!("{} {}", error.code.0, error.message)
                }
                Err(other) => panic!("{other:?}"),
            },
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn ask(user: &Peer<RoleServer>, question: &str) -> Result<ElicitResult, ServiceError> {
    let requested_schema = ElicitationSchema::builder().build().unwrap();
    let message = question.to_owned();
    let params =
        ElicitRequestParams::FormElicitationParams { meta: None, message, requested_schema };
    match user.send_request(ServerRequest::ElicitRequest(ElicitRequest::new(params))).await? {
        ClientResult::ElicitResult(result) => Ok(result),
        other => panic!("{other:?}"),
    }
}

async fn call(server: &Peer<RoleClient>, tool: &'static str) -> Result<String, ErrorData> {
    match server.call_tool(CallToolRequestParams::new(tool)).await {
        Ok(result) => Ok(result.content[0].as_text().unwrap().text.clone()),
        Err(ServiceError::McpError(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

fn is_a_panic(error: &ErrorData) -> bool {
    error.code == ErrorCode::INTERNAL_ERROR && error.message == "the handler panicked"
}

#[tokio::test]
async fn a_clients_handler_that_panics_answers_the_server_and_its_other_handlers_go_on() {
    for dials in [Dials::Client, Dials::Server] {
        limit(async {
            let (log, _capture) = Log::capture();
            let (near, far) = connect_ends(dials).await;
            let server = tokio::spawn(async move { Asking.serve(far).await.unwrap() });
            let user = User::default();
            let client = CatchPanic::new(user.clone()).serve(near).await.unwrap();
            let peer = client.peer().clone();
            let neighbour = tokio::spawn(async move { call(&peer, "what?").await });
            user.asked.notified().await;
            for question in ["panic", "panic-later"] {
                let told = call(&client, question).await.unwrap();
                assert_eq!(told, "-32603 the handler panicked");
            }
            user.gate.notify_one();
            assert_eq!(neighbour.await.unwrap().unwrap(), "Decline");
            assert!(log.text().contains("ERROR"), "{}", log.text());
            client.cancel().await.unwrap();
            server.await.unwrap().waiting().await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_servers_handler_that_panics_answers_the_client_and_its_other_handlers_go_on() {
    for dials in [Dials::Client, Dials::Server] {
        limit(async {
            let (near, far) = connect_ends(dials).await;
            let server =
                tokio::spawn(async move { CatchPanic::new(Asking).serve(far).await.unwrap() });
            let user = User::default();
            let client = user.clone().serve(near).await.unwrap();
            let peer = client.peer().clone();
            let neighbour = tokio::spawn(async move { call(&peer, "what?").await });
            user.asked.notified().await;
            let error = call(&client, "fail").await.unwrap_err();
            assert!(is_a_panic(&error), "{error:?}");
            user.gate.notify_one();
            assert_eq!(neighbour.await.unwrap().unwrap(), "Decline");
            client.cancel().await.unwrap();
            server.await.unwrap().waiting().await.unwrap();
        })
        .await;
    }
}

/// rmcp answers nothing then, and the transport does after a second.
#[tokio::test]
async fn without_catch_panic_a_request_is_answered_a_little_later() {
    for dials in [Dials::Client, Dials::Server] {
        limit(async {
            let (near, far) = connect_ends(dials).await;
            let server = tokio::spawn(async move { Asking.serve(far).await.unwrap() });
            let client = User::default().serve(near).await.unwrap();
            for question in ["panic-holding", "panic-later-holding"] {
                let told = call(&client, question).await.unwrap();
                assert_eq!(told, "-32603 the handler panicked");
            }
            let error = call(&client, "panic-itself").await.unwrap_err();
            assert!(is_a_panic(&error), "{error:?}");
            client.cancel().await.unwrap();
            server.await.unwrap().waiting().await.unwrap();
        })
        .await;
    }
}

/// Deadlines are suspended while the server waits for the handler, and only then.
#[tokio::test]
async fn deadlines_of_a_client_go_on_after_a_handler_has_panicked() {
    limit(async {
        let server = serve("127.0.0.1:0", || Asking).await.unwrap();
        let url = format!("ws://{}/mcp", server.local_addr());
        let transport = connect(url).deadline(Duration::from_millis(200)).await.unwrap();
        let client = CatchPanic::new(User::default()).serve(transport).await.unwrap();
        let error = call(&client, "forget").await.unwrap_err();
        assert_eq!(error.code, TIMED_OUT);
    })
    .await;
}

#[tokio::test]
async fn a_handler_of_a_toolbox_that_panics_answers_the_server() {
    limit(async {
        let server = serve("127.0.0.1:0", || Asking).await.unwrap();
        let url = format!("ws://{}/mcp", server.local_addr());
        let transport = Connect::from(url.as_str()).await.unwrap();
        let lifecycle = rmcp::ClientLifecycleMode::Initialize;
        let tools =
            ToolClient::with_lifecycle(User::default(), transport, lifecycle).await.unwrap();
        let told = call(tools.peer(), "panic").await.unwrap();
        assert_eq!(told, "-32603 the handler panicked");
        tools.close().await;
    })
    .await;
}
