//! [`ClientOptions`]: what all commands that dial have in common.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mcp_ws_transport::{
    McpRole,
    client::{ClientTls, Connect},
    connect,
    layer::socket,
    transport,
};

use crate::failure::Failure;

/// Options of the commands that dial.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct ClientOptions {
    /// A token for the server, sent as `Authorization: Bearer`. Others can see it in the list of
    /// processes: prefer the file or the variable
    #[arg(long, value_name = "TOKEN", env = "MCP_WS_BEARER", hide_env_values = true)]
    bearer: Option<String>,
    /// A file with the token, which is read again for each connection
    #[arg(long, value_name = "FILE", conflicts_with = "bearer")]
    bearer_file: Option<PathBuf>,
    /// A header of the upgrade request; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The authorities to trust on wss://, in PEM form, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Offer to compress messages, which the server may decline
    #[arg(long)]
    pub(crate) deflate: bool,
}

impl ClientOptions {
    /// Returns the connection to `url` that is to be made.
    pub(crate) fn connect<R: McpRole>(&self, url: &str) -> Result<Connect<R>, Failure> {
        let mut connect = connect(url);
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else {
                return Err(Failure::usage(format!("--header {header:?} is not NAME: VALUE")));
            };
            connect = connect.header(name.trim(), value.trim());
        }
        if let Some(bearer) = &self.bearer {
            connect = connect.bearer(bearer.trim());
        }
        if let Some(file) = &self.bearer_file {
            let file = Arc::new(file.clone());
            read_token(&file).map_err(|error| unreadable("--bearer-file", &file, &error))?;
            connect = connect.bearer_provider(move |_| {
                let file = file.clone();
                async move { read_token(&file) }
            });
        }
        if let Some(ca) = &self.ca {
            let pem = fs::read(ca).map_err(|error| unreadable("--ca", ca, &error))?;
            connect = connect.tls(ClientTls::authorities(pem));
        }
        Ok(connect.transport(self.transport()))
    }

    fn transport(&self) -> transport::Config {
        transport::Config::default().socket(socket(self.deflate))
    }
}

/// Returns the settings of the WebSocket.
pub(crate) fn socket(deflate: bool) -> socket::Config {
    socket::Config::default().deflate(deflate.then(socket::deflate::Config::default))
}

/// Reads a token from its file.
pub(crate) fn read_token(file: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

/// Returns the failure to read the file of an option.
pub(crate) fn unreadable(option: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{option} {}: {error}", file.display()))
}
