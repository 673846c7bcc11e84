//! A process for each test, and the memory that it takes.

use std::{env, process::Command, sync::Mutex};

/// Runs the test in whose first line this stands in a process of its own, and nothing else
/// meanwhile.
macro_rules! alone {
    () => {
        fn here() {}
        if crate::process::ran_elsewhere(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}

/// Runs the test around the function of this name in a process of its own, where it must pass.
/// Returns `false` in that process, in which it is yet to run.
pub fn ran_elsewhere(here: &str) -> bool {
    const OWN: &str = "MCP_WS_ALONE";
    static ALONE: Mutex<()> = Mutex::new(());

    if env::var_os(OWN).is_some() {
        return false;
    }
    let path = here.split_once("::").unwrap().1;
    let test = path.split("::{{closure}}").next().unwrap();
    let _alone = ALONE.lock().unwrap_or_else(|failed| failed.into_inner());
    let mut process = Command::new(env::current_exe().unwrap());
    process.args(["--exact", test, "--include-ignored", "--nocapture"]).env(OWN, "1");
    let output = process.output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|output| String::from_utf8(output).unwrap());
    print!("{stdout}");
    eprint!("{stderr}");
    assert!(output.status.success(), "{test}: {}", output.status);
    assert!(stdout.contains("test result: ok. 1 passed"), "there is no test {test}");
    true
}

/// Returns the resident memory of this process, in KiB.
#[cfg(target_os = "linux")]
pub fn resident_kib() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}
