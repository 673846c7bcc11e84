//! [`Group`]: the process group of a child.

/// Process group of a child, with whatever that has started.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Group {
    /// Returns the group that a process leads which was just started.
    pub(crate) fn of(process: &tokio::process::Child) -> Self {
        Self(process.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)))
    }

    /// Returns the group with this id.
    pub(crate) fn from_id(id: i32) -> Self {
        Self(rustix::process::Pid::from_raw(id).filter(|pid| pid.as_raw_nonzero().get() > 1))
    }

    pub(crate) fn id(self) -> i32 {
        self.0.map_or(0, |pid| pid.as_raw_nonzero().get())
    }

    /// Returns `true` if some process of it is there.
    pub(crate) fn is_alive(self) -> bool {
        self.0.is_some_and(|pid| rustix::process::test_kill_process_group(pid).is_ok())
    }

    pub(crate) fn terminate(self) {
        self.send(rustix::process::Signal::TERM);
    }

    pub(crate) fn kill(self) {
        self.send(rustix::process::Signal::KILL);
    }

    fn send(self, signal: rustix::process::Signal) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

/// Placeholder, since there are no process groups here.
#[cfg(not(unix))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group;

#[cfg(not(unix))]
impl Group {
    pub(crate) fn of(_: &tokio::process::Child) -> Self {
        Self
    }

    pub(crate) fn is_alive(self) -> bool {
        false
    }

    pub(crate) fn terminate(self) {}

    pub(crate) fn kill(self) {}
}
