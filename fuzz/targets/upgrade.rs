//! A server reads what a client sends, from the first byte of the upgrade request on.

use mcp_ws_transport::{WebSocketTransport, accept, layer::socket, server, transport};
use rmcp::{RoleServer, transport::Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

use crate::runtime;

pub(crate) fn run(data: &[u8]) {
    let answer = runtime::block_on(async {
        let (near, far) = duplex(1 << 20);
        let (mut reader, mut writer) = split(far);
        let serving = async {
            let socket = socket::Config::default().max_message_size(4096);
            let socket = socket.deflate(socket::deflate::Config::default());
            let config = server::Config::default()
                .transport(transport::Config::default().socket(socket))
                .allowed_origins(["https://example.com"]);
            let accepted = accept::<RoleServer, _>(near).config(config).await;
            if let Ok(mut transport) = accepted {
                receive_all(&mut transport).await;
                // An error is that of a link which has ended before.
                let _ = transport.close().await;
            }
        };
        let mut answer = Vec::new();
        let asking = async {
            let sent = writer.write_all(data).await;
            let ended = writer.shutdown().await;
            // Not everything is read where the request is refused.
            drop((sent, ended));
            reader.read_to_end(&mut answer).await.expect("an answer, or none");
        };
        futures::join!(serving, asking);
        answer
    });
    if !answer.is_empty() {
        check(&answer);
    }
}

async fn receive_all(transport: &mut WebSocketTransport<RoleServer>) {
    while transport.receive().await.is_some() {}
}

/// Panics unless `answer` begins with a response that this server gives.
fn check(answer: &[u8]) {
    let status = answer.strip_prefix(b"HTTP/1.1 ").or(answer.strip_prefix(b"HTTP/1.0 "));
    let status = status.and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
    let known = ["101", "400", "403", "405", "414", "426", "431", "501", "503"];
    let status = status.filter(|status| known.contains(status));
    assert!(status.is_some(), "{}", String::from_utf8_lossy(answer));
    if status == Some("101") {
        let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
        assert!(text.contains("\r\nsec-websocket-accept: "), "{text}");
    }
}
