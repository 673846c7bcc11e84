//! Parts of the opening handshake for both ends (RFC 6455, section 4).

pub(crate) mod extensions;
#[cfg(feature = "__http")]
pub(crate) mod header_case;
#[cfg(feature = "__http")]
pub(crate) mod headers;
#[cfg(feature = "__http")]
pub(crate) mod stream;
