//! A server that is away for a day.

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use mcp_ws_transport::{State, connect, event::Event, server::serve_on};
use rmcp::{ServiceExt, model::CallToolRequestParams};
use tokio::{net::TcpSocket, runtime::Handle, time::Instant};

use crate::{
    HEAP,
    common::{Tools, limit, within},
};

const DAY: Duration = Duration::from_secs(86_400);

/// Reserves `address`: nobody else gets it, and nobody who dials it gets through.
fn reserved(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Virtual time.
#[tokio::test(start_paused = true)]
async fn the_client_is_back_soon_after_a_day_without_its_server_and_has_not_grown() {
    alone!();
    for resume in [true, false] {
        let socket = reserved("127.0.0.1:0".parse().unwrap());
        let address = socket.local_addr().unwrap();
        let tools = || Tools::default();
        let first = serve_on(socket.listen(64).unwrap(), tools).await.unwrap();
        let connect = connect(format!("ws://{address}/mcp")).resume(resume);
        let (mut state, mut events) = (connect.state(), connect.events());
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        first.shutdown().await;
        let socket = reserved(address);
        let lost = Instant::now();
        assert!(matches!(events.next().await, Some(Event::Lost(_))));
        let calling = {
            let client = client.peer().clone();
            tokio::spawn(async move { client.call_tool(CallToolRequestParams::new("echo")).await })
        };

        // What there is once all that is ever allocated has been.
        let mut attempts = 0;
        let mut early = (0, 0);
        let tasks = || Handle::current().metrics().num_alive_tasks();
        while let Ok(event) = tokio::time::timeout_at(lost + DAY, events.next()).await {
            let Some(Event::Failed { attempt, .. }) = event else { panic!("{event:?}") };
            attempts += 1;
            assert_eq!(attempt, attempts);
            if attempts == 100 {
                early = (HEAP.allocated(), tasks());
            }
        }
        let late = (HEAP.allocated(), tasks());
        assert!(matches!(*state.borrow_and_update(), State::Reconnecting { .. }));
        println!("resume {resume}: bytes and tasks {early:?}, {late:?}");
        assert!((1000..=6000).contains(&attempts), "{attempts}");
        assert!(late.0 <= early.0 + 1024, "grown from {} to {}", early.0, late.0);
        assert_eq!(late.1, early.1);

        let second = serve_on(socket.listen(64).unwrap(), tools).await.unwrap();
        let there = Instant::now();
        let back = state.wait_for(|state| *state == State::Connected);
        within(Duration::from_secs(31), back).await.unwrap();
        println!(
            "figure: resume {resume}: {attempts} attempts, back {:.1?} after the server, {} bytes and {} tasks more",
            there.elapsed(),
            late.0.saturating_sub(early.0),
            late.1 - early.1
        );
        limit(calling).await.unwrap().unwrap();
        limit(client.cancel()).await.unwrap();
        second.shutdown().await;
    }
}
