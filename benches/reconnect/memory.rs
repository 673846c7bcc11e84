//! The memory of sessions without a connection.

use std::{net::SocketAddr, time::Duration};

use futures::{SinkExt, StreamExt};
use tokio::{net::TcpStream, time::sleep};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    common::{Result, machine::resident, script::Script, server::Server},
    contender::Contender,
};

/// Measures by how many KiB a server grows for each session. `None` where that cannot be told.
pub(crate) async fn measure(sessions: usize) -> Result<Option<f64>> {
    let server = Server::start(Contender::Ours, &[])?;
    let pid = server.pid();
    let script = Script::new()?;
    // The first session of a server costs what all of them share.
    vanish(server.addr(), &script).await?;
    sleep(Duration::from_millis(500)).await;
    let Some(before) = resident(pid) else { return Ok(None) };
    for _ in 0..sessions {
        vanish(server.addr(), &script).await?;
    }
    sleep(Duration::from_millis(500)).await;
    let after = resident(pid).ok_or("the server is gone")?;
    Ok(Some((after - before) / sessions as f64))
}

/// Opens a session, and is lost.
async fn vanish(addr: SocketAddr, script: &Script) -> Result<()> {
    let stream = TcpStream::connect(addr).await?;
    let mut request = format!("ws://{addr}/mcp").into_client_request()?;
    let offer = HeaderValue::from_static("mcp, mcp.resume.v1");
    request.headers_mut().insert("sec-websocket-protocol", offer);
    let (mut websocket, _) = client_async(request, stream).await?;
    for text in ["@open {}", &script.initialize] {
        websocket.send(Message::text(text)).await?;
        websocket.next().await.ok_or("the server hung up")??;
    }
    websocket.send(Message::text(&script.initialized)).await?;
    websocket.get_ref().set_zero_linger()?;
    Ok(())
}
