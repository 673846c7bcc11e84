//! [`UnixSocket`]: connections to a server at a Unix socket.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use tokio::net::UnixStream;
use url::Url;

use super::connector::{Connector, Target};
use crate::error::HandshakeError;

/// Connector to a server at a Unix socket, whatever the host of the URL.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mcp_ws_transport::{client::UnixSocket, connect};
/// use rmcp::ServiceExt;
///
/// let connect = connect("ws://localhost/mcp").connector(UnixSocket::new("/run/mcp.sock"));
/// let client = ().serve(connect.await?).await?;
/// # drop(client); Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct UnixSocket {
    path: PathBuf,
}

impl UnixSocket {
    /// Creates the connector to the socket at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Connector for UnixSocket {
    type Io = UnixStream;

    async fn connect(&self, _: Target) -> Result<UnixStream, HandshakeError> {
        let connecting = UnixStream::connect(&self.path).await;
        connecting.map_err(|error| described(&self.path, &error).into())
    }
}

/// Adds the path of the socket and advice to a connection error.
fn described(path: &Path, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ": is the server running, and this its socket?"
        }
        io::ErrorKind::PermissionDenied => ": does its owner let this user connect?",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}: {error}{hint}", path.display()))
}

/// Splits `ws+unix:SOCKET:PATH` into the socket and the `ws` URL to ask it for; `None` for another
/// scheme.
pub(super) fn split(url: &str) -> Result<Option<(UnixSocket, Url)>, HandshakeError> {
    let Ok(given) = Url::parse(url) else { return Ok(None) };
    if given.scheme() != "ws+unix" {
        return Ok(None);
    }
    let invalid = |what: &str| HandshakeError::Invalid(format!("URL: {what}"));
    let (socket, path) = given.path().split_once(':').unwrap_or((given.path(), "/"));
    if given.has_host() || !socket.starts_with('/') || socket == "/" {
        return Err(invalid("the path of a Unix socket is absolute: ws+unix:/run/mcp.sock:/mcp"));
    }
    if !path.starts_with('/') {
        return Err(invalid("what follows the Unix socket is no path: ws+unix:/run/mcp.sock:/mcp"));
    }
    let mut asked = Url::parse("ws://localhost").map_err(|error| invalid(&error.to_string()))?;
    asked.set_path(path);
    asked.set_query(given.query());
    let socket = percent_decode_str(socket).collect();
    Ok(Some((UnixSocket::new(OsString::from_vec(socket)), asked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_socket_and_what_to_ask_it_for() {
        for (url, socket, asked) in [
            ("ws+unix:/run/mcp.sock:/mcp", "/run/mcp.sock", "ws://localhost/mcp"),
            ("ws+unix:///run/mcp.sock:/mcp?a=b:c", "/run/mcp.sock", "ws://localhost/mcp?a=b:c"),
            ("WS+Unix:/run/a%20b%3Ac:/x/y", "/run/a b:c", "ws://localhost/x/y"),
            ("ws+unix:/run/mcp.sock", "/run/mcp.sock", "ws://localhost/"),
        ] {
            let (found, url) = split(url).unwrap().unwrap();
            assert_eq!((found.path.to_str(), url.as_str()), (Some(socket), asked));
        }
        for other in ["ws://localhost/mcp", "wss://example.com", "", "localhost:80", "unix:/a"] {
            assert!(split(other).unwrap().is_none(), "{other}");
        }
    }

    #[test]
    fn a_url_that_names_none_is_an_error_that_says_how() {
        for url in [
            "ws+unix:run/mcp.sock:/mcp",
            "ws+unix://run/mcp.sock:/mcp",
            "ws+unix::/mcp",
            "ws+unix:/:/mcp",
            "ws+unix:",
            "ws+unix:/run/mcp.sock:mcp",
            "ws+unix:/run/mcp.sock:",
        ] {
            let error = split(url).unwrap_err();
            assert!(
                !error.is_retryable() && error.to_string().contains("/run/mcp.sock:/mcp"),
                "{url}"
            );
        }
    }
}
