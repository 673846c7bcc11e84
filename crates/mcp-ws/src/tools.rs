//! `mcp-ws tools` and `mcp-ws call`.

use std::{
    future::IntoFuture,
    io::{self, IsTerminal, Write},
    sync::Arc,
};

use futures::FutureExt;
use mcp_ws_transport::client::{ToolClient, ToolError};
use rmcp::{
    ClientLifecycleMode,
    model::{CallToolResult, ProtocolVersion, Tool},
    service::ClientInitializeError,
};
use serde_json::{Map, Value};

use crate::{
    deadline::{DEFAULT, Deadline, Step, seconds},
    failure::{Failure, Kind, kind_of_initialize, one_line},
    options::ClientOptions,
    output::{print, print_json},
    progress::Progress,
};

#[derive(clap::Args)]
pub(crate) struct ToolsArgs {
    /// The server, such as ws://127.0.0.1:8080/mcp or wss://example.com/mcp
    url: String,
    #[command(flatten)]
    client: ClientOptions,
    /// The time in which the server has to answer
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT, value_parser = seconds())]
    timeout: u64,
    /// Print the list as JSON, as the server gives it
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct CallArgs {
    /// The server, such as ws://127.0.0.1:8080/mcp or wss://example.com/mcp
    url: String,
    /// The name of the tool
    tool: String,
    /// The arguments: one JSON object, or name=value for each. A value is read as JSON (n=3 is a
    /// number, n='"3"' a string), and is a string where it is none
    arguments: Vec<String>,
    #[command(flatten)]
    client: ClientOptions,
    /// The time in which the tool has to answer or make progress, without a bound where this is not
    /// given; and that for what comes before the call, 30 s where it is not
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    timeout: Option<u64>,
    /// Print the result as JSON, as the server gives it, that of a tool that has failed as well
    #[arg(long)]
    json: bool,
}

pub(crate) async fn list(args: ToolsArgs) -> Result<(), Failure> {
    let (tools, list) =
        start(&args.client, &args.url, Deadline::new(args.timeout), &Progress::new()).await?;
    tools.close().await;
    if args.json {
        return print_json(&*list);
    }
    if list.is_empty() {
        if io::stderr().is_terminal() {
            let _ = writeln!(io::stderr(), "the server has no tools");
        }
        return Ok(());
    }
    print(&list.iter().map(describe).collect::<Vec<_>>().join("\n"))
}

/// Connects to a server, and returns its tools.
///
/// `initialize` is sent first, and `server/discover` on another connection where that is refused.
/// rmcp's automatic lifecycle gives `server/discover` up after 10 s, and the server may be long in
/// starting, and have no `initialize`.
async fn start(
    client: &ClientOptions,
    url: &str,
    deadline: Deadline,
    progress: &Progress,
) -> Result<(ToolClient<Progress>, Arc<[Tool]>), Failure> {
    let dial = async || {
        let connect = client.connect(url)?.handshake_timeout(deadline.time);
        deadline.keep(Step::Connect, connect.into_future()).await
    };
    let over = async |transport, lifecycle| {
        let tools = ToolClient::with_lifecycle(progress.clone(), transport, lifecycle);
        deadline.keep(Step::Initialize, tools.map(Ok::<_, Failure>)).await
    };
    let tools = match over(dial().await?, ClientLifecycleMode::Initialize).await? {
        Err(ToolError::Initialize(refused)) if is_refused(&refused) => {
            let preferred_versions = vec![ProtocolVersion::LATEST];
            let discover = ClientLifecycleMode::Discover { preferred_versions };
            over(dial().await?, discover).await?.map_err(|_| ToolError::Initialize(refused))?
        }
        tools => tools?,
    };
    let list = deadline.keep(Step::ListTools, tools.tools()).await?;
    Ok((tools, list))
}

/// Returns `true` if the server itself has answered with an error.
fn is_refused(error: &ClientInitializeError) -> bool {
    matches!(error, ClientInitializeError::JsonRpcError(_))
        && kind_of_initialize(error) == Kind::Answer
}

/// Returns a line for a tool: its name, what it takes, and what it does.
fn describe(tool: &Tool) -> String {
    let properties = tool.input_schema.get("properties").and_then(Value::as_object);
    let required = tool.input_schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &str| required.is_some_and(|names| names.iter().any(|known| known == name));
    let arguments = properties
        .into_iter()
        .flat_map(|properties| properties.keys())
        .map(|name| if is_required(name) { format!(" {name}=…") } else { format!(" [{name}=…]") });
    let usage = format!("{}{}", tool.name, arguments.collect::<String>());
    let what = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    one_line(&format!("{usage}\n{what}"))
}

pub(crate) async fn call(args: CallArgs) -> Result<(), Failure> {
    let arguments = parse(&args.arguments)?;
    let deadline = Deadline::new(args.timeout.unwrap_or(DEFAULT));
    let progress = Progress::new();
    let (tools, _) = start(&args.client, &args.url, deadline, &progress).await?;
    let called = match args.timeout {
        Some(_) => tools.call_tool_within(deadline.time, &args.tool, arguments).await,
        None => tools.call_tool(&args.tool, arguments).await,
    };
    progress.close();
    let unknown = match &called {
        Err(ToolError::Unknown(name)) => Some(unknown(&tools, name).await),
        _ => None,
    };
    tools.close().await;
    if let Some(failure) = unknown {
        return Err(failure);
    }
    match called {
        Ok(result) if args.json => print_json(&result),
        Ok(result) => print(&text_of(&result)),
        Err(error) => {
            if let ToolError::Failed(result) = &error
                && args.json
            {
                print_json(result)?;
            }
            Err(error.into())
        }
    }
}

/// Returns the failure for a tool that the server does not have.
async fn unknown(tools: &ToolClient<Progress>, name: &str) -> Failure {
    let known = tools.tools().await.unwrap_or_default();
    let names: Vec<_> = known.iter().map(|tool| &*tool.name).collect();
    let message = match names.is_empty() {
        true => format!("no tool {name:?}: the server has none"),
        false => format!("no tool {name:?}; the server has {}", names.join(", ")),
    };
    Failure::new(Kind::Usage, message)
}

/// Reads the arguments of a tool.
fn parse(arguments: &[String]) -> Result<Map<String, Value>, Failure> {
    if let [json] = arguments
        && json.trim_start().starts_with('{')
    {
        return serde_json::from_str(json)
            .map_err(|error| Failure::usage(format!("the arguments are no JSON object: {error}")));
    }
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
                Ok((name.to_owned(), value))
            }
            _ => {
                Err(Failure::usage(format!("{argument:?} is neither name=value nor a JSON object")))
            }
        })
        .collect()
}

/// Returns the content as text; blocks of other kinds, and what is structured, as JSON.
fn text_of(result: &CallToolResult) -> String {
    if let Some(structured) =
        result.structured_content.as_ref().filter(|_| result.content.is_empty())
    {
        return structured.to_string();
    }
    let blocks = result.content.iter().map(|block| match block.as_text() {
        Some(text) => text.text.clone(),
        None => serde_json::to_string(block).unwrap_or_default(),
    });
    blocks.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use rmcp::ErrorData;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_that_was_lost_is_not_refused() {
        for (reason, refused) in
            [(None, true), (Some("outcome_unknown"), false), (Some("not_sent"), false)]
        {
            let data = reason.map(|reason| json!({ "reason": reason }));
            let error = ErrorData::invalid_request("m", data);
            let error = ClientInitializeError::JsonRpcError(error);
            assert_eq!(is_refused(&error), refused, "{error:?}");
        }
    }

    #[test]
    fn arguments_are_one_object_or_name_by_name() {
        let parsed = |arguments: &[&str]| {
            parse(&arguments.iter().map(ToString::to_string).collect::<Vec<_>>()).map(Value::from)
        };
        for (arguments, expected) in [
            (&["{\"a\":1}"][..], json!({ "a": 1 })),
            (
                &["a=1", "b=two", "c=[1]", "d=\"3\"", "e="],
                json!({ "a": 1, "b": "two", "c": [1], "d": "3", "e": "" }),
            ),
            (&[], json!({})),
        ] {
            assert_eq!(parsed(arguments).expect("arguments"), expected);
        }
        for wrong in [&["{\"a\":}"][..], &["a"], &["=1"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
