//! Measurements as JSON.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use super::{Result, Threads};

/// One figure of one contender in one case, from each round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) case: String,
    pub(crate) contender: String,
    pub(crate) threads: String,
    pub(crate) figure: String,
    pub(crate) rounds: Vec<f64>,
}

impl Record {
    pub(crate) fn new(
        case: &str,
        contender: &str,
        threads: Threads,
        figure: &str,
        rounds: impl IntoIterator<Item = f64>,
    ) -> Self {
        Self {
            case: case.into(),
            contender: contender.into(),
            threads: threads.name().into(),
            figure: figure.into(),
            rounds: rounds.into_iter().map(round).collect(),
        }
    }
}

/// Everything that one run has measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Records {
    pub(crate) machine: String,
    pub(crate) records: Vec<Record>,
}

impl Records {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let json = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// One record a line.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let records =
            self.records.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let machine = serde_json::to_string(&self.machine)?;
        let json =
            format!("{{\"machine\": {machine}, \"records\": [\n{}\n]}}\n", records.join(",\n"));
        Ok(fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// The rounds of a figure; none if it was not measured.
    pub(crate) fn rounds(
        &self,
        case: &str,
        contender: &str,
        threads: Threads,
        figure: &str,
    ) -> &[f64] {
        let mut records = self.records.iter();
        let found = records.find(|record| {
            record.case == case
                && record.contender == contender
                && record.threads == threads.name()
                && record.figure == figure
        });
        found.map_or(&[], |record| &record.rounds)
    }
}

/// Rounds to five digits.
fn round(figure: f64) -> f64 {
    format!("{figure:.4e}").parse().unwrap_or(figure)
}
