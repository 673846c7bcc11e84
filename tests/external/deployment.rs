//! The unit and the container file of the deployment guide.

use std::{fs, process::Command};

use mcp_ws_transport::server::{Drain, Limits};

use crate::guide::{block, replace};

/// The value of the only line of the unit that sets `name`.
fn value<T: std::str::FromStr>(unit: &str, name: &str) -> T {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(values.next(), None, "{name}");
    value.parse().unwrap_or_else(|_| panic!("{name}={value}"))
}

/// The value of a setting, as it is shown.
fn setting<'a>(shown: &'a str, name: &str) -> &'a str {
    let (_, rest) = shown.split_once(&format!(" {name}: ")).unwrap();
    rest.split([',', ' ']).next().unwrap()
}

#[test]
fn the_unit_leaves_room_and_time_for_the_defaults() {
    let unit = block("ini");
    assert_eq!(value::<String>(&unit, "KillSignal"), "SIGTERM");
    let drain = format!("{:?}", Drain::default());
    let deadline = setting(&drain, "deadline").strip_suffix('s').unwrap().parse::<u64>().unwrap();
    assert!(value::<u64>(&unit, "TimeoutStopSec") >= deadline + 10);
    let limits = format!("{:?}", Limits::default());
    let connections: usize = setting(&limits, "connections").parse().unwrap();
    let handshakes: usize = setting(&limits, "handshakes").parse().unwrap();
    assert!(value::<usize>(&unit, "LimitNOFILE") > connections + handshakes);
}

#[test]
#[ignore = "needs systemd-analyze: apt-get install systemd"]
fn systemd_takes_the_unit() {
    let unit = replace(&block("ini"), "/usr/local/bin/mcp-server", "/bin/true");
    let directory = std::env::temp_dir().join(format!("mcp-unit-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("mcp-server@8081.service");
    fs::write(&file, unit).unwrap();
    let verify = Command::new("systemd-analyze").arg("verify").arg(&file).output();
    let verify = verify.unwrap_or_else(|error| panic!("systemd-analyze: {error}"));
    fs::remove_dir_all(&directory).unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && said.is_empty(), "{}: {said}", verify.status);
}

#[test]
fn the_container_gets_a_signal_that_drains_and_runs_as_nobody() {
    let file = block("dockerfile");
    for line in ["STOPSIGNAL SIGTERM", "USER 65534:65534"] {
        assert!(file.lines().any(|given| given == line), "{line}");
    }
    // Where it is not a list, a shell is process 1, and keeps the signal to itself.
    assert!(file.contains("\nENTRYPOINT [\""));
}
