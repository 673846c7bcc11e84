//! The tools of a server, called by their names.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{
    State,
    client::{ToolClient, ToolError},
    connect,
    event::{Event, Events},
    layer::correlation,
    server::{self, Server},
    transport::Config,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
        DiscoverRequestMethod, DiscoverResult, InitializeRequestParams, InitializeResult,
        InitializeResultMethod, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
        ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::common::{limit, ms, proxy::Proxy, reconnect_within};

/// A server whose tools come and go, and that counts what it is asked.
#[derive(Debug, Clone, Default)]
struct Catalog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tools: Mutex<BTreeSet<&'static str>>,
    lists: AtomicUsize,
    /// `true` if it does not answer `tools/list`.
    silent: AtomicBool,
    calls: watch::Sender<usize>,
    /// Metadata of calls besides that of rmcp.
    metas: Mutex<Vec<String>>,
    gate: Notify,
}

impl Default for Inner {
    fn default() -> Self {
        let tools = ["add", "broken", "grow", "say", "refused", "wait"].into();
        let (lists, gate) = (AtomicUsize::default(), Notify::default());
        let (silent, metas) = (AtomicBool::default(), Mutex::default());
        let (tools, calls) = (Mutex::new(tools), watch::Sender::new(0));
        Self { tools, lists, silent, calls, metas, gate }
    }
}

impl Catalog {
    async fn serve(&self) -> (Server, SocketAddr) {
        let catalog = self.clone();
        let server = mcp_ws_transport::serve("127.0.0.1:0", move || catalog.clone());
        let server = server.config(server::Config::default()).await.unwrap();
        let address = server.local_addr();
        (server, address)
    }

    fn put(&self, tool: &'static str) {
        self.0.tools.lock().unwrap().insert(tool);
    }

    fn lists(&self) -> usize {
        self.0.lists.load(SeqCst)
    }

    fn calls(&self) -> usize {
        *self.0.calls.borrow()
    }

    async fn called(&self, calls: usize) {
        self.0.calls.subscribe().wait_for(|count| *count >= calls).await.unwrap();
    }
}

impl ServerHandler for Catalog {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(tools.build())
    }

    /// One to a page.
    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor).unwrap_or_default();
        if cursor.is_empty() {
            self.0.lists.fetch_add(1, SeqCst);
        }
        if self.0.silent.load(SeqCst) {
            context.ct.cancelled().await;
        }
        let tools = self.0.tools.lock().unwrap();
        let mut rest = tools.iter().filter(|tool| **tool > cursor.as_str());
        let tool = rest.next().map(|tool| Tool::new(*tool, "", Arc::default()));
        let mut page = ListToolsResult::with_all_items(tool.into_iter().collect());
        if rest.next().is_some() {
            page.next_cursor = page.tools.last().map(|tool| tool.name.to_string());
        }
        Ok(page)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let own = context.meta.keys().filter(|key| key.contains("deadline")).cloned();
        self.0.metas.lock().unwrap().extend(own);
        self.0.calls.send_modify(|calls| *calls += 1);
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let text = match &*request.name {
            "add" => {
                let sum = arguments["a"].as_i64().unwrap() + arguments["b"].as_i64().unwrap();
                return Ok(CallToolResult::structured(json!({ "result": sum })).into());
            }
            "broken" => {
                let content = ["it is", "broken"].map(ContentBlock::text).to_vec();
                return Ok(CallToolResult::error(content).into());
            }
            "grow" => {
                self.put("grown");
                context.peer.notify_tool_list_changed().await.unwrap();
                "grown".to_owned()
            }
            "refused" => return Err(ErrorData::invalid_params("not like that", None)),
            "wait" => {
                self.0.gate.notified().await;
                "waited".to_owned()
            }
            "say" if arguments["text"].is_null() => {
                return Ok(CallToolResult::success(Vec::new()).into());
            }
            "say" => arguments["text"].as_str().unwrap().to_owned(),
            other => other.to_owned(),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

async fn toolbox(address: SocketAddr) -> ToolClient {
    ToolClient::connect(format!("ws://{address}/mcp")).await.unwrap()
}

fn names(tools: &[Tool]) -> Vec<&str> {
    tools.iter().map(|tool| &*tool.name).collect()
}

async fn until(events: &mut Events<Event>, expected: impl Fn(&Event) -> bool) {
    while !expected(&events.next().await.unwrap()) {}
}

#[tokio::test]
async fn many_calls_take_one_list() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let tools = toolbox(address).await;
        assert_eq!(catalog.lists(), 0);
        let sums = (0..50).map(async |a| {
            let sum: Value = tools.call("add", json!({ "a": a, "b": 1 })).await.unwrap();
            assert_eq!(sum, json!({ "result": a + 1 }));
        });
        join_all(sums).await;
        let listed = tools.tools().await.unwrap();
        assert_eq!(names(&listed), ["add", "broken", "grow", "refused", "say", "wait"]);
        assert_eq!((catalog.lists(), catalog.calls()), (1, 50));
    })
    .await;
}

#[tokio::test]
async fn what_a_tool_returns_becomes_what_is_asked_for() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Sum {
        result: i64,
    }
    limit(async {
        let (_server, address) = Catalog::default().serve().await;
        let tools = toolbox(address).await;
        let sum: Sum = tools.call("add", json!({ "a": 5, "b": 3 })).await.unwrap();
        assert_eq!(sum, Sum { result: 8 });
        let say = async |text: &str| tools.call::<Value>("say", json!({ "text": text })).await;
        assert_eq!(say("not JSON").await.unwrap(), "not JSON");
        assert_eq!(say("[1, 2]").await.unwrap(), json!([1, 2]));
        let text: String = tools.call("say", json!({ "text": "8" })).await.unwrap();
        assert_eq!(text, "8");
        let () = tools.call("say", ()).await.unwrap();
        let error = tools.call::<Sum>("say", json!({ "text": "8" })).await.unwrap_err();
        assert!(matches!(error, ToolError::Result { .. }), "{error:?}");
        let error = tools.call::<u64>("say", json!({ "text": "eight" })).await.unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with(r#"the tool returned "eight", which is not"#), "{said}");
        assert_eq!(error.text().as_deref(), Some("eight"));
        let error = tools.call::<u64>("add", json!({ "a": 5, "b": 3 })).await.unwrap_err();
        assert!(error.to_string().contains(r#"returned {"result":8}, which"#), "{error}");
        let long = "é".repeat(5000);
        let error = tools.call::<u64>("say", json!({ "text": long })).await.unwrap_err();
        assert!(error.to_string().len() < 600, "{error}");
        let result = tools.call_tool("say", json!({ "text": "x" })).await.unwrap();
        assert_eq!(result.content, [ContentBlock::text("x")]);
    })
    .await;
}

/// A text of a few MiB could be a hundred times as much as JSON.
#[tokio::test]
async fn a_text_that_is_too_much_as_json_stays_a_text() {
    limit(async {
        let (_server, address) = Catalog::default().serve().await;
        let tools = toolbox(address).await;
        let dense = format!("[{}0]", r#"{"":0},"#.repeat(200_000));
        let arguments = json!({ "text": dense });
        let read: Value = tools.call("say", &arguments).await.unwrap();
        assert!(read.is_string(), "it was decoded");
        let error = tools.call::<Vec<Value>>("say", &arguments).await.unwrap_err().to_string();
        assert!(error.contains("134217728"), "{error}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_has_changed_is_asked_for_again() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let tools = toolbox(address).await;
        tools.call::<String>("grow", ()).await.unwrap();
        assert_eq!(catalog.lists(), 1);
        // The notification came before the answer.
        for _ in 0..3 {
            assert!(names(&tools.tools().await.unwrap()).contains(&"grown"));
        }
        assert_eq!(catalog.lists(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_tool_is_looked_for_once_more_and_not_called() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let tools = toolbox(address).await;
        tools.tools().await.unwrap();
        let error = tools.call::<Value>("none", ()).await.unwrap_err();
        assert!(matches!(&error, ToolError::Unknown(name) if name == "none"), "{error:?}");
        assert_eq!((catalog.lists(), catalog.calls()), (2, 0));
        catalog.put("silent");
        assert_eq!(tools.call::<String>("silent", ()).await.unwrap(), "silent");
        assert_eq!((catalog.lists(), catalog.calls()), (3, 1));
        // Those who come while it is looked for need not know what it finds, but the next look will
        // do.
        let errors = join_all((0..20).map(|_| tools.call::<Value>("none", ()))).await;
        assert!(errors.iter().all(|error| matches!(error, Err(ToolError::Unknown(_)))));
        assert_eq!((catalog.lists(), catalog.calls()), (5, 1));
        // The first list is as good as another.
        let tools = toolbox(address).await;
        assert!(tools.call::<Value>("none", ()).await.is_err());
        assert_eq!(catalog.lists(), 6);
    })
    .await;
}

#[tokio::test]
async fn each_failure_has_a_name() {
    limit(async {
        let (_server, address) = Catalog::default().serve().await;
        let tools = toolbox(address).await;
        let error = tools.call::<Value>("broken", ()).await.unwrap_err();
        assert!(matches!(error, ToolError::Failed(_)), "{error:?}");
        assert_eq!(error.text().unwrap(), "it is\nbroken");
        assert_eq!(error.to_string(), "the tool has failed: it is\nbroken");
        let error = tools.call::<Value>("refused", ()).await.unwrap_err();
        let ToolError::Rpc(inner) = &error else { panic!("{error:?}") };
        assert_eq!((inner.code.0, &*inner.message), (-32602, "not like that"));
        assert_eq!(error.text(), None);
        let error = tools.call::<Value>("add", [1, 2]).await.unwrap_err();
        assert!(matches!(error, ToolError::Arguments(_)), "{error:?}");
        let error = ToolClient::connect(format!("ws://{address}/elsewhere")).await.unwrap_err();
        assert!(matches!(error, ToolError::Connect(_)), "{error:?}");
        let error = ToolClient::connect("http://example.com").await.unwrap_err();
        assert!(matches!(error, ToolError::Connect(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_list_outlives_the_connection_but_not_the_session() {
    limit(async {
        let (first, second) = (Catalog::default(), Catalog::default());
        second.put("other");
        let (_first_server, address) = first.serve().await;
        let proxy = Proxy::new(address).await;
        let connect = reconnect_within(ms(20), connect(proxy.url()));
        let mut events = connect.events();
        let tools = ToolClient::connect(connect).await.unwrap();
        tools.tools().await.unwrap();
        proxy.cut();
        until(&mut events, |event| matches!(event, Event::Resumed { .. })).await;
        assert_eq!(tools.call::<String>("say", json!({ "text": "a" })).await.unwrap(), "a");
        assert_eq!(first.lists(), 1);

        let (_second_server, address) = second.serve().await;
        *proxy.target.lock().unwrap() = address;
        proxy.cut();
        until(&mut events, |event| matches!(event, Event::Restarted { .. })).await;
        for _ in 0..3 {
            assert!(names(&tools.tools().await.unwrap()).contains(&"other"));
        }
        assert_eq!((first.lists(), second.lists()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_connection_is_lost_is_resumed_or_its_outcome_unknown() {
    for resume in [true, false] {
        limit(async {
            let catalog = Catalog::default();
            let (_server, address) = catalog.serve().await;
            let proxy = Proxy::new(address).await;
            let tools = reconnect_within(ms(20), connect(proxy.url())).resume(resume);
            let tools = ToolClient::connect(tools).await.unwrap();
            let call = tools.call::<String>("wait", ());
            let cut = async {
                catalog.called(1).await;
                proxy.cut();
                catalog.0.gate.notify_one();
            };
            match tokio::join!(call, cut).0 {
                Ok(text) => assert_eq!((resume, &*text), (true, "waited")),
                Err(error) => {
                    assert!(!resume && matches!(error, ToolError::OutcomeUnknown(_)), "{error:?}");
                }
            }
            assert_eq!(catalog.calls(), 1);
        })
        .await;
    }
}

#[tokio::test]
async fn a_call_that_never_left_says_so() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let proxy = Proxy::new(address).await;
        let deadline = Duration::from_millis(300);
        let layers =
            Config::default().correlation(correlation::Config::default().deadline(deadline));
        let connect = reconnect_within(ms(20), connect(proxy.url())).transport(layers);
        let tools = ToolClient::connect(connect).await.unwrap();
        tools.tools().await.unwrap();
        *proxy.target.lock().unwrap() = "127.0.0.1:1".parse().unwrap();
        proxy.cut();
        let mut state = tools.state();
        state.wait_for(|state| matches!(state, State::Reconnecting { .. })).await.unwrap();
        let error = tools.call::<Value>("say", ()).await.unwrap_err();
        assert!(matches!(error, ToolError::NotSent(_)), "{error:?}");
        // Nor did what needs a list that cannot be had.
        let error = tools.call::<Value>("none", ()).await.unwrap_err();
        assert!(matches!(error, ToolError::List(_)), "{error:?}");
        assert_eq!(catalog.calls(), 0);
    })
    .await;
}

#[tokio::test]
async fn closing_says_goodbye() {
    limit(async {
        let (server, address) = Catalog::default().serve().await;
        let mut events = server.registry().events();
        for dropped in [false, true] {
            let tools = toolbox(address).await;
            let mut state = tools.state();
            if dropped {
                drop(tools)
            } else {
                tools.close().await
            }
            state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap();
            let reason = loop {
                if let server::RegistryEvent::Disconnected { reason, .. } =
                    events.next().await.unwrap()
                {
                    break reason;
                }
            };
            assert_eq!(u16::from(reason.code), 1000, "{reason}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_list_that_cannot_be_had_fails_once_for_all_who_wait_for_it() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let deadline = Duration::from_secs(1);
        let config =
            Config::default().correlation(correlation::Config::default().deadline(deadline));
        let connect = connect(format!("ws://{address}/mcp")).transport(config);
        let tools = ToolClient::connect(connect).await.unwrap();
        catalog.0.silent.store(true, SeqCst);
        let calls = (0..20).map(|_| tools.call::<Value>("add", json!({ "a": 5, "b": 3 })));
        for failed in join_all(calls).await {
            assert!(matches!(failed, Err(ToolError::List(_))), "{failed:?}");
        }
        assert_eq!(catalog.lists(), 1);

        catalog.0.silent.store(false, SeqCst);
        tools.call::<Value>("add", json!({ "a": 5, "b": 3 })).await.unwrap();
        // Nor does who knows its tool wait for one who does not.
        catalog.0.silent.store(true, SeqCst);
        let (unknown, known) = tokio::join!(tools.call::<Value>("nope", ()), async {
            let sum = tools.call::<Value>("add", json!({ "a": 5, "b": 3 })).await;
            assert_eq!(catalog.lists(), 3, "it is still looked for");
            sum
        });
        assert!(matches!(unknown, Err(ToolError::List(_))), "{unknown:?}");
        known.unwrap();
    })
    .await;
}

/// A server of one era alone.
#[derive(Debug, Clone)]
struct OfEra {
    catalog: Catalog,
    modern: bool,
}

impl ServerHandler for OfEra {
    fn get_info(&self) -> ServerConfig {
        self.catalog.get_info()
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if self.modern {
            return Err(ErrorData::method_not_found::<InitializeResultMethod>());
        }
        self.catalog.initialize(request, context).await
    }

    async fn discover(
        &self,
        context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        if self.modern {
            return self.catalog.discover(context).await;
        }
        Err(ErrorData::method_not_found::<DiscoverRequestMethod>())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        self.catalog.list_tools(request, context).await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.catalog.call_tool(request, context).await
    }
}

#[tokio::test]
async fn servers_of_either_era_are_understood() {
    for modern in [true, false] {
        limit(async {
            let of_era = OfEra { catalog: Catalog::default(), modern };
            let server = mcp_ws_transport::serve("127.0.0.1:0", move || of_era.clone());
            let server = server.config(server::Config::default()).await.unwrap();
            let tools = toolbox(server.local_addr()).await;
            let sum: Value = tools.call("add", json!({ "a": 5, "b": 3 })).await.unwrap();
            assert_eq!(sum, json!({ "result": 8 }));
            let version = tools.peer().peer_info().unwrap().protocol_version.clone();
            assert_eq!(version == ProtocolVersion::V_2026_07_28, modern, "{version}");
        })
        .await;
    }
}

/// A call past its own deadline is over, the rest goes on, and nothing of that is on the wire.
#[tokio::test]
async fn a_call_may_have_a_deadline_of_its_own() {
    limit(async {
        let catalog = Catalog::default();
        let (_server, address) = catalog.serve().await;
        let tools = toolbox(address).await;
        let patient = tools.call::<String>("wait", ());
        let quick = async {
            catalog.called(1).await;
            let deadline = Duration::from_millis(200);
            let error = tools.call_within::<String>(deadline, "wait", ()).await.unwrap_err();
            assert!(matches!(error, ToolError::OutcomeUnknown(_)), "{error:?}");
            assert!(error.to_string().contains("no response within 200ms"), "{error}");
            let day = Duration::from_secs(86_400);
            let said: Value = tools.call_within(day, "say", json!({ "text": "1" })).await.unwrap();
            assert_eq!(said, 1);
            // The other may be waiting still, or have taken it.
            catalog.0.gate.notify_waiters();
        };
        let (patient, ()) = tokio::join!(patient, quick);
        assert_eq!(patient.unwrap(), "waited");
        assert_eq!(catalog.0.metas.lock().unwrap().concat(), "");
        // Nor is the list waited for for longer.
        catalog.0.silent.store(true, SeqCst);
        let error = tools.call_within::<Value>(Duration::from_millis(200), "none", ()).await;
        assert!(matches!(error, Err(ToolError::NotSent(_))), "{error:?}");
    })
    .await;
}

/// A deadline of which a tool of the server does not know.
#[tokio::test]
async fn the_deadline_of_all_calls_is_one_call_away() {
    limit(async {
        let (_server, address) = Catalog::default().serve().await;
        let deadline = Duration::from_millis(200);
        // Whatever the settings are that come later.
        let connect = connect(format!("ws://{address}/mcp")).deadline(deadline);
        let tools = ToolClient::connect(connect.transport(Config::default())).await.unwrap();
        let error = tools.call::<String>("wait", ()).await.unwrap_err();
        assert!(matches!(error, ToolError::OutcomeUnknown(_)), "{error:?}");
        assert_eq!(tools.call::<String>("say", json!({ "text": "x" })).await.unwrap(), "x");
    })
    .await;
}

/// A server whose list has 20 pages, which take 20 MB of memory each.
#[derive(Debug, Clone, Default)]
struct Long(Arc<AtomicUsize>);

impl ServerHandler for Long {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let number = self.0.fetch_add(1, SeqCst);
        let dense = json!({ "dense": vec![json!({ "": 0 }); 24_000] });
        let Value::Object(schema) = dense else { unreachable!() };
        let tool = Tool::new(format!("tool-{number}"), "", Arc::new(schema));
        let mut page = ListToolsResult::with_all_items(vec![tool]);
        page.next_cursor = (number < 19).then(|| number.to_string());
        Ok(page)
    }
}

#[tokio::test]
async fn a_list_takes_no_more_memory_than_a_message_may() {
    limit(async {
        let long = Long::default();
        let of = long.clone();
        let server = mcp_ws_transport::serve("127.0.0.1:0", move || of.clone()).await.unwrap();
        let url = format!("ws://{}/mcp", server.local_addr());
        let tools = ToolClient::connect(url.as_str()).await.unwrap();
        let listed = tools.tools().await.unwrap();
        let asked = long.0.load(SeqCst);
        // 128 MiB, and the page that is too much.
        assert_eq!((listed.len(), asked), (6, 7));
        assert!(listed.iter().any(|tool| tool.name == "tool-5"));
    })
    .await;
}
