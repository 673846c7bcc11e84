//! [`print()`]: what was asked for, on the standard output.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints `text` and a line break. Nothing is said of a reader who has left, as by `| head`.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::usage(format!("the standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints `value` as JSON, for people to read too.
pub(crate) fn print_json(value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(io::Error::other)?)
}
