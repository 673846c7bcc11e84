//! `math call … --repeat`: many calls, each of which is checked.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mcp_ws_transport::event::Event;
use rmcp::{
    Peer, RoleClient, ServiceError,
    model::{CallToolRequestParams, CallToolResult, JsonObject},
};
use serde::Serialize;
use serde_json::{Number, Value, json};
use tokio::{task::JoinHandle, time::timeout};

/// Counts of the outcomes of the calls, and of the reconnects meanwhile.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Summary {
    calls: usize,
    ok: usize,
    wrong: usize,
    not_sent: usize,
    outcome_unknown: usize,
    /// Refused by a server that stops, and never executed.
    stopping: usize,
    other_errors: usize,
    reconnects: usize,
    resumed: usize,
    restarted: usize,
    elapsed_ms: u128,
}

impl Summary {
    /// Returns `true` if no call at all got as far as a result.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.calls > 0 && self.other_errors == self.calls
    }

    /// Prints it as one line of JSON. An error unless all went well.
    pub(crate) fn report(&self) -> crate::Result {
        writeln!(io::stdout(), "{}", serde_json::to_string(self)?)?;
        if self.ok < self.calls {
            return Err(
                format!("{} of {} calls went wrong", self.calls - self.ok, self.calls).into()
            );
        }
        Ok(())
    }
}

/// Count of the times that a connection was made again, and how.
pub(crate) struct Reconnects {
    summary: Arc<Mutex<Summary>>,
    task: JoinHandle<()>,
}

impl Reconnects {
    pub(crate) fn count(events: impl Stream<Item = Event> + Send + 'static) -> Self {
        let summary = Arc::<Mutex<Summary>>::default();
        let counted = summary.clone();
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let mut summary = counted.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Event::Resumed { .. } => summary.resumed += 1,
                    Event::Restarted { .. } => summary.restarted += 1,
                    _ => continue,
                }
                summary.reconnects += 1;
            }
        });
        Self { summary, task }
    }

    /// Adds them to `summary`, once the connection is closed.
    pub(crate) async fn add_to(self, summary: &mut Summary) {
        let _ = timeout(Duration::from_secs(1), self.task).await;
        let counted = self.summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (summary.reconnects, summary.resumed, summary.restarted) =
            (counted.reconnects, counted.resumed, counted.restarted);
    }
}

/// Calls `tool` `repeat` times with A, A + 1, … and B, `in_flight` of them at once.
pub(crate) async fn run(
    client: &Peer<RoleClient>,
    tool: &str,
    numbers: &[Number],
    (repeat, in_flight): (usize, usize),
) -> Result<Summary, String> {
    let [a, b] = numbers else { return Err("two numbers are needed for --repeat".into()) };
    let integer = |number: &Number| number.as_i64().ok_or("--repeat needs whole numbers");
    let (first, b) = (integer(a)?, integer(b)?);
    let expected: fn(i64, i64) -> Option<i64> = match tool {
        "add" => i64::checked_add,
        "subtract" => i64::checked_sub,
        "multiply" => i64::checked_mul,
        other => {
            let what = "those of add, subtract and multiply can";
            return Err(format!("the answers of {other} cannot be checked by --repeat; {what}"));
        }
    };
    let bar = progress_bar(repeat);
    let began = Instant::now();
    let mut summary = Summary { calls: repeat, ..Summary::default() };
    let calls = (first..).take(repeat).map(|a| async move {
        let arguments = JsonObject::from_iter([("a".into(), json!(a)), ("b".into(), json!(b))]);
        let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let outcome = client.call_tool(request).await;
        outcome.map(|result| expected(a, b).is_some_and(|expected| is(&result, expected)))
    });
    let mut outcomes = stream::iter(calls).buffer_unordered(in_flight.max(1));
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(true) => summary.ok += 1,
            Ok(false) => summary.wrong += 1,
            Err(error) => match reason(&error) {
                Some("not_sent") => summary.not_sent += 1,
                Some("outcome_unknown") => summary.outcome_unknown += 1,
                Some("stopping") => summary.stopping += 1,
                _ => summary.other_errors += 1,
            },
        }
        bar.inc(1);
        let lost = summary.not_sent + summary.outcome_unknown + summary.stopping;
        if lost > 0 {
            bar.set_message(format!("{lost} lost"));
        }
    }
    bar.finish_and_clear();
    summary.elapsed_ms = began.elapsed().as_millis();
    Ok(summary)
}

/// Compares the answer of a tool with the `expected` number, however it is written: `8`, `8.0` or
/// `8e0`, as `result` of the structured content or of a text in JSON, or as the last word of any
/// other text.
fn is(answer: &CallToolResult, expected: i64) -> bool {
    if answer.is_error == Some(true) {
        return false;
    }
    let equals = |number: &Number| match number.as_i64() {
        Some(integer) => integer == expected,
        None => number.as_f64().is_some_and(|real| real == expected as f64),
    };
    let result = |content: &Value| match content {
        Value::Number(number) => Some(equals(number)),
        content => match content.get("result")? {
            Value::Number(number) => Some(equals(number)),
            Value::String(text) => Some(text.parse().is_ok_and(|number| equals(&number))),
            _ => None,
        },
    };
    let structured = answer.structured_content.as_ref().and_then(result);
    structured.unwrap_or_else(|| {
        let text = answer.content.iter().filter_map(|block| block.as_text()).next_back();
        let text = text.map_or("", |text| text.text.trim());
        let parsed = serde_json::from_str(text).ok().as_ref().and_then(result);
        parsed.unwrap_or_else(|| {
            let word = text.split(|c: char| c.is_whitespace() || c == '=').next_back();
            let word = word.unwrap_or_default().trim_end_matches(['.', ',', '!']);
            word.parse().is_ok_and(|number| equals(&number))
        })
    })
}

/// Returns what is certain about a call that has no result.
fn reason(error: &ServiceError) -> Option<&str> {
    match error {
        ServiceError::McpError(error) => error.data.as_ref()?.get("reason").and_then(Value::as_str),
        _ => None,
    }
}

fn progress_bar(calls: usize) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(calls as u64), target);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len}, {per_sec} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
