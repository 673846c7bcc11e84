//! [`Guard`]: a process that ends the children of this one when this one has ended or was killed.
//!
//! It reads the ids of their process groups from its standard input, `+7` and `-7`. When that ends,
//! this process is gone, and what is left is ended.

use std::io;

use crate::group::Group;

/// Handle of the process that watches over the children of this one.
#[derive(Clone)]
pub(crate) struct Guard {
    #[cfg(unix)]
    input: std::sync::Arc<std::sync::Mutex<std::process::ChildStdin>>,
}

/// Name of the command that the guard runs.
pub(crate) const COMMAND: &str = "guard-children";

#[cfg(unix)]
impl Guard {
    /// Starts the guard.
    pub(crate) fn start() -> io::Result<Self> {
        use std::{
            os::unix::process::CommandExt,
            process::{Command, Stdio},
        };

        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A signal of the terminal is for this process, not for the guard.
        let mut process = command.process_group(0).spawn()?;
        let input = process.stdin.take().ok_or_else(|| io::Error::other("no standard input"))?;
        Ok(Self { input: std::sync::Arc::new(std::sync::Mutex::new(input)) })
    }

    /// Puts this group under the guard.
    pub(crate) fn watch(&self, group: Group) {
        self.tell('+', group);
    }

    /// Takes this group, which has ended, from under the guard.
    pub(crate) fn forget(&self, group: Group) {
        self.tell('-', group);
    }

    fn tell(&self, sign: char, group: Group) {
        use std::io::Write;

        let line = format!("{sign}{}\n", group.id());
        let mut input = self.input.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = input.write_all(line.as_bytes()) {
            tracing::warn!(%error, "nobody ends the children if this process is killed");
        }
    }
}

/// Runs the guard: waits for the end of the standard input, and ends what is left.
#[cfg(unix)]
pub(crate) fn run() {
    use std::{collections::BTreeSet, thread::sleep, time::Duration};

    let mut groups = BTreeSet::new();
    for line in io::stdin().lines() {
        let Ok(line) = line else { break };
        match (line.get(..1), line.get(1..).and_then(|id| id.parse::<i32>().ok())) {
            (Some("+"), Some(id)) => drop(groups.insert(id)),
            (Some("-"), Some(id)) => drop(groups.remove(&id)),
            _ => {}
        }
    }
    let left = || groups.iter().map(|id| Group::from_id(*id)).filter(|group| group.is_alive());
    left().for_each(Group::terminate);
    for _ in 0..100 {
        if left().next().is_none() {
            return;
        }
        sleep(Duration::from_millis(20));
    }
    left().for_each(Group::kill);
}

/// Does nothing: without process groups a child is killed when this process drops it.
#[cfg(not(unix))]
impl Guard {
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(crate) fn watch(&self, _: Group) {}

    pub(crate) fn forget(&self, _: Group) {}
}

#[cfg(not(unix))]
pub(crate) fn run() {}
