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

/// End of the labels of private keys in PEM form.
const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Options of the commands that dial.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct ClientOptions {
    /// A token to be let in by, sent as `Authorization: Bearer`. Others can see it in the list of
    /// processes: prefer the file or the variable
    #[arg(long, value_name = "TOKEN", env = "MCP_WS_BEARER", hide_env_values = true)]
    bearer: Option<String>,
    /// A file with the token, which is read again for each connection, in place of --bearer
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// A header of the upgrade request, such as "X-Api-Key: 7"; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The authorities to trust on wss://, in PEM form, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A certificate of the client's own, in PEM form, for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM form
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// A proxy to connect through, such as http://proxy.example.com:3128 or socks5h://…, in place
    /// of that of the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY)
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Connect without a proxy, whatever the environment says
    #[arg(long, conflicts_with = "proxy")]
    no_proxy: bool,
    /// Offer to compress messages, which the other side may decline
    #[arg(long)]
    pub(crate) deflate: bool,
    /// Offer no `mcp.resume.v1`, for servers that take no offer but `mcp`; nothing is resumed then
    #[arg(long)]
    no_resume: bool,
}

impl ClientOptions {
    /// Returns the connection to `url` that is to be made.
    pub(crate) fn connect<R: McpRole>(&self, url: &str) -> Result<Connect<R>, Failure> {
        let mut connect = connect(url);
        for header in &self.headers {
            let Some((name, value)) = header.split_once(':') else {
                // Its value may be secret.
                return Err(Failure::usage("a --header is not NAME: VALUE"));
            };
            connect = connect.header(name.trim(), value.trim());
        }
        if let Some(file) = &self.bearer_file {
            let file = Arc::new(file.clone());
            read_token(&file).map_err(|error| unreadable("--bearer-file", &file, &error))?;
            connect = connect.bearer_provider(move |_| {
                let file = file.clone();
                async move { read_token(&file) }
            });
        } else if let Some(bearer) = &self.bearer {
            connect = connect.bearer(bearer.trim());
        }
        if let Some(proxy) = &self.proxy {
            connect = connect.proxy(proxy.as_str());
        } else if self.no_proxy {
            connect = connect.no_proxy();
        }
        let connect = connect.tls(self.tls()?).transport(self.transport());
        Ok(connect.resume(!self.no_resume))
    }

    /// Returns whom to trust, and the certificate to show.
    fn tls(&self) -> Result<ClientTls, Failure> {
        let tls = match &self.ca {
            Some(ca) => ClientTls::authorities(read_pem("--ca", ca, "CERTIFICATE")?),
            None => ClientTls::default(),
        };
        let Some((cert, key)) = self.client_cert.as_ref().zip(self.client_key.as_ref()) else {
            return Ok(tls);
        };
        // They are read for each connection, and a host would wait for ever for one that is wrong.
        read_pem("--client-cert", cert, "CERTIFICATE")?;
        read_pem("--client-key", key, PRIVATE_KEY)?;
        Ok(tls.client_certificate(cert, key))
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

/// Reads the PEM file of an option, in which there has to be a section of this label that TLS can
/// read.
fn read_pem(option: &str, file: &Path, label: &str) -> Result<Vec<u8>, Failure> {
    let pem = fs::read(file).map_err(|error| unreadable(option, file, &error))?;
    let lines = pem.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let mut sections = lines.clone().zip(lines.skip(1)).filter_map(|(line, next)| {
        let label = line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----")?;
        Some((label, next))
    });
    let is_wanted = |(found, _): &(&[u8], &[u8])| found.ends_with(label.as_bytes());
    let file = file.display();
    if !sections.clone().any(|section| is_wanted(&section)) {
        let what = label.to_lowercase();
        let message = format!("{option} {file}: there is no {what} in it, in PEM form");
        return Err(Failure::usage(message));
    }
    // The older form of encryption says so in its first line, at which TLS gives the file up.
    let is_older = |(_, next): (&[u8], &[u8])| next.starts_with(b"Proc-Type: 4,ENCRYPTED");
    let is_encrypted = if label == PRIVATE_KEY {
        // The first that is not of the newer form is used.
        let mut keys = sections.filter(is_wanted);
        keys.find(|(found, _)| !found.starts_with(b"ENCRYPTED ")).is_none_or(is_older)
    } else {
        sections.any(is_older)
    };
    if is_encrypted {
        let message =
            format!("{option} {file}: the private key in it is encrypted: decrypt it first");
        return Err(Failure::usage(message));
    }
    Ok(pem)
}

/// Returns the failure to read the file of an option.
pub(crate) fn unreadable(option: &str, file: &Path, error: &io::Error) -> Failure {
    Failure::usage(format!("{option} {}: {error}", file.display()))
}
