//! [`serve`]: a server that carries the messages of each connection to an end and back.

use std::io;

use rmcp::model::Extensions;
use tokio::net::ToSocketAddrs;

use super::{
    connection::relay::RelayHost,
    listen::{
        listener::{Bind, Listener},
        serve::Serve,
    },
};
use crate::relay::{end::End, role::Server};

/// Listens on `addr`, and carries the messages of each connection to the end that `factory` makes
/// for it.
///
/// The same as [`serve`](crate::serve()) otherwise: await the result, or set options first.
/// `factory` is called for each session, as [`WebSocketService::relay`] has it.
///
/// [`WebSocketService::relay`]: crate::server::WebSocketService::relay
pub fn serve<A, F, E>(
    addr: A,
    factory: impl Fn(Extensions) -> F + Send + Sync + 'static,
) -> Serve<Server, Bind<A>>
where
    A: ToSocketAddrs<Future: Send> + Send + 'static,
    F: Future<Output = io::Result<E>> + Send + 'static,
    E: End,
{
    Serve::hosting(Bind(addr), Box::new(RelayHost::new(factory)))
}

/// Carries the messages of each connection of `listener` to the end that `factory` makes for it.
pub fn serve_on<L, F, E>(
    listener: L,
    factory: impl Fn(Extensions) -> F + Send + Sync + 'static,
) -> Serve<Server, L>
where
    L: Listener,
    F: Future<Output = io::Result<E>> + Send + 'static,
    E: End,
{
    Serve::hosting(listener, Box::new(RelayHost::new(factory)))
}
