//! Two sides, a network and a server, against a model of what has to arrive. The network and the
//! server do what they can to lose, double or reorder messages.
//!
//! `MCP_WS_CASES=10000 cargo test --lib resume::tests::model` tries that many sequences.

use std::collections::VecDeque;

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

#[derive(Debug, Clone)]
enum Action {
    /// A message of this size, where there is room.
    Send(At, usize),
    /// A writer waits for room.
    Wait(At),
    /// The tasks of one side run.
    Run(At),
    /// Messages on a link arrive at this side: the link, and their number.
    Move(At, usize, usize),
    /// A link takes no writes at this side, takes them again, or fails with them.
    Block(At, usize, bool),
    Break(At, usize),
    /// A link takes this number of milliseconds to bring what is sent from now on.
    Delay(usize, u64),
    Cut(usize),
    /// The client begins an attempt and gives up those before.
    Open,
    /// The server answers an attempt, given up or not.
    Answer(usize),
    /// The client reads the answer to its last attempt.
    Finish,
    /// The server forgets a session.
    Expire,
    Time(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Client,
    Server,
}

use Action::*;
use At::*;

/// Longest time that a link takes to bring a message, in milliseconds.
const MAX_DELAY: u64 = 200;

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![30 => 0_usize..120, 1 => Just(usize::from(u16::MAX))]
}

fn action() -> impl Strategy<Value = Action> {
    let at = || prop_oneof![Just(Client), Just(Server)];
    // Counted from the newest.
    let link = || prop_oneof![6 => Just(0_usize), 2 => Just(1), 1 => 2_usize..5];
    prop_oneof![
        30 => (at(), size()).prop_map(|(at, size)| Send(at, size)),
        8 => at().prop_map(Wait),
        20 => at().prop_map(Run),
        25 => (at(), link(), 1_usize..8).prop_map(|(at, link, count)| Move(at, link, count)),
        2 => (at(), link(), any::<bool>()).prop_map(|(at, link, on)| Block(at, link, on)),
        1 => (at(), link()).prop_map(|(at, link)| Break(at, link)),
        1 => (link(), 0..MAX_DELAY).prop_map(|(link, ms)| Delay(link, ms)),
        4 => link().prop_map(Cut),
        6 => Just(Open),
        8 => link().prop_map(Answer),
        8 => Just(Finish),
        1 => Just(Expire),
        4 => prop_oneof![Just(50_u64), Just(1000)].prop_map(Time),
    ]
}

/// A connection: what is under way to each side, and the ends that there are.
#[derive(Default)]
struct Pipe {
    ends: [Option<Peer>; 2],
    under_way: [VecDeque<(Instant, Message)>; 2],
    delay: Duration,
    cut: bool,
}

impl Pipe {
    fn collect(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            if let Some(end) = &self.ends[from] {
                let under_way = &mut self.under_way[to];
                let last = under_way.back().map(|(due, _)| *due);
                let due = (Instant::now() + self.delay).max(last.unwrap_or_else(Instant::now));
                under_way.extend(end.sent().into_iter().map(|message| (due, message)));
            }
        }
        if self.cut {
            self.under_way = Default::default();
        }
    }

    fn bring(&mut self, to: At, count: usize) -> bool {
        self.collect();
        let Some(end) = &self.ends[to as usize] else { return false };
        let under_way = &mut self.under_way[to as usize];
        let now = Instant::now();
        let arrived = under_way.partition_point(|(due, _)| *due <= now);
        let count = count.min(arrived);
        under_way.drain(..count).for_each(|(_, message)| end.send(message));
        count > 0
    }

    fn cut(&mut self) {
        self.cut = true;
        self.collect();
        for end in self.ends.iter().flatten() {
            end.break_writes();
            end.send(Message::Close(Some(CloseCode::Abnormal.into())));
        }
    }
}

/// A session as the model knows it: what was sent to each side, and how much of it has arrived.
#[derive(Debug, Default)]
struct Model {
    sent_to: [Vec<u64>; 2],
    arrived_at: [usize; 2],
}

struct Attempt {
    /// The session that is requested: its index, its secret, and the number of messages received of
    /// it.
    asks: Option<(usize, Secret, u64)>,
    frozen: Option<FrozenCount>,
    /// The session, the secret, whether it is resumed, how much was received.
    answer: Option<(usize, Secret, bool, u64)>,
    pipe: usize,
}

struct World {
    windows: [usize; 2],
    next: u64,
    client: Side,
    /// The session that the client's user knows, and the one that its source knows.
    client_in: usize,
    held: Option<(usize, Secret)>,
    /// Session of which the user is told when it is told of a restart.
    restarts_in: Option<usize>,
    /// The server's sides by session; `None` where it is forgotten.
    servers: Vec<Option<(Side, Secrets)>>,
    models: Vec<Model>,
    pipes: Vec<Pipe>,
    attempts: Vec<Attempt>,
    /// Heals, losses.
    told: [usize; 2],
}

impl World {
    fn new(windows: [usize; 2]) -> Self {
        let [client, server] = windows.map(Side::with_window);
        let secrets = Secrets::default();
        let ends = [Some(client.peer.clone()), Some(server.peer.clone())];
        let mut client = client;
        client.dialled();
        Self {
            windows,
            next: 0,
            client,
            client_in: 0,
            held: Some((0, secrets.given().clone())),
            restarts_in: None,
            servers: vec![Some((server, secrets))],
            models: vec![Model::default()],
            pipes: vec![Pipe { ends, ..Pipe::default() }],
            attempts: Vec::new(),
            told: [0, 0],
        }
    }

    /// The newest server that there is.
    fn server(&mut self) -> Option<(usize, &mut Side)> {
        let newest = self.servers.iter_mut().enumerate().rev();
        newest.filter_map(|(at, server)| Some((at, &mut server.as_mut()?.0))).next()
    }

    fn pipe(&mut self, back: usize) -> &mut Pipe {
        let last = self.pipes.len() - 1;
        &mut self.pipes[last.saturating_sub(back)]
    }

    /// Returns a side and its session: at the server, the newest that there is.
    fn side(&mut self, at: At) -> Option<(usize, &mut Side)> {
        match at {
            Client => Some((self.client_in, &mut self.client)),
            Server => self.server(),
        }
    }

    /// Sends a message if there is room. Pending if the window is full, or the link takes nothing.
    fn send(&mut self, from: At, size: usize) -> Poll<Result<(), Error>> {
        let number = self.next + 1;
        let Some((session, side)) = self.side(from) else { return Poll::Pending };
        ready!(side.poll_ready())?;
        let message = Outgoing::new(number, Message::text(format!("{number} {:size$}", "")));
        side.layer.enter(|_, layer| layer.start_send(message)).unwrap();
        let _ = side.poll_flush();
        self.next = number;
        let to = if from == Client { Server } else { Client };
        self.models[session].sent_to[to as usize].push(number);
        Poll::Ready(Ok(()))
    }

    fn poll(&mut self, at: At) {
        let (mut session, side) = match at {
            Client => (self.client_in, &mut self.client),
            Server => {
                for session in 0..self.servers.len() {
                    if let Some((side, _)) = &mut self.servers[session] {
                        let model = &mut self.models[session];
                        read(side, |item| arrives(model, Server, item, &mut self.told));
                    }
                }
                return;
            }
        };
        let (models, restarts_in) = (&mut self.models, &mut self.restarts_in);
        read(side, |item| {
            if matches!(item, LinkEvent::Up(LinkUp::NewPeer)) {
                session = restarts_in.take().expect("a restart that there was not");
            }
            arrives(&mut models[session], Client, item, &mut self.told);
        });
        self.client_in = session;
    }

    fn open(&mut self) {
        let frozen = self.client.receive_count.freeze();
        let asks = self.held.clone();
        let asks = asks.map(|(session, secret)| (session, secret, frozen.received()));
        self.pipes.push(Pipe::default());
        let pipe = self.pipes.len() - 1;
        self.attempts.push(Attempt { asks, frozen: Some(frozen), answer: None, pipe });
    }

    fn answer(&mut self, back: usize) {
        let Some(at) = self.attempts.len().checked_sub(1 + back) else { return };
        let attempt = &mut self.attempts[at];
        if attempt.answer.is_some() {
            return;
        }
        let end = &mut self.pipes[attempt.pipe].ends[Server as usize];
        if let Some((session, secret, received)) = &attempt.asks
            && let Some((side, secrets)) = &mut self.servers[*session]
        {
            if side.receive_count.has_received() {
                secrets.confirm();
            }
            if let Some(next) = secrets.rotate(secret) {
                let frozen = side.receive_count.freeze();
                attempt.answer = Some((*session, next.clone(), true, frozen.received()));
                *end = Some(side.source.give(frozen.resumed(*received)));
                return;
            }
        }
        let side = Side::with_window(self.windows[Server as usize]);
        let secrets = Secrets::default();
        *end = Some(side.peer.clone());
        attempt.answer = Some((self.servers.len(), secrets.given().clone(), false, 0));
        self.servers.push(Some((side, secrets)));
        self.models.push(Model::default());
    }

    fn finish(&mut self) {
        let Some(attempt) = self.attempts.last_mut() else { return };
        let Some((session, secret, resumed, received)) = attempt.answer.clone() else { return };
        let Some(frozen) = attempt.frozen.take() else { return };
        let pipe = attempt.pipe;
        let was = self.held.replace((session, secret));
        let end = if resumed {
            self.client.source.give(frozen.resumed(received))
        } else {
            let kept = was.is_some_and(|(was, _)| self.servers[was].is_some());
            assert!(!kept, "an honest client was refused");
            self.restarts_in = Some(session);
            self.client.source.give(LinkUp::NewPeer)
        };
        self.pipes[pipe].ends[Client as usize] = Some(end);
        if self.pipes[pipe].cut {
            self.pipes[pipe].cut();
        }
        if !resumed {
            // The source knows no new session before the layer does.
            self.poll(Client);
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Send(from, size) => _ = self.send(from, size),
            Wait(at) => {
                if let Some((_, side)) = self.side(at) {
                    let _ = side.poll_ready();
                    let _ = side.poll_flush();
                }
            }
            Run(at) => self.poll(at),
            Move(to, link, count) => _ = self.pipe(link).bring(to, count),
            Block(at, link, on) => {
                self.pipe(link).ends[at as usize].iter().for_each(|end| end.block(on));
            }
            Break(at, link) => {
                self.pipe(link).ends[at as usize].iter().for_each(Peer::break_writes);
            }
            Delay(link, ms) => self.pipe(link).delay = Duration::from_millis(ms),
            Cut(link) => self.pipe(link).cut(),
            Open => self.open(),
            Answer(back) => self.answer(back),
            Finish => self.finish(),
            Expire => {
                if let Some((at, _)) = self.server() {
                    self.servers[at] = None;
                }
            }
            Time(ms) => advance(Duration::from_millis(ms)).await,
        }
    }

    /// Sends what is left to be sent. Reads only when that is done, or where there is no link.
    fn converse(&mut self, at: At, left: &mut usize) {
        while *left > 0 {
            match self.send(at, 10) {
                Poll::Ready(Ok(())) => *left -= 1,
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return,
            }
        }
        self.poll(at);
    }

    /// Returns `true` if all that was sent in the client's session has arrived and is acknowledged.
    fn is_settled(&mut self) -> bool {
        let Model { sent_to, arrived_at } = &self.models[self.client_in];
        let (server, _) = self.servers[self.client_in].as_mut().unwrap();
        let kept = |side: &mut Side| side.layer.enter(|_, layer| layer.send_window.kept_bytes());
        sent_to.each_ref().map(Vec::len) == *arrived_at
            && [&mut self.client, server].map(kept) == [0, 0]
    }

    /// All goes well from now on: everything has to arrive, and what is `left` to be sent.
    async fn heal(&mut self, mut left: [usize; 2]) {
        for _ in 0..2 {
            self.open();
            self.answer(0);
            self.finish();
        }
        // No others are known to the client.
        self.servers.truncate(self.client_in + 1);
        let last = self.pipes.len() - 1;
        let start = Instant::now();
        while left != [0, 0] || !self.is_settled() {
            let model = &self.models[self.client_in];
            assert!(start.elapsed() < 100 * SECOND, "{left:?} are left, {model:?}");
            [Client, Server].into_iter().for_each(|at| self.converse(at, &mut left[at as usize]));
            let moved = [Client, Server].map(|to| self.pipes[last].bring(to, usize::MAX));
            if moved == [false, false] {
                advance(SECOND / 10).await;
            }
        }
    }
}

fn read(side: &mut Side, mut each: impl FnMut(LinkEvent<Message>)) {
    while let Poll::Ready(item) = side.next() {
        each(item.unwrap().unwrap());
    }
}

fn arrives(model: &mut Model, at: At, item: LinkEvent<Message>, told: &mut [usize; 2]) {
    match item {
        LinkEvent::Item(Message::Text(text)) => {
            let number = text.as_str().split(' ').next().unwrap().parse().unwrap();
            let arrived = &mut model.arrived_at[at as usize];
            assert_eq!(model.sent_to[at as usize].get(*arrived), Some(&number), "at {at:?}");
            *arrived += 1;
        }
        // For an acknowledgement: the window was full.
        LinkEvent::Item(Message::Ping(_)) => {}
        LinkEvent::Up(LinkUp::Resumed(_)) => told[0] += 1,
        LinkEvent::Up(LinkUp::NewPeer) => told[1] += 1,
        LinkEvent::Down(_) => assert_eq!(at, Client, "a server's session has no restart"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_order_and_once_or_an_explicit_restart() {
    let told = std::cell::Cell::new([0, 0]);
    let run = |(windows, actions, left)| {
        on_its_own_clock(async {
            let mut world = World::new(windows);
            for action in Vec::<Action>::into_iter(actions) {
                world.act(action).await;
            }
            world.heal(left).await;
            let [heals, losses] = told.get();
            told.set([heals + world.told[0], losses + world.told[1]]);
        });
        Ok(())
    };
    // Where one message fills the window, another waits for the timer of the one who received it.
    let window = || prop_oneof![Just(1_usize), Just(600), Just(200 << 10)];
    let left = || 0_usize..12;
    let trials = ([window(), window()], vec(action(), 0..200), [left(), left()]);
    TestRunner::new(cases(256)).run(&trials, run).unwrap();
    let [heals, losses] = told.get();
    println!("figure: {heals} links resumed or begun anew, {losses} losses told");
    assert!(heals > 100 && losses > 10, "nothing was tried");
}
