//! The tools of a server, called by their names.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt, ErrorData, Peer, RoleClient, Service, ServiceError,
    model::{
        CallToolRequestParams, CallToolResult, ClientRequest, JsonRpcMessage,
        PaginatedRequestParams, ProtocolVersion, RequestMetaObject, ServerNotification, Tool,
    },
    service::{RunningService, RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use serde::{
    Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, watch},
    task::unconstrained,
    time::timeout,
};

use super::{
    connect::Connect,
    tool_error::{ToolError, text_of},
};
use crate::{
    catch_panic::CatchPanic,
    decode::{
        json::parse,
        size::{count_decoded_size, estimate_decoded_size},
    },
    error::Error,
    event::{Event, Events, State},
    layer::{
        codec::{DEFAULT_DECODED_SIZE_OF_CLIENT, too_large},
        correlation::deadlines::Deadline,
    },
    rpc_code::TIMED_OUT,
    transport::WebSocketTransport,
};

/// Key in `_meta` of a call that holds its deadline for the transport, which takes it out.
const DEADLINE: &str = "mcp-ws-transport/deadline";

/// Most pages of a list that are requested.
const MAX_PAGES: usize = 1000;

/// The most memory that the pages of a list may take together: as much as each of them, in bytes.
const MAX_LIST: usize = DEFAULT_DECODED_SIZE_OF_CLIENT;

/// The tools of a server, called by their names with anything that serialises.
///
/// Asks the server for the list of its tools when that is needed first, and keeps it, also from
/// one connection to the next: however many users there are, one of them asks. It asks again
///
/// - after `notifications/tools/list_changed`;
/// - after [`Event::Restarted`], since that server may be another;
/// - for a name that is not on the list, since the tool may have been added.
///
/// While it asks for a name that is not on the list, calls of those that are go on. Where it cannot
/// be had, all who wait for it are told; set a [deadline](Connect::deadline) for servers that do
/// not answer.
///
/// A list has 1,000 pages at most, and takes 128 MiB of memory at most: what is beyond is not
/// known, and logged at WARN.
///
/// Both lifecycles of MCP are supported: `server/discover` is sent first, and a server that does
/// not know it gets `initialize`, as does one that has not answered after 10 s. A server that is
/// slow to start and has no `initialize` needs [`with_lifecycle`](Self::with_lifecycle).
///
/// Share it as an `Arc`. The connection is closed with it.
///
/// ```no_run
/// use mcp_ws_transport::client::{ToolError, ToolClient};
/// use serde_json::{Value, json};
///
/// # async fn example() -> Result<(), ToolError> {
/// let tools = ToolClient::connect("wss://example.com/mcp").await?;
/// let sum: Value = tools.call("add", json!({ "a": 5, "b": 3 })).await?;
/// println!("{sum}");
/// # Ok(()) }
/// ```
pub struct ToolClient<S: Service<RoleClient> = ()> {
    service: RunningService<RoleClient, CatchPanic<S>>,
    state: watch::Receiver<State>,
    known: std::sync::Mutex<Known>,
    /// Locked while the server is asked, so that one user asks for all.
    asking: Mutex<()>,
    /// Number of times that the server has said that its tools have changed.
    changes: Arc<AtomicU64>,
    /// Number of times that the list was requested.
    asked: AtomicU64,
    /// Number of those requests that have ended.
    ended: AtomicU64,
}

/// The tools of the server, as far as known.
struct Known {
    tools: Arc<[Tool]>,
    /// Number of changes after which they were listed.
    since: Option<u64>,
    /// Failure of the last request.
    failure: Option<Arc<ServiceError>>,
    events: Option<Events<Event>>,
}

impl ToolClient {
    /// Dials a URL or a [`Connect`], and starts MCP.
    ///
    /// # Errors
    /// [`ToolError::Connect`], [`ToolError::Initialize`].
    pub async fn connect(to: impl Into<Connect<RoleClient>>) -> Result<Self, ToolError> {
        Self::over((), to.into().await?).await
    }
}

impl<S: Service<RoleClient>> ToolClient<S> {
    /// Creates a client of tools on a `transport`, dialled or accepted. `service` handles the
    /// server's requests and notifications; a request whose handler panics is answered with an
    /// error, as by [`CatchPanic`].
    ///
    /// # Errors
    /// [`ToolError::Initialize`].
    pub async fn over(
        service: S,
        transport: WebSocketTransport<RoleClient>,
    ) -> Result<Self, ToolError> {
        let preferred_versions = vec![ProtocolVersion::LATEST];
        let auto = ClientLifecycleMode::Auto { preferred_versions, legacy_version: None };
        Self::with_lifecycle(service, transport, auto).await
    }

    /// Creates a client of tools with an explicit `lifecycle`. Some servers drop clients that do
    /// not begin with `initialize`.
    ///
    /// # Errors
    /// [`ToolError::Initialize`].
    pub async fn with_lifecycle(
        service: S,
        transport: WebSocketTransport<RoleClient>,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, ToolError> {
        let (state, events) = (transport.state(), transport.events());
        let changes = Arc::<AtomicU64>::default();
        let watched = Watched { transport, changes: changes.clone() };
        let service = CatchPanic::new(service).serve_with_lifecycle(watched, lifecycle).await;
        let service = service.map_err(Box::new)?;
        let known = Known { tools: Arc::default(), since: None, failure: None, events };
        let (known, asking) = (std::sync::Mutex::new(known), Mutex::default());
        Ok(Self {
            service,
            state,
            known,
            asking,
            changes,
            asked: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        })
    }

    /// Calls the tool of this name. `arguments` are an object, or nothing: `()`.
    ///
    /// Returns its structured content, else its text: read as JSON where it is some,
    /// else as the string that it is. JSON that would take more than 128 MiB once it is decoded
    /// stays a string.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        name: impl Into<String>,
        arguments: impl Serialize,
    ) -> Result<T, ToolError> {
        read(self.call_tool(name, arguments).await?)
    }

    /// Calls the tool of this name like [`call`](Self::call), and gives it up after `deadline`. The
    /// deadline starts anew with each progress report. The list of tools must arrive within that
    /// time too.
    ///
    /// # Errors
    /// [`ToolError`]; past the deadline [`NotSent`](ToolError::NotSent) or
    /// [`OutcomeUnknown`](ToolError::OutcomeUnknown).
    pub async fn call_within<T: DeserializeOwned>(
        &self,
        deadline: Duration,
        name: impl Into<String>,
        arguments: impl Serialize,
    ) -> Result<T, ToolError> {
        read(self.call_tool_within(deadline, name, arguments).await?)
    }

    /// Calls the tool of this name, and returns its whole result.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn call_tool(
        &self,
        name: impl Into<String>,
        arguments: impl Serialize,
    ) -> Result<CallToolResult, ToolError> {
        let call = self.prepare(name.into(), arguments, None).await?;
        self.run(call).await
    }

    /// Calls the tool of this name like [`call_within`](Self::call_within), and returns its whole
    /// result.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn call_tool_within(
        &self,
        deadline: Duration,
        name: impl Into<String>,
        arguments: impl Serialize,
    ) -> Result<CallToolResult, ToolError> {
        let call = self.prepare(name.into(), arguments, Some(deadline));
        match timeout(deadline, call).await {
            Ok(call) => self.run(call?).await,
            Err(_) => {
                let data = json!({ "reason": "timed_out", "outcome": "not_sent" });
                let what = format!("no list of tools within {deadline:?}");
                Err(ToolError::NotSent(ErrorData::new(TIMED_OUT, what, Some(data))))
            }
        }
    }

    /// Builds the call of a tool, once the list of tools is known to have it.
    async fn prepare(
        &self,
        name: String,
        arguments: impl Serialize,
        deadline: Option<Duration>,
    ) -> Result<CallToolRequestParams, ToolError> {
        let arguments = match serde_json::to_value(arguments).map_err(ToolError::Arguments)? {
            Value::Null => None,
            value => Some(serde_json::from_value(value).map_err(ToolError::Arguments)?),
        };
        let asked = self.asked.load(SeqCst);
        let knows = |tools: Arc<[Tool]>| tools.iter().any(|tool| tool.name == name);
        if !knows(self.look(None).await?) && !knows(self.look(Some(asked)).await?) {
            return Err(ToolError::Unknown(name));
        }
        let mut call = CallToolRequestParams::new(name);
        call.arguments = arguments;
        if let Some(deadline) = deadline {
            let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            let meta = call.meta.get_or_insert_with(RequestMetaObject::default);
            meta.insert(DEADLINE.into(), millis.into());
        }
        Ok(call)
    }

    async fn run(&self, call: CallToolRequestParams) -> Result<CallToolResult, ToolError> {
        let result = self.service.call_tool(call).await?;
        match result.is_error {
            Some(true) => Err(ToolError::Failed(Box::new(result))),
            _ => Ok(result),
        }
    }

    /// Returns the tools of the server, from the list that is kept.
    ///
    /// # Errors
    /// [`ToolError::List`].
    pub async fn tools(&self) -> Result<Arc<[Tool]>, ToolError> {
        self.look(None).await
    }

    /// Returns the list, but not the one that was kept when the server had been `asked` so often.
    async fn look(&self, asked: Option<u64>) -> Result<Arc<[Tool]>, ToolError> {
        let ended = self.ended.load(SeqCst);
        if let Some(tools) = self.kept(asked) {
            return Ok(tools);
        }
        let _asking = self.asking.lock().await;
        if let Some(tools) = self.kept(asked) {
            return Ok(tools);
        }
        // A caller that waited for a failed request shares its failure.
        if self.ended.load(SeqCst) > ended
            && let Some(failure) = self.known().failure.clone()
        {
            return Err(ToolError::List(failure));
        }
        let changes = self.changes.load(SeqCst);
        self.asked.fetch_add(1, SeqCst);
        // rmcp may have cached the list too, where the server has said for how long.
        self.service.clear_response_cache().await;
        let tools = self.list().await;
        self.ended.fetch_add(1, SeqCst);
        let mut known = self.known();
        match tools {
            Ok(tools) => {
                (known.tools, known.since) = (tools.into(), Some(changes));
                known.failure = None;
                Ok(known.tools.clone())
            }
            Err(error) => {
                let failure = known.failure.insert(Arc::new(error));
                Err(ToolError::List(failure.clone()))
            }
        }
    }

    /// Returns the tools that are known and still hold.
    fn kept(&self, asked: Option<u64>) -> Option<Arc<[Tool]>> {
        let mut known = self.known();
        if drain_restarts(&mut known.events) {
            known.since = None;
        }
        let is_fresh = known.since == Some(self.changes.load(SeqCst));
        let is_refused = asked == Some(self.asked.load(SeqCst));
        (is_fresh && !is_refused).then(|| known.tools.clone())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches all pages of the list, if it comes to an end.
    async fn list(&self) -> Result<Vec<Tool>, ServiceError> {
        let (mut tools, mut cursor, mut size) = (Vec::new(), None, 0);
        for number in 1..=MAX_PAGES {
            let page = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.service.list_tools(Some(page)).await?;
            size += size_of_tools(&page.tools);
            if size > MAX_LIST {
                tracing::warn!(
                    "the list of tools takes more than {MAX_LIST} bytes of memory; the pages before \
                     the {number}. are taken for it"
                );
                return Ok(tools);
            }
            tools.extend(page.tools);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        tracing::warn!(
            "the list of tools has no end; the first {MAX_PAGES} pages are taken for it"
        );
        Ok(tools)
    }

    /// Returns the server, for all other requests of rmcp.
    pub fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// Returns the service that handles the server's requests and notifications.
    pub fn service(&self) -> &S {
        self.service.service().get_ref()
    }

    /// Returns a receiver of the connection's state, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Closes the connection with the closing handshake, and waits for its end. Dropping the client
    /// closes it too, and does not wait.
    pub async fn close(self) {
        // Fails if rmcp's task has panicked, and has ended too.
        let _ = self.service.cancel().await;
    }
}

impl<S: Service<RoleClient>> fmt::Debug for ToolClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolClient").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

/// Counts the changes of the list as they arrive. The service is told of them in a task of its own,
/// perhaps after what came later, and rmcp's cache would keep everything else for as long as the
/// list.
struct Watched {
    transport: WebSocketTransport<RoleClient>,
    changes: Arc<AtomicU64>,
}

impl Transport<RoleClient> for Watched {
    type Error = Error;

    fn name() -> Cow<'static, str> {
        WebSocketTransport::<RoleClient>::name()
    }

    fn send(
        &mut self,
        mut item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        take_deadline(&mut item);
        self.transport.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.transport.receive().await?;
        if let JsonRpcMessage::Notification(message) = &message
            && let ServerNotification::ToolListChangedNotification(_) = message.notification
        {
            self.changes.fetch_add(1, SeqCst);
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.transport.close().await
    }
}

/// Estimates how much memory `tools` take.
fn size_of_tools(tools: &[Tool]) -> usize {
    let json = serde_json::to_vec(tools).unwrap_or_default();
    size_of_val(tools) + count_decoded_size(&json)
}

/// Moves the deadline of a call from its `_meta` to its extensions, which are not sent.
fn take_deadline(item: &mut TxJsonRpcMessage<RoleClient>) {
    if let JsonRpcMessage::Request(request) = item
        && let ClientRequest::CallToolRequest(call) = &mut request.request
        && let Some(meta) = &mut call.params.meta
        && let Some(millis) = meta.remove(DEADLINE)
    {
        if meta.is_empty() {
            call.params.meta = None;
        }
        let deadline = Duration::from_millis(millis.as_u64().unwrap_or(u64::MAX));
        call.extensions.insert(Deadline(deadline));
    }
}

/// Reads all events that there are. Returns `true` if the server may be another than before them.
fn drain_restarts(events: &mut Option<Events<Event>>) -> bool {
    let mut elsewhere = false;
    while let Some(stream) = events {
        // Unconstrained: a task that has used up its budget would be told that there is nothing.
        match unconstrained(stream.next()).now_or_never() {
            Some(Some(Event::Restarted { .. } | Event::Lagged(_))) => elsewhere = true,
            Some(Some(_)) => {}
            Some(None) => *events = None,
            None => break,
        }
    }
    elsewhere
}

/// Deserialises a tool's result into the type asked for.
fn read<T: DeserializeOwned>(result: CallToolResult) -> Result<T, ToolError> {
    let read = match (&result.structured_content, text_of(&result)) {
        (Some(value), _) => T::deserialize(value),
        (None, None) => T::deserialize(Value::Null),
        (None, Some(text)) => {
            decode(&text).or_else(|error| T::deserialize(Value::String(text)).map_err(|_| error))
        }
    };
    read.map_err(|error| ToolError::Result { error, result: Box::new(result) })
}

/// Decodes a text that is JSON, within the bound that a message has by default.
fn decode<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let limit = DEFAULT_DECODED_SIZE_OF_CLIENT;
    let size = estimate_decoded_size(text.as_bytes(), limit).usual;
    match too_large(size, limit) {
        Some(error) => Err(serde_json::Error::custom(error.message)),
        None => parse(text),
    }
}
