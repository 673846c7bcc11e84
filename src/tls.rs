//! The cryptography of rustls, for both ends.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::CryptoProvider;

/// Returns the process's default cryptography of rustls if one is installed, else aws-lc-rs, else
/// ring.
///
/// rustls's own choice panics where both features are enabled, or neither.
pub(crate) fn provider() -> Result<Arc<CryptoProvider>, &'static str> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Ok(provider.clone());
    }
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    Err("no cryptography: enable the feature `ring` or `aws-lc-rs`, or install a provider")
}
