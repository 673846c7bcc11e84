//! Slow clients over TLS, and new certificates while clients come and go.

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mcp_ws_transport::{
    serve,
    server::{Config, Limits, Server, ServerTls},
};
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

use super::slow_loris::deadline;
use crate::common::{
    Tools, assert_tasks_left, limit,
    raw::{Frame, Raw, upgrade_request},
    scale, within,
};

/// The files of a certificate, for as long as they are needed.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mcp-loris-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// Writes a new certificate.
    fn renew(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(self.0.join("cert.pem"), certificate.pem()).unwrap();
        fs::write(self.0.join("key.pem"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    fn tls(&self) -> ServerTls {
        ServerTls::from_pem_files(self.0.join("cert.pem"), self.0.join("key.pem")).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn trusting(certificates: &[CertificateDer<'static>]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect(address: SocketAddr, connector: &TlsConnector) -> Raw<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    Raw::over(connector.connect(name, stream).await.unwrap(), true)
}

async fn dial(address: SocketAddr, connector: &TlsConnector) -> Raw<TlsStream<TcpStream>> {
    let mut raw = connect(address, connector).await;
    raw.write(upgrade_request(address, "")).await;
    assert_eq!(raw.head().await.unwrap().status(), 101);
    raw
}

async fn server(tls: ServerTls, config: Config) -> (Server, SocketAddr) {
    let server = serve("127.0.0.1:0", Tools::default).config(config).tls(tls).await.unwrap();
    let address = server.local_addr();
    (server, address)
}

fn on_time(took: Duration) -> Duration {
    assert!(took >= deadline() * 9 / 10 && took < deadline() * 13 / 10, "{took:?}");
    took
}

/// Says `hello` byte by byte, and is cut at the deadline. Returns when that was.
async fn late_hello(address: SocketAddr, hello: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let start = Instant::now();
    let mut bytes = hello.iter();
    let mut rest = [0; 64];
    loop {
        if let Some(byte) = bytes.next() {
            let _ = stream.write_all(&[*byte]).await;
        }
        match tokio::time::timeout(deadline() / 8, stream.read(&mut rest)).await {
            Ok(read) => break assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
            Err(_) => continue,
        }
    }
    on_time(start.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_has_its_deadline() {
    alone!();
    let each = scale(10, 250);
    within(Duration::from_secs(60), async {
        let files = Files::new("stages");
        let connector = trusting(&[files.renew()]);
        let limits = Limits::default().connections(10_000).handshakes(10_000);
        let config = Config::default().handshake_timeout(deadline()).limits(limits);
        let (server, address) = server(files.tls(), config).await;
        // The beginning of a ClientHello.
        let hello = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let connector = &connector;
        let stage = async |stage| match stage {
            0 => late_hello(address, &[]).await,
            1 => late_hello(address, &hello).await,
            2 => {
                let start = Instant::now();
                let mut raw = connect(address, connector).await;
                raw.write("GET /mcp HTTP/1.1\r\nHost:").await;
                assert_eq!(raw.head().await.map(|head| head.status()), Some(408));
                on_time(start.elapsed())
            }
            _ => {
                let mut raw = dial(address, connector).await;
                let start = Instant::now();
                assert_eq!(raw.closed().await.0, 1008);
                let took = on_time(start.elapsed());
                raw.send(Frame::close(1008)).await;
                assert!(matches!(raw.try_next().await, Ok(None)));
                took
            }
        };
        let slow = join_all((0..4 * each).map(async |number| stage(number % 4).await));
        let slowest = Cell::<Duration>::default();
        let good = async {
            sleep(deadline() / 2).await;
            loop {
                let start = Instant::now();
                let mut raw = dial(address, connector).await;
                raw.initialize().await;
                let took = start.elapsed();
                assert!(took < deadline() / 2, "{took:?}");
                slowest.set(slowest.get().max(took));
                sleep(deadline() / 10).await;
            }
        };
        tokio::select! {
            cut = slow => println!(
                "figure: TLS: {} sockets, cut after {:.1?} to {:.1?}; a good client took {:.0?} at most",
                cut.len(),
                cut.iter().min().unwrap(),
                cut.iter().max().unwrap(),
                slowest.get()
            ),
            () = good => {}
        }
        server.shutdown().await;
        assert_tasks_left(0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_does_not_wait_for_a_hello() {
    alone!();
    limit(async {
        let files = Files::new("drain");
        let connector = trusting(&[files.renew()]);
        let (server, address) = server(files.tls(), Config::default()).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut raw = dial(address, &connector).await;
        raw.initialize().await;
        let client = async {
            assert_eq!(raw.closed().await.0, 1012);
            raw.send(Frame::close(1012)).await;
            assert!(matches!(raw.try_next().await, Ok(None)));
        };
        within(deadline(), async { tokio::join!(server.shutdown(), client) }).await;
        assert!(matches!(silent.read(&mut [0]).await, Ok(0) | Err(_)));
        assert_tasks_left(0).await;
    })
    .await;
}

/// Renewing the certificate refuses nobody, and those who are connected stay so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_traffic() {
    alone!();
    limit(async {
        let files = Files::new("renew");
        let mut certificates = vec![files.renew()];
        let tls = files.tls();
        let (server, address) = server(tls.clone(), Config::default()).await;
        let mut old = dial(address, &trusting(&certificates)).await;
        old.initialize().await;
        for _ in 0..scale(10, 50) {
            certificates.push(files.renew());
            // The last two: a handshake may be under way with the one before.
            let connector = trusting(&certificates[certificates.len() - 2..]);
            let clients = join_all((0..4).map(async |_| {
                let mut raw = dial(address, &connector).await;
                raw.initialize().await;
                raw.ping().await;
            }));
            let reload = tokio::task::spawn_blocking({
                let tls = tls.clone();
                move || tls.reload().unwrap()
            });
            let (_, reloaded) = tokio::join!(clients, reload);
            reloaded.unwrap();
            let newest = trusting(&certificates[certificates.len() - 1..]);
            dial(address, &newest).await.initialize().await;
        }
        old.ping().await;
        fs::write(files.0.join("cert.pem"), "rubbish").unwrap();
        tls.reload().unwrap_err();
        let newest = trusting(&certificates[certificates.len() - 1..]);
        dial(address, &newest).await.initialize().await;
        drop(server);
    })
    .await;
}
