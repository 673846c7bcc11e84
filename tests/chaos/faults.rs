//! What is done to the processes of a round, and to the network between them.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use proptest::{prelude::RngExt as _, test_runner::TestRng};
use tokio::time::sleep;

use crate::{
    child::Process,
    client::random,
    journal::now,
    scenario::{Network, Servers},
    setup::{Place, Round},
    verdict::Change,
};

/// Counts of the faults, and the time that they took.
#[derive(Debug, Default, Clone, Copy)]
pub struct FaultCounts {
    pub connections: usize,
    pub cuts: usize,
    pub stalls: usize,
    pub server_kills: usize,
    pub drains: usize,
    pub client_kills: usize,
    pub time: Duration,
}

impl std::ops::AddAssign for FaultCounts {
    fn add_assign(&mut self, other: Self) {
        self.connections += other.connections;
        self.cuts += other.cuts;
        self.stalls += other.stalls;
        self.server_kills += other.server_kills;
        self.drains += other.drains;
        self.client_kills += other.client_kills;
        self.time += other.time;
    }
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut,
    Stall,
    /// The next server is there before this one is killed, or not.
    KillServer {
        gap: bool,
    },
    /// The next server is there before this one is told to stop.
    Drain,
    KillClient,
}

pub struct Faults<'a> {
    round: &'a Round,
    places: &'a [Place],
    server: Process,
    changes: Vec<Change>,
    done: FaultCounts,
    failures: Vec<String>,
    random: TestRng,
}

impl<'a> Faults<'a> {
    pub fn new(round: &'a Round, places: &'a [Place], server: Process) -> Self {
        Self {
            round,
            places,
            server,
            changes: Vec::new(),
            done: FaultCounts::default(),
            failures: Vec::new(),
            random: random(round.seed ^ 0xc4a05),
        }
    }

    /// Causes one fault after the other until `enough` is set, and stops the server. Returns when
    /// servers went away, the counts of the faults, and what is wrong with the servers.
    pub async fn run(mut self, enough: &AtomicBool) -> (Vec<Change>, FaultCounts, Vec<String>) {
        let faults = self.possible();
        while !enough.load(SeqCst) {
            self.pause(10..200).await;
            if !faults.is_empty() {
                let fault = faults[self.random.random_range(0..faults.len())];
                self.inject(fault).await;
            }
        }
        self.failures.extend(self.server.terminate().await);
        (self.changes, self.done, self.failures)
    }

    /// Returns the faults of the scenario, each as often as it is likely.
    fn possible(&self) -> Vec<Fault> {
        let plan = self.round.plan;
        let mut faults = Vec::new();
        if let Network::Bad = plan.network {
            faults.extend([Fault::Cut; 4]);
            faults.extend([Fault::Stall; 2]);
        }
        match plan.servers {
            Servers::Left => {}
            Servers::Drained => faults.push(Fault::Drain),
            Servers::KilledOrDrained => {
                let gap = Fault::KillServer { gap: true };
                faults.extend([Fault::KillServer { gap: false }, gap, Fault::Drain, Fault::Drain]);
            }
        }
        if plan.kills_clients {
            faults.extend([Fault::KillClient; 2]);
        }
        faults
    }

    async fn pause(&mut self, ms: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random.random_range(ms))).await;
    }

    async fn inject(&mut self, fault: Fault) {
        let place = &self.places[self.random.random_range(0..self.places.len())];
        match fault {
            Fault::Cut => place.proxy.cut(),
            Fault::Stall => {
                self.done.stalls += 1;
                place.proxy.stall(true);
                self.pause(1..100).await;
                place.proxy.stall(false);
            }
            Fault::KillClient => {
                self.done.client_kills += 1;
                place.kill.notify_one();
            }
            Fault::KillServer { gap } => {
                self.done.server_kills += 1;
                let from = now();
                if gap {
                    self.server.kill().await;
                    self.pause(0..100).await;
                    self.next_server().await;
                } else {
                    self.next_server().await.kill().await;
                }
                self.changes.push(Change { from, until: now(), loses_answers: true });
            }
            Fault::Drain => {
                self.done.drains += 1;
                let from = now();
                let failure = self.next_server().await.terminate().await;
                self.failures.extend(failure);
                // Nothing but the network keeps an answer from its client.
                let loses_answers = !matches!(self.round.plan.network, Network::Good);
                self.changes.push(Change { from, until: now(), loses_answers });
            }
        }
    }

    /// Starts the next server, to which all clients come from now on, and returns the one before.
    async fn next_server(&mut self) -> Process {
        let (next, address) = self.round.start_server().await;
        self.redirect(address);
        std::mem::replace(&mut self.server, next)
    }

    fn redirect(&self, address: SocketAddr) {
        for place in self.places {
            *place.proxy.target.lock().unwrap() = address;
        }
    }
}
