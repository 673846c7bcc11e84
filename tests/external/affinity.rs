//! Sessions of two instances behind a proxy: clients come back to theirs by the tag in its id.
//!
//! `cargo test --test external affinity -- --ignored`

use std::{
    io,
    net::{Shutdown, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
};

use futures::StreamExt;
use mcp_ws_transport::{
    client::{Connect, Target},
    event::{Event, Events},
    server::Server,
};
use rmcp::RoleClient;
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
};

use crate::{
    common::{
        call, limit,
        raw::{Raw, upgrade_request},
        text_of,
    },
    instance::{Client, ask, behind_proxy, immediate_reconnect, initialized, instance},
    nginx::server::Nginx,
    reverse_proxies::server::{Kind, NAME, ReverseProxy},
};

/// Number of clients that come back in each way.
const CLIENTS: usize = 6;

/// Way in which a client without the extension brings the id of its session.
#[derive(Debug, Clone, Copy)]
enum Way {
    Header,
    Query,
    Subprotocol,
    Cookie,
}

const WAYS: [Way; 4] = [Way::Header, Way::Query, Way::Subprotocol, Way::Cookie];

/// An instance in a runtime of its own, with which it ends as a process that is killed.
struct Instance {
    runtime: Option<Runtime>,
    server: Server,
}

impl Instance {
    async fn start(name: char) -> Self {
        let config = behind_proxy().allowed_hosts([NAME, "127.0.0.1"]);
        let runtime = Runtime::new().unwrap();
        let server = runtime.spawn(instance(name, config)).await.unwrap();
        Self { runtime: Some(runtime), server }
    }

    fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.runtime.is_some() {
            self.kill();
        }
    }
}

/// Proxy in front of the instances.
enum Front {
    Nginx(Nginx),
    Other(ReverseProxy),
}

struct Site {
    front: Front,
    instances: [Instance; 2],
}

impl Site {
    async fn nginx() -> Self {
        let instances = [Instance::start('a').await, Instance::start('b').await];
        let addresses = [0, 1].map(|at: usize| instances[at].server.local_addr());
        let front = Front::Nginx(Nginx::start(addresses, |as_it_is| as_it_is).await);
        Self { front, instances }
    }

    async fn of(kind: Kind) -> Self {
        let instances = [Instance::start('a').await, Instance::start('b').await];
        let addresses = [0, 1].map(|at: usize| instances[at].server.local_addr());
        let front = Front::Other(ReverseProxy::start(kind, addresses).await);
        Self { front, instances }
    }

    /// Returns a client with this session id in its URL, unless it is empty, and its connector.
    fn connect(&self, id: &str) -> (Connect<RoleClient>, RoamingConnector) {
        let connector = RoamingConnector { address: self.address(), open: Arc::default() };
        let dialled = connector.clone();
        let connect = match &self.front {
            Front::Nginx(nginx) => nginx.dial(nginx.address, id),
            Front::Other(proxy) => {
                let query = if id.is_empty() { "" } else { "?mcp_session_id=" };
                proxy.connect(&format!("{query}{id}"))
            }
        };
        (connect.connector(move |_: Target| dialled.clone().connect()), connector)
    }

    fn address(&self) -> SocketAddr {
        match &self.front {
            Front::Nginx(nginx) => nginx.address,
            Front::Other(proxy) => proxy.address,
        }
    }

    /// Begins a session at an instance, without the extension, and loses its connection, which the
    /// instance knows: a cookie takes no session over that is connected. Returns the issued id, and
    /// where the session is.
    async fn begin(&self, instance: usize) -> (String, String) {
        let server = &self.instances[instance].server;
        let detached = || server.registry().health().detached;
        let (address, before) = (server.local_addr(), detached());
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write(upgrade_request(address, "Sec-WebSocket-Protocol: mcp\r\n")).await;
        let id = raw.head().await.unwrap().get("mcp-session-id").unwrap().to_owned();
        raw.initialize().await;
        let answer = raw.ask(&call(1, "count", json!({ "ms": 0 }))).await;
        raw.reset();
        while detached() == before {
            tokio::task::yield_now().await;
        }
        (id, text_of(&answer).to_owned())
    }

    /// Comes by this id, without the extension.
    async fn come(&self, way: Way, id: &str) -> Client {
        let connect = match way {
            Way::Header => self.connect("").0.header("mcp-session-id", id),
            Way::Query => self.connect(id).0,
            Way::Subprotocol => self.connect("").0.subprotocols([format!("mcp.session-id.{id}")]),
            Way::Cookie => self.connect("").0.header("cookie", format!("mcp_session_id={id}")),
        };
        initialized(connect.no_reconnect()).await
    }
}

/// Connects one client, each time from another address: nothing but the id leads it to its session.
#[derive(Clone)]
struct RoamingConnector {
    address: SocketAddr,
    open: Arc<Mutex<Option<std::net::TcpStream>>>,
}

impl RoamingConnector {
    async fn connect(self) -> io::Result<TcpStream> {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let socket = TcpSocket::new_v4()?;
        socket.bind(([127, 0, 1, LAST.fetch_add(1, SeqCst)], 0).into())?;
        let stream = socket.connect(self.address).await?.into_std()?;
        *self.open.lock().unwrap() = Some(stream.try_clone()?);
        TcpStream::from_std(stream)
    }

    fn cut(&self) {
        self.open.lock().unwrap().take().unwrap().shutdown(Shutdown::Both).unwrap();
    }
}

/// A client of this crate, as it is by default.
struct Resuming {
    client: Client,
    events: Events<Event>,
    connector: RoamingConnector,
    /// Where its session is.
    place: String,
}

impl Resuming {
    async fn new(site: &Site) -> Self {
        let (connect, connector) = site.connect("");
        let connect = connect.reconnect(immediate_reconnect());
        let events = connect.events();
        let client = initialized(connect).await;
        let place = ask(&client, 0).await;
        Self { client, events, connector, place }
    }

    fn is_at_a(&self) -> bool {
        self.place.starts_with('a')
    }

    /// Returns `true` if it has come back to its session, and `false` if it has begun another.
    async fn resumes(&mut self) -> bool {
        loop {
            match self.events.next().await.unwrap() {
                Event::Resumed { .. } => return true,
                Event::Restarted { .. } => return false,
                Event::Closed(error) => panic!("{error}"),
                _ => {}
            }
        }
    }
}

/// Returns where the call after that is.
fn after(place: &str, calls: usize) -> String {
    place.replace(".1", &format!(".{}", 1 + calls))
}

/// A client of this crate brings the id in the header, whichever address it comes from.
async fn clients_resume_their_sessions(site: &Site) {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Resuming::new(site).await);
    }
    for round in 1..=2 {
        for one in &mut clients {
            one.connector.cut();
            assert!(one.resumes().await, "{}", one.place);
            assert_eq!(ask(&one.client, 0).await, after(&one.place, round));
        }
    }
}

async fn an_id_leads_to_its_instance(site: &Site) {
    for way in WAYS {
        for number in 0..CLIENTS {
            let (id, place) = site.begin(number % 2).await;
            let client = site.come(way, &id).await;
            assert_eq!(ask(&client, 0).await, after(&place, 1), "{way:?}");
            client.cancel().await.unwrap();
        }
    }
}

async fn the_clients_of_an_instance_that_was_killed_are_served_by_the_other(mut site: Site) {
    let mut clients = Vec::new();
    while clients.len() < CLIENTS || !clients.iter().any(Resuming::is_at_a) {
        clients.push(Resuming::new(&site).await);
    }
    let mut ids = Vec::new();
    for way in WAYS {
        for _ in 0..CLIENTS {
            ids.push((way, site.begin(0).await.0));
        }
    }
    site.instances[0].kill();
    for one in &mut clients {
        if one.is_at_a() {
            assert!(!one.resumes().await);
            one.place = ask(&one.client, 0).await;
            assert!(one.place.starts_with('b') && one.place.ends_with(".1"), "{}", one.place);
        }
        // From now on its session is there.
        one.connector.cut();
        assert!(one.resumes().await);
        assert_eq!(ask(&one.client, 0).await, after(&one.place, 1));
    }
    for (way, id) in ids {
        let client = site.come(way, &id).await;
        let place = ask(&client, 0).await;
        assert!(place.starts_with('b') && place.ends_with(".1"), "{way:?}: {place}");
        client.cancel().await.unwrap();
    }
}

macro_rules! tests {
    ($name:ident, $site:expr, $needs:literal) => {
        mod $name {
            use super::*;

            #[tokio::test]
            #[ignore = $needs]
            async fn clients_resume_their_sessions() {
                limit(async { super::clients_resume_their_sessions(&$site.await).await }).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn an_id_leads_to_its_instance() {
                limit(async { super::an_id_leads_to_its_instance(&$site.await).await }).await;
            }

            #[tokio::test]
            #[ignore = $needs]
            async fn the_clients_of_an_instance_that_was_killed_are_served_by_the_other() {
                limit(async {
                    super::the_clients_of_an_instance_that_was_killed_are_served_by_the_other(
                        $site.await,
                    )
                    .await;
                })
                .await;
            }
        }
    };
}

tests!(nginx, Site::nginx(), "needs nginx: apt-get install nginx-light");
tests!(haproxy, Site::of(Kind::Haproxy), "needs HAProxy: apt-get install haproxy");
tests!(caddy, Site::of(Kind::Caddy), "needs Caddy: apt-get install caddy");
