//! 100,000 messages over a hundred connections, each of which is taken over in the middle of
//! things: none is lost, none comes twice, none overtakes another.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use mcp_ws_transport::{
    CloseCode, Error, Message,
    error::LinkError,
    layer::{
        Reconnect, Resume, SharedLink, Socket,
        reconnect::LinkSource,
        resume::{self, ReceiveCount},
        shared_link,
        socket::{self, Side},
    },
    link::{LinkEvent, LinkUp},
};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{sleep, timeout},
};

const MESSAGES: usize = 50_000;
const CONNECTIONS: usize = 100;

type Next = (Socket<DuplexStream>, LinkUp);

/// Has what the test sends it.
struct Source(UnboundedReceiver<Next>);

impl LinkSource for Source {
    type Link = Socket<DuplexStream>;

    fn on_lost(self: Pin<&mut Self>, _: &Error) -> bool {
        true
    }

    fn poll_next_link(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        let gone = || LinkError::Closed(CloseCode::SessionGone.into()).into();
        self.0.poll_recv(cx).map(|next| next.ok_or_else(gone))
    }
}

struct End {
    shared: SharedLink,
    receive_count: ReceiveCount,
    links: UnboundedSender<Next>,
    side: Side,
}

fn socket(stream: DuplexStream, side: Side) -> Socket<DuplexStream> {
    Socket::new(stream, side, socket::Config::default())
}

impl End {
    fn new(stream: DuplexStream, side: Side) -> Self {
        let (links, source) = unbounded_channel();
        let reconnect = Reconnect::new(socket(stream, side), Source(source));
        let receive_count = ReceiveCount::default();
        let config = resume::Config::default().window_bytes(256 << 10);
        let resume = Resume::with_receive_count(reconnect, config, receive_count.clone());
        Self {
            shared: SharedLink::new(resume, shared_link::Config::default()),
            receive_count,
            links,
            side,
        }
    }

    /// Sends its numbers, waiting for some of them, and reads those of the other side.
    async fn run(mut shared: SharedLink) -> u64 {
        let mut reader = shared.clone();
        let writing = tokio::spawn(async move {
            for number in 0..MESSAGES {
                let size = if number % 1000 == 0 { 60_000 } else { number % 300 };
                let message = Message::text(format!("{number} {:size$}", ""));
                match number % 3 {
                    0 => shared.send(message).await.unwrap(),
                    _ => shared.feed(message).await.unwrap(),
                }
            }
            shared.flush().await.unwrap();
        });
        let mut replayed = 0;
        let mut next = 0;
        while next < MESSAGES {
            match reader.next().await.unwrap().unwrap() {
                LinkEvent::Item(Message::Text(text)) => {
                    let number: usize = text.as_str().split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(number, next);
                    next += 1;
                }
                LinkEvent::Up(LinkUp::Resumed(resumed)) => replayed += resumed.replayed,
                other => panic!("{other:?}"),
            }
        }
        // The other side may still wait for what this one acknowledges.
        tokio::spawn(async move { while let Some(Ok(_)) = reader.next().await {} });
        writing.await.unwrap();
        replayed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_reordered() {
    let (near, far) = duplex(16 << 10);
    let ends = [End::new(near, Side::Client), End::new(far, Side::Server)];
    let [client, server] =
        [&ends[0], &ends[1]].map(|end| tokio::spawn(End::run(end.shared.clone())));
    for connection in 0..CONNECTIONS {
        sleep(Duration::from_millis(3 + (connection % 7) as u64)).await;
        let (near, far) = duplex(16 << 10);
        let [asked, answered] = [&ends[0], &ends[1]].map(|end| end.receive_count.freeze());
        let told = [answered.received(), asked.received()];
        let streams = [near, far].into_iter().zip([asked, answered]);
        for ((end, (stream, frozen)), received) in ends.iter().zip(streams).zip(told) {
            let _ = end.links.send((socket(stream, end.side), frozen.resumed(received)));
        }
    }
    let replayed =
        timeout(Duration::from_secs(60), async { client.await.unwrap() + server.await.unwrap() });
    let replayed = replayed.await.expect("somebody waits for ever");
    println!(
        "figure: {} messages over {CONNECTIONS} connections, {replayed} of them sent again",
        2 * MESSAGES
    );
    assert!(replayed > 0);
}
