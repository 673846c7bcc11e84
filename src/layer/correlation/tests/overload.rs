//! Requests that the peer refuses since it has too many.

use super::*;
use crate::layer::correlation::deadlines::Deadline;

type Stack = Spawn<Correlation<RoleClient, JsonRpc>>;

/// A client of a peer that has told no limit, and has these requests.
fn sending(config: Config, ids: impl IntoIterator<Item = i64>) -> (Stack, Peer) {
    let (stack, peer, _) = correlation::<RoleClient>(config);
    let mut stack = spawn(stack);
    let ids: Vec<_> = ids.into_iter().collect();
    ids.iter().for_each(|id| stack.start_send_unpin(list(*id)).unwrap());
    assert_pending!(stack.poll_next());
    assert_eq!(sent_ids(&peer), ids);
    (stack, peer)
}

fn sent_ids(peer: &Peer) -> Vec<i64> {
    sent(peer).iter().map(|message| message["id"].as_i64().unwrap_or_default()).collect()
}

fn refuse(peer: &Peer, id: i64) {
    let data = json!({"reason": "too_many_requests"});
    let error = json!({"code": -32000, "message": "too many requests in flight", "data": data});
    say(peer, json!({"jsonrpc": "2.0", "id": id, "error": error}));
}

fn answer(stack: &mut Stack, peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "result": {"tools": []}}));
    let item = assert_ready!(stack.poll_next()).unwrap().unwrap();
    assert!(matches!(item, JsonRpcMessage::Response(_)), "{item:?}");
}

fn cancel(stack: &mut Stack, id: i64) {
    let cancelled = cancellation(RequestId::Number(id), "enough".into());
    stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
}

/// The ids of what is sent now.
fn sends(stack: &mut Stack, peer: &Peer) -> Vec<i64> {
    assert_pending!(stack.poll_next());
    sent_ids(peer)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[tokio::test(start_paused = true)]
async fn one_goes_out_for_each_that_is_answered_in_the_order_of_the_calls() {
    let (mut stack, peer) = sending(Config::default(), 1..=5);
    [4, 3, 5].into_iter().for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    stack.start_send_unpin(list(6)).unwrap();
    assert!(sends(&mut stack, &peer).is_empty());
    assert_eq!(stack.in_flight(), (6, 0));
    answer(&mut stack, &peer, 2);
    assert_eq!(sends(&mut stack, &peer), [3]);
    refuse(&peer, 3);
    assert!(sends(&mut stack, &peer).is_empty());
    answer(&mut stack, &peer, 1);
    assert_eq!(sends(&mut stack, &peer), [3]);
    for (answered, next) in [(3, 4), (4, 5), (5, 6)] {
        answer(&mut stack, &peer, answered);
        assert_eq!(sends(&mut stack, &peer), [next]);
    }
    answer(&mut stack, &peer, 6);
    assert_eq!(stack.in_flight(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_peer_is_asked_again_after_growing_times() {
    let (mut stack, peer) = sending(Config::default(), [1, 2]);
    [1, 2].into_iter().for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    for pause in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
        advance(ms(pause - 1)).await;
        assert!(sends(&mut stack, &peer).is_empty(), "{pause}");
        advance(ms(1)).await;
        assert_eq!(sends(&mut stack, &peer), [1], "{pause}");
        refuse(&peer, 1);
        assert!(sends(&mut stack, &peer).is_empty(), "{pause}");
    }
    advance(ms(5000)).await;
    assert_eq!(sends(&mut stack, &peer), [1]);
    answer(&mut stack, &peer, 1);
    assert_eq!(sends(&mut stack, &peer), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_gets_more_and_more_until_it_refuses() {
    let (mut stack, peer) = sending(Config::default(), 1..=6);
    (1..=6).for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    advance(ms(100)).await;
    assert_eq!(sends(&mut stack, &peer), [1]);
    answer(&mut stack, &peer, 1);
    assert_eq!(sends(&mut stack, &peer), [2]);
    advance(ms(200)).await;
    assert_eq!(sends(&mut stack, &peer), [3]);
    answer(&mut stack, &peer, 2);
    assert_eq!(sends(&mut stack, &peer), [4]);
    advance(ms(100)).await;
    assert_eq!(sends(&mut stack, &peer), [5], "it takes them: after the first time again");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_passed_up_after_a_minute_without_an_answer_until_there_is_one() {
    let (mut stack, peer) = sending(Config::default(), 1..=3);
    (1..=3).for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < ms(59_999) {
        advance(ms(1).max(ms(100).min(ms(59_999) - begun.elapsed()))).await;
        sends(&mut stack, &peer).into_iter().for_each(|id| refuse(&peer, id));
        assert!(sends(&mut stack, &peer).is_empty());
    }
    advance(ms(1)).await;
    assert_eq!(sends(&mut stack, &peer), [1, 2, 3]);
    for id in [1, 2] {
        refuse(&peer, id);
        let (ended, error) = next_error(&mut stack);
        assert_eq!(ended, Some(RequestId::Number(id)));
        assert_eq!(error.data.unwrap()["reason"], "too_many_requests");
    }
    answer(&mut stack, &peer, 3);
    stack.start_send_unpin(list(4)).unwrap();
    assert_eq!(sends(&mut stack, &peer), [4]);
    refuse(&peer, 4);
    assert!(sends(&mut stack, &peer).is_empty(), "it waits again");
}

/// Only a request that it has had makes room where it is answered.
#[tokio::test(start_paused = true)]
async fn answers_to_nothing_and_to_pings_are_no_sign_of_room() {
    for pings in [false, true] {
        let (mut stack, peer) = sending(Config::default(), [1]);
        refuse(&peer, 1);
        assert!(sends(&mut stack, &peer).is_empty());
        let begun = tokio::time::Instant::now();
        let mut sendings = 0;
        while begun.elapsed() < ms(59_999) {
            for (id, ping) in [(7, r#""result":{}"#), (8, r#""error":{"code":1,"message":"m"}"#)] {
                if pings {
                    stack.start_send_unpin(super::ping::<RoleClient>(id)).unwrap();
                }
                for id in sends(&mut stack, &peer).into_iter().filter(|id| *id == 1) {
                    refuse(&peer, id);
                    sendings += 1;
                }
                peer.send(Message::text(format!(r#"{{"jsonrpc":"2.0","id":{id},{ping}}}"#)));
                if pings {
                    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
                }
            }
            assert!(sends(&mut stack, &peer).is_empty());
            advance(ms(500).min(ms(59_999).saturating_sub(begun.elapsed())).max(ms(1))).await;
        }
        assert!(sendings < 20, "{sendings}");
        advance(ms(1)).await;
        assert_eq!(sends(&mut stack, &peer), [1]);
        refuse(&peer, 1);
        assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(1)));
        // And it is believed again when it has answered a call.
        peer.send(Message::text(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#));
        stack.start_send_unpin(list(2)).unwrap();
        assert_eq!(sends(&mut stack, &peer), [2]);
        refuse(&peer, 2);
        assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(2)));
    }
}

#[tokio::test(start_paused = true)]
async fn one_past_its_deadline_or_cancelled_is_not_sent_again() {
    let (mut stack, peer) = sending(Config::default().deadline(ms(50)), 1..=3);
    (1..=3).for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    cancel(&mut stack, 2);
    assert!(sends(&mut stack, &peer).is_empty(), "nobody there knows of it");
    advance(ms(50)).await;
    for id in [1, 3] {
        let (ended, error) = next_error(&mut stack);
        assert_eq!((ended, error.code), (Some(RequestId::Number(id)), TIMED_OUT));
        assert_eq!(error.data.unwrap()["outcome"], "not_sent");
    }
    advance(ms(1000)).await;
    assert!(sends(&mut stack, &peer).is_empty());
    stack.start_send_unpin(list(4)).unwrap();
    assert_eq!(sends(&mut stack, &peer), [4], "nothing waits, so nothing waits for it");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_makes_no_room_for_another() {
    let (mut stack, peer) = sending(Config::default(), 1..=3);
    [2, 3].into_iter().for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    cancel(&mut stack, 1);
    assert_eq!(sends(&mut stack, &peer), [0], "its handler may go on");
}

#[tokio::test(start_paused = true)]
async fn they_end_unsent_with_the_link() {
    let (mut stack, peer) = sending(Config::default(), 1..=3);
    [3, 2].into_iter().for_each(|id| refuse(&peer, id));
    assert!(sends(&mut stack, &peer).is_empty());
    peer.send(Message::Close(None));
    for (id, reason) in (1..).zip(["outcome_unknown", "not_sent", "not_sent"]) {
        let (ended, error) = next_error(&mut stack);
        assert_eq!(ended, Some(RequestId::Number(id)));
        assert_eq!(error.data.unwrap()["reason"], reason, "{id}");
    }
}

/// 16 MiB of requests are kept.
#[tokio::test(start_paused = true)]
async fn one_that_was_not_kept_is_told_of_the_refusal() {
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
    let text = json!({"cursor": "x".repeat(9 << 20)});
    for id in [1, 2] {
        let large = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list", "params": text});
        stack.start_send_unpin(serde_json::from_value(large).unwrap()).unwrap();
    }
    let mut stack = spawn(stack);
    assert_eq!(sends(&mut stack, &peer), [1, 2]);
    [2, 1].into_iter().for_each(|id| refuse(&peer, id));
    assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(2)));
    assert!(sends(&mut stack, &peer).is_empty());
    advance(ms(100)).await;
    assert_eq!(sends(&mut stack, &peer), [1]);
}

#[test]
fn who_does_not_want_that_is_told_of_the_refusal() {
    let (mut stack, peer) = sending(Config::default().retry_refused(false), [1]);
    refuse(&peer, 1);
    assert_eq!(next_error(&mut stack).1.data.unwrap()["reason"], "too_many_requests");
    stack.start_send_unpin(list(2)).unwrap();
    assert_eq!(sends(&mut stack, &peer), [2]);
}

/// The deadline counts from the first sending.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_keeps_its_deadline() {
    let (mut stack, peer) = sending(Config::default(), []);
    let mut request = rmcp::model::ListToolsRequest::default();
    request.extensions.insert(Deadline(ms(150)));
    stack.start_send_unpin(JsonRpcMessage::request(request.into(), RequestId::Number(1))).unwrap();
    assert_eq!(sends(&mut stack, &peer), [1]);
    refuse(&peer, 1);
    assert!(sends(&mut stack, &peer).is_empty());
    advance(ms(100)).await;
    assert_eq!(sends(&mut stack, &peer), [1]);
    advance(ms(50)).await;
    assert_eq!(next_error(&mut stack).1.data.unwrap()["outcome"], "outcome_unknown");
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_a_peer_whose_last_link_has_ended() {
    let (mut stack, peer) = sending(Config::default(), [1]);
    refuse(&peer, 1);
    assert!(sends(&mut stack, &peer).is_empty());
    peer.send(Message::Close(None));
    let lost = assert_ready!(stack.poll_next()).unwrap().unwrap();
    assert!(matches!(lost, JsonRpcMessage::Error(_)), "{lost:?}");
    assert!(assert_ready!(stack.poll_next()).unwrap().is_err());
    assert!(stack.start_send_unpin(list(2)).is_err());
    assert_eq!(stack.in_flight(), (0, 0));
}
