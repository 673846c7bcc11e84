//! The instructions that a call or a connection costs, compared with those that are recorded.
//!
//! ```text
//! cargo bench --bench instructions                 # needs valgrind on the PATH (Linux)
//! cargo bench --bench instructions -- --record     # takes the figures into recorded.json
//! cargo bench --profile dev --bench instructions   # likewise without optimization, as CI does
//! ```
//!
//! Time varies with the machine and with what else runs on it; the number of instructions hardly
//! does. Callgrind counts them, for one side at a time: the other is played by tokio-tungstenite
//! with JSON that is made beforehand, speaks the resume extension, and [is not counted](uncounted).
//! Both sides are tasks of one current-thread runtime, so that nothing depends on a scheduler, and
//! a loopback connection lies between them, so that the measured side is what `serve` and `connect`
//! make of a `TcpStream`. What the kernel does is not counted. Each case runs twice, with more
//! calls the second time, and the difference is divided by the number of calls more, so that what
//! comes before them does not count.
//!
//! The program fails where a figure is above the recorded one by more than the tolerance, 4 %: the
//! optimizer inlines otherwise when something else changes, and runs of an unchanged library differ
//! by up to 1.1 %. With another compiler or on another kind of processor nothing is compared: the
//! figures are printed, and that is said.

mod callgrind;
mod case;
mod client;
mod load;
mod recorded;
mod result;
mod server;
mod uncounted;

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;

use self::{
    case::Case,
    recorded::{Recorded, Verdict},
    result::Result,
};

/// The instructions that a call or a connection costs, compared with those that are recorded
#[derive(Parser, Debug)]
#[command(name = "cargo bench --bench instructions --")]
struct Options {
    /// Write the figures to `recorded.json` in place of comparing them
    #[arg(long)]
    record: bool,
    /// Only cases whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// Number of calls or connections of the only case to make, counting nothing
    #[arg(long, hide = true)]
    calls: Option<usize>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let cases = Case::all().filter(|case| case.to_string().contains(&options.only));
    if let Some(calls) = options.calls {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        for case in cases {
            runtime.block_on(case.run(calls))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let measured = callgrind::measure(cases.collect())?;
    if options.record {
        Recorded::load().unwrap_or_default().update(measured).store()?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = Recorded::load()?.compare(&measured);
    Ok(if verdict == Verdict::TooMany { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
