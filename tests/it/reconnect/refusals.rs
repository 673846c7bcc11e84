//! A client that is told that it is not wanted any more, or that its token is not, stays away.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures::StreamExt;
use mcp_ws_transport::{
    CloseCode, CloseReason, Error, State,
    client::{Connect, TokenRequest},
    connect,
    error::{HandshakeError, LinkError},
    event::{Event, Events},
    server::{AuthError, Config, Credentials, Identity, Server},
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt, model::CallToolRequestParams, service::RunningService,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::common::{Tools, limit, ms, proxy::Proxy, reconnect_within, serve_tools, within};

const SECOND: Duration = Duration::from_secs(1);

/// An authenticator with a verdict, and the tokens that it has seen.
#[derive(Debug, Clone, Default)]
struct TestAuthenticator(Arc<Mutex<(Verdict, Vec<String>)>>);

#[derive(Debug, Clone, Default)]
enum Verdict {
    #[default]
    Anyone,
    Nobody(AuthError),
    /// Clients with this token.
    Only(&'static str),
    /// Clients with this token; of others it cannot be told now.
    Later(&'static str),
}

impl TestAuthenticator {
    fn config(&self) -> Config {
        let authenticator = self.clone();
        Config::default().authenticator(move |credentials: Credentials| {
            let token = credentials.token.as_ref().map(|token| token.as_str().to_owned());
            let (verdict, seen) = &mut *authenticator.0.lock().unwrap();
            let enters = match verdict {
                Verdict::Anyone => Ok(()),
                Verdict::Nobody(denied) => Err(denied.clone()),
                Verdict::Only(right) | Verdict::Later(right) if token.as_deref() == Some(right) => {
                    Ok(())
                }
                Verdict::Only(_) => Err(AuthError::Unauthorized),
                Verdict::Later(_) => Err(AuthError::Unavailable(Duration::ZERO)),
            };
            seen.extend(token);
            async move { enters.map(|()| Identity::new("someone")) }
        })
    }

    fn set(&self, verdict: Verdict) {
        self.0.lock().unwrap().0 = verdict;
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().1.clone()
    }
}

/// Has these tokens, one after the other, and then the last for ever. Notes whether it was told
/// that the one before was refused.
#[derive(Debug, Clone, Default)]
struct Issuer(Arc<Mutex<(Vec<&'static str>, Vec<bool>)>>);

impl Issuer {
    fn new(mut tokens: Vec<&'static str>) -> Self {
        tokens.reverse();
        Self(Arc::new(Mutex::new((tokens, Vec::new()))))
    }

    fn asked(&self) -> Vec<bool> {
        self.0.lock().unwrap().1.clone()
    }

    fn at(&self, connect: Connect<RoleClient>) -> Connect<RoleClient> {
        let issuer = self.clone();
        connect.bearer_provider(move |request: TokenRequest| {
            let (tokens, asked) = &mut *issuer.0.lock().unwrap();
            asked.push(request.refused);
            let last = tokens[0];
            let token = tokens.pop().unwrap();
            if tokens.is_empty() {
                tokens.push(last);
            }
            async move { Ok::<_, String>(token.to_owned()) }
        })
    }
}

/// A client of the tools, through a proxy that counts how often it dials.
struct Scene {
    tools: Tools,
    server: Server,
    proxy: Proxy,
    client: RunningService<RoleClient, ()>,
    state: watch::Receiver<State>,
    events: Events<Event>,
}

type Calling = JoinHandle<Result<rmcp::model::CallToolResult, ServiceError>>;

impl Scene {
    async fn new(authenticator: &TestAuthenticator, issuer: Option<&Issuer>, resume: bool) -> Self {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, authenticator.config()).await;
        let proxy = Proxy::new(address).await;
        let mut connect = reconnect_within(ms(20), connect(proxy.url())).resume(resume);
        if let Some(issuer) = issuer {
            connect = issuer.at(connect);
        }
        let (state, events) = (connect.state(), connect.events());
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        let scene = Self { tools, server, proxy, client, state, events };
        scene.echo().await;
        scene
    }

    fn call(&self, tool: &'static str) -> Calling {
        let client = self.client.peer().clone();
        tokio::spawn(async move { client.call_tool(CallToolRequestParams::new(tool)).await })
    }

    async fn echo(&self) {
        within(5 * SECOND, self.call("echo")).await.unwrap().unwrap();
    }

    fn dials(&self) -> usize {
        self.proxy.dials.load(SeqCst)
    }

    /// Waits until the client has noticed that the connection is lost.
    async fn lost(&mut self) {
        let away = |state: &State| matches!(state, State::Reconnecting { .. });
        within(SECOND, self.state.wait_for(away)).await.unwrap();
    }

    async fn disconnect(&mut self, code: u16) {
        for connection in self.server.registry().list() {
            connection.disconnect(CloseReason::new(code.into(), "so"));
        }
    }

    /// Asserts that within a second all calls end, with the reason, and that it dials no more.
    async fn assert_ends(mut self, calls: Vec<Calling>) -> (Error, usize) {
        let began = Instant::now();
        let end = async {
            loop {
                if let Event::Closed(error) = self.events.next().await.unwrap() {
                    return error;
                }
            }
        };
        let error = within(SECOND, end).await;
        assert!(matches!(*self.state.borrow_and_update(), State::Closed(_)));
        for call in calls {
            let Err(ServiceError::McpError(error)) = within(SECOND, call).await.unwrap() else {
                panic!("no error that says what became of it");
            };
            let reason = error.data.as_ref().unwrap()["reason"].as_str().unwrap();
            assert!(matches!(reason, "outcome_unknown" | "not_sent"), "{reason}");
        }
        let dials = self.dials();
        assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
        sleep(SECOND / 2).await;
        assert_eq!(self.dials(), dials, "it goes on dialling");
        assert!(self.call("echo").await.unwrap().is_err());
        within(SECOND, self.client.waiting()).await.unwrap();
        (error, dials)
    }
}

fn status(error: &Error) -> u16 {
    let Error::Handshake(HandshakeError::Refused(refusal)) = error else { panic!("{error:?}") };
    refusal.status.as_u16()
}

fn code(error: &Error) -> CloseCode {
    let Error::Link(LinkError::Closed(reason)) = error else { panic!("{error:?}") };
    reason.code
}

#[tokio::test]
async fn who_is_refused_before_the_upgrade_stays_away() {
    limit(async {
        for (denied, expected, with_tokens, further) in [
            (AuthError::Unauthorized, 401, false, 1),
            (AuthError::Forbidden, 403, false, 1),
            (AuthError::Forbidden, 403, true, 1),
            // It comes once more, with another token.
            (AuthError::Unauthorized, 401, true, 2),
        ] {
            for resume in [true, false] {
                let (authenticator, issuer) =
                    (TestAuthenticator::default(), Issuer::new(vec!["a", "b", "c", "d"]));
                let issuer = with_tokens.then_some(&issuer);
                let scene = Scene::new(&authenticator, issuer, resume).await;
                let calls = vec![scene.call("wait")];
                scene.tools.begun(1).await;
                authenticator.set(Verdict::Nobody(denied.clone()));
                scene.proxy.cut();
                let (error, dials) = scene.assert_ends(calls).await;
                assert_eq!((status(&error), dials), (expected, 1 + further), "{resume}");
                if let Some(issuer) = issuer {
                    let asked: &[_] =
                        if further == 1 { &[false, false] } else { &[false, false, true] };
                    assert_eq!(issuer.asked(), asked);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_sent_away_stays_away() {
    limit(async {
        for sent in [1008, 4401, 4403] {
            for resume in [true, false] {
                let mut scene = Scene::new(&TestAuthenticator::default(), None, resume).await;
                let calls = vec![scene.call("wait")];
                scene.tools.begun(1).await;
                scene.disconnect(sent).await;
                let (error, dials) = scene.assert_ends(calls).await;
                assert_eq!((u16::from(code(&error)), dials), (sent, 1), "{resume}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_token_that_expires_there_is_another_once() {
    limit(async {
        for resume in [true, false] {
            let (authenticator, issuer) =
                (TestAuthenticator::default(), Issuer::new(vec!["a", "b", "c"]));
            authenticator.set(Verdict::Only("a"));
            let mut scene = Scene::new(&authenticator, Some(&issuer), resume).await;
            authenticator.set(Verdict::Only("b"));
            scene.disconnect(4401).await;
            scene.lost().await;
            scene.echo().await;
            assert_eq!((issuer.asked(), scene.dials()), (vec![false, true], 2));
            assert_eq!(authenticator.seen(), ["a", "b"]);

            // That one does not last either.
            authenticator.set(Verdict::Only("c"));
            scene.disconnect(4401).await;
            let (error, dials) = scene.assert_ends(Vec::new()).await;
            assert_eq!((code(&error), dials), (CloseCode::Unauthorized, 2), "{resume}");
            assert_eq!(issuer.asked(), [false, true]);
        }
    })
    .await;
}

#[tokio::test]
async fn where_the_other_token_is_no_better_it_ends() {
    limit(async {
        for resume in [true, false] {
            let (authenticator, issuer) = (TestAuthenticator::default(), Issuer::new(vec!["a"]));
            authenticator.set(Verdict::Only("a"));
            let mut scene = Scene::new(&authenticator, Some(&issuer), resume).await;
            let calls = vec![scene.call("wait")];
            scene.tools.begun(1).await;
            authenticator.set(Verdict::Only("b"));
            scene.disconnect(4401).await;
            let (error, dials) = scene.assert_ends(calls).await;
            assert_eq!((status(&error), dials), (401, 2), "{resume}");
            assert_eq!(issuer.asked(), [false, true]);
        }
    })
    .await;
}

#[tokio::test]
async fn every_attempt_has_the_latest_token() {
    limit(async {
        for resume in [true, false] {
            let authenticator = TestAuthenticator::default();
            let issuer = Issuer::new(vec!["a", "b", "c", "d", "e"]);
            let mut scene = Scene::new(&authenticator, Some(&issuer), resume).await;
            // Two attempts are in vain for a reason that has nothing to do with tokens.
            authenticator.set(Verdict::Later("d"));
            scene.proxy.cut();
            scene.lost().await;
            scene.echo().await;
            assert_eq!(authenticator.seen(), ["a", "b", "c", "d"], "{resume}");
            assert_eq!(issuer.asked(), [false; 4]);
        }
    })
    .await;
}
