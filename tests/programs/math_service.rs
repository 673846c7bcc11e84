//! The service of the `math` example, over a pipe in memory.

#[allow(dead_code)]
#[path = "../../examples/math/repeat.rs"]
mod repeat;
#[path = "../../examples/math/service.rs"]
mod service;

use rmcp::{
    ClientLifecycleMode, ClientServiceExt, RoleClient, RoleServer, ServerHandler, ServiceError,
    ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode,
        ErrorData, JsonObject, ProtocolVersion,
    },
    service::{RequestContext, RunningService},
};
use serde_json::{Value, json};
use service::Math;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

use crate::Result;

type Client = RunningService<RoleClient, ()>;

fn serve(math: &Math) -> DuplexStream {
    let (server, client) = tokio::io::duplex(1 << 16);
    let math = math.clone();
    tokio::spawn(async move { math.serve(server).await.unwrap().waiting().await });
    client
}

async fn connect(math: &Math) -> Client {
    ().serve(serve(math)).await.unwrap()
}

async fn call(
    client: &Client,
    tool: &'static str,
    arguments: Value,
) -> Result<CallToolResult, ServiceError> {
    let arguments = serde_json::from_value(arguments).unwrap();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await
}

async fn invalid(client: &Client, tool: &'static str, arguments: Value) -> ErrorData {
    match call(client, tool, arguments).await {
        Err(ServiceError::McpError(error)) => {
            assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
            error
        }
        other => panic!("expected invalid params, got {other:?}"),
    }
}

fn text(result: &CallToolResult) -> &str {
    assert_eq!(result.content.len(), 1);
    &result.content[0].as_text().unwrap().text
}

#[tokio::test]
async fn results_are_structured_and_text() {
    let client = connect(&Math::new()).await;
    for (tool, arguments, result) in [
        ("add", json!({"a": 5, "b": 3}), json!(8)),
        ("add", json!({"a": 0.1, "b": 0.2}), json!(0.1 + 0.2)),
        ("subtract", json!({"a": 5, "b": 8}), json!(-3)),
        ("multiply", json!({"a": 2.5, "b": 4}), json!(10)),
        ("multiply", json!({"a": -1, "b": 0}), json!(0)),
        ("divide", json!({"a": 1, "b": 8}), json!(0.125)),
        ("power", json!({"a": 2, "b": 10}), json!(1024)),
        ("power", json!({"a": 2, "b": -1}), json!(0.5)),
        ("power", json!({"a": -2, "b": 62}), json!(1_i64 << 62)),
        ("power", json!({"a": 2, "b": 63}), json!(2_f64.powi(63))),
        ("power", json!({"a": -2, "b": 63}), json!(i64::MIN)),
        ("sqrt", json!({"a": 144}), json!(12)),
        ("sqrt", json!({"a": 0.25}), json!(0.5)),
        ("sum", json!({"numbers": [1, 2, 3]}), json!(6)),
        ("sum", json!({"numbers": [0.5, -0.25]}), json!(0.25)),
        ("sum", json!({"numbers": []}), json!(0)),
    ] {
        let mut expected = arguments.clone();
        expected["result"] = result;
        expected["operation"] = json!(tool);

        let answer = call(&client, tool, arguments).await.unwrap();
        assert_eq!(answer.is_error, Some(false));
        assert_eq!(serde_json::from_str::<Value>(text(&answer)).unwrap(), expected);
        assert_eq!(answer.structured_content, Some(expected));
    }
}

#[tokio::test]
async fn arguments_are_echoed_as_integers_where_they_are_integral() {
    let client = connect(&Math::new()).await;
    let answer = call(&client, "add", json!({"a": 5.0, "b": 3})).await.unwrap();
    let expected = json!({"result": 8, "operation": "add", "a": 5, "b": 3});
    assert_eq!(answer.structured_content, Some(expected));
}

#[tokio::test]
async fn impossible_calculations_are_tool_errors() {
    let client = connect(&Math::new()).await;
    let infinite = "the result is not a finite number";
    for (tool, arguments, message) in [
        ("divide", json!({"a": 1, "b": 0}), "division by zero"),
        ("divide", json!({"a": 0, "b": -0.0}), "division by zero"),
        ("divide", json!({"a": 1e300, "b": 1e-300}), infinite),
        ("sqrt", json!({"a": -4}), "square root of a negative number"),
        ("power", json!({"a": 0, "b": -1}), infinite),
        ("power", json!({"a": -8, "b": 0.5}), infinite),
        ("power", json!({"a": 10, "b": 309}), infinite),
        ("add", json!({"a": 1.7e308, "b": 1.7e308}), infinite),
        ("multiply", json!({"a": 1e200, "b": -1e200}), infinite),
        ("sum", json!({"numbers": [1.7e308, 1.7e308]}), infinite),
    ] {
        let answer = call(&client, tool, arguments).await.unwrap();
        assert_eq!(answer.is_error, Some(true));
        assert_eq!(answer.structured_content, None);
        assert_eq!(text(&answer), message);
    }
}

#[tokio::test]
async fn arguments_of_the_wrong_shape_are_invalid_params() {
    let client = connect(&Math::new()).await;
    for tool in ["add", "subtract", "multiply", "divide", "power"] {
        let missing = invalid(&client, tool, json!({"a": 1})).await;
        assert!(missing.message.contains("missing field `b`"), "{missing}");
        invalid(&client, tool, json!({"a": "one", "b": 2})).await;
        invalid(&client, tool, json!({"a": null, "b": 2})).await;
    }
    invalid(&client, "sqrt", json!({})).await;
    invalid(&client, "sqrt", json!({"a": [4]})).await;
    invalid(&client, "sum", json!({"numbers": 1})).await;
    invalid(&client, "sum", json!({"numbers": [1, "2"]})).await;
}

#[tokio::test]
async fn an_unknown_tool_is_not_found() {
    let client = connect(&Math::new()).await;
    assert_eq!(invalid(&client, "modulo", json!({})).await.message, "tool not found");
}

#[tokio::test]
async fn calls_are_counted_across_connections_once_they_ran() {
    let math = Math::new();
    let (first, second) = (connect(&math).await, connect(&math).await);
    call(&first, "add", json!({"a": 1, "b": 2})).await.unwrap();
    call(&second, "divide", json!({"a": 1, "b": 0})).await.unwrap();
    invalid(&second, "add", json!({})).await;
    invalid(&second, "modulo", json!({})).await;
    assert_eq!(math.calls(), 2);
}

/// The types of an object's properties, all of which are required.
fn types(schema: &JsonObject) -> Value {
    assert_eq!(schema["type"], "object");
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(schema["required"].as_array().unwrap().len(), properties.len());
    properties.iter().map(|(name, property)| (name.clone(), property["type"].clone())).collect()
}

#[tokio::test]
async fn every_tool_is_described() {
    let client = connect(&Math::new()).await;
    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    assert_eq!(names, ["add", "divide", "multiply", "power", "sqrt", "subtract", "sum"]);
    for tool in tools {
        assert!(tool.title.is_some() && tool.description.is_some(), "{tool:?}");

        let arguments = match &*tool.name {
            "sqrt" => json!({"a": "number"}),
            "sum" => json!({"numbers": "array"}),
            _ => json!({"a": "number", "b": "number"}),
        };
        assert_eq!(types(&tool.input_schema), arguments);

        let mut answer = arguments;
        answer["result"] = json!("number");
        answer["operation"] = json!("string");
        assert_eq!(types(&tool.output_schema.unwrap()), answer);

        let hints = tool.annotations.unwrap();
        assert_eq!(hints.read_only_hint, Some(true));
        assert_eq!(hints.idempotent_hint, Some(true));
        assert_eq!(hints.open_world_hint, Some(false));
    }
}

#[tokio::test]
async fn both_lifecycles_reach_the_service() {
    let discover =
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    for (lifecycle, version) in [
        (ClientLifecycleMode::Initialize, ProtocolVersion::V_2025_11_25),
        (discover, ProtocolVersion::V_2026_07_28),
    ] {
        let stream = serve(&Math::new());
        let client = ().serve_with_lifecycle(stream, lifecycle).await.unwrap();
        let server = client.peer_info().unwrap();
        assert_eq!(server.protocol_version, version);
        let info = server.server_info.clone().unwrap();
        assert_eq!((&*info.name, &*info.version), ("math", env!("CARGO_PKG_VERSION")));

        let answer = call(&client, "sum", json!({"numbers": [1, 2]})).await.unwrap();
        assert_eq!(answer.structured_content.unwrap()["result"], 3);
    }
}

/// Calls `sum` and returns the `[progress, total]` pairs that travel ahead of its result.
async fn reports_ahead_of_the_sum_of(numbers: Vec<u32>, meta: Value) -> Vec<[f64; 2]> {
    let (reader, mut writer) = tokio::io::split(serve(&Math::new()));
    for message in [
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "0"},
        }}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "sum",
            "arguments": {"numbers": numbers},
            "_meta": meta,
        }}),
    ] {
        writer.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    let mut lines = BufReader::new(reader).lines();
    let mut reports = Vec::new();
    loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        if message["method"] == "notifications/progress" {
            let params = &message["params"];
            assert_eq!(params["progressToken"], "token");
            reports.push(["progress", "total"].map(|key| params[key].as_f64().unwrap()));
        } else if message["id"] == 1 {
            let sum: u32 = numbers.iter().sum();
            assert_eq!(message["result"]["structuredContent"]["result"], sum);
            return reports;
        }
    }
}

#[tokio::test]
async fn every_progress_report_arrives_before_the_sum() {
    let token = json!({"progressToken": "token"});
    assert_eq!(
        reports_ahead_of_the_sum_of(vec![7, 8, 9], token.clone()).await,
        [[1.0, 3.0], [2.0, 3.0], [3.0, 3.0]]
    );
    assert_eq!(reports_ahead_of_the_sum_of(vec![], token).await, [[0.0, 0.0]]);
}

#[tokio::test]
async fn a_long_list_is_reported_in_at_most_a_hundred_steps() {
    let token = json!({"progressToken": "token"});
    let reports = reports_ahead_of_the_sum_of((0..250).collect(), token).await;
    assert!((50..=100).contains(&reports.len()), "{}", reports.len());
    assert!(reports.is_sorted_by(|before, after| before[0] < after[0]));
    assert_eq!(reports.last(), Some(&[250.0, 250.0]));
}

#[tokio::test]
async fn no_progress_is_reported_without_a_token() {
    assert!(reports_ahead_of_the_sum_of(vec![1, 2, 3], json!({})).await.is_empty());
}

/// Answers a call with the answer of the number `a`.
#[derive(Clone)]
struct Answers(Vec<Result<CallToolResult, ErrorData>>);

impl ServerHandler for Answers {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let a = request.arguments.unwrap()["a"].as_u64().unwrap();
        self.0[a as usize].clone().map(Into::into)
    }
}

/// Returns the summary of `math call --repeat` of these answers to 0 + 8, 1 + 7 and so on.
async fn summary(answers: impl FnOnce(i64) -> Vec<Result<CallToolResult, ErrorData>>) -> Value {
    let answers = answers(8);
    let count = answers.len();
    let (server, client) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { Answers(answers).serve(server).await.unwrap().waiting().await });
    let client = ().serve(client).await.unwrap();
    let numbers = ["0", "8"].map(|number| serde_json::from_str(number).unwrap());
    let summary = repeat::run(&client, "add", &numbers, (count, 1)).await.unwrap();
    serde_json::to_value(&summary).unwrap()
}

#[tokio::test]
async fn repeated_calls_are_right_however_their_answer_is_written() {
    let text = |text: String| Ok(CallToolResult::success(vec![ContentBlock::text(text)]));
    let structured = |value: Value| Ok(CallToolResult::structured(value));
    let summary = summary(|b| {
        vec![
            structured(json!({ "result": b })),
            structured(json!({ "result": b as f64 + 1.0 })),
            structured(json!({ "result": (b + 2).to_string() })),
            text((b + 3).to_string()),
            text(format!("{:?}", (b + 4) as f64)),
            text(json!({ "result": (b + 5) as f64 }).to_string()),
            text(format!("The sum of 6 and 8 is {}.\n", b + 6)),
            text(format!("7 + 8 = {}", b + 7)),
            text(format!("8+8={:?}", (b + 8) as f64)),
        ]
    })
    .await;
    assert_eq!((&summary["ok"], &summary["wrong"]), (&json!(9), &json!(0)), "{summary}");
}

#[tokio::test]
async fn repeated_calls_are_wrong_where_the_number_is_another_or_none() {
    let text = |text: &str| Ok(CallToolResult::success(vec![ContentBlock::text(text)]));
    let answers = [
        Ok(CallToolResult::structured(json!({ "result": 8.5 }))),
        Ok(CallToolResult::structured(json!({ "result": null }))),
        text("11"),
        text("The sum is eleven"),
        text(""),
        Ok(CallToolResult::success(vec![])),
        Ok(CallToolResult::error(vec![ContentBlock::text("14")])),
    ];
    let count = answers.len();
    let summary = summary(|_| answers.to_vec()).await;
    assert_eq!(summary["wrong"], count, "{summary}");
}

#[tokio::test]
async fn repeated_calls_that_have_no_result_are_told_apart() {
    let error = |reason: &str| {
        Err(ErrorData::new(ErrorCode(-32000), "no", Some(json!({ "reason": reason }))))
    };
    let reasons = ["stopping", "not_sent", "outcome_unknown", "stopping", "acme"];
    let summary = summary(|_| reasons.map(error).to_vec()).await;
    for (figure, expected) in
        [("stopping", 2), ("not_sent", 1), ("outcome_unknown", 1), ("other_errors", 1), ("ok", 0)]
    {
        assert_eq!(summary[figure], expected, "{figure} in {summary}");
    }
}
