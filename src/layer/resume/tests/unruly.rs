//! A peer that keeps to no window, acknowledges late or never, and may not answer pings. The model
//! says what may arrive: each message once and in order, or a Close that says why.
//!
//! `MCP_WS_CASES=10000 cargo test --lib resume::tests::unruly` tries that many sequences.

use std::{cell::RefCell, collections::HashMap, sync::LazyLock};

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::{
    super::read_queue::{MAX_UNCOUNTED, OVERHEAD},
    *,
};

#[derive(Debug, Clone)]
enum Step {
    /// The peer sends this number of messages of this size, whatever its window holds.
    Say(usize, usize),
    /// The peer acknowledges this share of what has arrived.
    Acknowledge(Share),
    /// The peer answers the pings that have arrived.
    Pong,
    /// The link is lost.
    Lose,
    /// The count is frozen, to be told.
    Freeze,
    /// A new link comes up, on which the peer says that it has received this share.
    Resume(Share),
    /// A new link comes up with a new session.
    Restart,
    /// The user sends a message of this size, if there is room.
    Send(usize),
    /// A writer waits for room.
    Wait,
    /// The reader takes at most this number of messages.
    Read(usize),
    /// The link takes nothing, or takes messages again.
    Block(bool),
    /// Seconds pass in which a writer waits for room.
    Time(u32),
    /// Seconds pass in which this side does nothing.
    Stall(u32),
}

/// Part of what the peer may say to have received, in quarters.
#[derive(Debug, Clone, Copy)]
struct Share(u64);

impl Share {
    const NONE: Self = Self(0);
    const ALL: Self = Self(4);

    fn between(self, least: u64, most: u64) -> u64 {
        least + (most - least) * self.0 / 4
    }
}

fn step() -> impl Strategy<Value = Step> {
    let share = || prop_oneof![(0_u64..4).prop_map(Share), Just(Share::ALL)];
    let large = (1_usize << 19)..(1 << 20);
    prop_oneof![
        15 => (1_usize..8, 0_usize..120).prop_map(|(count, size)| Step::Say(count, size)),
        9 => (1_usize..12, large).prop_map(|(count, size)| Step::Say(count, size)),
        8 => share().prop_map(Step::Acknowledge),
        8 => Just(Step::Pong),
        2 => Just(Step::Lose),
        3 => Just(Step::Freeze),
        6 => share().prop_map(Step::Resume),
        1 => Just(Step::Restart),
        12 => (0_usize..120).prop_map(Step::Send),
        14 => Just(Step::Wait),
        8 => (1_usize..20).prop_map(Step::Read),
        2 => any::<bool>().prop_map(Step::Block),
        8 => prop_oneof![Just(1_u32), Just(10), Just(40)].prop_map(Step::Time),
        1 => (1_u32..200).prop_map(Step::Stall),
    ]
}

/// Size of the name by which a message begins.
const NAME: usize = 16;
/// Bounds on the sessions of a trial, and on the messages of a session.
const SESSIONS: usize = 16;
const MESSAGES: usize = 1 << 12;

/// The names of all messages, one after the other. A message is the part that begins with its name,
/// so that no megabyte is copied.
static NAMES: LazyLock<Bytes> = LazyLock::new(|| {
    let names = SESSIONS * MESSAGES + (2 << 20) / NAME;
    (0..names).flat_map(|name| format!("{name:NAME$}").into_bytes()).collect()
});

fn message(session: usize, number: usize, size: usize) -> Message {
    assert!(session < SESSIONS && number < MESSAGES);
    let at = (session * MESSAGES + number) * NAME;
    Message::Binary(NAMES.slice(at..at + NAME + size))
}

/// The session that a message belongs to, and its number there.
fn name(message: &[u8]) -> (usize, usize) {
    let name: usize = std::str::from_utf8(&message[..NAME]).unwrap().trim().parse().unwrap();
    (name / MESSAGES, name % MESSAGES)
}

/// State of a session by the protocol.
#[derive(Debug, Default)]
struct Session {
    /// Sizes of the peer's messages, and how many of them it need not send any more.
    said: Vec<usize>,
    passed: usize,
    /// Number of them that it was told to have been received, and that the user was given.
    told: u64,
    given: usize,
    /// Messages of this side that have ever arrived at the peer.
    arrived: Vec<u64>,
    /// Number of them that it has by what it says, and by what it acknowledges.
    received: u64,
    acked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    TooMuch,
    NotAcknowledged,
    NotPonged,
}

/// Cases seen in all trials.
#[derive(Debug, Default)]
struct Seen {
    resumes: usize,
    restarts: usize,
    given: usize,
    most_ahead: usize,
    ends: HashMap<End, usize>,
}

/// Answers that the peer gives by itself.
#[derive(Debug, Clone, Copy)]
enum Answers {
    /// Acknowledgements, and pongs when it is time.
    Slow,
    /// Pongs at once, and no acknowledgement.
    Pongs,
    /// Neither.
    Silent,
}

struct Trial<'a> {
    side: Side,
    answers: Answers,
    sessions: Vec<Session>,
    /// The session that the user is in.
    user_in: usize,
    frozen: Option<FrozenCount>,
    /// `true` if there is a link over which the peer may speak.
    is_up: bool,
    pings: Vec<Bytes>,
    sent: u64,
    /// Latest time at which there was a reason to give the peer more.
    progress: Instant,
    seen: &'a RefCell<Seen>,
}

impl<'a> Trial<'a> {
    fn new(window: usize, dials: bool, answers: Answers, seen: &'a RefCell<Seen>) -> Self {
        let mut side = Side::with_window(window);
        if dials {
            side.dialled();
        }
        Self {
            side,
            answers,
            sessions: vec![Session::default()],
            user_in: 0,
            frozen: None,
            is_up: true,
            pings: Vec::new(),
            sent: 0,
            progress: Instant::now(),
            seen,
        }
    }

    fn session(&mut self) -> &mut Session {
        self.sessions.last_mut().unwrap()
    }

    /// Returns `true` if there is a new session that the layer does not know yet.
    fn is_restarting(&self) -> bool {
        let next = self.side.source.0.lock().unwrap();
        next.link.as_ref().is_some_and(|(_, up)| *up == LinkUp::NewPeer)
    }

    fn is_full(&mut self) -> bool {
        self.side.layer.enter(|_, layer| layer.send_window.is_full())
    }

    /// The peer reads all that has arrived at it.
    fn gather(&mut self) {
        let counted = self.side.receive_count.received();
        for message in self.side.peer.sent() {
            let session = self.sessions.last_mut().unwrap();
            match message {
                Message::Text(text) if is_control(&text) => {
                    let told = text.as_str().strip_prefix("@ack ").unwrap().parse().unwrap();
                    assert!((session.told..=counted).contains(&told), "{text:?}, {session:?}");
                    session.told = told;
                }
                Message::Text(text) => {
                    let number = text.as_str().trim().parse().unwrap();
                    match session.arrived.get(session.received as usize) {
                        Some(before) => assert_eq!(*before, number, "sent again: {session:?}"),
                        None => session.arrived.push(number),
                    }
                    session.received += 1;
                }
                Message::Ping(payload) => self.pings.push(payload),
                Message::Close(_) => {}
                other => panic!("{other:?}"),
            }
        }
        if let Answers::Pongs = self.answers {
            self.pong();
        }
    }

    fn pong(&mut self) {
        let pongs = mem::take(&mut self.pings).into_iter().map(Message::Pong);
        pongs.for_each(|pong| self.side.peer.send(pong));
    }

    fn say(&mut self, size: usize) {
        let number = self.sessions.len() - 1;
        let session = self.session();
        if session.passed == session.said.len() {
            session.said.push(size);
        }
        let message = message(number, session.passed, session.said[session.passed]);
        session.passed += 1;
        self.side.peer.send(message);
    }

    fn acknowledge(&mut self, share: Share) {
        self.gather();
        let now = Instant::now();
        let share = if let Answers::Slow = self.answers { share } else { Share::NONE };
        let session = self.session();
        let acked = share.between(session.acked, session.received);
        if acked > session.acked {
            session.acked = acked;
            self.progress = now;
        }
        self.side.peer.send(Message::text(format!("@ack {acked}")));
    }

    fn freeze(&mut self) {
        let frozen = self.side.receive_count.freeze();
        let session = self.session();
        assert!(frozen.received() >= session.told.max(session.given as u64), "{session:?}");
        session.told = frozen.received();
        self.frozen = Some(frozen);
    }

    fn resume(&mut self, share: Share) {
        self.gather();
        if self.frozen.is_none() {
            self.freeze();
        }
        let session = self.sessions.last_mut().unwrap();
        session.received = share.between(session.acked, session.arrived.len() as u64);
        session.acked = session.received;
        session.passed = session.told as usize;
        let up = self.frozen.take().unwrap().resumed(session.received);
        self.begin(up);
        self.seen.borrow_mut().resumes += 1;
    }

    fn restart(&mut self) {
        self.sessions.push(Session::default());
        self.frozen = None;
        self.begin(LinkUp::NewPeer);
        self.seen.borrow_mut().restarts += 1;
    }

    fn begin(&mut self, up: LinkUp) {
        self.side.peer = self.side.source.give(up);
        self.is_up = true;
        self.pings.clear();
        self.progress = Instant::now();
    }

    fn send(&mut self, size: usize) -> Result<(), Error> {
        match self.side.poll_ready() {
            Poll::Ready(Ok(())) => {
                self.sent += 1;
                let text = format!("{} {:size$}", self.sent, "");
                let message = Outgoing::new(self.sent, Message::text(text));
                self.side.layer.enter(|_, layer| layer.start_send(message))?;
                let _ = self.side.poll_flush();
                if !self.is_full() {
                    self.progress = Instant::now();
                }
                Ok(())
            }
            Poll::Ready(Err(error)) => self.fails(error),
            Poll::Pending => Ok(()),
        }
    }

    /// A writer polls. All that a full window lets arrive is read.
    fn wait(&mut self) -> Result<(), Error> {
        match self.side.poll_ready() {
            Poll::Ready(Ok(())) => self.progress = Instant::now(),
            Poll::Ready(Err(error)) => self.fails(error)?,
            Poll::Pending if self.is_full() => assert_eq!(self.side.peer.unread(), 0, "not read"),
            Poll::Pending => {}
        }
        let _ = self.side.poll_flush();
        Ok(())
    }

    /// The error of a link that is lost is for the reader.
    fn fails(&mut self, error: Error) -> Result<(), Error> {
        let has_ended = |layer: Pin<&mut Layer>| matches!(layer.phase, Phase::Ended(_));
        if self.side.layer.enter(|_, layer| has_ended(layer)) { Err(error) } else { Ok(()) }
    }

    fn read(&mut self, most: usize) -> Result<(), Error> {
        for _ in 0..most {
            let Poll::Ready(item) = self.side.next() else { break };
            match item.unwrap()? {
                LinkEvent::Item(Message::Binary(bytes)) => {
                    let session = &mut self.sessions[self.user_in];
                    let expected = (self.user_in, session.given);
                    assert_eq!(name(&bytes), expected, "{session:?}");
                    assert_eq!(bytes.len(), NAME + session.said[session.given]);
                    session.given += 1;
                    self.seen.borrow_mut().given += 1;
                }
                LinkEvent::Up(LinkUp::NewPeer) => self.user_in += 1,
                LinkEvent::Up(LinkUp::Resumed(_)) | LinkEvent::Down(_) => {}
                // Those that prove nothing.
                LinkEvent::Item(Message::Pong(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        Ok(())
    }

    async fn does(&mut self, step: Step) -> Result<(), Error> {
        let is_restarting = self.is_restarting();
        match step {
            Step::Say(count, size) if self.is_up => (0..count).for_each(|_| self.say(size)),
            Step::Acknowledge(share) if self.is_up => self.acknowledge(share),
            Step::Pong if !matches!(self.answers, Answers::Silent) => self.pong(),
            Step::Lose if self.is_up => {
                self.is_up = false;
                self.side.peer.send(Message::Close(Some(CloseCode::GoingAway.into())));
            }
            Step::Freeze if !is_restarting => self.freeze(),
            Step::Resume(share) if !is_restarting => self.resume(share),
            Step::Restart if !is_restarting && self.sessions.len() < SESSIONS => self.restart(),
            Step::Send(size) => self.send(size)?,
            Step::Wait => self.wait()?,
            Step::Read(most) => self.read(most)?,
            Step::Block(on) => self.side.peer.block(on),
            Step::Time(seconds) => {
                for _ in 0..seconds {
                    self.wait()?;
                    self.gather();
                    advance(SECOND).await;
                }
            }
            Step::Stall(seconds) => advance(seconds * SECOND).await,
            _ => {}
        }
        self.gather();
        let ahead = self.side.layer.enter(|_, layer| layer.read_queue.bytes());
        let bound = if self.side.layer.enter(|_, layer| layer.dialled) { 20 } else { 4 };
        assert!(ahead <= (bound + 3) << 20, "{ahead} bytes are ahead");
        let most_ahead = &mut self.seen.borrow_mut().most_ahead;
        *most_ahead = ahead.max(*most_ahead);
        Ok(())
    }

    /// Makes the peer do what it should, and checks that all arrives.
    async fn heals(&mut self) -> Result<(), Error> {
        self.answers = Answers::Slow;
        self.side.peer.block(false);
        self.read(usize::MAX)?;
        if !self.is_up || self.side.receive_count.is_frozen() {
            self.resume(Share::ALL);
        }
        for _ in 0..4 {
            self.read(usize::MAX)?;
            self.acknowledge(Share::ALL);
            self.read(usize::MAX)?;
            let session = self.session();
            (session.passed..session.said.len()).for_each(|_| self.say(0));
            self.send(1)?;
            advance(SECOND).await;
        }
        self.gather();
        assert_eq!(self.user_in, self.sessions.len() - 1);
        let session = self.sessions.last().unwrap();
        let (said, last) = (session.said.len(), self.sent);
        assert_eq!((session.given, session.told), (said, said as u64), "{session:?}");
        assert_eq!(session.arrived.last(), Some(&last));
        Ok(())
    }

    /// The session is over, and there was a reason for it.
    fn has_ended(&mut self, error: &Error) {
        let text = error.to_string();
        assert!(text.contains("1008 ") && text.contains("by this side: resume: "), "{text}");
        assert!(!self.side.receive_count.is_frozen(), "{text}");
        let calm = if self.is_full() { self.progress.elapsed() } else { Duration::ZERO };
        let counted = self.side.receive_count.received() as usize;
        let session = self.sessions.last().unwrap();
        let end = if text.contains("more was sent than a window holds") {
            let uncounted = &session.said[counted..session.passed];
            let bytes: usize = uncounted.iter().map(|size| NAME + size + OVERHEAD).sum();
            assert!(bytes >= MAX_UNCOUNTED, "{bytes}");
            End::TooMuch
        } else if text.contains("nothing acknowledged") {
            assert!(calm >= 30 * SECOND, "{calm:?}");
            End::NotAcknowledged
        } else {
            assert!(text.contains("nor ponged") && calm >= 60 * SECOND, "{text}, {calm:?}");
            End::NotPonged
        };
        *self.seen.borrow_mut().ends.entry(end).or_default() += 1;
        // What was read before is still delivered, and nothing else.
        let ended = self.read(usize::MAX).unwrap_err().to_string();
        assert_eq!(ended, text);
        assert_ready_err!(self.side.poll_ready());
        assert_ready_err!(self.side.poll_flush());
        self.gather();
        self.freeze();
    }

    async fn runs(&mut self, steps: Vec<Step>) -> Result<(), Error> {
        for step in steps {
            self.does(step).await?;
        }
        self.heals().await
    }
}

#[test]
fn once_and_in_order_or_a_close_that_says_why() {
    let seen = RefCell::default();
    let run = |(window, dials, answers, steps)| {
        on_its_own_clock(async {
            let mut trial = Trial::new(window, dials, answers, &seen);
            if let Err(error) = trial.runs(steps).await {
                trial.has_ended(&error);
            }
        });
        Ok(())
    };
    let window = prop_oneof![Just(1_usize), Just(600), Just(1 << 20)];
    let answers = prop_oneof![Just(Answers::Slow), Just(Answers::Pongs), Just(Answers::Silent)];
    let trials = (window, any::<bool>(), answers, vec(step(), 0..120));
    TestRunner::new(cases(256)).run(&trials, run).unwrap();
    let seen = seen.into_inner();
    let ended: usize = seen.ends.values().sum();
    println!("figure: {} resumes, {ended} closed with a reason: {:?}", seen.resumes, seen.ends);
    assert!(seen.resumes > 100 && ended > 5, "nothing was tried");
}
