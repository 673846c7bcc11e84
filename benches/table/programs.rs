//! The benchmarks that are run.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use serde_json::Value;

use crate::{
    common::{Result, record::Records},
    options::Options,
};

/// Cases that are measured on multi-thread runtimes as well.
const CASES: &str =
    "in-flight-1,in-flight-64,in-flight-1024,connections-64,connections-1000,echo-64k,echo-1m";

#[derive(Debug)]
pub(crate) struct Programs {
    /// Programs by their names.
    benches: BTreeMap<String, PathBuf>,
    /// Packages that could be built, after the options that name them.
    packages: Vec<(&'static str, PathBuf)>,
}

impl Programs {
    pub(crate) fn build(options: &Options) -> Result<Self> {
        let mut benches = vec!["bench", "--no-run"];
        if cfg!(debug_assertions) {
            benches.extend(["--profile", "dev"]);
        }
        for name in ["calls", "sessions", "reconnect"] {
            benches.extend(["--bench", name]);
        }
        let benches = cargo(&benches)?;
        let mut packages = Vec::new();
        for (option, folder) in [("--tower-mcp", "tower_mcp"), ("--jsonrpsee", "jsonrpsee")] {
            if options.without_packages {
                break;
            }
            let manifest = format!("benches/{folder}/Cargo.toml");
            match cargo(&["build", "--release", "--locked", "--manifest-path", &manifest]) {
                Ok(built) => packages.extend(built.into_values().map(|program| (option, program))),
                Err(error) => eprintln!("{manifest}: {error}; it is left out"),
            }
        }
        Ok(Self { benches, packages })
    }

    /// Runs all of them, one after the other.
    pub(crate) fn measure(&self, options: &Options) -> Result<Records> {
        if options.smoke {
            return self.all(&[
                ("calls", &["--quick"]),
                ("calls", &["--quick", "--threads", "all", "--case", CASES]),
                ("sessions", &["--quick"]),
                ("reconnect", &["--quick"]),
            ]);
        }
        let rounds = options.rounds().to_string();
        let (seconds, sessions, beating, openings, cuts) = match options.quick {
            true => ("0.08", "1000", "2000", "100", "20"),
            false => ("0.3", "2000", "10000", "300", "100"),
        };
        // An interval between heartbeats takes 20 s.
        let beats = if options.quick { "1" } else { &rounds };
        let calls = ["--rounds", &rounds, "--seconds", seconds];
        let all = [&calls[..], &["--threads", "all", "--case", CASES]].concat();
        let memory = ["--part", "memory", "--sessions", sessions, "--idle", "1"];
        let others = ["--part", "time,broadcast", "--openings", openings];
        self.all(&[
            ("calls", &calls),
            ("calls", &all),
            ("sessions", &[&memory[..], &["--rounds", &rounds]].concat()),
            ("sessions", &[&others[..], &["--rounds", &rounds]].concat()),
            ("sessions", &["--part", "heartbeats", "--rounds", beats, "--beating", beating]),
            ("reconnect", &["--rounds", &rounds, "--cuts", cuts, "--sessions", sessions]),
        ])
    }

    fn all(&self, runs: &[(&str, &[&str])]) -> Result<Records> {
        let mut all = Records::default();
        for (name, args) in runs {
            let records = self.run(name, args)?;
            all.records.extend(records.records);
            if all.machine.is_empty() {
                all.machine = records.machine;
            }
        }
        Ok(all)
    }

    fn run(&self, name: &str, args: &[&str]) -> Result<Records> {
        let program = self.benches.get(name).ok_or_else(|| format!("no benchmark {name}"))?;
        let file = env::temp_dir().join(format!("{name}-{}.json", process::id()));
        let mut command = Command::new(program);
        command.arg("--bench").args(args).arg("--json").arg(&file);
        for (option, package) in &self.packages {
            match (name, *option) {
                ("calls", _) | ("sessions", "--tower-mcp") => command.arg(option).arg(package),
                _ => continue,
            };
        }
        println!("--- {name} {}", args.join(" "));
        let status = command.status()?;
        if !status.success() {
            return Err(format!("{name}: {status}").into());
        }
        let records = Records::read(&file);
        fs::remove_file(&file)?;
        println!();
        records
    }
}

/// Runs cargo in this package; returns the programs that it has made, by the names of their
/// targets.
fn cargo(args: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", args.join(" "), output.status).into());
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let made = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?;
        Some((name.to_owned(), message["executable"].as_str()?.into()))
    });
    Ok(made.collect())
}
