//! Cookies that upgrade responses set, kept for the next requests of the same client (RFC 6265), so
//! that a load balancer with sticky cookies sends them to the same instance.
//!
//! A client speaks to one origin, and a cookie never leaves the host that has set it: no list of
//! public suffixes is needed.

use std::{
    collections::HashSet,
    fmt,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};
use httpdate::parse_http_date;

use super::url::Url;
use crate::handshake::headers::SESSION_ID;

/// Bounds on the cookies that are kept, in number and in bytes of each (RFC 6265, section 6.1).
const MOST: usize = 50;
const LONGEST: usize = 4096;

/// Bound on the bytes of all pairs: many servers refuse a longer header line, and with it the
/// client.
const MOST_BYTES: usize = 7 << 10;

/// Longest life of a cookie: 400 days (RFC 6265bis, section 5.6.2).
const LONGEST_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// The cookies of one client, which speaks to one origin.
#[derive(Default)]
pub(super) struct Cookies(Mutex<Vec<Cookie>>);

struct Cookie {
    name: String,
    value: String,
    /// Host that it is for, and `true` if it is for the hosts below it too.
    domain: (String, bool),
    path: String,
    is_secure: bool,
    end: Option<SystemTime>,
}

impl Cookies {
    /// Stores the cookies that the response to a request for `from` sets.
    pub(super) fn keep(&self, from: &Url, headers: &HeaderMap) {
        let mut kept = self.lock();
        for line in headers.get_all(SET_COOKIE) {
            // A cookie that is none, or not for this origin, is as good as not set.
            let Some(cookie) = line.to_str().ok().and_then(|line| Cookie::parse(from, line)) else {
                continue;
            };
            kept.retain(|other| !other.is_same(&cookie));
            kept.push(cookie);
        }
        let now = SystemTime::now();
        kept.retain(|cookie| !cookie.is_over(now));
        while kept.len() > MOST || kept.iter().map(Cookie::size).sum::<usize>() > MOST_BYTES {
            kept.remove(0);
        }
    }

    /// Adds the cookies for `to` to the request's `headers`, after those already there.
    pub(super) fn add(&self, to: &Url, headers: &mut HeaderMap) {
        let kept = self.lock();
        let mut own = Vec::new();
        for line in headers.get_all(COOKIE) {
            own.extend_from_slice(if own.is_empty() { b"" } else { b"; " });
            own.extend_from_slice(line.as_bytes());
        }
        let text = String::from_utf8_lossy(&own).into_owned();
        let names: HashSet<_> =
            text.split(';').filter_map(|pair| pair.split('=').next()).map(str::trim).collect();
        let before = own.len();
        let now = SystemTime::now();
        let mut matching: Vec<_> = kept
            .iter()
            .filter(|cookie| !cookie.is_over(now) && cookie.is_for(to))
            .filter(|cookie| !names.contains(cookie.name.as_str()))
            .collect();
        matching.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        for Cookie { name, value, .. } in matching {
            own.extend_from_slice(if own.is_empty() { b"" } else { b"; " });
            own.extend_from_slice(format!("{name}={value}").as_bytes());
        }
        if own.len() > before
            && let Ok(mut value) = HeaderValue::from_bytes(&own)
        {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Cookie>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookie {
    /// Parses a `Set-Cookie` of a response to a request for `from` (RFC 6265, sections 5.2 and 5.3).
    /// Returns `None` if it is not to be kept.
    fn parse(from: &Url, line: &str) -> Option<Self> {
        let mut parts = line.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        // A client that wants its session back says so itself; one that does not must not find it by
        // accident.
        if name.is_empty() || name == SESSION_ID || line.len() > LONGEST {
            return None;
        }
        let (mut domain, mut path) = (None, None);
        let (mut age, mut expires, mut is_secure) = (None, None, false);
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "domain" => domain = Some(value.strip_prefix('.').unwrap_or(value)),
                "path" => path = Some(value),
                "max-age" => age = max_age(value).or(age),
                "expires" => expires = cookie_date(value).or(expires),
                "secure" => is_secure = true,
                _ => {}
            }
        }
        let begins = |prefix: &str| {
            let start = name.as_bytes().get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        let is_whole_host = domain.is_none() && path == Some("/");
        let breaks_promise =
            begins("__Secure-") && !is_secure || begins("__Host-") && !(is_secure && is_whole_host);
        if breaks_promise {
            return None;
        }
        let domain = domain.filter(|domain| !domain.is_empty());
        let path = path.filter(|path| path.starts_with('/')).unwrap_or_else(|| folder(from.path()));
        let cookie = Self {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: (domain.unwrap_or(from.host()).to_ascii_lowercase(), domain.is_some()),
            path: path.to_owned(),
            is_secure,
            end: age.map(|age| SystemTime::now() + age).or(expires),
        };
        cookie.is_of(from).then_some(cookie)
    }

    /// Returns `true` if this host, by this scheme, may set it, and is sent it.
    fn is_of(&self, url: &Url) -> bool {
        let (domain, with_hosts_below) = &self.domain;
        let is_here = url.host() == domain || *with_hosts_below && is_within(url.host(), domain);
        is_here && (url.is_secure() || !self.is_secure)
    }

    /// Returns `true` if a request for `url` carries it (RFC 6265, section 5.4).
    fn is_for(&self, url: &Url) -> bool {
        self.is_of(url) && is_below(url.path(), &self.path)
    }

    /// Returns `true` if one replaces the other.
    fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.domain, &self.path) == (&other.name, &other.domain, &other.path)
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    /// Returns the bytes that it takes in a header, with `; ` and `=`.
    fn size(&self) -> usize {
        self.name.len() + self.value.len() + 3
    }
}

/// Parses `Max-Age` (RFC 6265, section 5.2.2).
fn max_age(text: &str) -> Option<Duration> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // More digits than the type holds stand for a very long time too.
    let age = Duration::from_secs(digits.parse().unwrap_or(u64::MAX));
    Some(if digits.len() < text.len() { Duration::ZERO } else { age.min(LONGEST_LIFE) })
}

/// Parses `Expires`, a date of HTTP or one with hyphens in it, as many servers write it.
fn cookie_date(text: &str) -> Option<SystemTime> {
    parse_http_date(text).or_else(|_| parse_http_date(&text.replace('-', " "))).ok()
}

/// Returns `true` if a host is below a domain (RFC 6265, section 5.1.3).
fn is_within(host: &str, domain: &str) -> bool {
    let rest = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    rest.is_some() && host.parse::<IpAddr>().is_err()
}

/// Returns `true` if a request for `path` is one for `folder`, or below it (RFC 6265, section 5.1.4).
fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || folder.ends_with('/') || rest.starts_with('/'))
}

/// Returns the path of a cookie that names none (RFC 6265, section 5.1.4).
fn folder(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "ws://example.com/a/b";

    fn set(jar: &Cookies, from: &str, lines: &[&str]) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SET_COOKIE, line.parse().unwrap());
        }
        jar.keep(&Url::parse(from).unwrap(), &headers);
    }

    /// Returns the `name=value` pairs, sorted.
    fn sent(jar: &Cookies, to: &str, own: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in own {
            headers.append(COOKIE, line.parse().unwrap());
        }
        jar.add(&Url::parse(to).unwrap(), &mut headers);
        let lines = headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap());
        let mut pairs: Vec<_> = lines.flat_map(|line| line.split("; ")).collect();
        pairs.sort_unstable();
        pairs.join(" ")
    }

    #[test]
    fn cookies_go_where_they_belong() {
        let jar = Cookies::default();
        let lines = [
            "lb=one; Path=/; HttpOnly; SameSite=Lax",
            "here=x",
            "there=x; Path=/other",
            "tls=x; Secure; Path=/",
            "foreign=x; Domain=example.org",
            "mcp_session_id=x; Path=/",
            "nonsense",
            "gone=x; Max-Age=0",
            "old=x; Expires=Wed, 21 Oct 2015 07:28:00 GMT",
        ];
        set(&jar, HERE, &lines);
        assert_eq!(sent(&jar, HERE, &[]), "here=x lb=one");
        assert_eq!(sent(&jar, "ws://example.com/", &[]), "lb=one");
        assert_eq!(sent(&jar, "ws://example.com/other/x", &[]), "lb=one there=x");
        assert_eq!(sent(&jar, "ws://sub.example.com/a/b", &[]), "");
        // Set again, and taken back.
        set(&jar, HERE, &["lb=two; Path=/", "here=; Max-Age=0"]);
        assert_eq!(sent(&jar, HERE, &[]), "lb=two");
        let jar = Cookies::default();
        set(&jar, "wss://example.com/", &lines);
        assert_eq!(sent(&jar, "wss://example.com/", &[]), "here=x lb=one tls=x");
    }

    #[test]
    fn attributes_are_read_as_servers_write_them() {
        let url = "wss://a.example.com/mcp/ws";
        for (line, expected) in [
            ("a=b", "a=b"),
            (" a = b=c ;path=/", "a=b=c"),
            ("a=\"b\"", "a=\"b\""),
            ("a=; Path=", "a="),
            ("a=b; PATH=/mcp; sEcUrE", "a=b"),
            ("a=b; Path=/mcp/", "a=b"),
            ("a=b; Path=/mc", ""),
            ("a=b; Path=mcp", "a=b"),
            ("a=b; Domain=A.example.com", "a=b"),
            ("a=b; Domain=.example.com", "a=b"),
            ("a=b; Domain=ample.com", ""),
            ("a=b; Domain=b.a.example.com", ""),
            ("a=b; Domain=", "a=b"),
            ("a=b; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "a=b"),
            ("a=b; Expires=Fri, 31 Dec 2999 23:59:59 GMT; Max-Age=-1", ""),
            ("a=b; Max-Age=99999999999999999999999", "a=b"),
            ("a=b; Max-Age=soon; Expires=soon", "a=b"),
            ("a=b; Expires=Thu, 01-Jan-1970 00:00:01 GMT", ""),
            ("a=b; Expires=Thursday, 01-Jan-70 00:00:01 GMT", ""),
            ("a=b; Expires=Thu Jan  1 00:00:01 1970", ""),
            ("=b", ""),
            ("", ""),
        ] {
            let jar = Cookies::default();
            set(&jar, url, &[line]);
            assert_eq!(sent(&jar, url, &[]), expected, "{line}");
        }
        let jar = Cookies::default();
        set(&jar, "ws://127.0.0.1/", &["a=b; Domain=0.0.1", "c=d; Domain=127.0.0.1"]);
        assert_eq!(sent(&jar, "ws://127.0.0.1/", &[]), "c=d");
    }

    #[test]
    fn a_name_that_makes_a_promise_keeps_it() {
        let lines = [
            "__Secure-a=x; Path=/",
            "__secure-b=x; Path=/; secure",
            "__Host-c=x; Path=/",
            "__Host-d=x; Path=/a; Secure",
            "__Host-e=x; Path=/; Secure; Domain=example.com",
            " __host-f=x; Secure; Path=/a",
            "__Host-g=x; Secure; Path = / ; HttpOnly",
        ];
        let jar = Cookies::default();
        set(&jar, "wss://example.com/a/b", &lines);
        assert_eq!(sent(&jar, "wss://example.com/a/b", &[]), "__Host-g=x __secure-b=x");
    }

    #[test]
    fn the_users_own_come_first() {
        let jar = Cookies::default();
        set(&jar, HERE, &["lb=jar; Path=/", "b=jar; Path=/"]);
        assert_eq!(sent(&jar, HERE, &["a=own; lb=own", "c=own"]), "a=own b=jar c=own lb=own");
        assert_eq!(sent(&Cookies::default(), HERE, &["a=own"]), "a=own");
    }

    #[test]
    fn a_server_cannot_fill_the_memory() {
        let jar = Cookies::default();
        for number in 0..200 {
            set(&jar, HERE, &[&format!("c{number}=x"), &format!("l={}", "x".repeat(5000))]);
        }
        assert_eq!(sent(&jar, HERE, &[]).split(' ').count(), MOST);
        // Nor make a line that others refuse.
        for number in 0..200 {
            set(&jar, HERE, &[&format!("c{number}={}", "x".repeat(1000))]);
        }
        assert!((4000..8000).contains(&sent(&jar, HERE, &[]).len()));
        // Nor keep what has expired.
        for number in 0..200 {
            set(&jar, HERE, &[&format!("d{number}=x")]);
            set(&jar, HERE, &[&format!("d{number}=x; Max-Age=0")]);
        }
        assert!(jar.0.lock().unwrap().len() <= MOST);
    }
}
