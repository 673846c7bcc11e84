use std::{
    fs, process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsConnector, client, rustls::ClientConfig};

use super::*;

/// Directory with the certificate and the key of a server.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mcp-tls-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn cert(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    fn write(&self, cert: &str, key: &str) {
        fs::write(self.cert(), cert).unwrap();
        fs::write(self.key(), key).unwrap();
    }

    fn tls(&self) -> io::Result<ServerTls> {
        ServerTls::from_pem_files(self.cert(), self.key())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A certificate for `localhost` that signs itself.
struct Identity {
    der: CertificateDer<'static>,
    cert: String,
    key: String,
    /// Key in PKCS#8.
    secret: Vec<u8>,
}

fn identity() -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    Identity {
        der: cert.der().clone(),
        cert: cert.pem(),
        key: key.serialize_pem(),
        secret: key.serialize_der(),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

type Ends = (io::Result<TlsStream<DuplexStream>>, io::Result<client::TlsStream<DuplexStream>>);

/// The handshake of `tls` with a client that trusts `identity` and names the protocols `alpn`.
async fn handshake(tls: &ServerTls, identity: &Identity, alpn: &[&str]) -> Ends {
    let mut roots = RootCertStore::empty();
    roots.add(identity.der.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider().unwrap())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let (ours, theirs) = duplex(1 << 16);
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    tokio::join!(tls.accept(ours), connector.connect(name, theirs))
}

/// The certificate that a new client is shown, which must trust `identity`.
async fn shown(tls: &ServerTls, identity: &Identity) -> CertificateDer<'static> {
    let (server, client) = handshake(tls, identity, &[]).await;
    server.unwrap();
    client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Asserts that `error` has this kind, names `file`, and quotes nothing of it.
fn assert_names(error: &io::Error, kind: io::ErrorKind, file: &Path, what: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}: ", file.display())), "{text}");
    assert!(text.contains(what), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[tokio::test]
async fn a_certificate_from_files_is_shown() {
    let (dir, identity) = (Dir::new(), identity());
    // The key of P-256 in SEC1 is what PKCS#8 wraps behind 29 bytes.
    let sec1 = pem("EC PRIVATE KEY", &identity.secret[29..]);
    let parameters = pem("EC PARAMETERS", b"canary");
    let other = self::identity();
    let both = identity.key.clone() + &identity.cert;
    for (cert, key) in [
        (&identity.cert, &identity.key),
        (&identity.cert, &sec1),
        (&identity.cert, &(parameters + &sec1)),
        (&(identity.cert.clone() + &other.cert), &identity.key),
        (&both, &both),
    ] {
        dir.write(cert, key);
        assert_eq!(shown(&dir.tls().unwrap(), &identity).await, identity.der);
    }
    let debug = format!("{:?}", dir.tls().unwrap());
    assert_eq!(debug, format!("ServerTls {{ cert: {:?}, key: {:?}, .. }}", dir.cert(), dir.key()));
}

/// Certificates that clients will refuse are detected when they are read.
#[tokio::test]
async fn a_certificate_that_clients_refuse_is_found_out() {
    use rcgen::{BasicConstraints, IsCa, date_time_ymd};

    let provider = provider().unwrap();
    let fault = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["mcp.example.com".to_owned()]).unwrap();
        change(&mut params);
        let cert = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        fault_of(cert.der(), &provider).unwrap_or_default()
    };
    assert_eq!(fault(&|_| {}), "");
    assert_eq!(fault(&|params| params.is_ca = IsCa::ExplicitNoCa), "");
    let ca = fault(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert!(ca.contains("CaUsedAsEndEntity") && ca.contains("CA:FALSE"), "{ca}");
    let old = fault(&|params| params.not_after = date_time_ymd(2020, 1, 1));
    assert!(old.contains("expired"), "{old}");
    let early = fault(&|params| params.not_before = date_time_ymd(4000, 1, 1));
    assert!(early.contains("not valid yet"), "{early}");
}

#[tokio::test]
async fn a_reload_changes_what_the_next_client_sees() {
    let (dir, old, new) = (Dir::new(), identity(), identity());
    dir.write(&old.cert, &old.key);
    let tls = dir.tls().unwrap();
    let (before, client) = handshake(&tls, &old, &[]).await;
    let (mut before, mut client) = (before.unwrap(), client.unwrap());

    dir.write(&new.cert, &new.key);
    assert_eq!(shown(&tls, &old).await, old.der);
    tls.clone().reload().unwrap();
    assert_eq!(shown(&tls, &new).await, new.der);

    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let mut read = [0; 4];
    before.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
    before.write_all(b"pong").await.unwrap();
    before.flush().await.unwrap();
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"pong");
}

#[tokio::test]
async fn files_that_are_no_use_are_named_and_what_was_read_stays() {
    use io::ErrorKind::{InvalidData, NotFound};

    let (dir, good, other) = (Dir::new(), identity(), identity());
    dir.write(&good.cert, &good.key);
    let tls = dir.tls().unwrap();
    let Identity { cert, key, .. } = &good;
    let (c, k) = (dir.cert(), dir.key());
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"canary");
    let no_base64 = "-----BEGIN CERTIFICATE-----\n!canary\n-----END CERTIFICATE-----\n";
    let no_der = pem("CERTIFICATE", b"canary");
    let no_key = pem("PRIVATE KEY", b"canary");
    for (file, what, cert, key) in [
        (&k, "not the key of the certificate", cert.as_str(), other.key.as_str()),
        (&k, "not the key of the certificate", &other.cert, key),
        (&c, "no certificate", "", key),
        (&k, "no unencrypted private key", cert, ""),
        (&c, "no certificate", key, cert),
        (&k, "no unencrypted private key", cert, cert),
        (&k, "no unencrypted private key", cert, &encrypted),
        (&c, "no certificate", "canary", key),
        (&c, "no end", &cert[..cert.len() / 2], key),
        (&k, "no end", cert, &key[..key.len() / 2]),
        (&k, "malformed", cert, "-----BEGIN canary\n"),
        (&c, "not base64", no_base64, key),
        (&c, "cannot be read", &no_der, key),
        (&k, "failed to parse private key", cert, &no_key),
    ] {
        dir.write(cert, key);
        assert_names(&dir.tls().unwrap_err(), InvalidData, file, what);
        assert_names(&tls.reload().unwrap_err(), InvalidData, file, what);
        assert_eq!(shown(&tls, &good).await, good.der, "{what}");
    }

    dir.write(cert, key);
    tls.reload().unwrap();
    for file in [&c, &k] {
        dir.write(cert, key);
        fs::remove_file(file).unwrap();
        assert_names(&dir.tls().unwrap_err(), NotFound, file, "");
        assert_names(&tls.reload().unwrap_err(), NotFound, file, "");
        assert_eq!(shown(&tls, &good).await, good.der);
    }
}

#[tokio::test]
async fn a_configuration_of_the_callers_is_used_and_not_reloaded() {
    let (dir, identity) = (Dir::new(), identity());
    dir.write(&identity.cert, &identity.key);
    let config = Files { cert: dir.cert(), key: dir.key() }.read().unwrap();
    let tls = ServerTls::rustls(config);
    let error = tls.reload().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("not made from files"), "{error}");
    assert_eq!(shown(&tls, &identity).await, identity.der);
    assert_eq!(format!("{tls:?}"), "ServerTls { .. }");
}

/// A client that offers HTTP/2 alone is refused, with the alert for that.
#[tokio::test]
async fn only_http_1_is_negotiated() {
    let (dir, identity) = (Dir::new(), identity());
    dir.write(&identity.cert, &identity.key);
    let tls = dir.tls().unwrap();

    let (server, client) = handshake(&tls, &identity, &["h2"]).await;
    assert_eq!(server.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let error = client.unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");

    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let (server, client) = handshake(&tls, &identity, offered).await;
        assert_eq!(server.unwrap().get_ref().1.alpn_protocol(), chosen);
        assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), chosen);
    }
}

#[tokio::test]
async fn what_is_not_tls_is_an_error() {
    let (dir, identity) = (Dir::new(), identity());
    dir.write(&identity.cert, &identity.key);
    let tls = dir.tls().unwrap();
    let http = b"GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bytes in [&http[..], &[0; 64], &[0xff; 64]] {
        let (ours, mut theirs) = duplex(1 << 16);
        theirs.write_all(bytes).await.unwrap();
        let error = tls.accept(ours).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    let (ours, _) = duplex(1 << 16);
    assert_eq!(tls.accept(ours).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn half_a_hello_is_waited_for() {
    let (dir, identity) = (Dir::new(), identity());
    dir.write(&identity.cert, &identity.key);
    let tls = dir.tls().unwrap();
    // The head of a record of 512 bytes, and of the ClientHello in it.
    let (ours, mut theirs) = duplex(1 << 16);
    theirs.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252]).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(86_400), tls.accept(ours)).await;
    assert!(waited.is_err(), "{waited:?}");
}
