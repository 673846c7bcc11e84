//! Limit on the connections of a process.

use crate::common::Result;

/// Raises the limit of open files, for this process and the servers that it starts, to what this
/// number of `sessions` needs.
#[cfg(target_os = "linux")]
pub(crate) fn raise(sessions: usize) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let needed = sessions as u64 + 64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|error| {
        format!("{sessions} sessions need {needed} open files ({error}): raise `ulimit -n`, or ask for fewer --sessions").into()
    })
}

/// Does nothing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn raise(_sessions: usize) -> Result<()> {
    Ok(())
}
