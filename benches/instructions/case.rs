//! The cases: who is measured, with what.

use std::fmt;

use crate::{
    client,
    load::{Load, Unit},
    result::Result,
    server,
};

/// The side that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) side: Side,
    pub(crate) unit: Unit,
    pub(crate) in_flight: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Server => "server",
            Side::Client => "client",
        };
        let unit = match self.unit {
            Unit::Small => "small call",
            Unit::Large => "64 KiB call",
            Unit::Connection => return f.pad(&format!("{side}, connection")),
        };
        f.pad(&format!("{side}, {unit}, {} in flight", self.in_flight))
    }
}

impl Case {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let units = [
            (Unit::Small, 1),
            (Unit::Small, 64),
            (Unit::Large, 1),
            (Unit::Large, 64),
            (Unit::Connection, 1),
        ];
        let cases = [Side::Server, Side::Client].into_iter().flat_map(move |side| {
            units.into_iter().map(move |(unit, in_flight)| Self { side, unit, in_flight })
        });
        // Without optimization, many large messages take longer than a link may.
        let is_optimized = !cfg!(debug_assertions);
        cases.filter(move |case| is_optimized || case.unit != Unit::Large || case.in_flight == 1)
    }

    /// Returns the number of units in the short run and in the long one. What is not optimized
    /// takes ten times as long, and its figures spread less.
    pub(crate) fn lengths(self) -> (usize, usize) {
        let is_optimized = !cfg!(debug_assertions);
        match (self.unit, self.in_flight) {
            (Unit::Small, 1) if is_optimized => (200, 1200),
            (Unit::Small, 1) => (50, 150),
            (Unit::Small, _) if is_optimized => (640, 1920),
            (Unit::Small, _) => (128, 384),
            (Unit::Large, 1) if is_optimized => (40, 200),
            (Unit::Large, 1) => (8, 24),
            (Unit::Large, _) => (128, 384),
            (Unit::Connection, _) if is_optimized => (50, 250),
            (Unit::Connection, _) => (10, 40),
        }
    }

    /// Runs `count` units.
    pub(crate) async fn run(self, count: usize) -> Result<()> {
        let load = Load::new(self.unit, self.in_flight, count);
        match (self.side, self.unit) {
            (Side::Server, Unit::Connection) => server::connections(count).await,
            (Side::Server, _) => server::calls(load).await,
            (Side::Client, Unit::Connection) => client::connections(load).await,
            (Side::Client, _) => client::calls(load).await,
        }
    }
}
