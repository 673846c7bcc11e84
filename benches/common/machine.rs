//! Cores that the benchmark runs on.

use std::{env, fs, process::Command, str::FromStr, thread, time::Duration};

use super::{Result, Threads};

/// Choice of a core.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Pin {
    Off,
    /// The last core that this process may use: the first serves more interrupts.
    #[default]
    Last,
    Core(usize),
}

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "last" => Ok(Self::Last),
            core => match core.parse() {
                Ok(core) => Ok(Self::Core(core)),
                Err(_) => Err("neither a number, nor `last`, nor `off`".into()),
            },
        }
    }
}

/// Restricts this process, and those that it starts, to one core; returns which, if any.
#[cfg(target_os = "linux")]
pub(crate) fn pin(pin: Pin) -> Result<Option<usize>> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None)?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let core = match pin {
        Pin::Off => return Ok(None),
        Pin::Last => allowed.next_back().ok_or("no core to run on")?,
        Pin::Core(core) if allowed.any(|allowed| allowed == core) => core,
        Pin::Core(core) => return Err(format!("core {core} is not ours to run on").into()),
    };
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one)?;
    Ok(Some(core))
}

/// Does nothing: there is no way without unsafe code.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_pin: Pin) -> Result<Option<usize>> {
    Ok(None)
}

/// The machine in two lines.
pub(crate) fn describe(core: Option<usize>, threads: Threads) -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or(env::consts::ARCH, |(_, model)| model);
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let cores = match cores {
        0 => thread::available_parallelism().map_or(1, usize::from),
        cores => cores,
    };
    let busy = read("/proc/loadavg");
    let busy = match busy.split_whitespace().next() {
        Some(load) => format!("; load {load} before it began"),
        None => String::new(),
    };
    let os = format!("{} {}", env::consts::OS, read("/proc/sys/kernel/osrelease").trim());
    let rustc = Command::new(env::var("RUSTC").unwrap_or_else(|_| "rustc".into()))
        .arg("--version")
        .output()
        .map_or_else(
            |_| "rustc of unknown version".into(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
    let pinned = match core {
        Some(core) => format!("both on core {core}"),
        None => "not pinned".into(),
    };
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "{model}, {cores} cores; {}; {rustc}, {profile} profile\n\
         client and server in two processes, {pinned}, each with a {} runtime{busy}",
        os.trim(),
        match threads {
            Threads::One => "current-thread",
            Threads::All => "multi-thread",
        },
    )
}

/// The resident set of a process in KiB, where there is a `/proc` that tells.
pub(crate) fn resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    resident.trim().strip_suffix(" kB")?.parse().ok()
}

/// The CPU time of all threads that a process has, where there is a `/proc` that tells.
pub(crate) fn cpu_time(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let nanos = threads.filter_map(|thread| {
        let figures = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        figures.split_whitespace().next()?.parse::<u64>().ok()
    });
    Some(Duration::from_nanos(nanos.sum()))
}
