//! Cookies that upgrade responses set, kept for the next requests of the same client (RFC 6265). By
//! them a load balancer with sticky cookies sends the requests to the same instance.

#[cfg(feature = "cookies")]
pub(super) use self::jar::Cookies;
#[cfg(not(feature = "cookies"))]
pub(super) use self::none::Cookies;

#[cfg(not(feature = "cookies"))]
mod none {
    use http::HeaderMap;
    use url::Url;

    #[derive(Debug, Default)]
    pub(in crate::client) struct Cookies {}

    impl Cookies {
        pub(in crate::client) fn keep(&self, _from: &Url, _headers: &HeaderMap) {}

        pub(in crate::client) fn add(&self, _to: &Url, _headers: &mut HeaderMap) {}
    }
}

#[cfg(feature = "cookies")]
mod jar {
    use std::{
        collections::HashSet,
        fmt,
        sync::{Mutex, PoisonError},
    };

    use cookie_store::CookieStore;
    use http::{
        HeaderMap, HeaderValue,
        header::{COOKIE, SET_COOKIE},
    };
    use url::Url;

    use crate::handshake::headers::SESSION_ID;

    /// Bounds on the cookies that are kept, in number and in bytes of each (RFC 6265, section 6.1).
    const MAX_COOKIES: usize = 50;
    const MAX_COOKIE_BYTES: usize = 4096;

    /// Bound on the bytes of all pairs: many servers refuse a longer header line, and with it the
    /// client.
    const MAX_BYTES: usize = 7 << 10;

    /// The cookies of one client, which speaks to one origin.
    #[derive(Default)]
    pub(in crate::client) struct Cookies(Mutex<CookieStore>);

    impl Cookies {
        /// Stores the cookies that the response to a request for `from` sets.
        pub(in crate::client) fn keep(&self, from: &Url, headers: &HeaderMap) {
            if !headers.contains_key(SET_COOKIE) {
                return;
            }
            let Some(from) = as_http(from) else { return };
            let mut store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for cookie in headers.get_all(SET_COOKIE) {
                let Ok(cookie) = cookie.to_str() else { continue };
                // A client asks for its session itself; one that does not must not return to it by
                // accident.
                let name = cookie.split(['=', ';']).next().unwrap_or_default();
                let names_session = name.trim() == SESSION_ID;
                if names_session || cookie.len() > MAX_COOKIE_BYTES || breaks_promise(cookie) {
                    continue;
                }
                // A malformed cookie, or one for another origin, is ignored.
                let _ = store.parse(cookie, &from);
            }
            while is_over(&store) {
                let one = store.iter_any().find(|one| one.is_expired());
                let Some(one) = one.or_else(|| store.iter_any().next()) else { break };
                let name = one.name().to_owned();
                let (domain, path) = (String::from(&one.domain), String::from(&one.path));
                store.remove(&domain, &path, &name);
            }
        }

        /// Adds the cookies for `to` to the request's `headers`, after those already there.
        pub(in crate::client) fn add(&self, to: &Url, headers: &mut HeaderMap) {
            let store = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if store.iter_any().next().is_none() {
                return;
            }
            let Some(to) = as_http(to) else { return };
            let mut own = Vec::new();
            for line in headers.get_all(COOKIE) {
                own.extend_from_slice(if own.is_empty() { b"" } else { b"; " });
                own.extend_from_slice(line.as_bytes());
            }
            let text = String::from_utf8_lossy(&own).into_owned();
            let names: HashSet<_> =
                text.split(';').filter_map(|pair| pair.split('=').next()).map(str::trim).collect();
            let before = own.len();
            for (name, value) in store.get_request_values(&to) {
                if !names.contains(name) {
                    own.extend_from_slice(if own.is_empty() { b"" } else { b"; " });
                    own.extend_from_slice(format!("{name}={value}").as_bytes());
                }
            }
            if own.len() > before
                && let Ok(mut value) = HeaderValue::from_bytes(&own)
            {
                value.set_sensitive(true);
                headers.insert(COOKIE, value);
            }
        }
    }

    impl fmt::Debug for Cookies {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Cookies")
        }
    }

    /// Returns `true` when there are more cookies than a request may carry.
    fn is_over(store: &CookieStore) -> bool {
        // `; ` and `=`
        let sizes = store.iter_any().map(|one| one.name().len() + one.value().len() + 3);
        let (count, bytes) = sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
        count > MAX_COOKIES || bytes > MAX_BYTES
    }

    /// Returns `true` if the attributes of a cookie break the promise of its name. `__Secure-`
    /// requires `Secure`, and `__Host-` also the whole of this host and no other.
    fn breaks_promise(cookie: &str) -> bool {
        let begins = |prefix: &str| {
            let start = cookie.trim_start().as_bytes().get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        };
        let attribute = |name: &str| {
            let pairs =
                cookie.split(';').skip(1).map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            pairs
                .filter(|(key, _)| key.trim().eq_ignore_ascii_case(name))
                .last()
                .map(|(_, value)| value.trim())
        };
        let for_host = || attribute("domain").is_none() && attribute("path") == Some("/");
        let promises = begins("__Secure-") || begins("__Host-");
        promises && (attribute("secure").is_none() || begins("__Host-") && !for_host())
    }

    /// Returns the `http` or `https` form of the URL, which cookies are stored by.
    fn as_http(url: &Url) -> Option<Url> {
        Url::parse(&format!("http{}", url.as_str().strip_prefix("ws")?)).ok()
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
            assert_eq!(sent(&jar, HERE, &[]).split(' ').count(), MAX_COOKIES);
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
            assert!(jar.0.lock().unwrap().iter_any().count() <= MAX_COOKIES);
        }
    }
}
