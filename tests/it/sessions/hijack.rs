//! Sessions cannot be taken by others, and their owner does not notice that they try.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, future::join, stream};
use mcp_ws_transport::{
    State, connect,
    server::{BearerTokens, Config, Identity, Limits},
};
use proptest::{
    prelude::{Rng, RngExt as _},
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{ServiceExt, model::CallToolRequestParams};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::common::{
    Tools, call,
    raw::{CLOSE, Frame, PING, PONG, Raw, TEXT, upgrade_request},
    scale, serve_tools, text_of, within,
};

const ALICE: &str = "Authorization: Bearer a\r\n";
const MALLORY: &str = "Authorization: Bearer m\r\n";

fn config() -> Config {
    let tokens = BearerTokens::default()
        .token("a", Identity::new("alice"))
        .token("m", Identity::new("mallory"));
    Config::default().authenticator(tokens).limits(Limits::default().handshakes(256))
}

/// One connection, and what was received over it and those before it.
struct Link {
    raw: Raw,
    received: u64,
    session: Value,
}

impl Link {
    /// A connection that says who it is and which session it wants. `None`, if it is taken over
    /// before it is answered.
    async fn open(address: SocketAddr, who: &str, open: &Value) -> Option<Self> {
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        let lines = format!("Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n{who}");
        raw.write(upgrade_request(address, &lines)).await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.get("sec-websocket-protocol"), Some("mcp.resume.v1"), "{head:?}");
        raw.text(format!("@open {open}")).await;
        let received = open["received"].as_u64().unwrap_or(0);
        let mut link = Self { raw, received, session: Value::Null };
        let text = link.text().await?;
        let session = text.strip_prefix("@session ").unwrap_or_else(|| panic!("{text}"));
        link.session = serde_json::from_str(session).unwrap();
        Some(link)
    }

    /// The owner of a new session.
    async fn owner(address: SocketAddr) -> Self {
        let mut link = Self::open(address, ALICE, &json!({})).await.unwrap();
        link.raw.json(&crate::common::raw::initialize("init")).await;
        assert!(link.receive().await.unwrap()["result"].is_object());
        link.raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        link
    }

    fn name(&self) -> (String, String) {
        let field = |field: &str| self.session[field].as_str().unwrap().to_owned();
        (field("session"), field("secret"))
    }

    fn is_resumed(&self) -> bool {
        self.session["resumed"] == true
    }

    /// Returns the request of its owner to resume it.
    fn asks(&self) -> Value {
        let (session, secret) = self.name();
        json!({ "session": session, "secret": secret, "received": self.received })
    }

    /// The next text message; `None` where the connection is taken over.
    async fn text(&mut self) -> Option<String> {
        loop {
            let frame = self.raw.next().await.expect("cut without a word");
            match frame.opcode {
                TEXT => return Some(String::from_utf8(frame.payload).unwrap()),
                PING => self.raw.send(Frame::new(PONG, frame.payload)).await,
                CLOSE => {
                    let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
                    assert_eq!(code, 4409, "{}", String::from_utf8_lossy(&frame.payload[2..]));
                    return None;
                }
                _ => {}
            }
        }
    }

    /// The next message of the session.
    async fn receive(&mut self) -> Option<Value> {
        loop {
            let text = self.text().await?;
            if !text.starts_with('@') {
                self.received += 1;
                return Some(serde_json::from_str(&text).unwrap());
            }
        }
    }

    /// A call, which is answered to nobody else.
    async fn call(&mut self, number: u64) {
        let text = number.to_string();
        self.raw.json(&call(number, "echo", json!({ "text": text }))).await;
        let answer = self.receive().await.unwrap();
        assert_eq!((text_of(&answer), &answer["id"]), (&*text, &json!(number)));
    }
}

/// The owner's session as it is now, and the secrets that it had.
#[derive(Debug, Default)]
struct Known {
    session: String,
    secret: String,
    spent: VecDeque<String>,
}

/// Returns as many random characters as those of a real one.
fn made_up(random: &mut TestRng) -> String {
    const OF: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..43).map(|_| char::from(OF[random.random_range(0..OF.len())])).collect()
}

/// Almost the right one.
fn altered(secret: &str, random: &mut TestRng) -> String {
    let mut secret = secret.to_owned();
    let place = random.random_range(0..secret.len());
    let other = if secret.as_bytes()[place] == b'A' { "B" } else { "A" };
    match random.random_range(0..4) {
        0 => secret.truncate(place.max(1)),
        1 => secret.push('A'),
        2 => secret.insert(place, 'A'),
        _ => secret.replace_range(place..=place, other),
    }
    secret
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_guesses_none_is_right_and_the_owner_is_undisturbed() {
    let guesses = scale(500, 10_000);
    let (server, address) = serve_tools(&Tools::default(), config()).await;

    // One owner calls without end, and comes back over another connection now and then.
    let known = Arc::new(Mutex::new(Known::default()));
    let mut owner = Link::owner(address).await;
    (known.lock().unwrap().session, known.lock().unwrap().secret) = owner.name();
    let publish = known.clone();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let owning = tokio::spawn(async move {
        let (mut calls, mut resumed) = (0, 0);
        while !*stopped.borrow() {
            calls += 1;
            owner.call(calls).await;
            if calls % 20 == 0 {
                let (_, spent) = owner.name();
                if resumed % 2 == 0 {
                    owner.raw.send(Frame::close(1001)).await;
                }
                let asks = owner.asks();
                owner = Link::open(address, ALICE, &asks).await.unwrap();
                assert!(owner.is_resumed(), "{:?}", owner.session["why"]);
                resumed += 1;
                // By this the server learns that the new secret has arrived.
                calls += 1;
                owner.call(calls).await;
                let mut known = publish.lock().unwrap();
                known.secret = owner.name().1;
                known.spent.push_back(spent);
                if known.spent.len() > 100 {
                    known.spent.pop_front();
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (calls, resumed)
    });
    // Another is a client of this crate, which loses nothing.
    let connect = connect(format!("ws://{address}/mcp")).bearer("a");
    let state = connect.state();
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let calling = {
        let (client, stopped) = (client.peer().clone(), stop.subscribe());
        tokio::spawn(async move {
            let mut calls = 0;
            while !*stopped.borrow() {
                client.call_tool(CallToolRequestParams::new("echo")).await.unwrap();
                calls += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            calls
        })
    };
    while known.lock().unwrap().spent.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let seeds: Vec<_> = (0..guesses).map(|_| random.random::<[u8; 32]>()).collect();
    let guesses = stream::iter(seeds.into_iter().enumerate()).map(|(number, seed)| {
        let known = known.clone();
        async move {
            let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            let (session, secret, spent) = {
                let known = known.lock().unwrap();
                let spent = &known.spent[random.next_u32() as usize % known.spent.len()];
                (known.session.clone(), known.secret.clone(), spent.clone())
            };
            let (who, session, secret) = match number % 7 {
                0 => (ALICE, made_up(&mut random), made_up(&mut random)),
                1 => (ALICE, made_up(&mut random), secret),
                2 => (ALICE, session, made_up(&mut random)),
                3 => (ALICE, session, altered(&secret, &mut random)),
                4 => (ALICE, session, spent),
                5 => (MALLORY, session, spent),
                _ => (MALLORY, session, secret),
            };
            let received = random.random_range(0..50_u64);
            let open = json!({ "session": session, "secret": secret, "received": received });
            let mut attacker = Link::open(address, who, &open).await.unwrap();
            let told = (&attacker.session["resumed"], &attacker.session["why"]);
            assert_eq!(told, (&json!(false), &json!("unknown")), "guess {number}");
            assert_ne!(attacker.name().0, session);
            match random.random_range(0..3) {
                0 => attacker.raw.reset(),
                1 => attacker.raw.send(Frame::close(1000)).await,
                // What it has is a session like any other, with nothing in it.
                _ => {
                    attacker.raw.initialize().await;
                    attacker.raw.send(Frame::close(1000)).await;
                }
            }
        }
    });
    let guessed = guesses.buffer_unordered(8).count();
    let guessed = within(Duration::from_secs(600), guessed).await;

    stop.send_replace(true);
    let (calls, resumed) = within(Duration::from_secs(10), owning).await.unwrap();
    let of_client = within(Duration::from_secs(10), calling).await.unwrap();
    assert_eq!(*state.borrow(), State::Connected);
    println!(
        "figure: {guessed} guesses, 0 right; meanwhile the owner made {calls} calls and came back {resumed} \
         times, and a client made {of_client} calls over one connection"
    );
    assert!(resumed > 1 && of_client > 10);
    client.cancel().await.unwrap();
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_come_at_once_one_wins() {
    let races = scale(100, 1000);
    let tools = Tools::default();
    let (server, address) = serve_tools(&tools, config()).await;
    let race = async |_| {
        let mut owner = Link::owner(address).await;
        owner.call(1).await;
        let asks = owner.asks();
        owner.raw.reset();
        let racer = || Link::open(address, ALICE, &asks);
        let (one, other) = join(racer(), racer()).await;
        let racers: Vec<_> = [one, other].into_iter().flatten().collect();
        assert!(racers.iter().all(Link::is_resumed));
        let runs = racers.into_iter().map(async |mut racer| {
            racer
                .raw
                .try_write(Frame::text(call(2, "sleep", json!({})).to_string()).bytes(true))
                .await
                .ok()?;
            let answer = racer.receive().await?;
            assert_eq!((text_of(&answer), &answer["id"]), ("slept", &json!(2)));
            Some(racer)
        });
        let winners = futures::future::join_all(runs).await;
        let mut winners: Vec<_> = winners.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        // And the secret by which it was won is spent.
        let late = Link::open(address, ALICE, &asks).await.unwrap();
        assert_eq!(late.session["why"], "unknown");
        winners[0].call(3).await;
        winners[0].raw.send(Frame::close(1000)).await;
        late
    };
    let raced = stream::iter(0..races).map(race).buffer_unordered(10).count();
    let raced = within(Duration::from_secs(300), raced).await;
    println!("figure: {raced} races, one winner each");
    assert_eq!(*tools.started.borrow(), races, "what a loser asked for was done");
    server.shutdown().await;
}
