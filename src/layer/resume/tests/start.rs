//! The beginning of a session, and the report of its end before there is another.

use super::*;

const SESSION: &str = r#"@session {"session":"s","secret":"one","received":0,"resumed":false,"window_s":120,"window_bytes":1024}"#;

impl Side {
    fn starting(start: SessionStart) -> Self {
        let ((link, peer), source, receive_count) =
            (fake::link(), Source::default(), ReceiveCount::default());
        receive_count.begin(start);
        let reconnect = Reconnect::new(link, source.clone());
        let layer = Resume::with_receive_count(reconnect, Config::default(), receive_count.clone());
        Self { layer: spawn(layer), peer, source, receive_count, tickets: 0 }
    }

    /// The link is lost, which is told at once.
    #[track_caller]
    fn assert_loses(&mut self) {
        self.peer.send(Message::Close(None));
        assert!(matches!(assert_ready!(self.next()), Some(Ok(LinkEvent::Down(_)))));
    }

    #[track_caller]
    fn assert_is_up(&mut self, up: LinkUp) {
        self.peer = self.source.give(up.clone());
        let item = assert_ready!(self.next()).unwrap().unwrap();
        match (item, up) {
            (LinkEvent::Up(LinkUp::NewPeer), LinkUp::NewPeer) => {}
            (LinkEvent::Up(LinkUp::Resumed(_)), LinkUp::Resumed(_)) => {}
            (item, up) => panic!("{item:?}, not {up:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_server_says_of_the_session_is_kept_for_the_source() {
    let mut side = Side::starting(SessionStart::Opening);
    side.send("1");
    side.peer.send(SESSION.into());
    side.peer.send("2".into());
    side.assert_receives("2");
    let session = side.receive_count.session().unwrap();
    assert_eq!((session.session.as_str(), session.window_s), ("s", 120));
    assert_eq!((side.receive_count.received(), side.sent()), (1, vec!["1".into()]));
}

#[tokio::test(start_paused = true)]
async fn a_session_begins_with_what_the_server_says_of_it() {
    let resumed = SESSION.replace("false", "true");
    let text = |text: &str| Message::text(text.to_owned());
    let binary = Message::Binary(SESSION.into());
    for first in
        ["{}", "@ack 0", "@open {}", "@session {}", &resumed].map(text).into_iter().chain([binary])
    {
        let mut side = Side::starting(SessionStart::Opening);
        side.peer.send(first.clone());
        assert!(matches!(side.next(), Poll::Ready(Some(Err(_)))), "{first:?}");
        assert_eq!(side.sent(), ["close 1002"]);
    }
    let mut side = Side::starting(SessionStart::Opening);
    for _ in 0..2 {
        side.peer.send(SESSION.into());
    }
    assert!(assert_ready!(side.next()).unwrap().is_err());
    assert_eq!(side.sent(), ["close 1002"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_before_there_is_a_session_is_told_at_once() {
    let mut side = Side::starting(SessionStart::Opening);
    side.send("1");
    side.assert_loses();
    assert_ready_err!(side.poll_ready());
    side.receive_count.begin(SessionStart::Opening);
    side.assert_is_up(LinkUp::NewPeer);
    side.send("2");
    side.peer.send(SESSION.into());
    side.assert_quiet();
    assert_eq!(side.sent(), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_or_taken_out_for_a_peer_that_does_not_speak_it() {
    let mut side = Side::starting(SessionStart::Plain);
    side.send("@1");
    for text in ["@ack 7", "@session", "{}"] {
        side.peer.send(text.into());
        side.assert_receives(text);
    }
    advance(10 * SECOND).await;
    side.assert_quiet();
    assert_eq!(side.sent(), ["@1"]);
    side.assert_loses();
    assert_eq!(side.receive_count.kept_bytes(), 0);
    assert_ready_err!(side.poll_ready());
    side.assert_is_up(LinkUp::NewPeer);
    side.send("2");
    side.peer.send("3".into());
    side.assert_receives("3");
    side.assert_quiet();
    advance(2 * SECOND).await;
    side.assert_quiet();
    assert_eq!(side.sent(), ["2", "@ack 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_told_when_the_peer_no_longer_keeps_the_session() {
    for is_kept_longer in [false, true] {
        let mut side = Side::starting(SessionStart::Opening);
        side.peer.send(SESSION.into());
        side.send("1");
        side.assert_quiet();
        side.lose();
        advance(119 * SECOND).await;
        side.assert_quiet();
        advance(2 * SECOND).await;
        assert!(side.layer.is_woken());
        assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Down(_)))));
        side.assert_quiet();
        if is_kept_longer {
            let up = side.receive_count.freeze().resumed(0);
            side.assert_is_up(up);
            side.assert_quiet();
            assert_eq!(side.sent(), ["@ack 0", "1"]);
        } else {
            side.receive_count.begin(SessionStart::Opening);
            side.assert_is_up(LinkUp::NewPeer);
            assert!(side.receive_count.session().is_none());
            side.assert_quiet();
            assert!(side.sent().is_empty());
        }
    }
}

/// A server may promise what it likes.
#[tokio::test(start_paused = true)]
async fn a_lost_session_is_waited_for_an_hour_at_most_and_goes_on_even_then() {
    for (promised, waited) in [(120, 120), (3600, 3600), (3601, 3600), (u32::MAX, 3600)] {
        let mut side = Side::starting(SessionStart::Opening);
        side.send("1");
        let session = SESSION.replace("120", &promised.to_string());
        side.peer.send(Message::text(session));
        side.lose();
        advance(waited * SECOND - Duration::from_millis(1)).await;
        side.assert_quiet();
        advance(Duration::from_millis(1)).await;
        assert!(side.layer.is_woken());
        assert!(matches!(assert_ready!(side.next()), Some(Ok(LinkEvent::Down(_)))));
        assert_eq!(side.resume(0), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_need_not_be_kept_any_longer_may_be_all_the_same() {
    let mut side = Side::starting(SessionStart::Opening);
    side.peer.send(SESSION.into());
    side.assert_quiet();
    side.lose();
    advance(120 * SECOND).await;
    let down = assert_ready!(side.next()).unwrap().unwrap();
    assert!(matches!(&down, LinkEvent::Down(down) if down.may_resume), "{down:?}");
    assert_eq!(side.resume(0), 0);
    side.receive_count.forget();
    side.peer.send(Message::Close(None));
    let down = assert_ready!(side.next()).unwrap().unwrap();
    assert!(matches!(&down, LinkEvent::Down(down) if !down.may_resume), "{down:?}");
}
