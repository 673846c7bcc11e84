//! The MCP service: seven tools that calculate with IEEE 754 doubles.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mcp_ws_transport::server::Identity;
use rmcp::{
    ErrorData, Json, Peer, RoleServer, ServerHandler, ServiceError,
    handler::server::{router::tool::ToolRouter, tool::ToolCallContext, wrapper::Parameters},
    model::{
        CallToolRequestParams, CallToolResponse, ProgressNotificationParam, RequestMetaObject,
        ToolAnnotations,
    },
    schemars::{self, JsonSchema},
    service::RequestContext,
    tool, tool_handler, tool_router,
};
use serde::{Deserialize, Serialize, Serializer};

/// Most progress reports that one call of `sum` sends.
const MAX_REPORTS: usize = 100;

/// The identity of those who have none, for whom there are only the [four basic operations](BASIC).
pub(crate) const ANONYMOUS: &str = "anonymous";

const BASIC: [&str; 4] = ["add", "subtract", "multiply", "divide"];

/// A finite number
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
struct Number(f64);

/// Writes `8` rather than `8.0`.
impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let integer = self.0 as i64;
        if integer as f64 == self.0 && integer != i64::MAX {
            serializer.serialize_i64(integer)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Pair {
    a: Number,
    b: Number,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Single {
    a: Number,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct List {
    numbers: Vec<Number>,
}

/// A tool's result, beside the arguments it was computed from.
#[derive(Debug, Serialize, JsonSchema)]
struct Answer<A> {
    result: Number,
    operation: &'static str,
    #[serde(flatten)]
    arguments: A,
}

fn answer<A>(
    operation: &'static str,
    result: f64,
    arguments: A,
) -> Result<Json<Answer<A>>, String> {
    if result.is_finite() {
        Ok(Json(Answer { result: Number(result), operation, arguments }))
    } else {
        Err("the result is not a finite number".into())
    }
}

/// The service of one connection; its clones share the count of calls.
#[derive(Debug, Clone)]
pub(crate) struct Math {
    tools: Arc<ToolRouter<Self>>,
    calls: Arc<AtomicU64>,
}

#[tool_router]
impl Math {
    pub(crate) fn new() -> Self {
        let hints = ToolAnnotations::new().read_only(true).idempotent(true).open_world(false);
        let mut tools = Self::tool_router();
        for route in tools.map.values_mut() {
            route.attr.annotations = Some(hints.clone());
        }
        Self { tools: Arc::new(tools), calls: Arc::default() }
    }

    /// Returns the number of tool calls that were executed, on all connections together.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// a + b
    #[tool(title = "Add")]
    fn add(Parameters(pair): Parameters<Pair>) -> Result<Json<Answer<Pair>>, String> {
        answer("add", pair.a.0 + pair.b.0, pair)
    }

    /// a - b
    #[tool(title = "Subtract")]
    fn subtract(Parameters(pair): Parameters<Pair>) -> Result<Json<Answer<Pair>>, String> {
        answer("subtract", pair.a.0 - pair.b.0, pair)
    }

    /// a × b
    #[tool(title = "Multiply")]
    fn multiply(Parameters(pair): Parameters<Pair>) -> Result<Json<Answer<Pair>>, String> {
        answer("multiply", pair.a.0 * pair.b.0, pair)
    }

    /// a ÷ b; dividing by zero is an error
    #[tool(title = "Divide")]
    fn divide(Parameters(pair): Parameters<Pair>) -> Result<Json<Answer<Pair>>, String> {
        if pair.b.0 == 0.0 {
            return Err("division by zero".into());
        }
        answer("divide", pair.a.0 / pair.b.0, pair)
    }

    /// a to the power of b
    #[tool(title = "Power")]
    fn power(Parameters(pair): Parameters<Pair>) -> Result<Json<Answer<Pair>>, String> {
        answer("power", pair.a.0.powf(pair.b.0), pair)
    }

    /// The square root of a; a negative a is an error
    #[tool(title = "Square root")]
    fn sqrt(Parameters(single): Parameters<Single>) -> Result<Json<Answer<Single>>, String> {
        if single.a.0 < 0.0 {
            return Err("square root of a negative number".into());
        }
        answer("sqrt", single.a.0.sqrt(), single)
    }

    /// The sum of all numbers; reports its progress
    #[tool(title = "Sum")]
    async fn sum(
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
        Parameters(list): Parameters<List>,
    ) -> Result<Json<Answer<List>>, String> {
        let total = list.numbers.len();
        let (mut done, mut sum) = (0, 0.0);
        loop {
            let step = total.div_ceil(MAX_REPORTS).min(total - done);
            sum += list.numbers[done..done + step].iter().map(|number| number.0).sum::<f64>();
            done += step;
            report(&client, &meta, done, total).await.map_err(|error| error.to_string())?;
            if done == total {
                return answer("sum", sum, list);
            }
        }
    }
}

/// Tells the client how far its request is, if it asked for that by a progress token.
async fn report(
    client: &Peer<RoleServer>,
    meta: &RequestMetaObject,
    done: usize,
    total: usize,
) -> Result<(), ServiceError> {
    let Some(token) = meta.get_progress_token() else { return Ok(()) };
    let progress = ProgressNotificationParam::new(token, done as f64).with_total(total as f64);
    client.notify_progress(progress).await
}

#[tool_handler(router = self.tools, name = "math")]
impl ServerHandler for Math {
    /// Runs a tool and counts it.
    ///
    /// It goes past [`ToolRouter::call`], which would answer arguments of the wrong shape with a
    /// tool error: here they are the JSON-RPC error "invalid params".
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(route) = self.tools.map.get(&request.name) else {
            return Err(ErrorData::invalid_params("tool not found", None));
        };
        let identity = context.extensions.get::<Identity>();
        let is_anonymous = identity.is_some_and(|identity| identity.subject() == ANONYMOUS);
        if is_anonymous && !BASIC.contains(&&*request.name) {
            return Err(ErrorData::invalid_request("not for anonymous clients", None));
        }
        let response = (route.call)(ToolCallContext::new(self, request, context)).await?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(response)
    }
}
