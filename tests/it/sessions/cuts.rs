//! A client and a server of this crate, over a network that does its worst: no call is lost.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use mcp_ws_transport::{connect, event::Event};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{ServiceExt, model::CallToolRequestParams};
use serde_json::json;

use crate::common::{
    counting::Counting,
    ms,
    proxy::{Faults, Proxy},
    reconnect_within, scale, tool_call, within,
};

fn count(number: i64) -> CallToolRequestParams {
    tool_call("count", json!({ "number": number }))
}

/// Connections are cut after a random number of bytes, in both directions together, be it in the
/// handshake or in a message, by FIN or RST; ten calls in flight. Each is executed once, and
/// answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_cuts_no_call_notices_anything() {
    let cuts = scale(100, 1000);
    let counting = Counting::default();
    let service = counting.clone();
    let server = mcp_ws_transport::serve("127.0.0.1:0", move || service.clone()).await.unwrap();
    let proxy = Proxy::new(server.local_addr()).await;
    let connect = reconnect_within(ms(5), connect(proxy.url()));
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();

    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    proxy.draw_faults(move || Faults {
        cut_after: Some(random.random_range(1..6000)),
        reset: random.random(),
        ..Faults::default()
    });
    proxy.cut();
    let slowest = Mutex::new(Duration::ZERO);
    let done = AtomicUsize::new(0);
    let calls = (0..)
        .take_while(|_| done.load(SeqCst) < 10 * cuts || proxy.dials.load(SeqCst) <= cuts)
        .map(|number| {
            let (client, counting, slowest, done) = (&client, &counting, &slowest, &done);
            async move {
                let began = Instant::now();
                let result = within(Duration::from_secs(30), client.call_tool(count(number))).await;
                let result = result.unwrap_or_else(|error| panic!("{number}: {error:?}"));
                assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
                assert_eq!(counting.times(number), 1, "{number}");
                let mut slowest = slowest.lock().unwrap();
                *slowest = slowest.max(began.elapsed());
                done.fetch_add(1, SeqCst);
            }
        });
    stream::iter(calls).buffer_unordered(10).collect::<()>().await;

    let (dials, calls) = (proxy.dials.load(SeqCst), done.load(SeqCst));
    client.cancel().await.unwrap();
    let (mut resumed, mut replayed) = (0, 0);
    while let Some(event) = within(Duration::from_secs(1), events.next()).await {
        match event {
            Event::Resumed { replayed: messages } => {
                resumed += 1;
                replayed += messages;
            }
            Event::Restarted { .. } => panic!("the session was lost"),
            Event::Lagged(missed) => println!("{missed} events not seen"),
            _ => {}
        }
    }
    println!(
        "figure: {calls} calls over {dials} connections, each executed once and answered; resumed {resumed} \
         times, {replayed} messages sent again; the slowest took {:.1?}",
        slowest.lock().unwrap()
    );
    assert!(resumed > 0 && replayed > 0);
    let executed = counting.0.lock().unwrap();
    assert_eq!((executed.len(), executed.values().copied().max()), (calls, Some(1)));
    assert_eq!(server.registry().health().total, 1);
}
