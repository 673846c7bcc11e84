//! [`Files`]: the certificate of a client, read for each connection.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    ClientConfig,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::error::HandshakeError;

/// Files of a certificate chain and its private key.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) chain: PathBuf,
    pub(super) key: PathBuf,
}

impl Files {
    /// Returns `config` with the certificate that the files hold now.
    pub(super) async fn show(
        self,
        config: Arc<ClientConfig>,
    ) -> Result<Arc<ClientConfig>, HandshakeError> {
        let reading = tokio::task::spawn_blocking(move || {
            let certificate = self.read(&config)?;
            let mut config = ClientConfig::clone(&config);
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certificate));
            Ok(Arc::new(config))
        });
        let read = reading.await.unwrap_or_else(|error| Err(error.to_string()));
        read.map_err(HandshakeError::ClientCertificate)
    }

    fn read(&self, config: &ClientConfig) -> Result<CertifiedKey, String> {
        let Self { chain, key } = self;
        let chained = CertificateDer::pem_file_iter(chain).and_then(Iterator::collect);
        let chained: Vec<_> = chained.map_err(|error| described(chain, &error, "certificate"))?;
        if chained.is_empty() {
            return Err(described(chain, &pem::Error::NoItemsFound, "certificate"));
        }
        let read = PrivateKeyDer::from_pem_file(key);
        let read = read.map_err(|error| described(key, &error, "private key"))?;
        CertifiedKey::from_der(chained, read, config.crypto_provider())
            .map_err(|error| format!("{} and {}: {error}", chain.display(), key.display()))
    }
}

fn described(file: &Path, error: &pem::Error, what: &str) -> String {
    let file = file.display();
    match error {
        pem::Error::NoItemsFound => format!("{file}: there is no {what} in it, in PEM form"),
        error => format!("{file}: {error}"),
    }
}
