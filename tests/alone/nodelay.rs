//! Nagle's algorithm is off on every socket that is dialled or accepted.

use std::{net::SocketAddr, os::fd::OwnedFd};

use mcp_ws_transport::{accept, connect, connect_over, serve};
use rmcp::{RoleClient, RoleServer};
use rustix::{
    net::{getpeername, getsockname, sockopt::tcp_nodelay},
    process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open},
};

use crate::common::{
    Tools, limit, listen, pair,
    raw::{Raw, upgrade_request},
};

/// Returns `true` if Nagle's algorithm is off on this process's own socket from `local` to `peer`.
fn nodelay(local: SocketAddr, peer: SocketAddr) -> bool {
    let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let sockets: Vec<OwnedFd> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok())
        .filter(|fd| {
            let ends = (getsockname(fd), getpeername(fd));
            let (Ok(from), Ok(Some(to))) = ends else { return false };
            SocketAddr::try_from(from) == Ok(local) && SocketAddr::try_from(to) == Ok(peer)
        })
        .collect();
    // The descriptors that other tests have duplicated here stand for the same socket.
    tcp_nodelay(sockets.first().unwrap()).unwrap()
}

#[tokio::test]
async fn on_a_socket_that_connect_dials() {
    alone!();
    limit(async {
        let (listener, url) = listen().await;
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let ends = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
            (Raw::upgraded(stream).await, ends)
        };
        let (client, (_raw, (client_end, server_end))) =
            tokio::join!(connect::<RoleClient>(url).into_future(), server);
        let client = client.unwrap();
        assert!(nodelay(client_end, server_end));
        // The other end is the test's own, so this is where it would be seen to be off.
        assert!(!nodelay(server_end, client_end));
        drop(client);
    })
    .await;
}

#[tokio::test]
async fn on_a_socket_that_connect_over_is_given() {
    alone!();
    limit(async {
        let (near, far) = pair().await;
        let ends = (near.local_addr().unwrap(), near.peer_addr().unwrap());
        assert!(!nodelay(ends.0, ends.1));
        let connecting = connect_over::<RoleClient, _>(near, "ws://localhost/");
        let (client, _raw) = tokio::join!(connecting, Raw::upgraded(far));
        let _client = client.unwrap();
        assert!(nodelay(ends.0, ends.1));
    })
    .await;
}

#[tokio::test]
async fn on_a_socket_that_accept_is_given() {
    alone!();
    limit(async {
        let (near, far) = pair().await;
        let ends = (far.local_addr().unwrap(), far.peer_addr().unwrap());
        assert!(!nodelay(ends.0, ends.1));
        let mut raw = Raw::over(near, true);
        raw.write(upgrade_request(ends.0, "")).await;
        let _server = accept::<RoleServer, _>(far).await.unwrap();
        assert!(nodelay(ends.0, ends.1));
    })
    .await;
}

#[tokio::test]
async fn on_a_socket_that_serve_accepts() {
    alone!();
    limit(async {
        let server = serve("127.0.0.1:0", Tools::default).await.unwrap();
        let raw = Raw::initialized(server.local_addr()).await;
        assert!(nodelay(server.local_addr(), raw.stream.local_addr().unwrap()));
    })
    .await;
}
