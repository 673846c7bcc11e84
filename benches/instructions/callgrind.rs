//! Runs of this program under callgrind.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use crate::{case::Case, result::Result, uncounted};

/// The instructions of a call, by the name of the case.
pub(crate) type Figures = BTreeMap<String, u64>;

/// Measures `cases`, several at a time.
pub(crate) fn measure(cases: Vec<Case>) -> Result<Figures> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let left = Mutex::new(cases);
    let next = || left.lock().ok()?.pop();
    thread::scope(|scope| {
        let work = || {
            let mut figures = Vec::new();
            while let Some(case) = next() {
                figures.push((case.to_string(), instructions_per_call(case)?));
            }
            Ok(figures)
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut figures = Figures::new();
        for worker in workers {
            let done: Result<Vec<_>> = worker.join().map_err(|_| "a worker panicked")?;
            figures.extend(done?);
        }
        Ok(figures)
    })
}

fn instructions_per_call(case: Case) -> Result<u64> {
    let (short, long) = case.lengths();
    let start = count(case, short)?;
    let more = count(case, long)?.saturating_sub(start);
    Ok(more / (long - short) as u64)
}

/// Returns the instructions of a run of `calls` calls.
fn count(case: Case, calls: usize) -> Result<u64> {
    let name = format!("callgrind.{case}.{calls}").replace([' ', ','], "_");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .args([format!("--toggle-collect={}", uncounted::NAME), "--collect-atstart=yes".into()])
        .arg(env::current_exe()?)
        .args(["--bench", "--only", &case.to_string(), "--calls", &calls.to_string()])
        // Else a long copy counts by bytes on one processor and by vectors on another.
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.x86_rep_movsb_threshold=0x10000000:glibc.cpu.x86_rep_stosb_threshold=0x10000000",
        )
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("{case}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let profile = fs::read_to_string(&out)?;
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(totals.ok_or("callgrind wrote no totals")?.trim().parse()?)
}
