//! [`TrustedProxies`]: the proxies that are believed where they say which client a request is from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{
    HeaderMap, HeaderName,
    header::{FORWARDED, HeaderValue},
};

/// Header to which each proxy appends the address that it was asked from.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies in front of a server, whose header tells the address of a client.
///
/// The header is read where the connection itself comes from one of them, and from the end: each
/// proxy appends the address that it was asked from. The last address that is none of theirs is the
/// client's; what stands before it was sent by the client, and is not believed. Where all are
/// proxies', the first counts; where there is no header, the connection's own; and where an entry
/// is no address, the client's is not known.
///
/// Trust no more than the proxies that you run, and only one header: the one that they all set.
/// Another may have been sent by the client.
#[derive(Debug, Clone)]
pub struct TrustedProxies {
    header: HeaderName,
    networks: Vec<Network>,
    /// `true` if connections without an address are a proxy's.
    unix: bool,
    invalid: Option<String>,
}

/// Addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// Address with zeros behind the prefix, in the form of IPv6.
    prefix: u128,
    mask: u128,
}

impl TrustedProxies {
    /// Trusts the `X-Forwarded-For` of these proxies.
    ///
    /// An entry is an address, a network such as `10.0.0.0/8` or `fd00::/8`, or `unix` for
    /// connections of which no address is known, such as those to a Unix socket. One that cannot be
    /// read is an error when the server starts.
    #[must_use]
    pub fn x_forwarded_for<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Self {
        Self::new(X_FORWARDED_FOR, proxies)
    }

    /// Trusts the `Forwarded` (RFC 7239) of these proxies, its parameter `for`; the entries are
    /// those of [`x_forwarded_for`](Self::x_forwarded_for).
    #[must_use]
    pub fn forwarded<T: AsRef<str>>(proxies: impl IntoIterator<Item = T>) -> Self {
        Self::new(FORWARDED, proxies)
    }

    fn new<T: AsRef<str>>(header: HeaderName, proxies: impl IntoIterator<Item = T>) -> Self {
        let mut trusted = Self { header, networks: Vec::new(), unix: false, invalid: None };
        for proxy in proxies {
            match (proxy.as_ref(), Network::parse(proxy.as_ref())) {
                ("unix", _) => trusted.unix = true,
                (_, Some(network)) => trusted.networks.push(network),
                (proxy, None) => {
                    trusted.invalid.get_or_insert_with(|| format!(
                        "trusted proxy {proxy:?}: neither an address nor a network such as 10.0.0.0/8"
                    ));
                }
            }
        }
        trusted
    }

    /// Fails if an entry cannot be read.
    pub(in crate::server) fn validate(&self) -> Result<(), String> {
        self.invalid.clone().map_or(Ok(()), Err)
    }

    /// Returns the address of the client that a request with these `headers` comes from, over a
    /// connection from `peer`.
    pub(in crate::server) fn client(
        &self,
        peer: Option<SocketAddr>,
        headers: &HeaderMap,
    ) -> Option<SocketAddr> {
        let is_trusted =
            |address: IpAddr| self.networks.iter().any(|network| network.contains(address));
        if !peer.map_or(self.unix, |peer| is_trusted(peer.ip())) {
            return peer;
        }
        let mut client = peer;
        let lines: Vec<&HeaderValue> = headers.get_all(&self.header).iter().collect();
        for line in lines.into_iter().rev() {
            // Only what counts has to be readable: the client may have sent anything before it.
            for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
                let entry = str::from_utf8(entry).ok()?.trim();
                if entry.is_empty() {
                    continue;
                }
                let node = if self.header == FORWARDED { forwarded_for(entry)? } else { entry };
                let address = parse_node(node)?;
                client = Some(address);
                if !is_trusted(address.ip()) {
                    return client;
                }
            }
        }
        client
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok().filter(|length| *length <= longest)?
            }
            Some(_) => return None,
            None => longest,
        };
        let mask = u128::MAX.checked_shl(u32::from(longest - length)).unwrap_or(0);
        // The prefix of an IPv4 network stands behind that of all IPv4 addresses.
        let mask = if address.is_ipv4() { mask | u128::MAX << 32 } else { mask };
        Some(Self { prefix: to_bits(address) & mask, mask })
    }

    fn contains(self, address: IpAddr) -> bool {
        to_bits(address) & self.mask == self.prefix
    }
}

/// Returns the bits of an address in its form of IPv6: that of IPv4 is mapped (RFC 4291, section
/// 2.5.5.2).
fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Parses an address with or without a port; one of IPv6 may stand in brackets.
fn parse_node(text: &str) -> Option<SocketAddr> {
    let alone = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let with_port = || text.parse::<SocketAddr>().ok();
    let v6 = || Some((alone.unwrap_or(text).parse::<Ipv6Addr>().ok()?, 0).into());
    let v4 = || Some((text.parse::<Ipv4Addr>().ok()?, 0).into());
    with_port().or_else(v6).or_else(v4)
}

/// Returns the `for` of an element of `Forwarded`, if the element is well-formed throughout.
///
/// The elements were split at commas, also where these stand in a quoted text. The parts of such an
/// element have quotes where there are none in a well-formed one, so that a client cannot make up
/// an address in a text that a proxy quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut node = None;
    // A pair may be empty (RFC 7239, section 4).
    for pair in element.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        if value.contains(['"', '\\']) || name.contains('"') {
            return None;
        }
        if name.eq_ignore_ascii_case("for") && node.replace(value).is_some() {
            return None;
        }
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [&str; 4] = ["127.0.0.1", "10.0.0.0/8", "fd00::/8", "::1"];

    /// Returns the client's address as text, `-` if it is not known.
    fn client(trusted: &TrustedProxies, peer: Option<&str>, lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&trusted.header, HeaderValue::from_static(line));
        }
        // The header that is not trusted.
        let other = if trusted.header == FORWARDED { X_FORWARDED_FOR } else { FORWARDED };
        headers.append(other, HeaderValue::from_static("for=6.6.6.6"));
        let peer = peer.map(|peer| (peer.parse::<IpAddr>().unwrap(), 9).into());
        let client = trusted.client(peer, &headers);
        client.map_or("-".to_owned(), |client| client.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_proxys_counts() {
        let trusted = TrustedProxies::x_forwarded_for(PROXIES);
        trusted.validate().unwrap();
        let long = "6.6.6.6,".repeat(1000) + "1.2.3.4";
        let long: &'static str = long.leak();
        for (peer, lines, expected) in [
            ("127.0.0.1", &["1.2.3.4"][..], "1.2.3.4:0"),
            ("127.0.0.1", &["6.6.6.6, 1.2.3.4"], "1.2.3.4:0"),
            ("127.0.0.1", &["6.6.6.6", "1.2.3.4"], "1.2.3.4:0"),
            ("127.0.0.1", &["6.6.6.6, 1.2.3.4, 10.9.8.7", "10.0.0.1"], "1.2.3.4:0"),
            ("127.0.0.1", &["10.9.8.7"], "10.9.8.7:0"),
            ("127.0.0.1", &["10.0.0.7, 10.0.0.8"], "10.0.0.7:0"),
            ("127.0.0.1", &[], "127.0.0.1:9"),
            ("127.0.0.1", &[""], "127.0.0.1:9"),
            ("127.0.0.1", &["1.2.3.4,, ,"], "1.2.3.4:0"),
            ("127.0.0.1", &["1.2.3.4:5678"], "1.2.3.4:5678"),
            ("127.0.0.1", &["2001:db8::1"], "[2001:db8::1]:0"),
            ("127.0.0.1", &["[2001:db8::1]"], "[2001:db8::1]:0"),
            ("127.0.0.1", &["[2001:db8::1]:443, fd12::1"], "[2001:db8::1]:443"),
            ("127.0.0.1", &["1.2.3.4, ::ffff:10.1.1.1"], "1.2.3.4:0"),
            ("::ffff:127.0.0.1", &["1.2.3.4"], "1.2.3.4:0"),
            ("::1", &["1.2.3.4"], "1.2.3.4:0"),
            ("127.0.0.1", &[long], "1.2.3.4:0"),
            // What a proxy does not know.
            ("127.0.0.1", &["1.2.3.4, unknown"], "-"),
            ("127.0.0.1", &["unknown, 10.1.1.1"], "-"),
            ("127.0.0.1", &["unknown, 1.2.3.4"], "1.2.3.4:0"),
            ("127.0.0.1", &["1.2.3.4.5"], "-"),
            ("127.0.0.1", &["[1.2.3.4]"], "-"),
            // Strangers.
            ("1.2.3.4", &["6.6.6.6"], "1.2.3.4:9"),
            ("127.0.0.2", &["6.6.6.6"], "127.0.0.2:9"),
            ("11.0.0.1", &["6.6.6.6"], "11.0.0.1:9"),
            ("fe00::1", &["6.6.6.6"], "[fe00::1]:9"),
        ] {
            assert_eq!(client(&trusted, Some(peer), lines), expected, "{peer} {lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(b"\xff, 1.2.3.4").unwrap());
        let proxy = Some("127.0.0.1:9".parse().unwrap());
        assert_eq!(trusted.client(proxy, &headers), Some("1.2.3.4:0".parse().unwrap()));
        assert_eq!(client(&trusted, None, &["6.6.6.6"]), "-");
        let unix = TrustedProxies::x_forwarded_for(["unix"]);
        assert_eq!(client(&unix, None, &["6.6.6.6, 1.2.3.4"]), "1.2.3.4:0");
        assert_eq!(client(&unix, Some("127.0.0.1"), &["6.6.6.6"]), "127.0.0.1:9");
    }

    #[test]
    fn the_standard_header_counts_the_same_way() {
        let trusted = TrustedProxies::forwarded(PROXIES);
        for (lines, expected) in [
            (&["for=1.2.3.4"][..], "1.2.3.4:0"),
            (&["For=\"1.2.3.4:567\";proto=https"], "1.2.3.4:567"),
            (&["for=\"[2001:db8::1]:4711\""], "[2001:db8::1]:4711"),
            (&["for=6.6.6.6, by=10.0.0.1;for=1.2.3.4;host=a", "for=10.0.0.2"], "1.2.3.4:0"),
            (&["for=6.6.6.6", "proto=https"], "-"),
            (&["for=1.2.3.4;;proto=https;"], "1.2.3.4:0"),
            (&["for=_hidden"], "-"),
            (&["for=unknown"], "-"),
            (&["for=1.2.3.4;for=6.6.6.6"], "-"),
            // Texts of the client's, quoted by the proxy.
            (&["for=1.2.3.4;host=\"x, for=6.6.6.6\""], "-"),
            (&["for=1.2.3.4;host=\"x, for=6.6.6.6;a=b\""], "-"),
            (&["for=1.2.3.4;host=\"x, for=6.6.6.6;a=\\\"\""], "-"),
            // An open quote of the client's, to which the proxy appends.
            (&["for=\"6.6.6.6, for=1.2.3.4"], "1.2.3.4:0"),
            (&["for=\"6.6.6.6", "for=1.2.3.4"], "1.2.3.4:0"),
        ] {
            assert_eq!(client(&trusted, Some("127.0.0.1"), lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn networks_have_their_prefix_and_what_is_none_is_an_error() {
        for (network, within, without) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/31", "10.1.2.2", "10.1.2.4"),
            ("0.0.0.0/0", "255.1.1.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(network.contains(within.parse().unwrap()), "{network:?}");
            assert!(!network.contains(without.parse().unwrap()), "{network:?}");
        }
        assert!(Network::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        for wrong in [
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "proxy",
            "",
            "10.0.0.1:80",
        ] {
            let error = TrustedProxies::forwarded([wrong]).validate().unwrap_err();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
