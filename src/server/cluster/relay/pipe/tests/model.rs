//! Two ends and a bus that loses, doubles, reorders and delays what it likes: each message arrives
//! in order and once, or the link is lost at both ends.
//!
//! `MCP_WS_CASES=10000 cargo test --all-features --lib relay::pipe::tests::model` tries that many
//! sequences.

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

/// Action of a sequence. Of two numbers, the first is that of an end.
#[derive(Debug, Clone)]
enum Action {
    /// An end sends a message of this size, where there is room.
    Send(usize, usize),
    /// One end runs, and reads so many messages.
    Run(usize, usize),
    /// So many messages arrive at an end.
    Bring(usize, usize),
    /// The message at this place on the way to an end is lost, doubled, or overtaken by the next.
    Lose(usize, usize),
    Double(usize, usize),
    Overtake(usize, usize),
    Full(bool),
    Away(bool),
    Close(usize),
    Time(u64),
}

use Action::*;

fn action() -> impl Strategy<Value = Action> {
    let end = || 0_usize..2;
    let place = || prop_oneof![Just(0_usize), 0_usize..9];
    let size = prop_oneof![8 => 0_usize..40, 1 => 0_usize..400];
    prop_oneof![
        300 => (end(), size).prop_map(|(end, size)| Send(end, size)),
        300 => (end(), 0_usize..9).prop_map(|(end, count)| Run(end, count)),
        300 => (end(), 1_usize..9).prop_map(|(end, count)| Bring(end, count)),
        3 => (end(), place()).prop_map(|(end, place)| Lose(end, place)),
        2 => (end(), place()).prop_map(|(end, place)| Double(end, place)),
        2 => (end(), place()).prop_map(|(end, place)| Overtake(end, place)),
        10 => any::<bool>().prop_map(Full),
        1 => any::<bool>().prop_map(Away),
        1 => end().prop_map(Close),
        20 => prop_oneof![Just(20_u64), Just(300), Just(1000)].prop_map(Time),
    ]
}

/// One end as the model knows it: what was sent to it, and how much of that has arrived.
#[derive(Debug, Default)]
struct Model {
    sent: Vec<Message>,
    arrived: usize,
    is_over: bool,
}

struct World {
    wire: Arc<Wire>,
    pipes: [Pipe; 2],
    models: [Model; 2],
    /// No fault was tried, and nobody has closed.
    is_sound: bool,
}

impl World {
    fn read(&mut self, at: usize, count: usize) -> bool {
        let _ = flush(&mut self.pipes[at]);
        for read in 0..count {
            let model = &mut self.models[at];
            match next(&mut self.pipes[at]) {
                Poll::Ready(Some(Ok(Message::Close(_)))) | Poll::Ready(Some(Err(_)) | None) => {
                    model.is_over = true;
                    return read > 0;
                }
                Poll::Ready(Some(Ok(message))) => {
                    assert!(!model.is_over, "{message:?} after the end");
                    assert_eq!(model.sent.get(model.arrived), Some(&message), "at {at}");
                    model.arrived += 1;
                }
                Poll::Pending => return read > 0,
            }
        }
        count > 0
    }

    async fn act(&mut self, action: Action) {
        match action {
            Send(from, size) => {
                let mut context = Context::from_waker(futures::task::noop_waker_ref());
                let pipe = &mut self.pipes[from];
                if matches!(pipe.poll_ready_unpin(&mut context), Poll::Ready(Ok(()))) {
                    let model = &mut self.models[1 - from];
                    let number = model.sent.len();
                    let message = text(format!("{number} {}", "x".repeat(size)));
                    model.sent.push(message.clone());
                    pipe.start_send_unpin(message).unwrap();
                }
            }
            Run(at, count) => drop(self.read(at, count)),
            Bring(to, count) => drop(self.wire.bring(to, count)),
            Lose(to, place) => {
                self.is_sound &= self.wire.hub().under_way[to].remove(place).is_none()
            }
            Double(to, place) => {
                let mut hub = self.wire.hub();
                if let Some(message) = hub.under_way[to].get(place).cloned() {
                    hub.under_way[to].insert(place, message);
                    self.is_sound = false;
                }
            }
            Overtake(to, place) => {
                let under_way = &mut self.wire.hub().under_way[to];
                if place + 1 < under_way.len() {
                    under_way.swap(place, place + 1);
                    self.is_sound = false;
                }
            }
            Full(is_full) => self.wire.hub().is_full = is_full,
            Away(is_away) => {
                self.is_sound &= !is_away;
                self.wire.hub().is_away = is_away;
            }
            Close(at) => {
                self.is_sound = false;
                let _ = self.pipes[at].start_send_unpin(Message::Close(None));
            }
            Time(ms) => {
                // Silence alone is no fault, as long as it is short.
                if self.is_sound {
                    self.wire.hub().is_full = false;
                    self.settle();
                }
                advance(Duration::from_millis(ms)).await;
            }
        }
    }

    /// Lets both ends do what they can without time.
    fn settle(&mut self) {
        loop {
            let read = [SESSION, CLIENT].map(|at| self.read(at, usize::MAX));
            let brought = [SESSION, CLIENT].map(|at| self.wire.bring(at, usize::MAX));
            if read == [false, false] && brought == [0, 0] {
                return;
            }
        }
    }

    /// Ends all faults. What has not arrived soon never does, and both ends know.
    async fn heal(&mut self) {
        (self.wire.hub().is_full, self.wire.hub().is_away) = (false, false);
        for _ in 0..30 {
            self.settle();
            advance(Duration::from_millis(500)).await;
        }
        let over = self.models.each_ref().map(|model| model.is_over);
        let all = self.models.iter().all(|model| model.arrived == model.sent.len());
        assert!(
            over == [true, true] || (over == [false, false] && all),
            "{over:?} {:?}",
            self.models
        );
        assert!(
            !self.is_sound || all && over == [false, false],
            "lost without a fault: {:?}",
            self.models
        );
    }
}

fn on_its_own_clock(run: impl Future<Output = ()>) {
    let clock =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    clock.unwrap().block_on(run);
}

#[test]
fn in_order_and_once_or_a_lost_link() {
    let ended = std::cell::Cell::new([0_usize; 2]);
    let run = |actions: Vec<Action>| {
        on_its_own_clock(async {
            let wire = Arc::new(Wire::default());
            let pipes = ends(&wire, small()).await;
            let models = [Model::default(), Model::default()];
            let mut world = World { wire, pipes, models, is_sound: true };
            for action in actions {
                world.act(action).await;
            }
            world.heal().await;
            let mut counts = ended.get();
            counts[usize::from(world.models[0].is_over)] += 1;
            ended.set(counts);
        });
        Ok(())
    };
    let cases = std::env::var("MCP_WS_CASES").map_or(500, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&vec(action(), 0..200), run).unwrap();
    let [alive, lost] = ended.get();
    println!("figure: model: {alive} links alive at the end, {lost} lost at both ends");
    assert!(alive > 20 && lost > 20, "nothing was tried");
}
