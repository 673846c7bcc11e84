//! [`Traced`]: all that is traced in this process.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write as _},
    sync::{Mutex, OnceLock},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};

use super::CANARY;

/// All that was traced so far, by target.
#[derive(Debug, Default)]
pub struct Traced(Mutex<BTreeMap<&'static str, String>>);

impl Traced {
    /// Collects all that is traced from now on, by everybody.
    pub fn all() -> &'static Self {
        static TRACED: OnceLock<Traced> = OnceLock::new();
        TRACED.get_or_init(|| {
            tracing_subscriber::registry().with(Collector).init();
            Self::default()
        })
    }

    fn note(&self, metadata: &Metadata<'static>, record: impl FnOnce(&mut Lines)) {
        let mut lines = Lines(String::new());
        record(&mut lines);
        let mut traced = self.0.lock().unwrap();
        traced.entry(metadata.target()).or_default().push_str(&lines.0);
    }

    /// Asserts that no line of this crate has a canary in it.
    pub fn assert_clean(&self) {
        let (own, _) = self.showing(CANARY);
        assert!(own.is_empty(), "{own:#?}");
    }

    /// Returns all lines of a target.
    pub fn of(&self, target: &str) -> String {
        self.0.lock().unwrap()[target].clone()
    }

    /// Returns the lines with this `secret` in them, of this crate and of others.
    pub fn showing(&self, secret: &str) -> (Vec<String>, Vec<String>) {
        let traced = self.0.lock().unwrap();
        let found = |(target, text): (&&str, &String)| -> Vec<String> {
            let lines = text.lines().filter(|line| line.contains(secret));
            lines.map(|line| format!("{target}: {line}")).collect()
        };
        let (own, foreign): (Vec<_>, Vec<_>) =
            traced.iter().partition(|(target, _)| target.starts_with("mcp_ws_transport"));
        let lines: usize = own.iter().map(|(_, text)| text.lines().count()).sum();
        println!("count: {lines} traced fields searched");
        (own.into_iter().flat_map(found).collect(), foreign.into_iter().flat_map(found).collect())
    }
}

struct Lines(String);

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0, "{field}={value:?}").unwrap();
    }
}

/// Layer that collects everything.
struct Collector;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, span: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        Traced::all().note(span.metadata(), |lines| span.record(lines));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        Traced::all().note(span.metadata(), |lines| values.record(lines));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        Traced::all().note(event.metadata(), |lines| event.record(lines));
    }
}
