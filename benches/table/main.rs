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
//! It builds and runs the benchmarks `calls` (twice: on one core with current-thread runtimes, and on
//! all with multi-thread ones), `sessions` and `reconnect`, which say in their documentation who is
//! measured and how, and print their own tables. It builds the two rivals that are packages of their own
//! as well; where that fails, as without a network, they are left out.
//!
//! Each line of the table at the end is a ratio between contenders of one run: of the figures of one
//! round, and then the median over the rounds. So a machine that is busy with other things, or another
//! machine, changes it little. What is no ratio is memory, and the share of a core.
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
