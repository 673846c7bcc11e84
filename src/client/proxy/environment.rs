//! Proxies that the environment names.

use std::{env, net::IpAddr};

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::Proxy;
use crate::{client::connector::Target, error::HandshakeError};

/// Returns the proxy that the environment names for `target`, if there is one.
///
/// # Errors
/// The variable that counts for this target has a value that is no proxy: a connection past a proxy
/// that was meant would be a surprise.
pub(in crate::client) fn proxy(target: &Target) -> Result<Option<Proxy>, HandshakeError> {
    // Strangers set `HTTP_PROXY` in a CGI program, by a header of that name.
    if is_loopback(target.host()) || env::var_os("REQUEST_METHOD").is_some() {
        return Ok(None);
    }
    let own =
        if target.is_tls() { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let Some((variable, url)) = value(own).or_else(|| value(["ALL_PROXY", "all_proxy"])) else {
        return Ok(None);
    };
    if is_exempt(target)? {
        return Ok(None);
    }
    let proxy = Proxy { variable: Some(variable), ..Proxy::new(url) };
    if proxy.at.is_none() { Err(proxy.not_understood()) } else { Ok(Some(proxy)) }
}

/// Returns the first of two variables that is set, and its value, unless that is empty.
fn value(names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let set = names.into_iter().find_map(|name| Some((name, env::var(name).ok()?)));
    set.filter(|(_, value)| !value.is_empty())
}

/// Returns `true` if `NO_PROXY` names the host of `target`.
fn is_exempt(target: &Target) -> Result<bool, HandshakeError> {
    let Some((_, hosts)) = value(["NO_PROXY", "no_proxy"]) else { return Ok(false) };
    let uri = Uri::builder().scheme("http").authority(target.to_string()).path_and_query("/");
    let uri = uri.build().map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    let others = Matcher::builder().all("http://any.invalid").no(hosts).build();
    Ok(others.intercept(&uri).is_none())
}

/// Returns `true` for names and addresses of this machine's loopback interface.
fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
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
