//! The guide `observability` against the sources: events, fields, metrics and figures.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, is_text_of, quoted, root, rows, sources};

const PAGE: &str = include_str!("../../../src/guide/observability.md");

/// Returns the names of the fields of a macro of `tracing`, of which this is the inside.
fn fields(inside: &str) -> BTreeSet<&str> {
    let mut depth = 0;
    let arguments = inside.split(|c| {
        depth += i32::from("([{".contains(c)) - i32::from(")]}".contains(c));
        c == ',' && depth == 0
    });
    let arguments = arguments.map(str::trim);
    let fields = arguments.filter(|argument| !argument.is_empty() && !argument.contains("parent:"));
    let names = fields.map(|field| field.split('=').next().unwrap().trim());
    names.filter(|name| !name.starts_with('"')).map(|name| name.trim_matches(['%', '?'])).collect()
}

/// The sources of the library.
fn library() -> Vec<Source> {
    let sources = sources().into_iter();
    sources.filter(|source| source.path.starts_with(root().join("src"))).collect()
}

#[test]
fn the_page_has_each_event_at_info_with_its_fields() {
    let mut listed: BTreeMap<_, _> = rows(PAGE, "event")
        .iter()
        .map(|row| (quoted(row, "event")[0], quoted(row, "fields").into_iter().collect()))
        .collect();
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in library() {
        for inside in source.inside("tracing::info!(") {
            let event = source.last_literal(inside).unwrap();
            let fields = fields(inside).into_iter().map(str::to_owned);
            told.entry(event.to_owned()).or_default().extend(fields);
        }
        // The only warning that is on this page too.
        for inside in source.inside("tracing::warn!(") {
            let event = source.last_literal(inside).unwrap_or_default();
            if let Some(listed) = listed.keys().find(|listed| is_text_of(listed, event)) {
                let fields = fields(inside).into_iter().map(str::to_owned);
                told.entry((*listed).to_owned()).or_default().extend(fields);
            }
        }
    }
    assert!(told.len() > 8, "{told:#?}");
    for (event, fields) in told {
        let listed: Option<BTreeSet<&str>> = listed.remove(&*event);
        let fields: BTreeSet<_> = fields.iter().map(String::as_str).collect();
        assert_eq!(listed, Some(fields), "src/guide/observability.md on {event:?}");
    }
    assert!(
        listed.is_empty(),
        "src/guide/observability.md has events that the code has not: {listed:?}"
    );
}

#[test]
fn the_page_has_each_field_of_the_spans() {
    let mut named: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for source in library() {
        for inside in source.inside("tracing::info_span!(") {
            let side = if source.path.starts_with(root().join("src/server")) {
                "server"
            } else {
                "client"
            };
            let fields = fields(inside).into_iter().map(str::to_owned);
            named.entry(side).or_default().extend(fields);
        }
    }
    assert_eq!(named.len(), 2);
    for (side, named) in named {
        let rows = rows(PAGE, "field of the span");
        let rows = rows.iter().filter(|row| row.contains(&(side, "yes")));
        let listed: BTreeSet<_> =
            rows.flat_map(|row| quoted(row, "field of the span")).map(str::to_owned).collect();
        assert_eq!(listed, named, "src/guide/observability.md on the span of a {side}");
    }
}

#[test]
fn the_page_has_each_metric() {
    let mut named: BTreeSet<(String, &str)> = BTreeSet::new();
    for source in library() {
        for kind in ["counter", "gauge", "histogram"] {
            let call = format!("{kind}!(");
            let literals = source.inside(&call).filter_map(|inside| source.first_literal(inside));
            named.extend(literals.map(|name| (name.to_owned(), kind)));
        }
    }
    assert!(named.len() > 10, "{named:?}");
    let rows = rows(PAGE, "metric");
    let listed: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let kind = row.iter().find(|(name, _)| *name == "kind").unwrap().1;
            (quoted(row, "metric")[0].to_owned(), kind)
        })
        .collect();
    assert_eq!(listed, named, "src/guide/observability.md");
}

#[test]
fn the_page_has_each_figure_of_health() {
    let mut named = BTreeSet::new();
    for source in library() {
        for (declared, prefix) in
            [("pub struct Health {", ""), ("pub struct ClusterHealth {", "cluster.")]
        {
            let Some((_, body)) = source.code.split_once(declared) else { continue };
            let body = body.split_once("\n}").unwrap().0;
            let fields = body.split("pub ").skip(1).map(|field| field.split_once(':').unwrap().0);
            named.extend(
                fields.filter(|field| *field != "cluster").map(|field| format!("{prefix}{field}")),
            );
        }
    }
    assert!(named.len() > 12, "{named:?}");
    let rows = rows(PAGE, "figure");
    let listed: BTreeSet<_> =
        rows.iter().flat_map(|row| quoted(row, "figure")).map(str::to_owned).collect();
    assert_eq!(listed, named, "src/guide/observability.md");
}
