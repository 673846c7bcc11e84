//! A chart of what was measured: an SVG that follows the colours of the page.

use std::fmt::Write;

use crate::common::{
    Threads::{self, All, One},
    figures::median,
    record::Records,
};

/// A group of bars.
#[derive(Debug)]
struct Panel {
    title: &'static str,
    case: &'static str,
    threads: Threads,
    figure: &'static str,
    show: fn(f64) -> String,
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "one call in flight, one core: µs for a call, less is better",
        case: "in-flight-1",
        threads: One,
        figure: "p50_us",
        show: micros,
    },
    Panel {
        title: "64 in flight, one core: thousand calls/s, more is better",
        case: "in-flight-64",
        threads: One,
        figure: "calls_per_second",
        show: thousands,
    },
    Panel {
        title: "64 in flight, multi-thread: thousand calls/s, more is better",
        case: "in-flight-64",
        threads: All,
        figure: "calls_per_second",
        show: thousands,
    },
    Panel {
        title: "64 connections, multi-thread: thousand calls/s, more is better",
        case: "connections-64",
        threads: All,
        figure: "calls_per_second",
        show: thousands,
    },
    Panel {
        title: "1 MB there and back, one core: ms for a call, less is better",
        case: "echo-1m",
        threads: One,
        figure: "p50_us",
        show: millis,
    },
    Panel {
        title: "an idle session, server: KiB, less is better",
        case: "idle-server",
        threads: One,
        figure: "kib",
        show: plain,
    },
];

/// Name, text, and whether it is this crate.
const CONTENDERS: [(&str, &str, bool); 6] = [
    ("ours", "mcp-ws-transport", true),
    ("stock-best", "rmcp's adaptor, best form", false),
    ("stock", "rmcp's adaptor", false),
    ("http-best", "streamable HTTP, best form", false),
    ("http", "streamable HTTP", false),
    ("tower-mcp", "tower-mcp", false),
];

const WIDTH: usize = 760;
/// Start of the bars, and length of the longest.
const LEFT: usize = 200;
const BAR: f64 = 480.0;
const STEP: usize = 20;

fn micros(figure: f64) -> String {
    format!("{figure:.1}")
}

fn thousands(figure: f64) -> String {
    format!("{:.1}", figure / 1e3)
}

fn millis(figure: f64) -> String {
    format!("{:.2}", figure / 1e3)
}

fn plain(figure: f64) -> String {
    format!("{figure:.0}")
}

/// A contender that was not measured has no bar.
pub(crate) fn draw(records: &Records) -> String {
    let mut body = String::new();
    let mut y = 16;
    for panel in &PANELS {
        let bars: Vec<_> = CONTENDERS
            .iter()
            .filter_map(|(name, text, is_ours)| {
                let rounds = records.rounds(panel.case, name, panel.threads, panel.figure);
                Some((*text, *is_ours, median(rounds.iter().copied())?))
            })
            .collect();
        if bars.is_empty() {
            continue;
        }
        let longest = bars.iter().map(|(_, _, figure)| *figure).fold(f64::MIN_POSITIVE, f64::max);
        let _ =
            writeln!(body, r#"<text class="title" x="12" y="{}">{}</text>"#, y + 12, panel.title);
        y += STEP;
        for (text, is_ours, figure) in bars {
            let (class, width) = (if is_ours { "ours" } else { "other" }, BAR * figure / longest);
            let _ = writeln!(
                body,
                r#"<text class="name" x="{}" y="{}">{text}</text><rect class="{class}" x="{LEFT}" y="{y}" width="{width:.1}" height="14" rx="2"/><text x="{:.1}" y="{}">{}</text>"#,
                LEFT - 8,
                y + 11,
                LEFT as f64 + width + 6.0,
                y + 11,
                (panel.show)(figure),
            );
            y += STEP;
        }
        y += 12;
    }
    for line in records.machine.lines().take(1) {
        let _ =
            writeln!(body, r#"<text class="small" x="12" y="{}">{}</text>"#, y + 8, escape(line));
        y += STEP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" role=\"img\" aria-label=\"The time and memory of this crate and of others\">\n{STYLE}\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{y}\" rx=\"6\"/>\n{body}</svg>\n"
    )
}

/// Text and background change together, so that either is readable on any page.
const STYLE: &str = "<style>
.page { fill: #ffffff } text { fill: #1f2328; font: 12px system-ui, sans-serif }
.title { font-weight: 600 } .name { text-anchor: end } .small { font-size: 10px }
.ours { fill: #0969da } .other { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .ours { fill: #4493f8 } .other { fill: #545d68 }
}
</style>";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
