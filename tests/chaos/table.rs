//! The figures, as a table in Markdown.

use std::{fmt, time::Duration};

use crate::{faults::FaultCounts, verdict::Verdict};

/// Errors that have a column of their own.
const KINDS: [&str; 2] = ["not_sent", "outcome_unknown"];

/// The results of a scenario.
#[derive(Debug, Default)]
pub struct Row {
    pub scenario: String,
    pub seeds: String,
    pub verdict: Verdict,
    pub done: FaultCounts,
}

/// Prints what has come out.
pub fn print(rows: &[Row]) {
    println!(
        "{}\n{}",
        cells(
            "scenario, seeds|calls|ok|`not_sent`|`outcome_unknown`|other errors|client killed|\
             executed|**hung**|**twice**|**wrong**|**lost without need**|slowest|time"
        ),
        cells(&format!("---{}", "|--:".repeat(13)))
    );
    for row in rows {
        println!("{row}");
    }
    println!(
        "\n{}\n{}",
        cells("scenario|connections|cut|stalls|servers killed|drained|clients killed"),
        cells(&format!("---{}", "|--:".repeat(6)))
    );
    for Row { scenario, done, .. } in rows {
        let counts = [
            done.connections,
            done.cuts,
            done.stalls,
            done.server_kills,
            done.drains,
            done.client_kills,
        ];
        println!("{}", cells(&format!("`{scenario}`|{}", counts.map(thousands).join("|"))));
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, seeds, verdict, done } = self;
        let [not_sent, unknown] = KINDS.map(|kind| verdict.errors.get(kind).copied().unwrap_or(0));
        let counts = [
            verdict.calls,
            verdict.ok,
            not_sent,
            unknown,
            verdict.errors.values().sum::<usize>() - not_sent - unknown,
            verdict.killed,
            verdict.executed,
            verdict.hung,
            verdict.twice,
            verdict.wrong,
            verdict.lost + verdict.sessions,
        ];
        let counts = counts.map(thousands).join("|");
        let times = [verdict.slowest, done.time].map(seconds).join("|");
        f.write_str(&cells(&format!("`{scenario}`, {seeds}|{counts}|{times}")))
    }
}

/// Returns a row of a table in Markdown.
fn cells(cells: &str) -> String {
    format!("| {} |", cells.replace('|', " | "))
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
