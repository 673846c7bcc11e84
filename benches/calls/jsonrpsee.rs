//! jsonrpsee, whose server and client are a program of their own.

use std::{net::SocketAddr, path::Path};

use tokio::process::Command;

use crate::{
    common::{Result, Threads},
    load::{Load, Sample},
    service::Tool,
};

/// `None` if it has no such case.
pub(crate) async fn measure(
    program: &Path,
    threads: Threads,
    addr: SocketAddr,
    load: Load,
) -> Result<Option<Sample>> {
    let (method, sent, answered) = match load.case.tool() {
        Tool::Add => ("add", 0, 0),
        Tool::Text { sent, answered } => ("text", sent, answered),
        Tool::Report | Tool::Relay => return Ok(None),
    };
    let numbers = [load.connections, load.in_flight, sent, answered].map(|n| n.to_string());
    let output = Command::new(program)
        .args(["call", threads.name(), &addr.to_string(), method])
        .args(numbers)
        .arg(load.duration.as_secs_f64().to_string())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Vec<f64> = said.split_whitespace().flat_map(str::parse).collect();
    match figures[..] {
        [mean, p50, rate] => Ok(Some(Sample { mean, p50, rate, cpu: None })),
        _ => Err(format!("jsonrpsee: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
