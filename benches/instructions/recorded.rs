//! The figures that the project has recorded.

use std::{fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{callgrind::Figures, result::Result};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/recorded.json");

/// By how many percent a figure may be above the recorded one.
const TOLERANCE: f64 = 2.0;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// The compiler with which they were measured.
    rustc: String,
    instructions: Figures,
}

impl Recorded {
    pub(crate) fn load() -> Result<Self> {
        let json = fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
        Ok(serde_json::from_str(&json)?)
    }

    /// Takes `measured` in place of what was recorded.
    pub(crate) fn update(mut self, measured: Figures) -> Self {
        for (case, figure) in &measured {
            println!("{case:34} {figure:>9}");
        }
        self.instructions.extend(measured);
        Self { rustc: rustc(), ..self }
    }

    pub(crate) fn store(&self) -> Result<()> {
        Ok(fs::write(PATH, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Prints `measured` beside what is recorded. Returns `false` if any is too high.
    pub(crate) fn compare(&self, measured: &Figures) -> bool {
        let mut is_within = true;
        println!("{:34} {:>9} {:>9}", "instructions", "recorded", "now");
        for (case, &now) in measured {
            let Some(&recorded) = self.instructions.get(case) else {
                println!("{case:34} {:>9} {now:>9}  not recorded", "-");
                is_within = false;
                continue;
            };
            let percent = (now as f64 / recorded as f64 - 1.0) * 100.0;
            let verdict = match percent {
                above if above > TOLERANCE => "TOO MANY",
                below if below < -TOLERANCE => "fewer: worth recording",
                _ => "",
            };
            is_within &= percent <= TOLERANCE;
            println!("{case:34} {recorded:>9} {now:>9} {percent:>+6.1} %  {verdict}");
        }
        if self.rustc != rustc() {
            println!("recorded with {}, now {}", self.rustc, rustc());
        }
        if !is_within {
            println!("To accept the figures: cargo bench --bench instructions -- --record");
        }
        is_within
    }
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}
