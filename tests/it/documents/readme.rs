//! The README against what it says of the package: versions, links, features and figures.

use std::fs;

use serde_json::Value;

use super::{anchor, root};

const README: &str = include_str!("../../../README.md");

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns what is between `before` and `after` in the README.
fn between(before: &str, after: &str) -> &'static str {
    let rest = README.split_once(before).unwrap_or_else(|| panic!("no {before}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} behind {before}")).0
}

#[test]
fn it_has_less_than_150_lines() {
    assert!(README.lines().count() < 150, "{} lines", README.lines().count());
}

#[test]
fn versions_and_licences_are_those_of_the_package() {
    let least = env!("CARGO_PKG_RUST_VERSION");
    assert_eq!(between("![Rust ", "]"), least);
    assert_eq!(between("badge/rust-", "-blue"), least);
    assert_eq!(between("with Rust ", " or newer"), least);
    assert_eq!(
        between("![MIT or Apache-2.0]", ")").rsplit('/').next(),
        Some("licence-MIT_or_Apache--2.0-blue")
    );
    assert!(read("Cargo.toml").contains("\nlicense = \"MIT OR Apache-2.0\"\n"));
    let rmcp = format!("\nrmcp = {{ version = \"{}.", between("cargo add rmcp@", " "));
    assert!(read("Cargo.toml").contains(&rmcp), "{rmcp}");
    assert!(README.contains("[`rmcp`](https://github.com/modelcontextprotocol/rust-sdk) 3.x"));
}

#[test]
fn what_it_links_to_is_there() {
    let targets = README.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    let images = README.split("<img src=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0);
    let mut followed = 0;
    for target in targets.chain(images).filter(|target| !target.contains("://")) {
        let (path, section) = target.split_once('#').unwrap_or((target, ""));
        assert!(root().join(path).exists(), "{target}");
        if !section.is_empty() {
            let page = read(path);
            let headings =
                page.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
            assert!(headings.map(anchor).any(|anchor| anchor == section), "{target}");
        }
        followed += 1;
    }
    assert!(followed > 25, "{followed}");
}

#[test]
fn claude_code_is_told_where_the_server_listens() {
    let address = between("serve(\"", "\"");
    let url = format!("ws://{address}/mcp");
    let json = between("claude mcp add-json calculator '", "'`");
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json, serde_json::json!({ "type": "ws", "url": url }));
    assert_eq!(between("connect(\"", "\""), url);
    let page = format!("<http://{address}>");
    assert!(README.contains(&page), "{page}");
    assert!(read("examples/math/serve.rs").contains(&format!("default_value = \"{address}\"")));
}

#[test]
fn the_features_that_it_names_are_there() {
    let manifest = read("Cargo.toml");
    let features = README.split("(feature `").skip(1).map(|rest| rest.split_once('`').unwrap().0);
    let features: Vec<_> = features.collect();
    assert!(!features.is_empty());
    for feature in features {
        assert!(manifest.contains(&format!("\n{feature} = [")), "{feature}");
    }
}

/// The last benchmark.
struct Figures(Value);

impl Figures {
    fn read() -> Self {
        Self(serde_json::from_str(&read("benches/table/figures.json")).unwrap())
    }

    fn rounds(&self, case: &str, contender: &str, threads: &str, figure: &str) -> Vec<f64> {
        let records = self.0["records"].as_array().unwrap();
        let is_it = |record: &&Value| {
            record["case"] == case
                && record["contender"] == contender
                && record["threads"] == threads
                && record["figure"] == figure
        };
        let record = records.iter().find(is_it);
        record
            .map(|record| serde_json::from_value(record["rounds"].clone()).unwrap())
            .unwrap_or_default()
    }

    /// Median over the rounds of how many times the other's figure this crate's is.
    fn ours_against(&self, other: &str, case: &str, threads: &str, figure: &str) -> f64 {
        let ours = self.rounds(case, "ours", threads, figure);
        let others = self.rounds(case, other, threads, figure);
        let mut ratios: Vec<_> =
            ours.iter().zip(&others).map(|(ours, other)| ours / other).collect();
        assert_eq!(ratios.len(), 5, "{case}, {other}");
        ratios.sort_by(f64::total_cmp);
        ratios[2]
    }
}

#[test]
fn the_figures_are_those_of_the_last_benchmark() {
    let figures = Figures::read();
    assert!(README.contains("one takes a fifth of the time"));
    let time = figures.ours_against("http-best", "in-flight-1", "one", "mean_us");
    assert!((0.18..0.22).contains(&time), "{time}");
    let times: f64 = between("64 at once go ", " times as fast").parse().unwrap();
    let rate = figures.ours_against("http-best", "in-flight-64", "one", "calls_per_second");
    assert_eq!(rate.round(), times, "{rate}");
}

#[test]
fn the_chart_is_that_of_the_last_benchmark() {
    let (figures, chart) = (Figures::read(), read("benches/table/chart.svg"));
    let machine = figures.0["machine"].as_str().unwrap().lines().next().unwrap();
    assert!(chart.contains(machine), "{machine}");
    let panels = [
        ("in-flight-1", "one", "p50_us"),
        ("in-flight-64", "one", "calls_per_second"),
        ("in-flight-64", "all", "calls_per_second"),
        ("connections-64", "all", "calls_per_second"),
        ("echo-1m", "one", "p50_us"),
        ("idle-server", "one", "kib"),
    ];
    let drawn =
        chart.lines().filter(|line| line.contains(">mcp-ws-transport</text>")).map(|line| {
            let figure = line.rsplit_once(" ×</text>").unwrap().0;
            figure.rsplit_once('>').unwrap().1.to_owned()
        });
    let measured = panels.map(|(case, threads, figure)| {
        format!("{:.2}", figures.ours_against("stock-best", case, threads, figure))
    });
    assert_eq!(drawn.collect::<Vec<_>>(), measured);
}
