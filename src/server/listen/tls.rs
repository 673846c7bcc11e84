//! [`ServerTls`]: TLS for a server, by rustls.

#[cfg(test)]
#[cfg(any(feature = "ring", feature = "aws-lc-rs"))]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
        crypto::CryptoProvider,
        pki_types::{
            CertificateDer, PrivateKeyDer, ServerName, UnixTime,
            pem::{self, PemObject},
        },
    },
    server::TlsStream,
};

use crate::{handshake::stream::Io, tls::provider};

/// Certificate and TLS settings of a server; a cheap handle.
///
/// rustls uses the process's default cryptography provider if one is installed, else aws-lc-rs or
/// ring, whichever feature is enabled.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
}

struct Shared {
    files: Option<Files>,
    /// Lock that is held while the files are read, so that of two reloads the later one wins.
    reading: Mutex<()>,
    current: RwLock<Arc<ServerConfig>>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl ServerTls {
    /// Reads a certificate chain and its private key, both in PEM form.
    ///
    /// The server's own certificate comes first. The key is PKCS#8, SEC1 or PKCS#1, and not
    /// encrypted. Both may be in one file.
    ///
    /// Logs a warning for a certificate that clients will refuse: one that is not valid now, or
    /// that of an authority, as `openssl req -x509` makes it by default.
    ///
    /// TLS 1.2 and 1.3 are spoken, and clients that name protocols (ALPN) must name `http/1.1`.
    ///
    /// # Errors
    /// The error of reading a file, and [`io::ErrorKind::InvalidData`] when it holds no certificate
    /// or no key, or the key is not the certificate's; both name the file.
    /// [`io::ErrorKind::Unsupported`] when there is no cryptography provider.
    pub fn from_pem_files(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> io::Result<Self> {
        let files = Files { cert: cert.into(), key: key.into() };
        let config = files.read()?;
        Ok(Self::new(Some(files), config))
    }

    /// Uses this configuration of rustls 0.23 as it is.
    ///
    /// If it has protocols for ALPN, `http/1.1` must be among them.
    #[must_use]
    pub fn rustls(config: Arc<ServerConfig>) -> Self {
        Self::new(None, config)
    }

    fn new(files: Option<Files>, config: Arc<ServerConfig>) -> Self {
        let shared = Shared { files, reading: Mutex::new(()), current: RwLock::new(config) };
        Self { shared: Arc::new(shared) }
    }

    /// Reads the files again, for all clones.
    ///
    /// Handshakes that begin afterwards have the new certificate, and TLS sessions from before are
    /// not resumed; connections that exist go on.
    ///
    /// # Errors
    /// Those of [`from_pem_files`](Self::from_pem_files), and [`io::ErrorKind::Unsupported`] when
    /// there are no files. The certificate in use then stays.
    pub fn reload(&self) -> io::Result<()> {
        let Some(files) = &self.shared.files else {
            let what = "TLS was not made from files, so there is nothing to read again";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        };
        let _reading = self.shared.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let config = files.read()?;
        *self.shared.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Performs the TLS handshake, without a timeout.
    pub(in crate::server) async fn accept<S: Io>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let config = self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tls = f.debug_struct("ServerTls");
        if let Some(Files { cert, key }) = &self.shared.files {
            tls.field("cert", cert).field("key", key);
        }
        tls.finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> io::Result<Arc<ServerConfig>> {
        let Self { cert, key } = self;
        let chain = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(
                |chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) },
            )
            .map_err(|error| unreadable(cert, error, "no certificate"))?;
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| unreadable(key, error, "no unencrypted private key"))?;

        let unsupported = |error: &dyn fmt::Display| {
            io::Error::new(io::ErrorKind::Unsupported, error.to_string())
        };
        let provider = provider().map_err(|error| unsupported(&error))?;
        if let Some(fault) = chain.first().and_then(|own| fault_of(own, &provider)) {
            tracing::warn!("{}: {fault}", cert.display());
        }
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unsupported(&error))?;
        let mut config =
            builder.with_no_client_auth().with_single_cert(chain, secret).map_err(|error| {
                match error {
                    Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => invalid(
                        key,
                        format_args!("not the key of the certificate in {}", cert.display()),
                    ),
                    Error::InvalidCertificate(error) => {
                        invalid(cert, format_args!("the certificate cannot be read: {error:?}"))
                    }
                    _ => invalid(key, error),
                }
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Returns the reason for which clients will refuse the certificate `own`, and the remedy.
fn fault_of(own: &CertificateDer<'_>, provider: &Arc<CryptoProvider>) -> Option<&'static str> {
    // As a client that trusts this very certificate.
    let mut roots = RootCertStore::empty();
    roots.add(own.clone().into_owned()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone());
    let name = ServerName::try_from("localhost").ok()?;
    let outcome = verifier.build().ok()?.verify_server_cert(own, &[], &name, &[], UnixTime::now());
    match outcome.err()? {
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Some("the certificate has expired: clients will refuse it"),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Some("the certificate is not valid yet: clients will refuse it"),
        // rustls has no variant of its own for this.
        Error::InvalidCertificate(CertificateError::Other(other))
            if format!("{other:?}").contains("CaUsedAsEndEntity") =>
        {
            Some(
                "the certificate is that of an authority (CA:TRUE), as `openssl req -x509` makes it; \
                 clients that use rustls refuse it as a server's own (CaUsedAsEndEntity). Make it anew with \
                 `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:<host>`, or sign \
                 one for the server with it",
            )
        }
        _ => None,
    }
}

/// Returns the error for a `file` that cannot be read. Its text does not quote the file, as that of
/// `error` may.
fn unreadable(file: &Path, error: pem::Error, missing: &str) -> io::Error {
    let what = match error {
        pem::Error::Io(error) => {
            return io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        }
        pem::Error::NoItemsFound => missing,
        pem::Error::MissingSectionEnd { .. } => "a PEM section has no end",
        pem::Error::IllegalSectionStart { .. } => "the first line of a PEM section is malformed",
        pem::Error::Base64Decode(_) => "a PEM section is not base64",
        _ => "not PEM",
    };
    invalid(file, what)
}

fn invalid(file: &Path, what: impl fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", file.display()))
}
