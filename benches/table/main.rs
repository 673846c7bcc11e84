//! All that this crate promises of its speed and size, beside what else there is: one table.
//!
//! ```text
//! cargo bench --bench table                           # a quarter of an hour
//! cargo bench --bench table -- --quick                # three minutes, whose figures spread more
//! cargo bench --bench table -- --json FILE            # keep what was measured
//! cargo bench --bench table -- --from FILE            # measure nothing, show what was kept
//! cargo bench --bench table -- --from FILE --chart benches/table/chart.svg
//! ```
//!
//! It builds and runs the benchmarks `calls` (twice: on one core with current-thread runtimes, and
//! on all with multi-thread ones), `sessions` and `reconnect`, which say in their documentation who
//! is measured and how, and print their own tables. It builds the two rivals that are packages of
//! their own as well; where that fails, as without a network, they are left out.
//!
//! Each line of the table at the end is a ratio between contenders of one run: of the figures of
//! one round, and then the median over the rounds. So a machine that is busy with other things, or
//! another machine, changes it little. What is no ratio is memory, and the share of a core.
//!
//! # What stops a line
//!
//! Figures by callgrind, as `cargo bench --bench instructions` counts them, and by massif:
//!
//! | line | what is not this crate's to change |
//! |---|---|
//! | one in flight | of a server's 54,000 instructions for a call, 28,000 are those of rmcp, tokio and the tool, 9,000 those of JSON, and 4,000 the frames'. The line below it has the floor in time |
//! | 64 in flight | likewise of 46,000: 23,000, 9,000 and 2,000; rmcp moves a request, half a kilobyte, and the futures around it some fifty times. The line below it has the floor in time |
//! | 64 connections, multi-thread | what one in flight costs, on each |
//! | connect and initialize | of a server's 267,000, making rmcp's router of tools takes 55,000, as for all contenders, and HTTP by hyper 46,000, where the stock adaptor has tungstenite read the head |
//! | an idle session: server | of 37.6 KiB on the heap, rmcp's channels and tasks are 25. What is never touched of them is not resident, so the resident set depends on what else had the memory before |
//! | an idle session: client | likewise of 39.7 KiB: 28 |
//!
//! The exit code says whether all was measured that can be, never how fast it was.

mod chart;
#[path = "../common/mod.rs"]
mod common;
mod goals;
mod options;
mod programs;

use std::fs;

use self::{
    common::{Result, record::Records},
    options::Options,
    programs::Programs,
};

fn main() -> Result<()> {
    let options = Options::from_args();
    let records = match &options.from {
        Some(file) => Records::read(file)?,
        None if options.is_test => return Ok(()),
        None => Programs::build(&options)?.measure(&options)?,
    };
    println!("{}\n", records.machine);
    print!("{}", goals::table(&records));
    if let Some(file) = &options.json {
        records.write(file)?;
    }
    if let Some(file) = &options.chart {
        fs::write(file, chart::draw(&records))?;
    }
    match goals::unmeasured(&records)[..] {
        [] => Ok(()),
        ref lines => Err(format!("not measured: {}", lines.join("; ")).into()),
    }
}
