//! Agents: each has a name, and remembers what was calculated for it, over whatever connection.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{SecondsFormat, Utc};
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ListToolsResult,
        PaginatedRequestParams, ServerConfig, Tool,
    },
    object,
    service::RequestContext,
};
use serde_json::{Value, json};

use crate::service::Math;

/// Bounds on the agents that are remembered, in all and made from one address. The oldest that are
/// not connected go first, of whichever address has most.
const MAX_AGENTS: usize = 10_000;
const MAX_OF_ADDRESS: usize = 1000;

/// Bounds on the operations of each agent, by number and bytes. The oldest go first.
const MAX_OPERATIONS: usize = 100;
const MAX_BYTES: usize = 16 << 10;

/// Largest operation that is remembered with its arguments, in bytes.
const MAX_OPERATION: usize = 512;

/// Calculations for one agent. Each connection of the agent has a clone.
pub(crate) type History = Arc<Mutex<Operations>>;

/// Operations as JSON texts, of which each takes the room of its characters, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    texts: VecDeque<Box<str>>,
    bytes: usize,
}

impl Operations {
    fn add(&mut self, operation: &Value) {
        let text = operation.to_string().into_boxed_str();
        self.bytes += text.len();
        self.texts.push_back(text);
        while self.texts.len() > MAX_OPERATIONS || self.bytes > MAX_BYTES {
            let oldest = self.texts.pop_front();
            self.bytes -= oldest.map_or(0, |text| text.len());
        }
    }

    fn list(&self) -> Vec<Value> {
        self.texts.iter().flat_map(|text| serde_json::from_str(text)).collect()
    }
}

/// Agents of a server: a cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agents(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    histories: HashMap<String, History>,
    /// Ids in the order in which the agents were made, with the address that each was made from.
    ids: VecDeque<(String, Option<IpAddr>)>,
}

impl Known {
    /// Returns the address of which an agent must go before there is another one of `from`.
    fn address_to_evict(&self, from: Option<IpAddr>) -> Option<Option<IpAddr>> {
        let mut counts = HashMap::<_, usize>::new();
        for (_, from) in &self.ids {
            *counts.entry(*from).or_default() += 1;
        }
        if counts.get(&from).is_some_and(|count| *count >= MAX_OF_ADDRESS) {
            return Some(from);
        }
        let most = || counts.iter().max_by_key(|(_, count)| **count).map(|(from, _)| *from);
        (self.ids.len() >= MAX_AGENTS).then(most).flatten()
    }

    /// Forgets the oldest agent of an address: of those that are not connected, if there is one.
    fn forget(&mut self, of: Option<IpAddr>) {
        let is_idle =
            |id: &String| self.histories.get(id).is_none_or(|h| Arc::strong_count(h) == 1);
        let idle = self.ids.iter().position(|(id, from)| *from == of && is_idle(id));
        let oldest = idle.or_else(|| self.ids.iter().position(|(_, from)| *from == of));
        if let Some((id, _)) = oldest.and_then(|oldest| self.ids.remove(oldest)) {
            self.histories.remove(&id);
        }
    }
}

impl Agents {
    /// Makes an agent, for somebody at this address. Its id cannot be guessed, and whoever knows it
    /// may be the agent.
    pub(crate) fn create(&self, from: Option<IpAddr>) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut known = lock(&self.0);
        if let Some(address) = known.address_to_evict(from) {
            known.forget(address);
        }
        known.ids.push_back((id.clone(), from));
        known.histories.insert(id.clone(), History::default());
        id
    }

    pub(crate) fn find(&self, id: &str) -> Option<History> {
        lock(&self.0).histories.get(id).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service of an agent: that of [`Math`], which is remembered, and the tool `history`.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    math: Math,
    history: Option<History>,
}

impl Agent {
    /// Creates the service for connections whose upgrade request has a [`History`] in its
    /// extensions.
    pub(crate) fn connected(math: Math) -> Self {
        Self { math, history: None }
    }

    pub(crate) fn new(math: Math, history: History) -> Self {
        Self { math, history: Some(history) }
    }

    fn history(&self, context: &RequestContext<RoleServer>) -> Option<History> {
        let of_connection = || context.extensions.get::<Parts>()?.extensions.get().cloned();
        self.history.clone().or_else(of_connection)
    }
}

impl ServerHandler for Agent {
    fn get_info(&self) -> ServerConfig {
        self.math.get_info()
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list = self.math.list_tools(request, context).await?;
        let what = "What was calculated for this agent, the oldest first";
        list.tools.push(Tool::new("history", what, object!({ "type": "object" })));
        Ok(list)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let history = self.history(&context);
        let history = history.ok_or_else(|| ErrorData::invalid_params("no such agent", None))?;
        if request.name == "history" {
            let history = lock(&history).list();
            return Ok(CallToolResult::structured(json!({ "history": history })).into());
        }
        let response = self.math.call_tool(request, context).await?;
        if let CallToolResponse::Complete(CallToolResult {
            structured_content: Some(content),
            ..
        }) = &response
        {
            let mut operation = match content.to_string().len() {
                ..=MAX_OPERATION => content.clone(),
                _ => json!({ "operation": content["operation"], "result": content["result"] }),
            };
            operation["timestamp"] = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true).into();
            lock(&history).add(&operation);
        }
        Ok(response)
    }
}
