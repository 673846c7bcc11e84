//! What a server that is a relay relays to: itself, over the same transport.

use std::{net::SocketAddr, sync::OnceLock};

use tokio::sync::OnceCell;

use crate::{common::Result, contender::Contender, service::Client};

static SERVED: OnceLock<(Contender, SocketAddr)> = OnceLock::new();
static UPSTREAM: OnceCell<Client> = OnceCell::const_new();

/// Says who this process serves as, and where.
pub(crate) fn serves(contender: Contender, addr: SocketAddr) {
    let _ = SERVED.set((contender, addr));
}

/// The one connection to it.
pub(crate) async fn upstream() -> Result<&'static Client> {
    let (contender, addr) = SERVED.get().ok_or("nobody to relay to")?;
    UPSTREAM.get_or_try_init(|| contender.connect(*addr)).await
}
