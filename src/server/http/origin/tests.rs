use super::*;

fn check(allowed: &Allowed, host: &[&str], origin: &[&str]) -> bool {
    let mut headers = HeaderMap::new();
    for (name, values) in [(HOST, host), (ORIGIN, origin)] {
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
    }
    allowed.check(&headers).is_ok()
}

#[test]
fn by_default_only_loopback_is_served_and_only_its_own_pages_connect() {
    for (host, origin, expected) in [
        ("localhost:8080", "http://localhost:8080", true),
        ("LocalHost:8080", "http://LOCALHOST:8080", true),
        ("127.0.0.1", "http://127.0.0.1", true),
        ("127.0.0.1", "http://127.0.0.1:80", true),
        ("127.0.0.1:443", "https://127.0.0.1", true),
        ("[::1]:8080", "http://[::1]:8080", true),
        ("localhost:8080", "http://localhost:8081", false),
        ("localhost:8080", "http://127.0.0.1:8080", false),
        ("localhost:8080", "http://localhost.evil.com:8080", false),
        ("localhost:8080", "http://evil-localhost:8080", false),
        ("localhost:8080", "http://localhost@evil.com:8080", false),
        ("localhost:8080", "http://user@localhost:8080", false),
        ("localhost:8080", "http://evil.com", false),
        ("localhost:8080", "file://localhost:8080", false),
        ("localhost:80", "tauri://localhost:80", false),
        ("localhost", "tauri://localhost", false),
        ("localhost:8080", "null", false),
        ("localhost:8080", "", false),
        ("localhost:8080", "localhost:8080", false),
        ("localhost:8080", "http://localhost:8080/", false),
        ("localhost:8080", "http://localhost:8080/path", false),
        ("localhost:8080", "http://localhost:8080?", false),
        ("localhost:8080", "http://localhost:99999", false),
        ("localhost:8080", "http://localhost:8080, http://evil.com", false),
        ("evil.com", "http://evil.com", false),
        ("localhost.evil.com", "http://localhost.evil.com", false),
    ] {
        assert_eq!(check(&Allowed::default(), &[host], &[origin]), expected, "{host} {origin}");
    }
}

#[test]
fn a_program_sends_no_origin_and_its_host_counts_all_the_same() {
    for (host, expected) in [
        ("localhost", true),
        ("localhost:1", true),
        ("127.0.0.1:65535", true),
        ("[::1]", true),
        ("::1", false),
        ("localhost.", false),
        ("127.0.0.1.nip.io", false),
        ("192.168.0.1", false),
        ("0.0.0.0", false),
        ("user@localhost", false),
        ("localhost:", false),
        ("localhost:99999", false),
        ("", false),
    ] {
        assert_eq!(check(&Allowed::default(), &[host], &[]), expected, "{host}");
    }
    assert!(!check(&Allowed::default(), &[], &[]));
    assert!(!check(&Allowed::default(), &["localhost", "localhost"], &[]));
    let twice = ["http://localhost", "http://localhost"];
    assert!(!check(&Allowed::default(), &["localhost"], &twice));
}

#[test]
fn hosts_are_allowed_with_a_port_or_with_any() {
    let mut allowed = Allowed::default();
    allowed.hosts(["Example.com", "other.com:8443", "::1"]);
    allowed.validate().unwrap();
    for (host, expected) in [
        ("example.com", true),
        ("example.com:444", true),
        ("other.com:8443", true),
        ("other.com", false),
        ("other.com:444", false),
        ("[::1]:80", true),
        ("sub.example.com", false),
        ("localhost", false),
    ] {
        assert_eq!(check(&allowed, &[host], &[]), expected, "{host}");
    }
    assert!(check(&allowed, &["example.com"], &["https://example.com"]));
    assert!(check(&allowed, &["example.com"], &["http://example.com"]));
}

#[test]
fn a_host_without_a_port_may_be_at_that_of_http_or_https() {
    let mut allowed = Allowed::default();
    allowed.hosts(["a.com:443", "b.com:80", "c.com:8443"]);
    for (host, origin, expected) in [
        ("a.com", None, true),
        ("b.com", None, true),
        ("c.com", None, false),
        ("a.com:80", None, false),
        ("a.com", Some("https://a.com"), true),
        ("a.com", Some("http://a.com"), false),
        ("a.com", Some("http://a.com:443"), false),
        ("b.com", Some("http://b.com"), true),
        ("b.com", Some("https://b.com"), false),
    ] {
        assert_eq!(check(&allowed, &[host], origin.as_slice()), expected, "{host} {origin:?}");
    }
}

#[test]
fn origins_are_allowed_by_scheme_host_and_port() {
    let mut allowed = Allowed::default();
    allowed.origins([
        "https://app.example.com",
        "http://localhost:*",
        "null",
        "Tauri://Localhost",
        "app://-:*",
    ]);
    allowed.validate().unwrap();
    for (origin, expected) in [
        ("https://app.example.com", true),
        ("https://app.example.com:443", true),
        ("https://app.example.com:444", false),
        ("http://app.example.com", false),
        ("http://localhost:3000", true),
        ("https://localhost:3000", false),
        ("null", true),
        ("tauri://localhost", true),
        ("TAURI://LOCALHOST", true),
        ("tauri://localhost:80", false),
        ("tauri://127.0.0.1", false),
        ("app://-", true),
        ("app://-:3000", true),
    ] {
        assert_eq!(check(&allowed, &["127.0.0.1"], &[origin]), expected, "{origin}");
    }
}

#[test]
fn where_every_host_is_served_none_vouches_for_its_pages() {
    let mut allowed = Allowed::default();
    allowed.every_host();
    assert!(check(&allowed, &["anything.example"], &[]));
    assert!(check(&allowed, &[], &[]));
    assert!(!check(&allowed, &["evil.com"], &["http://evil.com"]));
    allowed.origins(["http://good.com"]);
    assert!(check(&allowed, &["evil.com"], &["http://good.com"]));
}

#[cfg(feature = "rustls-tls")]
#[test]
fn under_tls_only_pages_that_came_by_tls_are_a_hosts_own() {
    let mut allowed = Allowed::default();
    allowed.assume_https();
    assert!(check(&allowed, &["localhost:8443"], &["https://localhost:8443"]));
    assert!(check(&allowed, &["localhost"], &["https://localhost"]));
    assert!(!check(&allowed, &["localhost"], &["http://localhost"]));
    assert!(!check(&allowed, &["localhost:8443"], &["http://localhost:8443"]));
    allowed.origins(["http://localhost"]);
    assert!(check(&allowed, &["localhost"], &["http://localhost"]));
    allowed.hosts(["a.com:443", "b.com:80"]);
    assert!(check(&allowed, &["a.com"], &[]));
    assert!(check(&allowed, &["a.com"], &["https://a.com"]));
    assert!(check(&allowed, &["a.com"], &["http://localhost"]));
    assert!(!check(&allowed, &["a.com"], &["http://a.com"]));
    assert!(!check(&allowed, &["b.com"], &[]));
    assert!(!check(&allowed, &["b.com"], &["https://b.com"]));
}

#[test]
fn what_cannot_be_read_is_said() {
    for (entry, fault) in [
        ("", "it is empty"),
        ("a b", "no scheme"),
        ("http://", "no host"),
        ("app.example.com", "no scheme"),
        ("https://a/path", "without a path"),
        ("ws://a", "http or https"),
        ("wss://a", "http or https"),
        ("WSS://*.a.b", "http or https"),
        ("file://", "no host"),
        ("chrome-extension://", "no host"),
        ("tauri:a", "no scheme"),
        ("tauri://a/", "without a path"),
        ("null:*", "`null` has no port"),
        ("*", "every web page"),
        ("*://a", ""),
        ("http*://a", ""),
        ("http://*", "every web page"),
        ("https://*", "every web page"),
        ("HTTPS://*:*", "every web page"),
        ("https://*:443", ""),
        ("https://*.", ""),
        ("https://*.*", ""),
        ("https://*.com", "has a dot in it"),
        ("https://*.com.", "has a dot in it"),
        ("https://*..com", "has a dot in it"),
        ("https://*.0.0.1", "has a dot in it"),
        ("https://*.0x7f.1.0x1", "has a dot in it"),
        ("https://*.[::1]", ""),
        ("https://*example.com", "stands in front"),
        ("https://*-app.example.com", "stands in front"),
        ("https://app-*.example.com", "stands in front"),
        ("https://app.*.com", "stands in front"),
        ("https://*.*.example.com", "stands in front"),
        ("https://app.example.*", "stands in front"),
        ("https://user@a", "no user"),
        ("https://*@a", "no user"),
        ("https://*.example.com@evil.com", "no user"),
        ("https://a:80:*", "two ports"),
        ("https://a:8*", ""),
        ("https://a:99999", "none"),
        ("chrome-extension://*/", "without a path"),
        ("chrome-extension://*.", ""),
        ("https://a#b", "without a path"),
        ("https://a,b", "entry of its own"),
    ] {
        let mut allowed = Allowed::default();
        allowed.origins([entry]);
        let error = allowed.validate().expect_err(entry);
        assert!(error.contains(fault), "{entry}: {error}");
        assert!(error.contains("allowed_origins") && error.contains("https://*."), "{error}");
    }
    for (entry, fault) in [
        ("http://a", "no scheme"),
        ("*", "disable_allowed_hosts"),
        ("*:*", "disable_allowed_hosts"),
        ("*.a", "has a dot in it"),
        ("*.1.1", "has a dot in it"),
        ("a.*", "stands in front"),
        ("*a.b", "stands in front"),
        ("a,b", "entry of its own"),
        ("a/b", "without a path"),
        ("u@a", "no user"),
        ("a:", "none"),
        ("a:80:*", "two ports"),
        ("[::1", "none"),
        ("", "no host"),
    ] {
        let mut allowed = Allowed::default();
        allowed.hosts([entry]);
        let error = allowed.validate().expect_err(entry);
        assert!(error.contains(fault), "{entry}: {error}");
        assert!(error.contains("allowed_hosts") && error.contains("example.com:8443"), "{error}");
    }
}

/// Two entries of any shape together allow nothing that neither allows.
#[test]
fn a_pattern_covers_nothing_but_what_is_below_it() {
    let mut allowed = Allowed::default();
    allowed.hosts(["localhost", "*.example.com:8443"]);
    allowed.origins(["https://*.example.com", "http://*.localhost:*"]);
    allowed.validate().unwrap();
    for (host, origin, expected) in [
        ("a.example.com:8443", None, true),
        ("a.b.example.com:8443", None, true),
        ("a.example.com", None, false),
        ("example.com:8443", None, false),
        (".example.com:8443", None, false),
        ("a..example.com:8443", None, false),
        ("localhost", Some("https://a.example.com"), true),
        ("localhost", Some("https://.example.com"), false),
        ("localhost", Some("https://a..example.com"), false),
        ("localhost", Some("http://a.localhost:1"), true),
        ("localhost", Some("http://alocalhost:1"), false),
        // The host's own page, at a host that is below an entry.
        ("a.example.com:8443", Some("https://a.example.com:8443"), true),
        ("a.example.com:8443", Some("https://b.example.com:8443"), false),
    ] {
        assert_eq!(check(&allowed, &[host], origin.as_slice()), expected, "{host} {origin:?}");
    }
}

#[test]
fn what_is_shown_of_a_value_can_do_no_harm() {
    for (value, expected) in [
        (&b"http://evil.example"[..], "\"http://evil.example\""),
        (b"", "\"\""),
        (b"a\"b<script>\\&'`", "\"a\\x22b\\x3cscript\\x3e\\x5c\\x26\\x27\\x60\""),
        (b"a\x1b[2J\r\n\xff", "\"a\\x1b[2J\\x0d\\x0a\\xff\""),
        (b"http://user:password@evil.example", "\"\u{2026}@evil.example\""),
    ] {
        assert_eq!(shown(value), expected);
    }
    let long = shown(&[b'x'; 10_000]);
    assert_eq!(long, format!("\"{}\u{2026}\"", "x".repeat(100)));
}

#[test]
fn an_origin_is_written_as_it_came() {
    for (text, expected) in [
        ("https://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://[::1]:80", "https://[::1]:80"),
        ("chrome-extension://abc", "chrome-extension://abc"),
    ] {
        let Some(Source::Page(origin)) = Source::parse(text) else { panic!("{text}") };
        assert_eq!(origin.to_string(), expected);
    }
}
