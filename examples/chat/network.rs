//! A network that can be down.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::line::Error;

/// Relays connections to `server` while the network `is_up`, and cuts them when it is not. Returns
/// the URL to dial.
pub(crate) async fn relay(
    server: SocketAddr,
    mut is_up: watch::Receiver<bool>,
) -> Result<String, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/mcp", listener.local_addr()?);
    tokio::spawn(async move {
        while is_up.wait_for(|is_up| *is_up).await.is_ok() {
            let Ok((mut near, _)) = listener.accept().await else { break };
            let Ok(mut far) = TcpStream::connect(server).await else { break };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = is_up.wait_for(|is_up| !is_up) => {}
            }
        }
    });
    Ok(url)
}
