//! Proxy between client and server, which cuts connections.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::common::Result;

pub(crate) struct Proxy {
    addr: SocketAddr,
    cuts: watch::Sender<()>,
}

impl Proxy {
    pub(crate) async fn new(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let cuts = watch::Sender::new(());
        let subscriber = cuts.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let mut cut = subscriber.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = pass(near, server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Ok(Self { addr, cuts })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/mcp", self.addr)
    }

    /// Cuts all connections that there are.
    pub(crate) fn cut(&self) {
        self.cuts.send_replace(());
    }
}

async fn pass(mut near: TcpStream, server: SocketAddr) -> Result<()> {
    let mut far = TcpStream::connect(server).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
