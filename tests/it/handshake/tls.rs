//! `wss://` against servers with good and bad certificates.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use mcp_ws_transport::{
    Error, WebSocketTransport, accept,
    client::{ClientTls, Connect},
    connect,
    error::HandshakeError,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rmcp::{RoleClient, RoleServer, ServiceExt};
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::common::{Tools, limit, ms, proxy::Proxy, raw::Raw, reconnect_within, within};

/// An authority of the test's own.
struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority {
        pem: certificate.pem(),
        der: certificate.der().to_vec(),
        issuer: Issuer::new(params, key),
    }
}

/// A TLS acceptor with a certificate for `names` that nobody else has signed, and that certificate.
/// That of an authority is what `openssl req -x509` makes.
fn self_signed(names: &[&str], authority: bool) -> (TlsAcceptor, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (acceptor(&certificate, &key), certificate.pem())
}

fn acceptor(certificate: &rcgen::Certificate, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

impl Authority {
    /// A TLS acceptor for `names` whose certificate is valid for these years.
    fn acceptor(&self, names: &[&str], years: std::ops::Range<i32>) -> TlsAcceptor {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        acceptor(&certificate, &key)
    }
}

/// Serves every connection behind `acceptor`; `false` stands for one whose TLS failed.
async fn host(acceptor: TlsAcceptor) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, handshakes) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, report) = (acceptor.clone(), report.clone());
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await;
                let _ = report.send(stream.is_ok());
                let Ok(stream) = stream else { return };
                let transport = accept::<RoleServer, _>(stream).await.unwrap();
                let running = crate::common::Tools::default().serve(transport).await.unwrap();
                let _ = running.waiting().await;
            });
        }
    });
    (address, handshakes)
}

fn failure(dialled: Result<WebSocketTransport<RoleClient>, Error>) -> HandshakeError {
    match dialled {
        Err(Error::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn tls_failure(what: &str, dialled: Result<WebSocketTransport<RoleClient>, Error>) -> String {
    let error = failure(dialled);
    assert!(!error.is_retryable(), "{what}");
    match error {
        HandshakeError::Tls(error) => error,
        other => panic!("{what}: {other:?}"),
    }
}

fn dial(url: String) -> Connect<RoleClient> {
    connect(url).handshake_timeout(Duration::from_secs(5))
}

#[tokio::test]
async fn a_trusted_server_is_spoken_to() {
    limit(async {
        let authority = authority();
        let (address, _) = host(authority.acceptor(&["localhost", "127.0.0.1"], 2000..2100)).await;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let both = authority.pem.clone() + &self::authority().pem;
        for tls in [
            ClientTls::authorities(authority.pem.clone()),
            ClientTls::authorities(both),
            ClientTls::rustls(config.into()),
        ] {
            for name in ["localhost", "127.0.0.1"] {
                let url = format!("wss://{name}:{}/mcp", address.port());
                let client = ().serve(dial(url).tls(tls.clone()).await.unwrap()).await.unwrap();
                client.list_all_tools().await.unwrap();
                client.cancel().await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_untrustworthy_server_is_a_tls_error() {
    limit(async {
        let ours = authority();
        let trusted = || ClientTls::authorities(ours.pem.clone());
        let theirs = authority();
        let names = &["localhost"][..];
        for (what, acceptor, tls, mend) in [
            (
                "another host's",
                ours.acceptor(&["example.com"], 2000..2100),
                trusted(),
                "subjectAltName",
            ),
            ("expired", ours.acceptor(names, 2000..2001), trusted(), "new certificate"),
            ("not yet valid", ours.acceptor(names, 2090..2100), trusted(), "clock"),
            ("another authority's", theirs.acceptor(names, 2000..2100), trusted(), "authorities"),
            ("unknown", ours.acceptor(names, 2000..2100), ClientTls::default(), ""),
            ("self-signed", self_signed(names, false).0, trusted(), "ClientTls::authorities"),
            ("openssl's", self_signed(names, true).0, trusted(), "CA:FALSE"),
        ] {
            let (address, mut handshakes) = host(acceptor).await;
            let url = format!("wss://localhost:{}/mcp", address.port());
            let error = tls_failure(what, dial(url).tls(tls).bearer("canary").await);
            assert!(!error.is_empty() && error.contains(mend), "{what}: {error}");
            // It was told so, and never dialled again.
            assert_eq!(handshakes.recv().await, Some(false), "{what}");
            assert!(handshakes.try_recv().is_err(), "{what}");
        }
    })
    .await;
}

/// The error says how to make it, and to trust it.
#[tokio::test]
async fn a_self_signed_certificate_can_be_trusted() {
    limit(async {
        let (acceptor, pem) = self_signed(&["localhost"], false);
        let (address, _) = host(acceptor).await;
        let url = format!("wss://localhost:{}/mcp", address.port());
        let client =
            ().serve(dial(url).tls(ClientTls::authorities(pem)).await.unwrap()).await.unwrap();
        client.cancel().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn authorities_that_are_none_are_an_error() {
    limit(async {
        let (address, _) = host(authority().acceptor(&["localhost"], 2000..2100)).await;
        let pem = authority().pem;
        let begin = "-----BEGIN CERTIFICATE-----\n";
        for text in [
            "",
            "nonsense",
            begin,
            &pem[..pem.len() / 2],
            &format!("{begin}!!!!\n-----END CERTIFICATE-----\n"),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let url = format!("wss://localhost:{}/mcp", address.port());
            tls_failure(text, dial(url).tls(ClientTls::authorities(text)).await);
        }
    })
    .await;
}

#[cfg(not(any(
    feature = "rustls-tls-native-roots",
    feature = "rustls-tls-webpki-roots",
    feature = "rustls-platform-verifier"
)))]
#[tokio::test]
async fn nobody_is_trusted_without_a_feature_for_it() {
    limit(async {
        let (address, _) = host(authority().acceptor(&["localhost"], 2000..2100)).await;
        let url = format!("wss://localhost:{}/mcp", address.port());
        let error = tls_failure("no roots", dial(url).await);
        assert!(error.contains("nobody is trusted"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_server_without_tls_is_a_tls_error() {
    limit(async {
        let (listener, url) = crate::common::listen().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut raw = Raw::over(stream, false);
                let _ = raw.stream.read(&mut [0; 16]).await;
                let _ =
                    raw.try_write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                tokio::spawn(async move { raw.stream.read_to_end(&mut Vec::new()).await });
            }
        });
        let tls = ClientTls::authorities(authority().pem);
        let error =
            tls_failure("HTTP", dial(url.replace("ws://", "wss://")).tls(tls.clone()).await);
        assert!(error.contains("ws://"), "{error}");

        // One that hangs up, and one that says nothing.
        let (listener, url) = crate::common::listen().await;
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
        let error = failure(dial(url.replace("ws://", "wss://")).tls(tls).await);
        assert!(matches!(error, HandshakeError::Connect(_)), "{error:?}");
        // Unless the system resets the connection.
        let text = error.to_string();
        assert!(text.contains("dial ws://") || text.contains("reset"), "{text}");

        let (_listener, url) = crate::common::listen().await;
        let timeout = Duration::from_millis(300);
        let start = Instant::now();
        let tls = ClientTls::authorities(authority().pem);
        let dialling = dial(url.replace("ws://", "wss://")).tls(tls).handshake_timeout(timeout);
        assert!(matches!(failure(dialling.await), HandshakeError::TimedOut(_)));
        assert!(start.elapsed() < Duration::from_secs(5));
    })
    .await;
}

/// And the other way round.
#[tokio::test]
async fn a_server_with_tls_is_no_plain_server() {
    limit(async {
        let (address, mut handshakes) =
            host(authority().acceptor(&["localhost"], 2000..2100)).await;
        let url = format!("ws://{address}/mcp");
        let error = failure(within(Duration::from_secs(5), dial(url).into_future()).await);
        assert!(
            matches!(error, HandshakeError::NotWebSocket(_) | HandshakeError::Connect(_)),
            "{error:?}"
        );
        assert!(error.to_string().contains("dial wss://"), "{error}");
        assert_eq!(handshakes.recv().await, Some(false));
    })
    .await;
}

/// Names that clients ask for, and certificates that they show.
type Shown = tokio::sync::mpsc::UnboundedReceiver<(Option<String>, Vec<CertificateDer<'static>>)>;

/// A server for `names` that wants a certificate of this authority's, and tells what it is shown.
async fn mutual(authority: &Authority, names: &[&str]) -> (SocketAddr, Shown) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(names).unwrap().signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone().into()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, shown) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, report) = (acceptor.clone(), report.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let tls = stream.get_ref().1;
                let certificates = tls.peer_certificates().unwrap_or_default().to_vec();
                report.send((tls.server_name().map(str::to_owned), certificates)).unwrap();
                let Ok(transport) = accept::<RoleServer, _>(stream).await else { return };
                let running = Tools::default().serve(transport).await.unwrap();
                let _ = running.waiting().await;
            });
        }
    });
    (address, shown)
}

/// Files of a client's certificate, which are removed when they are dropped.
struct ClientFiles(std::path::PathBuf);

impl ClientFiles {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("mcp-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// Writes a new certificate of this authority's, and returns it.
    fn renew(&self, authority: &Authority) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        std::fs::write(self.0.join("chain.pem"), certificate.pem() + &authority.pem).unwrap();
        std::fs::write(self.0.join("key.pem"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn shown_by(&self, tls: ClientTls) -> ClientTls {
        tls.client_certificate(self.0.join("chain.pem"), self.0.join("key.pem"))
    }
}

impl Drop for ClientFiles {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_read_anew_for_each_connection() {
    limit(async {
        let (authority, files) = (authority(), ClientFiles::new("renewed"));
        let (address, mut shown) = mutual(&authority, &["localhost"]).await;
        let line = Proxy::new(address).await;
        let first = files.renew(&authority);
        let tls = files.shown_by(ClientTls::authorities(authority.pem.clone()));
        let url = format!("wss://localhost:{}/mcp", line.address.port());
        let client = reconnect_within(ms(5), dial(url).tls(tls));
        let client = ().serve(client.await.unwrap()).await.unwrap();
        assert_eq!(shown.recv().await.unwrap().1[0], first);
        for _ in 0..3 {
            let renewed = files.renew(&authority);
            line.cut();
            let (name, certificates) = shown.recv().await.unwrap();
            client.list_all_tools().await.unwrap();
            assert_eq!(name.as_deref(), Some("localhost"));
            assert_eq!((certificates.len(), &certificates[0]), (2, &renewed));
        }
        client.cancel().await.unwrap();
        // A configuration of rustls's own, too.
        let mut roots = RootCertStore::empty();
        roots.add(authority.der.clone().into()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let url = format!("wss://localhost:{}/mcp", address.port());
        let tls = files.shown_by(ClientTls::rustls(config.into()));
        ().serve(dial(url).tls(tls).await.unwrap()).await.unwrap().cancel().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_or_refused_is_an_error_that_says_so() {
    limit(async {
        let (authority, files) = (authority(), ClientFiles::new("refused"));
        let (address, _shown) = mutual(&authority, &["localhost"]).await;
        let url = format!("wss://localhost:{}/mcp", address.port());
        let trust = || ClientTls::authorities(authority.pem.clone());
        let no_reconnect = |tls| dial(url.clone()).tls(tls).no_reconnect();

        let none = tls_failure("none", no_reconnect(trust()).await);
        assert!(none.contains("certificate of the client's"), "{none}");
        files.renew(&self::authority());
        let another = tls_failure("another's", no_reconnect(files.shown_by(trust())).await);
        assert!(another.contains("certificate of the client's"), "{another}");

        let other = std::fs::read(files.0.join("key.pem")).unwrap();
        files.renew(&authority);
        for (file, content, says) in [
            ("key.pem", &other[..], "key.pem"),
            ("key.pem", b"", "there is no private key in it"),
            ("chain.pem", b"", "there is no certificate in it"),
            (
                "chain.pem",
                b"-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
                "chain.pem",
            ),
        ] {
            files.renew(&authority);
            std::fs::write(files.0.join(file), content).unwrap();
            let error = failure(no_reconnect(files.shown_by(trust())).await);
            let text = error.to_string();
            assert!(matches!(error, HandshakeError::ClientCertificate(_)), "{text}");
            assert!(error.is_retryable() && text.contains(says), "{text}");
        }
        std::fs::remove_file(files.0.join("chain.pem")).unwrap();
        let error = failure(no_reconnect(files.shown_by(trust())).await);
        assert!(error.is_retryable() && error.to_string().contains("chain.pem"), "{error}");
        files.renew(&authority);
        drop(no_reconnect(files.shown_by(trust())).await.unwrap());
    })
    .await;
}

/// A server that is reached by an address, and known by a name.
#[tokio::test]
async fn the_name_of_the_server_can_be_another_than_that_of_the_url() {
    limit(async {
        let (authority, files) = (authority(), ClientFiles::new("name"));
        let (address, mut shown) = mutual(&authority, &["mcp.example.com"]).await;
        files.renew(&authority);
        let tls = files.shown_by(ClientTls::authorities(authority.pem.clone()));
        let url = format!("wss://{address}/mcp");
        tls_failure("its own", dial(url.clone()).tls(tls.clone()).await);
        shown.recv().now_or_never();
        let named = dial(url).tls(tls.clone().server_name("mcp.example.com"));
        ().serve(named.await.unwrap()).await.unwrap().cancel().await.unwrap();
        assert_eq!(shown.recv().await.unwrap().0.as_deref(), Some("mcp.example.com"));
        let bad = dial(format!("wss://{address}/mcp")).tls(tls.server_name("not a name"));
        tls_failure("no name", bad.await);
    })
    .await;
}
