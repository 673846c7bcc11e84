//! The dialling half of `mcp.resume.v1`, against servers that do as they are told.

use mcp_ws_transport::{
    CloseCode, CloseReason, Error, State, connect,
    error::{HandshakeError, LinkError},
    event::Event,
};
use rmcp::{RoleClient, ServiceExt};
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::{
    limit, listen, ms,
    raw::{BINARY, CLOSE, Frame, Raw, accepted},
    scripted::{CHOSEN, Link, Scene, immediate_reconnect, result, session, session_of},
    within,
};

const UNKNOWN: &str = "outcome_unknown";

fn close(code: u16) -> Frame {
    Frame::close(code)
}

#[tokio::test]
async fn the_first_messages_do_not_wait_for_the_session() {
    limit(async {
        let (listener, url) = listen().await;
        let connect = connect::<RoleClient>(url);
        let mut state = connect.state();
        let serving = async {
            let mut link = Link::new(&listener).await;
            assert_eq!(link.open().await, json!({}));
            let first = link.receive().await;
            link.raw.text(session("s-1", "one", 0, false)).await;
            link.initialize(first).await;
            link
        };
        let dialling = async {
            let transport = connect.await.unwrap();
            assert_eq!(transport.subprotocol(), Some("mcp.resume.v1"));
            ().serve(transport).await.unwrap()
        };
        let (client, mut link) = tokio::join!(dialling, serving);
        assert_eq!(*state.borrow_and_update(), State::Connected);
        let leaving = tokio::spawn(client.cancel());
        assert_eq!(link.raw.closed().await.0, 1000);
        link.raw.send(close(1000)).await;
        leaving.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_call_in_flight_is_answered_over_the_next_link() {
    limit(async {
        for arrived in [true, false] {
            let (mut scene, mut link) = Scene::new().await;
            let (calling, call) = scene.called(&mut link).await;
            link.received -= u64::from(!arrived);
            let mut link = link.cut_and_resumed(&scene.listener, "one", "two").await;
            if !arrived {
                assert_eq!(link.receive().await, call);
            }
            link.answer(&call, "done").await;
            assert_eq!(result(calling).await.unwrap(), "done");

            // Nothing was sent a second time before the next call.
            let (calling, call) = scene.called(&mut link).await;
            let mut link = link.cut_and_resumed(&scene.listener, "two", "three").await;
            link.answer(&call, "again").await;
            assert_eq!(result(calling).await.unwrap(), "again");
            let replayed = u64::from(!arrived);
            for replayed in [replayed, 0] {
                assert!(matches!(scene.event().await, Event::Lost(_)));
                let event = scene.event().await;
                assert!(
                    matches!(event, Event::Resumed { replayed: told } if told == replayed),
                    "{event:?}"
                );
            }
            assert_eq!(*scene.state.borrow_and_update(), State::Connected);
        }
    })
    .await;
}

/// Each case is what the server does in place of its answer, and whether that is an end of the
/// stream.
#[tokio::test]
async fn an_attempt_that_is_lost_presents_the_same_secret_again() {
    limit(async {
        let (mut scene, mut link) = Scene::with(60, |c| c.handshake_timeout(ms(300))).await;
        let (calling, call) = scene.called(&mut link).await;
        let asked = json!({ "session": "s-1", "secret": "one", "received": link.sent });
        for how in 0..5 {
            let (mut next, open) = link.cut(&scene.listener).await;
            assert_eq!(open, asked, "{how}");
            match how {
                0 => {}
                1 => next.raw.send(close(1011)).await,
                2 => next.raw.send(close(1012)).await,
                3 => next.raw.send(Frame::new(CLOSE, [])).await,
                // Nothing, for too long; and then it is too late.
                _ => {
                    assert_eq!(next.raw.try_next().await.ok().flatten(), None);
                    let late = Frame::text(session("s-1", "late", next.received, true));
                    let _ = next.raw.try_write(late.bytes(false)).await;
                }
            }
            link = next;
        }
        let mut link = link.cut_and_resumed(&scene.listener, "one", "two").await;
        link.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
        assert!(matches!(scene.event().await, Event::Lost(_)));
        for _ in 0..4 {
            let event = scene.event().await;
            let lost = matches!(event, Event::Failed { error: Error::Link(_), .. });
            assert!(lost, "{event:?}");
        }
        let event = scene.event().await;
        let timed_out = |error: &Error| {
            matches!(error, Error::Handshake(HandshakeError::TimedOut(after)) if *after == ms(300))
        };
        assert!(
            matches!(&event, Event::Failed { error, .. } if timed_out(error)),
            "{event:?}"
        );
        assert!(matches!(scene.event().await, Event::Resumed { .. }));
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_gone_begins_anew() {
    limit(async {
        let (mut scene, mut link) = Scene::new().await;
        let (calling, _) = scene.called(&mut link).await;
        let (next, open) = link.cut(&scene.listener).await;
        assert_eq!(open["session"], "s-1");
        let mut link = next.begins(session("s-2", "other", 0, false)).await;
        assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
        assert!(matches!(scene.event().await, Event::Lost(_)));
        assert!(matches!(scene.event().await, Event::Restarted { changed: None }));

        let (calling, call) = scene.called(&mut link).await;
        let sent = link.sent;
        let (mut link, open) = link.cut(&scene.listener).await;
        assert_eq!(open, json!({ "session": "s-2", "secret": "other", "received": sent }));
        link.raw.text(session("s-2", "another", link.received, true)).await;
        link.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_does_not_resume_any_more_is_plain() {
    limit(async {
        for more in ["Sec-WebSocket-Protocol: mcp\r\n", ""] {
            let (mut scene, mut link) = Scene::new().await;
            let (calling, _) = scene.called(&mut link).await;
            link.raw.reset();
            let mut plain = Link::upgraded(&scene.listener, more).await;
            let first = plain.receive().await;
            assert_eq!(first["method"], "initialize");
            plain.initialize(first).await;
            assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
            assert!(matches!(scene.event().await, Event::Lost(_)));
            assert!(matches!(scene.event().await, Event::Restarted { changed: None }));

            let (calling, _) = scene.called(&mut plain).await;
            let (mut link, open) = plain.cut(&scene.listener).await;
            assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
            assert_eq!(open, json!({}));
            assert_eq!(link.receive().await["method"], "initialize");
        }
    })
    .await;
}

/// So that what stands between can lead it to the server that has the session.
#[tokio::test]
async fn the_request_of_a_link_that_resumes_names_the_session_and_no_other_request_does() {
    async fn next(listener: &TcpListener) -> (Link, Vec<String>) {
        let (mut raw, head) = Link::asked(listener).await;
        raw.write(accepted(&head, CHOSEN)).await;
        let names = head.all("mcp-session-id").into_iter().map(str::to_owned).collect();
        (Link { raw, received: 0, sent: 0 }, names)
    }

    limit(async {
        let (listener, url) = listen().await;
        let serving = async {
            let (mut link, names) = next(&listener).await;
            assert_eq!((names, link.open().await), (vec![], json!({})));
            let link = link.begins(session("a.1", "one", 0, false)).await;
            link.raw.reset();
            // Also where the attempt before was lost, and where the server has the session no more.
            for lost in [true, false] {
                let (mut next, names) = next(&listener).await;
                assert_eq!(
                    (&*names, &next.open().await["session"]),
                    (&["a.1".to_owned()][..], &json!("a.1"))
                );
                if lost {
                    next.raw.reset();
                    continue;
                }
                next.begins(session("b.2", "two", 0, false)).await.raw.reset();
            }
            let (raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("mcp-session-id"), ["b.2"]);
            refuse(raw).await;
            // An offer to a server that resumes nothing.
            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("sec-websocket-protocol"), ["mcp"]);
            assert_eq!(head.get("mcp-session-id"), None);
            raw.write(accepted(&head, "")).await;
            raw.answer_initialize().await;
            raw.reset();
            let (_, head) = Link::asked(&listener).await;
            assert_eq!(head.get("mcp-session-id"), None);
        };
        let connect = immediate_reconnect(connect::<RoleClient>(url));
        let dialling = async { ().serve(connect.await.unwrap()).await.unwrap() };
        let (client, ()) = tokio::join!(dialling, serving);
        drop(client);
    })
    .await;
}

async fn refuse(mut raw: Raw) {
    raw.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
}

#[tokio::test]
async fn rubbish_in_place_of_the_session_gives_it_up() {
    limit(async {
        let answers = [
            Frame::text(json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string()),
            Frame::text("@ack 0"),
            Frame::text("@session {}"),
            Frame::text("@session"),
            Frame::text(session("s-2", "two", 0, true)),
            Frame::new(BINARY, "x"),
        ];
        for answer in answers {
            let (mut scene, mut link) = Scene::new().await;
            let (calling, _) = scene.called(&mut link).await;
            let (mut next, open) = link.cut(&scene.listener).await;
            assert_eq!(open["session"], "s-1");
            next.raw.send(answer.clone()).await;
            let (code, reason) = next.raw.closed().await;
            assert!(code == 1002 && reason.starts_with("resume: "), "{answer:?}: {code} {reason}");
            let (next, open) = next.cut(&scene.listener).await;
            assert_eq!(open, json!({}), "{answer:?}");
            let _link = next.begins(session("s-2", "two", 0, false)).await;
            assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
            assert!(matches!(scene.event().await, Event::Lost(_)));
            let event = scene.event().await;
            let Event::Failed { error: Error::Link(LinkError::Closed(told)), .. } = event else {
                panic!("{event:?}");
            };
            let reason = format!("by this side: {reason}");
            assert_eq!(told, CloseReason::new(CloseCode::Protocol, reason));
            assert!(matches!(scene.event().await, Event::Restarted { .. }));
        }
    })
    .await;
}

/// The end is reported at once, and not when there is another connection.
#[tokio::test]
async fn a_session_that_the_server_ends_is_not_presented_again() {
    limit(async {
        let (mut scene, mut link) = Scene::new().await;
        let (calling, _) = scene.called(&mut link).await;
        link.raw.send(close(4410)).await;
        assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
        let (next, open) = link.cut(&scene.listener).await;
        assert_eq!(open, json!({}));
        let mut link = next.begins(session("s-2", "two", 0, false)).await;

        // Nor if that is its answer.
        let (calling, _) = scene.called(&mut link).await;
        let (mut next, open) = link.cut(&scene.listener).await;
        assert_eq!(open["session"], "s-2");
        next.raw.send(close(4410)).await;
        let (next, open) = next.cut(&scene.listener).await;
        assert_eq!(open, json!({}));
        let _link = next.begins(session("s-3", "three", 0, false)).await;
        assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
        assert!(matches!(scene.event().await, Event::Lost(_)));
    })
    .await;
}

#[tokio::test]
async fn a_new_token_is_for_a_new_session() {
    limit(async {
        let token = |_| async { Ok::<_, String>("token".to_owned()) };
        let (scene, mut link) = Scene::with(60, |connect| connect.bearer_provider(token)).await;
        link.raw.send(close(4401)).await;
        let (next, open) = link.cut(&scene.listener).await;
        assert_eq!(open, json!({}));
        next.begins(session("s-2", "two", 0, false)).await;
    })
    .await;
}

#[tokio::test]
async fn who_is_not_wanted_stays_away_with_its_session() {
    limit(async {
        for code in [1000, 1002, 1008, 4401, 4403, 4409] {
            for in_place_of_the_answer in [false, true] {
                // These two are asked about, or tried anew.
                if code == if in_place_of_the_answer { 1002 } else { 4409 } {
                    continue;
                }
                let (mut scene, mut link) = Scene::new().await;
                if in_place_of_the_answer {
                    link = link.cut(&scene.listener).await.0;
                }
                link.raw.send(close(code)).await;
                let closed = |state: &State| matches!(state, State::Closed(reason) if u16::from(reason.code) == code);
                within(ms(1000), scene.state.wait_for(closed)).await.unwrap();
                drop(link);
                within(ms(1000), scene.client.waiting()).await.unwrap();
            }
        }
    })
    .await;
}

/// An attempt that the client has given up may arrive after the one that succeeded.
#[tokio::test]
async fn a_session_that_was_taken_over_is_asked_for_once() {
    limit(async {
        for is_its_own in [true, false] {
            let (mut scene, mut link) = Scene::new().await;
            let (calling, call) = scene.called(&mut link).await;
            let (received, sent) = (link.received, link.sent);
            link.raw.send(close(4409)).await;
            let mut next = Link { received, sent, ..Link::new(&scene.listener).await };
            let asked = json!({ "session": "s-1", "secret": "one", "received": sent });
            assert_eq!(next.open().await, asked);
            if is_its_own {
                next.raw.text(session("s-1", "two", received, true)).await;
                // So that the server takes the first secret no longer.
                let frame = next.raw.next().await.unwrap();
                assert_eq!(frame, Frame::text(format!("@ack {sent}")));
                next.answer(&call, "done").await;
                assert_eq!(result(calling).await.unwrap(), "done");
                next.raw.send(close(4409)).await;
            } else {
                next.raw.text(session("s-2", "two", 0, false)).await;
                // So that the server does not keep what nobody will ask for.
                assert_eq!(next.raw.closed().await.0, 1000);
                next.raw.send(close(1000)).await;
                assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
            }
            let closed = |state: &State| matches!(state, State::Closed(reason) if u16::from(reason.code) == 4409);
            within(ms(1000), scene.state.wait_for(closed)).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_that_is_of_no_use_is_closed_and_its_peer_not_waited_for() {
    limit(async {
        for more in [CHOSEN, ""] {
            let (mut scene, mut link) = Scene::new().await;
            let (calling, _) = scene.called(&mut link).await;
            link.raw.send(close(4409)).await;
            let mut next = Link::upgraded(&scene.listener, more).await;
            if more == CHOSEN {
                assert_eq!(next.open().await["session"], "s-1");
                next.raw.text(session("s-2", "two", 0, false)).await;
            }
            assert_eq!(next.raw.closed().await.0, 1000);
            let closed = |state: &State| matches!(state, State::Closed(reason) if u16::from(reason.code) == 4409);
            within(ms(2000), scene.state.wait_for(closed)).await.unwrap();
            assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
        }
    })
    .await;
}

#[tokio::test]
async fn the_window_ends_a_call_though_the_server_is_away() {
    limit(async {
        let (mut scene, mut link) = Scene::with(1, |connect| connect).await;
        let (calling, _) = scene.called(&mut link).await;
        let (received, sent) = (link.received, link.sent);
        let cut = tokio::time::Instant::now();
        link.raw.reset();
        // The next connection is made, and not answered.
        assert_eq!(result(calling).await.unwrap_err(), UNKNOWN);
        assert!((900..2000).contains(&cut.elapsed().as_millis()), "{:?}", cut.elapsed());
        let waiting = scene.call();
        let mut link = Link { received, sent, ..Link::new(&scene.listener).await };
        assert_eq!(
            link.open().await,
            json!({ "session": "s-1", "secret": "one", "received": sent })
        );
        let mut link = link.begins(session_of(1, "s-2", "two", 0, false)).await;
        let call = link.receive().await;
        link.answer(&call, "done").await;
        assert_eq!(result(waiting).await.unwrap(), "done");
        assert!(matches!(scene.event().await, Event::Lost(_)));
        assert!(matches!(scene.event().await, Event::Restarted { .. }));
    })
    .await;
}

/// The second client has taken the session for lost meanwhile.
#[tokio::test]
async fn a_session_that_goes_on_is_initialized_once() {
    limit(async {
        for away in [ms(0), ms(1200)] {
            let (mut scene, mut link) = Scene::with(1, |connect| connect).await;
            let (lost, _) = scene.called(&mut link).await;
            let (mut link, _) = link.cut(&scene.listener).await;
            (link.received, link.sent) = (0, 0);
            link.raw.text(session_of(1, "s-2", "two", 0, false)).await;
            let initialize = link.receive().await;
            assert_eq!(initialize["method"], "initialize");
            assert_eq!(result(lost).await.unwrap_err(), UNKNOWN);
            let waiting = scene.call();
            let Link { raw, received, sent } = link;
            raw.reset();
            // The next connection is made, and not answered before the window is over.
            tokio::time::sleep(away).await;
            let mut link = Link { received, sent, ..Link::new(&scene.listener).await };
            assert_eq!(link.open().await["session"], "s-2");
            link.raw.text(session_of(1, "s-2", "three", received, true)).await;
            link.initialize(initialize).await;
            let call = link.receive().await;
            link.answer(&call, "done").await;
            assert_eq!(result(waiting).await.unwrap(), "done");
            for _ in 0..2 {
                assert!(matches!(scene.event().await, Event::Lost(_)));
            }
            let event = scene.event().await;
            assert!(matches!(event, Event::Restarted { changed: None }), "{event:?}");
        }
    })
    .await;
}

/// The present link counts nothing from the moment at which the count is told.
#[tokio::test]
async fn a_renewal_that_fails_halfway_is_a_loss() {
    limit(async {
        let (mut scene, mut link) = Scene::new().await;
        let (calling, call) = scene.called(&mut link).await;
        scene.reconnect_handle.reconnect();
        let mut half = Link::new(&scene.listener).await;
        let asked = json!({ "session": "s-1", "secret": "one", "received": link.sent });
        assert_eq!(half.open().await, asked);
        link.raw.json(&json!({ "jsonrpc": "2.0", "id": call["id"], "error": {} })).await;
        half.raw.reset();
        let mut half = Link::new(&scene.listener).await;
        assert_eq!(half.open().await, asked);
        assert!(matches!(scene.event().await, Event::Lost(_)));
        // What becomes of the first link means nothing any more.
        link.raw.send(close(1000)).await;
        assert_eq!(link.raw.closed().await.0, 1000);
        half.raw.reset();
        let mut next =
            Link { received: link.received, sent: link.sent, ..Link::new(&scene.listener).await };
        assert_eq!(next.open().await, asked);
        next.raw.text(session("s-1", "two", next.received, true)).await;
        next.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
        assert!(matches!(scene.event().await, Event::Failed { .. }));
        assert!(matches!(scene.event().await, Event::Resumed { replayed: 0 }));
    })
    .await;
}

#[tokio::test]
async fn a_renewal_loses_nothing() {
    limit(async {
        let (mut scene, mut link) = Scene::new().await;
        let (calling, call) = scene.called(&mut link).await;
        scene.reconnect_handle.reconnect();
        let mut next =
            Link { received: link.received, sent: link.sent, ..Link::new(&scene.listener).await };
        assert_eq!(
            next.open().await,
            json!({ "session": "s-1", "secret": "one", "received": next.sent })
        );
        next.raw.text(session("s-1", "two", next.received, true)).await;
        assert_eq!(link.raw.closed().await.0, 4409);
        next.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
        assert!(matches!(scene.event().await, Event::Lost(_)));
        assert!(matches!(scene.event().await, Event::Resumed { replayed: 0 }));
    })
    .await;
}

#[tokio::test]
async fn a_server_that_chooses_what_it_does_not_speak_is_told_so() {
    limit(async {
        let (listener, url) = listen().await;
        let connect = immediate_reconnect(connect::<RoleClient>(url));
        let mut state = connect.state();
        let dialling = tokio::spawn(async { ().serve(connect.await.unwrap()).await });
        let mut link = Link::upgraded(&listener, CHOSEN).await;
        assert_eq!(link.open().await, json!({}));
        let error = json!({ "code": -32700, "message": "Parse error" });
        link.raw.json(&json!({ "jsonrpc": "2.0", "id": null, "error": error })).await;
        let (code, reason) = link.raw.closed().await;
        assert!(code == 1002 && reason.starts_with("resume: "), "{code} {reason}");
        dialling.await.unwrap().unwrap_err();
        let reason = format!("by this side: {reason}");
        let reason = CloseReason::new(CloseCode::Protocol, reason);
        assert_eq!(*state.borrow_and_update(), State::Closed(reason));
    })
    .await;
}
