//! Forward proxies: HTTP by `CONNECT`, and SOCKS5.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// What a forward proxy does to those who ask.
#[derive(Clone, Default)]
pub struct Rules {
    /// User and password to be shown.
    pub credentials: Option<(String, String)>,
    /// Bytes that are answered to the first so many requests, in place of a tunnel.
    pub refusals: Vec<Vec<u8>>,
    /// Speaks TLS to its clients.
    pub tls: Option<TlsAcceptor>,
}

/// A forward proxy that takes each destination for one server, as if it had resolved its name.
pub struct ForwardProxy {
    pub address: SocketAddr,
    /// Destinations as they were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
    cuts: watch::Sender<usize>,
}

impl ForwardProxy {
    pub async fn http(server: SocketAddr, rules: Rules) -> Self {
        Self::new(server, rules, true).await
    }

    pub async fn socks5(server: SocketAddr, rules: Rules) -> Self {
        Self::new(server, rules, false).await
    }

    async fn new(server: SocketAddr, rules: Rules, is_http: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            cuts: watch::Sender::new(0),
        };
        let (asked, cuts) = (proxy.asked.clone(), proxy.cuts.clone());
        let mut refusals = rules.refusals.clone().into_iter();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (asked, rules, refusal) = (asked.clone(), rules.clone(), refusals.next());
                let mut cuts = cuts.subscribe();
                let serving = async move {
                    let mut near: Box<dyn Stream> = match &rules.tls {
                        Some(tls) => Box::new(tls.accept(near).await.ok()?),
                        None => Box::new(near),
                    };
                    let destination = match is_http {
                        true => connect(&mut near, &rules, refusal).await?,
                        false => socks5(&mut near, &rules, refusal).await?,
                    };
                    asked.lock().unwrap().push(destination);
                    let mut far = TcpStream::connect(server).await.ok()?;
                    copy_bidirectional(&mut near, &mut far).await.ok()
                };
                tokio::spawn(async move {
                    tokio::select! { _ = serving => {}, _ = cuts.changed() => {} }
                });
            }
        });
        proxy
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Returns the destinations that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Returns the destination of a `CONNECT` that is granted.
async fn connect(
    stream: &mut Box<dyn Stream>,
    rules: &Rules,
    refusal: Option<Vec<u8>>,
) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    if let Some(refusal) = refusal {
        stream.write_all(&refusal).await.ok()?;
        stream.shutdown().await.ok()?;
        return None;
    }
    let destination = head.strip_prefix("CONNECT ")?.split_once(" HTTP/1.1\r\n")?.0.to_owned();
    let line = |name: &str| {
        let found = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        found.and_then(|line| Some(line.split_once(": ")?.1.to_owned()))
    };
    assert_eq!(line("host:").as_ref(), Some(&destination));
    let expected = rules.credentials.as_ref().map(|(user, password)| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    });
    if expected.is_some() && line("proxy-authorization:") != expected {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\n\
            Proxy-Authenticate: Basic realm=\"here\"\r\nContent-Length: 3\r\n\r\nno\n";
        stream.write_all(refusal.as_bytes()).await.ok()?;
        return None;
    }
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.ok()?;
    Some(destination)
}

/// Returns the destination of a SOCKS5 `CONNECT` that is granted (RFC 1928).
async fn socks5(
    stream: &mut Box<dyn Stream>,
    rules: &Rules,
    refusal: Option<Vec<u8>>,
) -> Option<String> {
    let methods = prefixed(stream, 5).await?;
    let method = if rules.credentials.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        stream.write_all(&[5, 0xff]).await.ok()?;
        return None;
    }
    stream.write_all(&[5, method]).await.ok()?;
    if let Some((user, password)) = &rules.credentials {
        let shown = prefixed(stream, 1).await?;
        let length = stream.read_u8().await.ok()?;
        let mut secret = vec![0; length.into()];
        stream.read_exact(&mut secret).await.ok()?;
        let right = shown == user.as_bytes() && secret == password.as_bytes();
        stream.write_all(&[1, u8::from(!right)]).await.ok()?;
        if !right {
            return None;
        }
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.ok()?;
    assert_eq!(request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await.ok()?).to_string(),
        4 => format!("[{}]", std::net::Ipv6Addr::from(stream.read_u128().await.ok()?)),
        3 => {
            let length = stream.read_u8().await.ok()?;
            let mut name = vec![0; length.into()];
            stream.read_exact(&mut name).await.ok()?;
            String::from_utf8(name).unwrap()
        }
        other => panic!("an address of type {other}"),
    };
    let port = stream.read_u16().await.ok()?;
    let reply = refusal.unwrap_or_else(|| vec![0]);
    stream.write_all(&[5, reply[0], 0, 1, 127, 0, 0, 1, 0, 80]).await.ok()?;
    (reply[0] == 0).then(|| format!("{host}:{port}"))
}

/// Reads a version, and so many bytes as the next one says.
async fn prefixed(stream: &mut Box<dyn Stream>, version: u8) -> Option<Vec<u8>> {
    assert_eq!(stream.read_u8().await.ok()?, version);
    let length = stream.read_u8().await.ok()?;
    let mut bytes = vec![0; length.into()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(bytes)
}
