//! A peer that says whatever it likes: the link works on, or it is closed with 1002 and everyone
//! knows.

use proptest::{collection::vec, prelude::*, test_runner::TestRunner};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Send,
    Receive,
    Ack(Number),
    Say(String),
    Resume(Number),
    Restart,
}

/// A number, by what it is near to.
#[derive(Debug, Clone, Copy)]
enum Number {
    Acked(i64),
    Sent(i64),
    Any(u64),
}

/// State of a session that decides on what a peer may say.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    acked: u64,
    sent: u64,
}

impl Number {
    fn near(self, counts: Counts) -> u64 {
        match self {
            Self::Acked(by) => counts.acked.wrapping_add_signed(by),
            Self::Sent(by) => counts.sent.wrapping_add_signed(by),
            Self::Any(number) => number,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let number = || {
        prop_oneof![
            2 => (-1_i64..2).prop_map(Number::Acked),
            12 => (-1_i64..1).prop_map(Number::Sent),
            1 => Just(Number::Sent(1)),
            1 => prop_oneof![Just(0), Just(u64::MAX), any::<u64>()].prop_map(Number::Any),
        ]
    };
    let name = prop_oneof![Just("@ack "), Just("@open "), Just("@session "), Just("@"), Just("")];
    let text = (name, any::<String>()).prop_map(|(name, rest)| format!("{name}{rest}"));
    prop_oneof![
        6 => Just(Step::Send),
        3 => Just(Step::Receive),
        6 => number().prop_map(Step::Ack),
        1 => text.prop_map(Step::Say),
        2 => number().prop_map(Step::Resume),
        1 => Just(Step::Restart),
    ]
}

/// Returns `true` if the peer may do it.
fn does(side: &mut Side, counts: &mut Counts, step: Step) -> bool {
    let told = |counts: &mut Counts, number| {
        let allowed = (counts.acked..=counts.sent).contains(&number);
        if allowed {
            counts.acked = number;
        }
        allowed
    };
    match step {
        Step::Send => {
            side.send("{}");
            counts.sent += 1;
            true
        }
        Step::Receive => {
            side.peer.send("{}".into());
            true
        }
        Step::Ack(number) => {
            let number = number.near(*counts);
            side.peer.send(Message::text(format!("@ack {number}")));
            told(counts, number)
        }
        Step::Say(text) => {
            let number = text.strip_prefix("@ack ").and_then(|digits| {
                let number = digits.parse::<u64>().ok()?;
                (number.to_string() == digits).then_some(number)
            });
            let allowed =
                !text.starts_with('@') || number.is_some_and(|number| told(counts, number));
            side.peer.send(Message::text(text));
            allowed
        }
        Step::Resume(number) => {
            let number = number.near(*counts);
            side.peer = side.source.give(side.receive_count.freeze().resumed(number));
            told(counts, number)
        }
        Step::Restart => {
            *counts = Counts::default();
            side.restart();
            true
        }
    }
}

/// Reads all that there is; the error, if there is one.
fn read(side: &mut Side) -> Option<Error> {
    loop {
        match side.next() {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(error))) => return Some(error),
            Poll::Ready(None) => panic!("no end without a reason"),
            Poll::Pending => return None,
        }
    }
}

#[test]
fn it_works_on_or_it_is_closed() {
    let refused = std::cell::Cell::new(0);
    let run = |steps: Vec<Step>| {
        on_its_own_clock(async {
            let (mut side, mut counts) = (Side::new(), Counts::default());
            for step in steps {
                let shown = format!("{step:?}");
                let allowed = does(&mut side, &mut counts, step);
                let error = read(&mut side);
                if allowed {
                    assert!(error.is_none(), "{shown} at {counts:?}: {error:?}");
                    continue;
                }
                let error = error.expect(&shown).to_string();
                assert!(error.contains("1002 (protocol error): by this side: resume: "), "{error}");
                assert_eq!(side.sent().pop().as_deref(), Some("close 1002"));
                assert_ready_err!(side.poll_ready());
                assert_ready_err!(side.poll_flush());
                assert_eq!(read(&mut side).unwrap().to_string(), error);
                refused.set(refused.get() + 1);
                return;
            }
            side.sent();
            side.send("ping");
            assert_eq!(side.sent(), ["ping"]);
            side.peer.send("pong".into());
            side.assert_receives("pong");
        });
        Ok(())
    };
    TestRunner::new(cases(500)).run(&vec(step(), 0..25), run).unwrap();
    println!("figure: {} peers closed with 1002", refused.get());
    assert!(refused.get() > 100, "nothing was tried");
}

#[tokio::test(start_paused = true)]
async fn everyone_who_waits_hears_of_it_and_the_link_is_closed() {
    let (layer, peer, _, _) = layer(1);
    let mut shared = SharedLink::new(layer, shared_link::Config::default());
    shared.start_send_unpin("1".into()).unwrap();
    shared.start_send_unpin("2".into()).unwrap();
    let mut flushed = spawn(shared.flushed());
    let mut reader = spawn(shared.clone());
    assert_pending!(flushed.poll());
    assert_pending!(reader.poll_next());
    peer.send("@ack 2".into());
    assert!(flushed.is_woken() && reader.is_woken());
    let error = assert_ready_err!(flushed.poll()).to_string();
    assert!(error.contains("1002 (protocol error): by this side: resume: "), "{error}");
    assert!(reader.is_woken());
    assert!(assert_ready!(reader.poll_next()).unwrap().is_err());
    let _ = assert_ready!(spawn(shared.close()).poll());
    assert!(peer.is_closed());
}
