//! The test vectors that the protocol's document describes.

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Deserialize)]
struct Vectors {
    frames: Vec<Row>,
    scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    #[serde(default)]
    data: bool,
    #[serde(default)]
    malformed: bool,
    frame: Option<Value>,
}

#[derive(Deserialize)]
struct Scenario {
    name: String,
    #[serde(default = "whole")]
    window_bytes: usize,
    steps: Vec<Step>,
}

fn whole() -> usize {
    1 << 20
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    Send(String),
    Full(bool),
    Arrives(String),
    PassesMs(u64),
    Sent(Vec<String>),
    Received(Vec<String>),
    Lost(bool),
    Freeze(u64),
    Resumed(u64),
    Restarted(bool),
    Ponged(bool),
    Closed(u16),
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../vectors.json")).unwrap()
}

fn as_value(frame: &Frame) -> Value {
    match frame {
        Frame::Ack(received) => json!({ "ack": received }),
        Frame::Open(open, limits) => {
            let mut fields = match open {
                OpenFrame::New => json!({}),
                OpenFrame::Resume { session, secret, received } => {
                    json!({ "session": session, "secret": secret, "received": received })
                }
            };
            let told = [("max_message", limits.max_message), ("max_inbound", limits.max_inbound)];
            for (name, number) in told {
                if let Some(number) = number {
                    fields[name] = number.into();
                }
            }
            json!({ "open": fields })
        }
        Frame::Session(session) => json!({ "session": session }),
    }
}

#[test]
fn frames() {
    for row in vectors().frames {
        let text = Text::from(row.text.clone());
        match Frame::parse(&text) {
            Ok(None) => assert!(row.data, "{}", row.text),
            Ok(Some(frame)) => {
                assert_eq!(Some(as_value(&frame)), row.frame, "{}", row.text);
                let Message::Text(again) = frame.encode() else { panic!("{frame:?}") };
                assert_eq!(Frame::parse(&again), Ok(Some(frame)));
            }
            Err(malformed) => {
                assert!(row.malformed, "{}", row.text);
                assert!(malformed.to_string().starts_with("resume: "));
            }
        }
    }
}

/// A side in a scenario: what has reached its user, and how it ended.
struct Run {
    side: Side,
    received: Vec<String>,
    frozen: Option<FrozenCount>,
    end: Option<Error>,
}

impl Run {
    fn read(&mut self) {
        while let Poll::Ready(Some(item)) = self.side.next() {
            match item {
                Ok(LinkEvent::Item(message)) => self.received.push(shown(&message)),
                Ok(LinkEvent::Down(_) | LinkEvent::Up(_)) => {}
                Err(error) => {
                    self.end = Some(error);
                    break;
                }
            }
        }
    }

    async fn take(&mut self, step: Step) {
        let side = &mut self.side;
        match step {
            Step::Send(text) => side.send(Message::text(text)),
            Step::Full(full) => assert_eq!(side.poll_ready().is_pending(), full),
            Step::Arrives(text) => side.peer.send(Message::text(text)),
            Step::PassesMs(ms) => advance(Duration::from_millis(ms)).await,
            Step::Sent(expected) => assert_eq!(side.sent(), expected),
            Step::Received(expected) => assert_eq!(std::mem::take(&mut self.received), expected),
            Step::Lost(lost) => {
                assert!(lost);
                side.peer.send(Message::Close(Some(CloseCode::Abnormal.into())));
            }
            Step::Freeze(expected) => {
                let frozen = side.receive_count.freeze();
                assert_eq!(frozen.received(), expected);
                self.frozen = Some(frozen);
            }
            Step::Resumed(received) => {
                side.peer = side.source.give(self.frozen.take().unwrap().resumed(received));
            }
            Step::Restarted(restarted) => {
                assert!(restarted);
                side.restart();
            }
            Step::Ponged(ponged) => {
                assert!(ponged);
                let sent = side.peer.sent();
                let [Message::Ping(payload)] = &sent[..] else { panic!("{sent:?}") };
                side.peer.send(Message::Pong(payload.clone()));
                self.read();
                let _ = self.side.poll_ready();
            }
            Step::Closed(code) => {
                assert_eq!(side.sent(), [format!("close {code}")]);
                let error = self.end.take().unwrap().to_string();
                assert!(error.contains(&format!("{code}")) && error.contains("resume:"), "{error}");
                assert_ready_err!(side.poll_ready());
                return;
            }
        }
        self.read();
    }
}

#[tokio::test(start_paused = true)]
async fn scenarios() {
    for Scenario { name, window_bytes, steps } in vectors().scenarios {
        let side = Side::with_window(window_bytes);
        let mut run = Run { side, received: Vec::new(), frozen: None, end: None };
        run.read();
        for step in steps {
            println!("{name}: {step:?}");
            run.take(step).await;
        }
        assert!(run.end.is_none(), "{name}: {:?}", run.end);
        assert!(run.received.is_empty(), "{name}: {:?}", run.received);
    }
}
