//! Files that outlive the processes that write them, however these end: a line for each event.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write,
    path::Path,
    time::SystemTime,
};

/// Appends a line of 64 bytes, whole or not at all: a process that is killed may have written one
/// page and not the next, and 64 divides the size of a page.
pub fn append(mut file: &File, line: &str) {
    file.write_all(format!("{line:<63}\n").as_bytes()).unwrap();
}

/// Returns the time, which all processes share, in microseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Returns the number of times that each call was executed, by whichever process.
pub fn executions(path: &Path) -> HashMap<u64, usize> {
    let mut times = HashMap::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        *times.entry(line.trim_end().parse().unwrap()).or_default() += 1;
    }
    times
}

/// What a client writes down.
#[derive(Debug, Default)]
pub struct Report {
    pub calls: Vec<Call>,
    /// Times at which a session began in place of one that was lost.
    pub restarted: Vec<u64>,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub number: u64,
    pub from: u64,
    /// `None` if the client was killed before.
    pub end: Option<End>,
}

/// How a call ended: `ok`, `wrong` for an answer that is not its own, `hung`, or the kind of its
/// error.
#[derive(Debug, Clone)]
pub struct End {
    pub at: u64,
    pub kind: String,
}

pub fn begun(number: u64) -> String {
    format!("begun {number} {}", now())
}

pub fn ended(number: u64, kind: &str) -> String {
    format!("ended {number} {} {kind}", now())
}

pub fn restarted() -> String {
    format!("restarted {}", now())
}

impl Report {
    /// Reads what the clients of one place have written, one after the other.
    pub fn read(path: &Path) -> Self {
        let mut report = Self::default();
        let mut places = HashMap::new();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["begun", number, from] => {
                    let (number, from) = (number.parse().unwrap(), from.parse().unwrap());
                    let before = places.insert(number, report.calls.len());
                    assert_eq!(before, None, "{number} was called twice");
                    report.calls.push(Call { number, from, end: None });
                }
                ["ended", number, at, kind] => {
                    let place = places[&number.parse().unwrap()];
                    let (at, kind) = (at.parse().unwrap(), kind.to_owned());
                    let before = report.calls[place].end.replace(End { at, kind });
                    assert!(before.is_none(), "{number} ended twice");
                }
                ["restarted", at] => report.restarted.push(at.parse().unwrap()),
                _ => panic!("{}: {line:?}", path.display()),
            }
        }
        report
    }
}
