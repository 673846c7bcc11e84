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
//! Figures by callgrind, as `cargo bench --bench instructions` counts them, and by dhat:
//!
//! | line | what is not this crate's to change |
//! |---|---|
//! | one in flight | of a server's 54,000 instructions for a call, 28,000 are those of rmcp, tokio and the tool, 9,000 those of JSON, and 4,000 the frames'. The line below it has the floor in time. Against the stock adaptor it is 57,000 to 82,000 instructions, but 3,200 to 2,700 lines of code that are not in the cache, of which this crate's are 950: each call finds all of it cold, since the kernel and the other process ran before |
//! | 64 in flight | likewise of 46,000: 23,000, 9,000 and 2,000; rmcp moves a request, half a kilobyte, and the futures around it some fifty times. The line below it has the floor in time |
//! | 64 in flight, multi-thread | what a call costs both sides is 1.7 times less than with the stock adaptor. A fifth of it is system calls: 0.4 writes a call, against 2.0, and 0.5 to 0.8 switches between threads, as rmcp makes two tasks of each call, which two workers steal from each other. Where writes were put off by a turn of the scheduler there were half as many, and not more calls |
//! | 64 connections, multi-thread | what one in flight costs, on each |
//! | server under a raw client | a server of tower-mcp takes 166,000 instructions for a call, this one 50,000, of which 34,000 are those of the line "64 in flight". For 4.5 it would have 3,000 for itself, in place of 16,000, of which handing the upgrade request to each handler takes 4,000 |
//! | 1 MB there and back | the goal lies within the spread of the rounds. Frames (raw tungstenite) and JSON (rmcp alone, through JSON) are 0.38 of the stock adaptor's time; this crate's is 0.70 |
//! | progress, then the result | both write three times for a call, read two or three times, and wait as often: a third of the time. The rest is code that is not in the cache, 4,500 lines on the server against 3,800, of which this crate's are 1,400: without those it would be about 0.85. In instructions it is 78,000 to 104,000 |
//! | connect and initialize | of a server's 270,000, making rmcp's router of tools takes 55,000, as for all contenders, and HTTP by hyper 46,000, where the stock adaptor has tungstenite read the head |
//! | an idle session: server | of 35.4 KiB on the heap, rmcp's channels and tasks are 24.5. What is never touched of them is not resident, so the resident set depends on what else had the memory before |
//! | a session without a connection | likewise of 32.8 KiB. The other 8.3 are 40 parts, none above 1.2: the layers 2.7, the task that waits for the client 1.4, the upgrade request 0.9, the session and its secrets 0.8, the connection in the registry 0.5 |
//! | an idle session: client | likewise of 38.5 KiB: 28 |
//! | resume's own cost | 2,500 of a server's 50,000 instructions: the layer's own are 700; 800 are the allocator's, which has what was kept back late, and as many where small messages are kept as copies side by side; 300 are for a link that others may follow, and 200 for turns of rmcp's loop |
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
