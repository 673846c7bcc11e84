//! The figures that the project has recorded.

use std::{collections::BTreeMap, fs, process::Command};

use serde::{Deserialize, Serialize};

use crate::{callgrind::Figures, result::Result};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/recorded.json");

/// The profile of this program.
pub(crate) const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// Percentage by which a figure may be above the recorded one. What the optimizer inlines changes
/// with what it need not have to do with, and what a scheduler interleaves with the load of the
/// machine.
const TOLERANCE: f64 = 4.0;

/// Figures by the profile with which they were measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Recorded(BTreeMap<String, Profile>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Profile {
    /// Compiler and processor with which they were measured.
    rustc: String,
    processor: String,
    instructions: Figures,
}

/// Outcome of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Within,
    TooMany,
    /// The record was made with another compiler or processor.
    NotComparable,
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
        let profile = self.0.entry(PROFILE.into()).or_default();
        if !profile.is_comparable() {
            *profile = Profile { rustc: rustc(), processor: processor(), ..Profile::default() };
        }
        profile.instructions.extend(measured);
        self
    }

    pub(crate) fn store(&self) -> Result<()> {
        Ok(fs::write(PATH, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Prints `measured` beside what is recorded.
    pub(crate) fn compare(&self, measured: &Figures) -> Verdict {
        let empty = Profile::default();
        let profile = self.0.get(PROFILE).unwrap_or(&empty);
        let mut verdict = Verdict::Within;
        println!("{:34} {:>9} {:>9}", "instructions", "recorded", "now");
        for (case, &now) in measured {
            let Some(&recorded) = profile.instructions.get(case) else {
                println!("{case:34} {:>9} {now:>9}  not recorded", "-");
                verdict = Verdict::TooMany;
                continue;
            };
            let percent = (now as f64 / recorded as f64 - 1.0) * 100.0;
            let word = match percent {
                above if above > TOLERANCE => "TOO MANY",
                below if below < -TOLERANCE => "fewer: worth recording",
                _ => "",
            };
            if percent > TOLERANCE {
                verdict = Verdict::TooMany;
            }
            println!("{case:34} {recorded:>9} {now:>9} {percent:>+6.1} %  {word}");
        }
        if !profile.is_comparable() {
            println!("recorded with {} on {}", profile.rustc, profile.processor);
            println!("measured with {} on {}: not comparable", rustc(), processor());
            return Verdict::NotComparable;
        }
        if verdict == Verdict::TooMany {
            println!("To accept the figures, run the same with `-- --record`");
        }
        verdict
    }
}

impl Profile {
    fn is_comparable(&self) -> bool {
        self.rustc == rustc() && self.processor == processor()
    }
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().into(),
    )
}

/// The processor, by its name and numbers: functions that exist for several are chosen by it.
fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim() == key).map_or("?", |(_, value)| value.trim())
    };
    let [name, family, model] = ["model name", "cpu family", "model"].map(value);
    format!("{name}, family {family}, model {model}")
}
