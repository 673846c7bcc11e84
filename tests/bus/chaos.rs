//! Three instances as processes, and a balancer that knows nothing of sessions: connections are cut
//! at random bytes, messages of relayed sessions are lost on the bus, the broker is killed and hangs,
//! one instance is cut off from it, another is stopped for a while, another killed. Each call ends
//! once, none is executed twice, and no session is at two instances.
//!
//! With `MCP_WS_FULL` set, 10,000 calls, under longer faults. `MCP_WS_SEED` sets the seed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    env,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicI64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{client::ReconnectPolicy, connect, event::Event};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rmcp::{
    Peer, RoleClient, ServiceError, ServiceExt, model::CallToolRequestParams,
    service::RunningService,
};
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, block_in_place},
    time::{sleep, timeout},
};

use super::{
    instances::{Broker, Instance, Log},
    proxy::{Faults, Proxy},
    server::Server,
};

const CLIENTS: usize = 6;

/// Calls that each client has in flight.
const IN_FLIGHT: usize = 4;

/// Longer than any call takes, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Longest time from the end of a fault to the loss of a session by it: the silence of a relay and
/// the question for a session, on a busy machine.
const MAX_LOSS_DELAY: Duration = Duration::from_secs(12);

/// Fault, with the range of its duration in milliseconds.
#[derive(Debug, Clone)]
enum Fault {
    /// The broker is killed, and starts again.
    Restart(RangeInclusive<u64>),
    /// The broker hangs.
    Hang(RangeInclusive<u64>),
    /// Nothing passes between instance `a` and the broker. What they say arrives when it is over.
    Silence(RangeInclusive<u64>),
    /// Connections of instance `a` to the broker are reset, and new ones refused.
    Reset(RangeInclusive<u64>),
    /// Another instance does nothing: its process is stopped.
    Stop(RangeInclusive<u64>),
    /// Another instance is killed. One with another tag takes its place.
    Kill(RangeInclusive<u64>),
}

impl Fault {
    const SHORT: [Self; 6] = [
        Self::Restart(200..=600),
        Self::Hang(300..=800),
        Self::Silence(3500..=4500),
        Self::Reset(500..=1200),
        Self::Stop(2500..=3500),
        Self::Kill(1500..=2500),
    ];
    const LONG: [Self; 5] = [
        Self::Restart(3000..=6000),
        Self::Hang(4000..=7000),
        Self::Silence(7000..=10_000),
        Self::Reset(4000..=7000),
        Self::Stop(6000..=9000),
    ];

    fn milliseconds(&self) -> RangeInclusive<u64> {
        let (Self::Restart(range)
        | Self::Hang(range)
        | Self::Silence(range)
        | Self::Reset(range)
        | Self::Stop(range)
        | Self::Kill(range)) = self;
        range.clone()
    }
}

/// Period of a fault by which sessions may be lost.
struct Outage {
    from: Instant,
    until: Instant,
    /// Tag of the instance whose sessions may be lost; `None` for those of all instances.
    at: Option<String>,
}

/// How a call has ended.
struct Ended {
    number: i64,
    client: usize,
    began: Instant,
    ended: Instant,
    /// Session of the client, as far as it knew, when the call began.
    session: String,
    /// The session that has answered, or the reason of the error.
    result: Result<String, String>,
}

struct Caller {
    client: usize,
    peer: Peer<RoleClient>,
    /// The session that has answered last.
    session: Mutex<String>,
}

/// Client, and the task that counts how often it has resumed its session, and begun anew.
struct Client {
    caller: Arc<Caller>,
    service: RunningService<RoleClient, ()>,
    returns: JoinHandle<[usize; 2]>,
}

impl Client {
    async fn new(client: usize, balancer: &Proxy) -> Self {
        let bound = Duration::from_millis(20);
        let policy = ReconnectPolicy::default().first(bound).after_restart(bound);
        let connect = connect(balancer.url()).reconnect(policy.min(bound).max(bound));
        let mut events = connect.events();
        let service = ().serve(connect.await.unwrap()).await.unwrap();
        let returns = tokio::spawn(async move {
            let mut returns = [0; 2];
            while let Some(event) = events.next().await {
                match event {
                    Event::Resumed { .. } => returns[0] += 1,
                    Event::Restarted { .. } => returns[1] += 1,
                    _ => {}
                }
            }
            returns
        });
        let (peer, session) = (service.peer().clone(), Mutex::default());
        Self { caller: Arc::new(Caller { client, peer, session }), service, returns }
    }
}

impl Caller {
    async fn call(&self, number: i64, ms: u64, padding: usize) -> Ended {
        let arguments = json!({ "number": number, "ms": ms, "padding": "x".repeat(padding) });
        let Value::Object(arguments) = arguments else { unreachable!() };
        let call = CallToolRequestParams::new("count").with_arguments(arguments);
        let (began, session) = (Instant::now(), self.session.lock().unwrap().clone());
        let called = timeout(LIMIT, self.peer.call_tool(call)).await;
        let result = match called.unwrap_or_else(|_| panic!("call {number} does not end")) {
            Ok(result) => {
                let text = &result.content[0].as_text().unwrap().text;
                let answer: Vec<_> = text.split(' ').collect();
                let own = (number.to_string(), padding.to_string());
                assert_eq!((answer[0], answer[2]), (&*own.0, &*own.1), "the answer to {number}");
                answer[1].clone_into(&mut self.session.lock().unwrap());
                Ok(answer[1].to_owned())
            }
            Err(ServiceError::McpError(error)) => {
                let reason = error.data.as_ref().and_then(|data| data["reason"].as_str());
                Err(reason.unwrap_or(&error.message).to_owned())
            }
            Err(error) => Err(error.to_string()),
        };
        Ended { number, client: self.client, began, ended: Instant::now(), session, result }
    }
}

/// Instances, the broker, and what stands between.
struct Scene<B> {
    test: &'static str,
    broker: Server,
    /// Between instance `a` and the broker.
    between: Proxy,
    balancer: Arc<Proxy>,
    instances: Vec<Instance>,
    addresses: Arc<Mutex<Vec<SocketAddr>>>,
    log: Log,
    outages: Vec<Outage>,
    killed: usize,
    _broker: std::marker::PhantomData<B>,
}

impl<B: Broker> Scene<B> {
    async fn new(test: &'static str, log: Log, seed: u64) -> Self {
        let broker = Server::start(B::PROGRAM, B::arguments);
        let between = Proxy::new(broker.address).await;
        between.faults(Faults { reset: true, ..Faults::default() });
        let brokers = [between.address, broker.address, broker.address];
        let starting = ["a", "b", "c"].into_iter().zip(brokers);
        let starting = starting.map(|(tag, broker)| Instance::start(test, tag, broker, &log));
        let instances = join_all(starting).await;
        let addresses: Vec<_> = instances.iter().map(|instance| instance.address).collect();
        let balancer = Arc::new(Proxy::new(addresses[0]).await);
        let addresses = Arc::new(Mutex::new(addresses));
        let (targets, target) = (addresses.clone(), balancer.target.clone());
        let (mut random, mut made) = (StdRng::seed_from_u64(seed), 0);
        balancer.draw_faults(move || {
            // A client whose first handshake is cut offers no sessions the next time.
            made += 1;
            let least = if made > CLIENTS { 200 } else { 1500 };
            let targets = targets.lock().unwrap();
            *target.lock().unwrap() = targets[random.random_range(0..targets.len())];
            let cut_after = random.random_bool(0.9).then(|| random.random_range(least..8000));
            Faults { cut_after, reset: random.random(), ..Faults::default() }
        });
        Self {
            test,
            broker,
            between,
            balancer,
            instances,
            addresses,
            log,
            outages: Vec::new(),
            killed: 0,
            _broker: std::marker::PhantomData,
        }
    }

    /// Causes a fault, and ends it.
    async fn inject(&mut self, fault: Fault, random: &mut StdRng) {
        let from = Instant::now();
        let time = Duration::from_millis(random.random_range(fault.milliseconds()));
        let mut at = None;
        match fault {
            Fault::Restart(_) => {
                block_in_place(|| self.broker.kill());
                sleep(time).await;
                assert!(block_in_place(|| self.broker.restart()));
            }
            Fault::Hang(_) => {
                self.broker.signal("STOP");
                sleep(time).await;
                self.broker.signal("CONT");
            }
            Fault::Silence(_) => {
                self.between.stall(true);
                sleep(time).await;
                self.between.stall(false);
            }
            Fault::Reset(_) => {
                // Nobody listens there.
                let nowhere = ([127, 0, 0, 1], 1).into();
                let broker = std::mem::replace(&mut *self.between.target.lock().unwrap(), nowhere);
                self.between.cut();
                sleep(time).await;
                *self.between.target.lock().unwrap() = broker;
            }
            Fault::Stop(_) => {
                let stopped = &self.instances[random.random_range(1..self.instances.len())];
                stopped.signal("STOP");
                sleep(time).await;
                stopped.signal("CONT");
            }
            Fault::Kill(_) => {
                let which = random.random_range(1..self.instances.len());
                self.killed += 1;
                let tag = format!("{}{}", self.instances[which].tag, self.killed);
                // The balancer goes on to lead clients there.
                let killed = self.instances.remove(which);
                at = Some(killed.tag.clone());
                killed.kill().await;
                sleep(time).await;
                let broker = self.broker.address;
                let instance = Instance::start(self.test, &tag, broker, &self.log).await;
                self.addresses.lock().unwrap()[which] = instance.address;
                self.instances.insert(which, instance);
            }
        }
        println!("{fault:?} for {time:?}");
        // An instance is asked for its sessions for a second where nobody is there, and for three
        // where the broker may be away.
        let is_short = time < Duration::from_secs(2);
        if !(is_short && matches!(fault, Fault::Restart(_) | Fault::Hang(_))) {
            self.outages.push(Outage { from, until: Instant::now(), at });
        }
    }
}

/// Runs the scene. Each instance is a process that runs the test `test`, in which [`run_instance`]
/// serves.
///
/// [`run_instance`]: super::instances::run_instance
pub(crate) async fn each_call_ends_once<B: Broker>(test: &'static str, folder: &std::path::Path) {
    let seed = env::var("MCP_WS_SEED").map_or(1, |seed| seed.parse().unwrap());
    println!("MCP_WS_SEED={seed}");
    let is_full = env::var_os("MCP_WS_FULL").is_some();
    let least = if is_full { 10_000 } else { 1500 };
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::<B>::new(test, Log::new(folder), seed).await;
    let clients = join_all((0..CLIENTS).map(|client| Client::new(client, &scene.balancer))).await;

    let (last, is_over) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let ended: Arc<Mutex<Vec<Ended>>> = Arc::default();
    let in_flight = clients.iter().flat_map(|client| vec![client.caller.clone(); IN_FLIGHT]);
    let calling: Vec<_> = in_flight
        .map(|caller| {
            let (last, is_over, ended) = (last.clone(), is_over.clone(), ended.clone());
            let mut random = StdRng::seed_from_u64(random.random());
            tokio::spawn(async move {
                while !is_over.load(Relaxed) {
                    let number = last.fetch_add(1, SeqCst);
                    let is_large = random.random_bool(0.05);
                    let padding = if is_large { random.random_range(0..5000) } else { 0 };
                    let call = caller.call(number, random.random_range(0..150), padding).await;
                    ended.lock().unwrap().push(call);
                }
            })
        })
        .collect();

    // Cuts of whatever there is, besides those of each connection.
    let (balancer, mut drawn) = (scene.balancer.clone(), StdRng::seed_from_u64(random.random()));
    let cutting = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(drawn.random_range(200..4000))).await;
            balancer.cut();
        }
    });
    let began = Instant::now();
    for round in 0.. {
        let long = if is_full { &Fault::LONG[..] } else { &[] };
        let mut faults: Vec<_> = [&Fault::SHORT[..], long].concat();
        while !faults.is_empty() {
            sleep(Duration::from_millis(random.random_range(300..800))).await;
            let fault = faults.swap_remove(random.random_range(0..faults.len()));
            scene.inject(fault, &mut random).await;
        }
        if !is_full || last.load(SeqCst) >= least || round == 20 {
            break;
        }
    }
    while last.load(SeqCst) < least && began.elapsed() < 10 * LIMIT {
        sleep(Duration::from_millis(100)).await;
    }
    cutting.abort();
    is_over.store(true, Relaxed);
    for calling in calling {
        calling.await.unwrap();
    }
    // All have healed.
    let healed = clients.iter().map(|client| client.caller.call(last.fetch_add(1, SeqCst), 0, 0));
    let healed = join_all(healed).await;
    assert!(healed.iter().all(|call| call.result.is_ok()));
    ended.lock().unwrap().extend(healed);
    let took = began.elapsed();

    let mut returns = [0; 2];
    for client in clients {
        client.service.cancel().await.unwrap();
        let [resumed, restarted] = timeout(LIMIT, client.returns).await.unwrap().unwrap();
        returns = [returns[0] + resumed, returns[1] + restarted];
    }
    assert!(
        scene.instances.iter_mut().all(Instance::is_running),
        "an instance has ended by itself"
    );
    let ended = std::mem::take(&mut *ended.lock().unwrap());
    assert_eq!(ended.len(), usize::try_from(last.load(SeqCst)).unwrap());
    let mut outcomes = BTreeMap::<_, usize>::new();
    for call in &ended {
        *outcomes
            .entry(call.result.as_ref().err().map_or("answered", |error| error))
            .or_default() += 1;
    }
    let slowest = ended.iter().map(|call| call.ended - call.began).max();
    println!(
        "{} calls in {took:?}, {outcomes:?}, the slowest took {:?}; {} connections, {} sessions \
         resumed, {} anew; {} instances killed, {} messages lost",
        ended.len(),
        slowest.unwrap(),
        scene.balancer.dials.load(SeqCst),
        returns[0],
        returns[1],
        scene.killed,
        scene.log.lost()
    );
    check(&ended, &scene.log, &scene.outages);
    assert!(returns[0] > 100, "{returns:?}");
    assert!(scene.log.lost() > 5, "{} messages lost", scene.log.lost());
}

/// Checks that the calls have ended as they may, and what was executed of them.
fn check(ended: &[Ended], log: &Log, outages: &[Outage]) {
    let (executed, order) = log.read();
    let mut answered = HashMap::new();
    for call in ended {
        let number = call.number;
        let executed = executed.get(&number).map_or(&[][..], |sessions| sessions);
        assert!(executed.len() <= 1, "{number} was executed in {executed:?}");
        let error = match &call.result {
            Ok(session) => {
                assert_eq!(executed, [session.as_str()], "{number}");
                answered.insert(number, (call.client, session));
                continue;
            }
            Err(error) => error,
        };
        match &error[..] {
            "not_sent" => assert!(executed.is_empty(), "{number} was executed in {executed:?}"),
            "outcome_unknown" => {}
            _ => panic!("{number}: {error}"),
        }
        let session = executed.first().unwrap_or(&call.session);
        let may_be_lost = outages.iter().any(|outage| {
            let is_of = |tag: &String| session.split('-').next() == Some(tag);
            let is_then = call.began < outage.until + MAX_LOSS_DELAY && call.ended > outage.from;
            is_then && outage.at.as_ref().is_none_or(is_of)
        });
        assert!(
            may_be_lost,
            "{number} in {session:?}: {error}, after {:?}",
            call.ended - call.began
        );
    }
    // Once a session of a client has executed a call that was answered, an earlier one does no more.
    let mut sessions: Vec<Vec<&String>> = vec![Vec::new(); CLIENTS];
    for (client, session) in order.iter().filter_map(|number| answered.get(number)) {
        let sessions = &mut sessions[*client];
        if sessions.last() != Some(session) {
            assert!(!sessions.contains(session), "{client} is in {sessions:?} and {session}");
            sessions.push(session);
        }
    }
    let mut all = HashSet::new();
    assert!(
        sessions.iter().flatten().all(|session| all.insert(session)),
        "a session of two clients"
    );
}
