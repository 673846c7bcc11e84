//! Proxies that the environment names.

use std::{env, net::IpAddr};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::Proxy;
use crate::{
    client::{connector::Target, tls::ClientTls},
    error::HandshakeError,
};

/// Returns the proxy that the environment names for `target`, if there is one.
///
/// # Errors
/// A variable that counts for this target has a value that is no proxy: a connection past a proxy
/// that was meant would be a surprise.
pub(in crate::client) fn proxy(target: &Target) -> Result<Option<Proxy>, HandshakeError> {
    // Strangers set `HTTP_PROXY` in a CGI program, by a header of that name.
    if is_loopback(target.host()) || env::var_os("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    let scheme = if target.is_tls() { "https" } else { "http" };
    let uri = Uri::builder().scheme(scheme).authority(target.to_string()).path_and_query("/");
    let uri = uri.build().map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    let at = Matcher::from_env().intercept(&uri);
    if at.is_none() {
        check_variables(target)?;
    }
    Ok(at.map(|at| Proxy { at: Some(at), credentials: None, tls: ClientTls::default() }))
}

/// Returns `true` for names and addresses of this machine's loopback interface.
fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Fails if a variable that counts for `target` has a value that is no proxy.
fn check_variables(target: &Target) -> Result<(), HandshakeError> {
    let own =
        if target.is_tls() { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    for name in own.into_iter().chain(["ALL_PROXY", "all_proxy"]) {
        let value = env::var(name).unwrap_or_default();
        if !value.is_empty() && Proxy::new(&value).at.is_none() {
            return Err(HandshakeError::Invalid(format!(
                "{name} is not the URL of a proxy, such as http://proxy.example.com:3128"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_many_names() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "notlocalhost", "10.0.0.1", "::2"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
