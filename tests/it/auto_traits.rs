//! Types that can be moved between threads, and shared.

use std::future::IntoFuture;

use mcp_ws_transport::{
    Error, Message, State, WebSocketTransport,
    client::{ClientTls, Connect, ToolClient, ToolError},
    layer::{Heartbeat, SharedLink, Socket, shared_link::Flushed},
    server::{Accept, Server},
    stats::Stats,
    transport::{Builder, Config, SinkStream},
};
use rmcp::{RoleClient, RoleServer, transport::Transport};
use tokio::net::TcpStream;

fn send<T: Send + 'static>() {}
fn send_unpin<T: Send + Unpin + 'static>() {}
fn shared<T: Send + Sync + Unpin + 'static>() {}

#[test]
fn transports_move_between_threads() {
    send_unpin::<WebSocketTransport<RoleClient>>();
    send_unpin::<WebSocketTransport<RoleServer>>();
    send_unpin::<SinkStream<RoleClient>>();
    send_unpin::<SinkStream<RoleServer>>();
    send::<Builder<RoleClient>>();
    send::<Connect<RoleClient>>();
    send::<<Connect<RoleClient> as IntoFuture>::IntoFuture>();
    send::<<Accept<RoleServer, TcpStream> as IntoFuture>::IntoFuture>();
    send::<Heartbeat<Socket<TcpStream>>>();
}

#[test]
fn handles_are_shared_between_threads() {
    shared::<Error>();
    shared::<Message>();
    shared::<State>();
    shared::<Stats>();
    shared::<Config>();
    shared::<ClientTls>();
    shared::<ToolClient>();
    shared::<ToolError>();
    shared::<Server>();
    shared::<SharedLink>();
    shared::<Flushed>();
}

#[test]
fn sending_outlives_the_borrow_of_the_transport() {
    fn future<T: Send + 'static>(_: T) {}
    fn check(
        transport: &mut WebSocketTransport<RoleClient>,
        message: rmcp::model::ClientJsonRpcMessage,
    ) {
        future(transport.send(message));
    }
    let _ = check;
}
