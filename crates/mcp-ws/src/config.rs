//! [`read`]: the servers of a `mcpServers.json`, as hosts have it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{child::Program, failure::Failure, options::unreadable};

/// Configuration file of a host, of which only the servers are read.
#[derive(Deserialize)]
struct File {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, Entry>,
}

/// Server of such a file.
#[derive(Deserialize)]
struct Entry {
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    disabled: bool,
}

/// Reads the servers of a file. Those that are disabled, or have no command, are warned of and left
/// out.
pub(crate) fn read(file: &Path) -> Result<Vec<Program>, Failure> {
    let text = fs::read_to_string(file).map_err(|error| unreadable("--config", file, &error))?;
    let read: File = serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("--config {}: {error}", file.display())))?;
    let mut programs = Vec::new();
    for (name, entry) in read.servers {
        let Some(command) = entry.command.filter(|_| !entry.disabled) else {
            tracing::warn!("{name}: disabled, or no command: not served");
            continue;
        };
        if !is_path_segment(&name) {
            let what = format!("{name:?} cannot be a path: letters, digits, and -._~ are for that");
            return Err(Failure::usage(what));
        }
        programs.push(Program {
            name,
            command,
            arguments: entry.args,
            environment: entry.env,
            folder: entry.cwd.map(|cwd| beside(file, cwd)),
        });
    }
    if programs.is_empty() {
        return Err(Failure::usage(format!("--config {}: no server", file.display())));
    }
    Ok(programs)
}

/// Resolves a relative `path` against the folder of `file`.
fn beside(file: &Path, path: PathBuf) -> PathBuf {
    file.parent().map_or(path.clone(), |folder| folder.join(path))
}

/// Returns `true` if `name` can be the path of a server: it is of unreserved characters (RFC 3986,
/// section 2.3), and not that of the health page.
fn is_path_segment(name: &str) -> bool {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    !name.is_empty() && name != "health" && name.bytes().all(is_unreserved)
}
