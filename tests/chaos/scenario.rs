//! What is broken, and how much is asked for meanwhile.

use std::time::Duration;

use proptest::prelude::RngExt as _;

use crate::{
    client::random,
    proxy::{End, Faults},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// The network alone: connections that are cut, in the handshake too, half open, stalled, slow
    /// and far away.
    Network,
    /// The same, and servers that are killed or drained, and started again.
    Servers,
    /// Servers that are drained, and nothing else.
    Drains,
    /// The network, and clients that are killed and started again.
    Clients,
    /// The network, servers and clients.
    Everything,
    /// The network, without `mcp.resume.v1`.
    WithoutResume,
    /// Everything in flight at once to a server that is far away.
    InFlight,
    /// The same, and connections that are cut.
    InFlightCut,
}

/// What a scenario consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub clients: u64,
    /// Calls of all clients together.
    pub calls: u64,
    /// Calls that each client has in flight.
    pub in_flight: usize,
    pub network: Network,
    pub servers: Servers,
    pub kills_clients: bool,
    pub resumes: bool,
}

/// What becomes of servers, after each of which comes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    Left,
    Drained,
    KilledOrDrained,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy)]
pub enum Network {
    /// Nothing.
    Good,
    /// Faults of all kinds, drawn from the seed.
    Bad,
    /// A `latency` each way and, where `is_cut`, cuts.
    Far { latency: Duration, is_cut: bool },
}

impl Scenario {
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).unwrap().get_name().to_owned()
    }

    pub fn plan(self) -> Plan {
        let plan = Plan {
            clients: 4,
            calls: 10_000,
            in_flight: 10,
            network: Network::Bad,
            servers: Servers::Left,
            kills_clients: false,
            resumes: true,
        };
        let far = |is_cut| Plan {
            clients: 1,
            calls: 50_000,
            in_flight: 50_000,
            network: Network::Far { latency: Duration::from_millis(100), is_cut },
            ..plan
        };
        match self {
            Self::Network => plan,
            Self::Servers => Plan { servers: Servers::KilledOrDrained, ..plan },
            Self::Drains => Plan { servers: Servers::Drained, network: Network::Good, ..plan },
            Self::Clients => Plan { kills_clients: true, ..plan },
            Self::Everything => {
                Plan { servers: Servers::KilledOrDrained, kills_clients: true, ..plan }
            }
            Self::WithoutResume => Plan { resumes: false, ..plan },
            Self::InFlight => far(false),
            Self::InFlightCut => far(true),
        }
    }
}

impl Network {
    /// Draws what becomes of each connection.
    pub fn draw(self, seed: u64) -> impl FnMut() -> Faults + Send + 'static {
        let mut random = random(seed);
        move || {
            let reset = random.random();
            match self {
                Self::Good => Faults::default(),
                Self::Bad => {
                    let cut_after = match random.random_range(0..10) {
                        0..2 => Some(random.random_range(0..800)),
                        2..8 => Some(random.random_range(800..200_000)),
                        _ => None,
                    };
                    let half_open = match random.random_range(0..20) {
                        0 => Some(End::Client),
                        1..3 => Some(End::Server),
                        _ => None,
                    };
                    let mut faults = Faults { cut_after, reset, half_open, ..Faults::default() };
                    let ms = Duration::from_millis(random.random_range(1..20));
                    match random.random_range(0..10) {
                        0..2 => faults.latency = ms,
                        2 => faults.delay = ms / 4,
                        3 => faults.rate = Some(random.random_range(50_000..1_000_000)),
                        _ => {}
                    }
                    faults
                }
                Self::Far { latency, is_cut } => {
                    let cut_after = is_cut.then(|| random.random_range(100_000..4_000_000));
                    Faults { cut_after, reset, latency, ..Faults::default() }
                }
            }
        }
    }
}
