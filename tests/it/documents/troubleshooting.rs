//! The guide `troubleshooting` against the sources: its texts are those that the code has, and it has
//! all errors and warnings.

use super::{is_text_of, quoted, rows, sources};

const PAGE: &str = include_str!("../../../src/guide/troubleshooting.md");

/// Texts that only those see who write layers of their own.
const FOR_LAYERS: [&str; 1] = ["not 1 to 128 unreserved characters"];

/// Returns the texts that the page lists: what is in the columns `text` of its tables.
fn listed() -> Vec<&'static str> {
    rows(PAGE, "text").iter().flat_map(|row| quoted(row, "text")).collect()
}

#[test]
fn every_text_of_the_page_is_in_the_sources() {
    let (listed, sources) = (listed(), sources());
    assert!(listed.len() > 200, "{} texts", listed.len());
    let is_in_the_sources = |listed: &&str| {
        let mut literals = sources.iter().flat_map(|source| &source.literals);
        literals.any(|literal| is_text_of(listed, literal))
    };
    let lost: Vec<_> = listed.iter().filter(|listed| !is_in_the_sources(listed)).collect();
    assert!(
        lost.is_empty(),
        "src/guide/troubleshooting.md has texts that the code has not: {lost:#?}"
    );
}

#[test]
fn no_error_and_no_warning_is_missing_on_the_page() {
    let listed = listed();
    let mut missing = Vec::new();
    for source in sources() {
        let calls = ["#[error(", "tracing::warn!(", "tracing::error!(", "CloseReason::new("];
        for text in calls.iter().flat_map(|call| source.last_in(call)) {
            let is_listed = listed.iter().any(|listed| is_text_of(listed, text));
            if !is_listed && !text.is_empty() && !FOR_LAYERS.contains(&text) {
                missing.push(format!("{}: {text}", source.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "src/guide/troubleshooting.md lacks: {missing:#?}");
}
