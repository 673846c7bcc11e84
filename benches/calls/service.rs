//! The rmcp service and the rmcp client that every contender runs.

use std::{
    sync::{
        LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use rmcp::{
    ClientHandler, ErrorData, Json, Peer, RoleClient, RoleServer, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{
        CallToolRequestParams, CallToolResult, ProgressNotificationParam, ProgressToken,
        RequestMetaObject,
    },
    service::{NotificationContext, RunningService},
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{OnceCell, Semaphore};

use crate::common::Result;

/// Reports that a relay passes on in one call.
const REPORTS: u64 = 100;

/// Text of large messages: 2 MB.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    "All that a tool has to say, line by line, is text like this.\n".repeat(1 << 15)
});

type Connect = Box<dyn Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync>;

static CONNECT: OnceLock<Connect> = OnceLock::new();
static UPSTREAM: OnceCell<Client> = OnceCell::const_new();

/// Sets how the relay connects to what it relays to: this process itself, over the same transport.
pub(crate) fn relay_to(
    connect: impl Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync + 'static,
) {
    let _ = CONNECT.set(Box::new(connect));
}

/// Returns the one connection of the relay.
async fn upstream() -> Result<&'static Client> {
    let connect = CONNECT.get().ok_or("nobody to relay to")?;
    UPSTREAM.get_or_try_init(connect).await
}

#[derive(Debug, Clone)]
pub(crate) struct Adder {
    tool_router: ToolRouter<Self>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Summands {
    a: i64,
    b: i64,
    /// Number of progress reports before the answer.
    #[serde(default)]
    reports: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sum {
    sum: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Text {
    text: String,
    /// Bytes of text in the answer.
    answer: usize,
}

#[tool_router]
impl Adder {
    pub(crate) fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b, .. }): Parameters<Summands>) -> Json<Sum> {
        Json(Sum { sum: a + b })
    }

    #[tool(description = "Takes text, and answers with text")]
    async fn text(&self, Parameters(Text { text, answer }): Parameters<Text>) -> String {
        drop(text);
        TEXT[..answer].to_owned()
    }

    #[tool(description = "Adds two numbers and reports progress before it answers")]
    async fn add_slowly(
        &self,
        Parameters(Summands { a, b, reports }): Parameters<Summands>,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<Json<Sum>, ErrorData> {
        let token = token(&meta)?;
        for report in 1..=reports {
            let report = ProgressNotificationParam::new(token.clone(), report as f64);
            client.notify_progress(report).await.map_err(internal)?;
        }
        Ok(Json(Sum { sum: a + b }))
    }

    #[tool(description = "Lets another server add two numbers, and passes its progress on")]
    async fn relay(
        &self,
        Parameters(Summands { a, reports, .. }): Parameters<Summands>,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let onward = (client, token(&meta)?);
        let upstream = upstream().await.map_err(internal)?;
        upstream.service().pass_on(Some(onward));
        let arguments = arguments([("a", a.into()), ("b", 1.into()), ("reports", reports.into())]);
        let request = CallToolRequestParams::new("add_slowly").with_arguments(arguments);
        let result = upstream.call_tool(request).await.map_err(internal)?;
        // rmcp has a task for each report; the result is to be the last.
        let reports = u32::try_from(reports).map_err(internal)?;
        upstream.service().passed_on.acquire_many(reports).await.map_err(internal)?.forget();
        Ok(result)
    }
}

fn token(meta: &RequestMetaObject) -> Result<ProgressToken, ErrorData> {
    meta.get_progress_token().ok_or_else(|| ErrorData::invalid_params("no progress token", None))
}

fn internal(error: impl ToString) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Adder {}

/// Counts the progress reports, or passes them on.
#[derive(Debug)]
pub(crate) struct Handler {
    reports: AtomicU64,
    onward: Mutex<Option<(Peer<RoleServer>, ProgressToken)>>,
    /// A permit for each report that was passed on.
    passed_on: Semaphore,
}

impl Default for Handler {
    fn default() -> Self {
        let (reports, onward) = (AtomicU64::default(), Mutex::default());
        Self { reports, onward, passed_on: Semaphore::new(0) }
    }
}

impl Handler {
    fn pass_on(&self, onward: Option<(Peer<RoleServer>, ProgressToken)>) {
        *self.onward.lock().unwrap_or_else(PoisonError::into_inner) = onward;
    }
}

impl ClientHandler for Handler {
    async fn on_progress(
        &self,
        mut report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.reports.fetch_add(1, Relaxed);
        let onward = self.onward.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((client, token)) = onward {
            report.progress_token = token;
            let _ = client.notify_progress(report).await;
            self.passed_on.add_permits(1);
        }
    }
}

pub(crate) type Client = RunningService<RoleClient, Handler>;

/// The tool that is called, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Add,
    Text { sent: usize, answered: usize },
    Report,
    Relay,
}

impl Tool {
    /// Returns the number of progress reports in a call.
    pub(crate) fn reports(self) -> usize {
        match self {
            Self::Report => 1,
            Self::Relay => REPORTS as usize,
            Self::Add | Self::Text { .. } => 0,
        }
    }

    /// The call number `n`.
    pub(crate) fn request(self, n: u64) -> CallToolRequestParams {
        let (name, more) = match self {
            Self::Text { sent, answered } => {
                let text = TEXT[..sent].into();
                let arguments = arguments([("text", text), ("answer", answered.into())]);
                return CallToolRequestParams::new("text").with_arguments(arguments);
            }
            Self::Add => ("add", None),
            Self::Report => ("add_slowly", Some(("reports", 1.into()))),
            Self::Relay => ("relay", Some(("reports", REPORTS.into()))),
        };
        let summands = [("a", n.into()), ("b", 1.into())];
        let arguments = arguments(summands.into_iter().chain(more));
        CallToolRequestParams::new(name).with_arguments(arguments)
    }

    /// The result of call number `n`.
    pub(crate) fn result(self, n: u64) -> CallToolResult {
        match self {
            Self::Text { answered, .. } => {
                CallToolResult::success(vec![rmcp::model::ContentBlock::text(&TEXT[..answered])])
            }
            _ => CallToolResult::structured(json!({ "sum": n + 1 })),
        }
    }

    fn accepts(self, n: u64, result: &CallToolResult) -> bool {
        match self {
            Self::Text { answered, .. } => {
                let text = result.content.first().and_then(|content| content.as_text());
                text.is_some_and(|content| content.text.len() == answered)
            }
            _ => result.structured_content == Some(json!({ "sum": n + 1 })),
        }
    }
}

fn arguments<'a>(arguments: impl IntoIterator<Item = (&'a str, Value)>) -> Map<String, Value> {
    arguments.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// One call, whose result is looked at.
pub(crate) async fn call(client: &Client, tool: Tool, n: u64) -> Result<()> {
    let result = client.call_tool(tool.request(n)).await?;
    if !tool.accepts(n, &result) {
        return Err(format!("{tool:?} answered {result:?}").into());
    }
    Ok(())
}

/// Fails unless there were `expected` progress reports.
pub(crate) async fn check_reports(client: &Client, expected: u64) -> Result<()> {
    let reports = || client.service().reports.load(Relaxed);
    for _ in 0..100 {
        if reports() == expected {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{} progress reports, not {expected}", reports()).into())
}
