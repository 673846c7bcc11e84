//! TLS for `wss://`: by rustls where a feature for it is enabled, else by the operating system.

#[cfg(feature = "rustls-tls")]
mod certificate;

#[cfg(all(feature = "native-tls", not(feature = "rustls-tls")))]
pub(super) use self::native::handshake;
#[cfg(not(any(feature = "rustls-tls", feature = "native-tls")))]
pub(super) use self::none::handshake;
#[cfg(feature = "rustls-tls")]
pub(super) use self::rustls::handshake;

/// Trust of a client on `wss://`, and the certificate that it shows.
///
/// The default trust is what the enabled features say: the certificates of the operating system
/// (`rustls-tls-native-roots`), those of Mozilla (`rustls-tls-webpki-roots`), both together, or the
/// operating system's own judgement (`rustls-platform-verifier`, `native-tls`). With `rustls-tls`
/// alone there is no default, and whom to trust has to be said. rustls computes with the process's
/// default provider if one is installed, else with aws-lc-rs or ring, whichever feature is enabled.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    trust: Trust,
    #[cfg(any(feature = "rustls-tls", feature = "native-tls"))]
    server_name: Option<String>,
    #[cfg(feature = "rustls-tls")]
    certificate: Option<certificate::Files>,
}

#[derive(Debug, Clone, Default)]
enum Trust {
    #[default]
    Default,
    #[cfg(any(feature = "rustls-tls", feature = "native-tls"))]
    Authorities(Vec<u8>),
    #[cfg(feature = "rustls-tls")]
    Rustls(std::sync::Arc<tokio_rustls::rustls::ClientConfig>),
}

impl ClientTls {
    /// Trusts the authorities in this PEM text, and no others.
    #[cfg(any(feature = "rustls-tls", feature = "native-tls"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "rustls-tls", feature = "native-tls"))))]
    #[must_use]
    pub fn authorities(pem: impl Into<Vec<u8>>) -> Self {
        Self { trust: Trust::Authorities(pem.into()), ..Self::default() }
    }

    /// Uses this configuration as it is. Its type belongs to rustls 0.23.
    #[cfg(feature = "rustls-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
    #[must_use]
    pub fn rustls(config: std::sync::Arc<tokio_rustls::rustls::ClientConfig>) -> Self {
        Self { trust: Trust::Rustls(config), ..Self::default() }
    }

    /// Sets the name of the server in TLS, in place of the host of the URL. The server is asked for by
    /// it (SNI, RFC 6066), and its certificate has to be of this name.
    ///
    /// It is for a server that is reached by another name, such as an address. The `Host` stays that
    /// of the URL.
    #[cfg(any(feature = "rustls-tls", feature = "native-tls"))]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "rustls-tls", feature = "native-tls"))))]
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Shows the server this certificate of the client's own (mutual TLS), where it asks for one.
    ///
    /// Both files are in PEM form: the chain, with the client's certificate first, and its private
    /// key, which is PKCS#8, SEC1 or PKCS#1 and not encrypted. They are read for each connection,
    /// so that files that are renewed are heeded by the next. Where they cannot be read, the
    /// attempt fails with [`HandshakeError::ClientCertificate`](crate::error::HandshakeError),
    /// which is retried.
    #[cfg(feature = "rustls-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
    #[must_use]
    pub fn client_certificate(
        mut self,
        chain: impl Into<std::path::PathBuf>,
        key: impl Into<std::path::PathBuf>,
    ) -> Self {
        self.certificate = Some(certificate::Files { chain: chain.into(), key: key.into() });
        self
    }
}

#[cfg(not(any(feature = "rustls-tls", feature = "native-tls")))]
mod none {
    use super::{ClientTls, Trust};
    use crate::{error::HandshakeError, handshake::stream::Io};

    /// Fails: this build has no TLS.
    pub(in crate::client) async fn handshake<S: Io>(
        tls: &ClientTls,
        _host: &str,
        _stream: S,
    ) -> Result<S, HandshakeError> {
        let Trust::Default = tls.trust;
        let what = "this build has no TLS: enable a feature of mcp-ws-transport for it, such as \
                    `rustls-tls-native-roots` with `ring`";
        Err(HandshakeError::Tls(what.into()))
    }
}

#[cfg(feature = "rustls-tls")]
mod rustls {
    use std::{
        io,
        sync::{Arc, OnceLock},
    };

    use tokio_rustls::{
        TlsConnector,
        client::TlsStream,
        rustls::{
            CertificateError, ClientConfig, Error, RootCertStore,
            pki_types::{CertificateDer, ServerName, pem::PemObject},
        },
    };

    use super::{ClientTls, Trust};
    use crate::{error::HandshakeError, handshake::stream::Io, tls::provider};

    type Result<T> = std::result::Result<T, HandshakeError>;

    /// Performs the TLS handshake with `host`.
    pub(in crate::client) async fn handshake<S: Io>(
        tls: &ClientTls,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>> {
        let name = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(error)?;
        let mut config = tls.client_config()?;
        if let Some(files) = &tls.certificate {
            config = files.clone().show(config).await?;
        }
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(failed)
    }

    /// Maps an error of the TLS handshake; those of the network underneath stay connection errors.
    fn failed(error: io::Error) -> HandshakeError {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return HandshakeError::Tls(match hint(tls) {
                Some(hint) => format!("{tls}: {hint}"),
                None => tls.to_string(),
            });
        }
        match error.kind() {
            io::ErrorKind::InvalidData => self::error(error),
            io::ErrorKind::UnexpectedEof => HandshakeError::Connect(Arc::new(io::Error::new(
                error.kind(),
                "closed during the TLS handshake: if the port speaks no TLS, dial ws://",
            ))),
            _ => HandshakeError::Connect(Arc::new(error)),
        }
    }

    /// Returns advice on a failed TLS handshake.
    fn hint(error: &Error) -> Option<&'static str> {
        use CertificateError as C;
        let certificate = match error {
            Error::InvalidMessage(_) => return Some("no TLS is spoken there; is it ws:// then?"),
            Error::InvalidCertificate(certificate) => certificate,
            Error::AlertReceived(_) | Error::PeerIncompatible(_) => {
                return Some("the server does not agree to this client's TLS: see its log");
            }
            _ => return None,
        };
        Some(match certificate {
            C::UnknownIssuer | C::BadSignature => {
                "nobody whom this client trusts has issued the certificate. A private authority, or a \
                 self-signed certificate, is trusted by `client::ClientTls::authorities`"
            }
            C::Expired | C::ExpiredContext { .. } => {
                "the server needs a new certificate, unless the clock of this machine is wrong"
            }
            C::NotValidYet | C::NotValidYetContext { .. } => "is the clock of this machine right?",
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "dial one of the names in the certificate's `subjectAltName`; its common name counts \
                 for nothing"
            }
            C::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "the server shows an authority's certificate as its own, as `openssl req -x509` makes \
                 it unless told otherwise. Make it with `-addext basicConstraints=critical,CA:FALSE \
                 -addext subjectAltName=DNS:NAME`, and trust it by `client::ClientTls::authorities`"
            }
            _ => return None,
        })
    }

    impl ClientTls {
        fn client_config(&self) -> Result<Arc<ClientConfig>> {
            match &self.trust {
                Trust::Default => {}
                Trust::Rustls(config) => return Ok(config.clone()),
                Trust::Authorities(pem) => {
                    let mut roots = RootCertStore::empty();
                    for certificate in CertificateDer::pem_slice_iter(pem) {
                        roots.add(certificate.map_err(error)?).map_err(error)?;
                    }
                    if roots.is_empty() {
                        return Err(error(
                            "no certificate in the PEM text of the authorities (-----BEGIN CERTIFICATE-----)",
                        ));
                    }
                    return Ok(Arc::new(trusting(roots)?));
                }
            }
            static DEFAULT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
            if let Some(config) = DEFAULT.get() {
                return Ok(config.clone());
            }
            let config = default_config()?;
            Ok(DEFAULT.get_or_init(|| Arc::new(config)).clone())
        }
    }

    fn trusting(roots: RootCertStore) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider().map_err(error)?);
        let builder = builder.with_safe_default_protocol_versions().map_err(error)?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }

    #[cfg(any(feature = "rustls-tls-native-roots", feature = "rustls-tls-webpki-roots"))]
    fn default_config() -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        #[cfg(feature = "rustls-tls-webpki-roots")]
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        #[cfg(feature = "rustls-tls-native-roots")]
        {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            for failure in found.errors {
                tracing::warn!(error = %failure, "a root certificate could not be read");
            }
        }
        if roots.is_empty() {
            return Err(error("the operating system has no root certificates"));
        }
        trusting(roots)
    }

    #[cfg(all(
        feature = "rustls-platform-verifier",
        not(any(feature = "rustls-tls-native-roots", feature = "rustls-tls-webpki-roots"))
    ))]
    fn default_config() -> Result<ClientConfig> {
        use rustls_platform_verifier::BuilderVerifierExt as _;

        let builder = ClientConfig::builder_with_provider(provider().map_err(error)?);
        let builder = builder.with_safe_default_protocol_versions().map_err(error)?;
        Ok(builder.with_platform_verifier().map_err(error)?.with_no_client_auth())
    }

    #[cfg(not(any(
        feature = "rustls-tls-native-roots",
        feature = "rustls-tls-webpki-roots",
        feature = "rustls-platform-verifier"
    )))]
    fn default_config() -> Result<ClientConfig> {
        Err(error(
            "nobody is trusted: give authorities by `client::ClientTls::authorities`, or enable a feature \
             for root certificates, such as `rustls-tls-native-roots`",
        ))
    }

    fn error(error: impl ToString) -> HandshakeError {
        HandshakeError::Tls(error.to_string())
    }
}

#[cfg(all(feature = "native-tls", not(feature = "rustls-tls")))]
mod native {
    use std::{error::Error as _, io, sync::Arc};

    use tokio_native_tls::{
        TlsConnector, TlsStream,
        native_tls::{self, Certificate, TlsConnector as Builder},
    };

    use super::{ClientTls, Trust};
    use crate::{error::HandshakeError, handshake::stream::Io};

    /// Performs the TLS handshake with `host`.
    pub(in crate::client) async fn handshake<S: Io>(
        tls: &ClientTls,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, HandshakeError> {
        let mut builder = Builder::builder();
        if let Trust::Authorities(pem) = &tls.trust {
            builder.disable_built_in_roots(true);
            for certificate in Certificate::stack_from_pem(pem).map_err(error)? {
                builder.add_root_certificate(certificate);
            }
        }
        let connector = TlsConnector::from(builder.build().map_err(error)?);
        let name = tls.server_name.as_deref().unwrap_or(host);
        connector.connect(name, stream).await.map_err(failed)
    }

    /// Converts an error of the TLS handshake; one of the network is not its fault.
    fn failed(error: native_tls::Error) -> HandshakeError {
        let text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return HandshakeError::Connect(Arc::new(io::Error::new(error.kind(), text)));
            }
            cause = error.source();
        }
        // The end of the stream shows in the text only.
        if text.to_ascii_lowercase().contains("unexpected eof") {
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
            return HandshakeError::Connect(Arc::new(error));
        }
        HandshakeError::Tls(text)
    }

    fn error(error: impl ToString) -> HandshakeError {
        HandshakeError::Tls(error.to_string())
    }
    #[cfg(test)]
    mod tests {
        use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

        use super::*;

        /// Returns the error of a server that says this in answer to the first message, and leaves.
        async fn failure(answer: &[u8]) -> HandshakeError {
            let (near, mut far) = duplex(1 << 12);
            let tls = ClientTls::default();
            let server = async {
                assert!(far.read(&mut [0; 1 << 12]).await.unwrap() > 0);
                far.write_all(answer).await.unwrap();
                drop(far);
            };
            tokio::join!(handshake(&tls, "localhost", near), server).0.unwrap_err()
        }

        #[tokio::test]
        async fn a_connection_that_ends_during_the_handshake_may_be_tried_again() {
            let error = failure(b"").await;
            assert!(matches!(error, HandshakeError::Connect(_)), "{error:?}");
            assert!(error.is_retryable());
        }

        #[tokio::test]
        async fn a_connection_that_fails_during_the_handshake_may_be_tried_again() {
            let (near, far) = duplex(1 << 12);
            drop(far);
            let error = handshake(&ClientTls::default(), "localhost", near).await.unwrap_err();
            assert!(matches!(error, HandshakeError::Connect(_)), "{error:?}");
        }

        #[tokio::test]
        async fn a_server_that_speaks_no_tls_is_not_tried_again() {
            let error = failure(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            assert!(matches!(error, HandshakeError::Tls(_)), "{error:?}");
        }
    }
}
