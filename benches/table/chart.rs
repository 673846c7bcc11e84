//! A chart of what was measured, each against the stock adaptor's best form in the same round: an SVG
//! that follows the colours of the page.

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
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "one call in flight, one core: time for a call, less is better",
        case: "in-flight-1",
        threads: One,
        figure: "p50_us",
    },
    Panel {
        title: "64 in flight, one core: calls per second, more is better",
        case: "in-flight-64",
        threads: One,
        figure: "calls_per_second",
    },
    Panel {
        title: "64 in flight, multi-thread: calls per second, more is better",
        case: "in-flight-64",
        threads: All,
        figure: "calls_per_second",
    },
    Panel {
        title: "64 connections, multi-thread: calls per second, more is better",
        case: "connections-64",
        threads: All,
        figure: "calls_per_second",
    },
    Panel {
        title: "1 MB there and back, one core: time for a call, less is better",
        case: "echo-1m",
        threads: One,
        figure: "p50_us",
    },
    Panel {
        title: "an idle session: memory of the server, less is better",
        case: "idle-server",
        threads: One,
        figure: "kib",
    },
];

/// Contender that all are compared with.
const REFERENCE: &str = "stock-best";

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

impl Panel {
    /// Returns the median over the rounds of how many times the reference's figure a contender's is, or
    /// `None` if either was not measured.
    fn ratio(&self, records: &Records, contender: &str) -> Option<f64> {
        let rounds = |contender| records.rounds(self.case, contender, self.threads, self.figure);
        let ratios =
            rounds(contender).iter().zip(rounds(REFERENCE)).map(|(own, other)| own / other);
        median(ratios.collect::<Vec<_>>().into_iter())
    }
}

/// A contender that was not measured has no bar.
pub(crate) fn draw(records: &Records) -> String {
    let mut body = String::new();
    let mut y = 16;
    for panel in &PANELS {
        let bars: Vec<_> = CONTENDERS
            .iter()
            .filter_map(|(name, text, is_ours)| {
                Some((*text, *is_ours, panel.ratio(records, name)?))
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
                format_args!("{figure:.2} ×"),
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
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" role=\"img\" aria-label=\"The time and memory of this crate and of others, as multiples of those of rmcp's adaptor in its best form\">\n{STYLE}\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{y}\" rx=\"6\"/>\n{body}</svg>\n"
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
