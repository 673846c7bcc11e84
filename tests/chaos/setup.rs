//! The processes of a round, and what they are told.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::sync::Notify;

use crate::{child::Process, proxy::Proxy, scenario::Plan};

/// Settings of a round: one server, its clients, and one seed.
#[derive(Debug, Clone)]
pub struct Round {
    /// Command line of a server.
    pub server: Vec<String>,
    /// Command line of a client.
    pub client: Vec<String>,
    pub plan: Plan,
    pub seed: u64,
    pub deflate: Deflate,
    /// Time after which a call counts as hung.
    pub patience: Duration,
    /// Folder of the files of this round.
    pub folder: PathBuf,
}

/// How many of the clients offer permessage-deflate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Deflate {
    None,
    /// Every other.
    Half,
    All,
}

/// Place of a client, which one process takes after the other.
pub struct Place {
    pub number: u64,
    pub proxy: Proxy,
    pub kill: Notify,
    pub report: PathBuf,
}

impl Round {
    /// Returns the file in which servers write down what they execute.
    pub fn journal(&self) -> PathBuf {
        self.folder.join("server.journal")
    }

    /// Starts a server. Returns its process and its address.
    pub async fn start_server(&self) -> (Process, SocketAddr) {
        let arguments = ["server".to_owned(), format!("--journal={}", self.journal().display())];
        Process::server(&self.server, &arguments, &self.folder.join("server.log")).await
    }

    /// Starts a client that makes this number of calls, after those that others have made.
    pub fn start_client(&self, place: &Place, made: u64, calls: u64) -> Process {
        let number = place.number;
        let first = number * 1_000_000_000 + made;
        let mut arguments = vec![
            "client".to_owned(),
            format!("--url={}", place.proxy.url()),
            format!("--report={}", place.report.display()),
            format!("--first={first}"),
            format!("--calls={calls}"),
            format!("--in-flight={}", self.plan.in_flight),
            format!("--patience={}", self.patience.as_secs()),
            format!("--seed={}", self.seed ^ (first << 8)),
        ];
        let compresses = match self.deflate {
            Deflate::None => false,
            Deflate::Half => number % 2 == 1,
            Deflate::All => true,
        };
        if compresses {
            arguments.push("--deflate".to_owned());
        }
        if !self.plan.resumes {
            arguments.push("--no-resume".to_owned());
        }
        let log = self.folder.join(format!("client-{number}.log"));
        Process::client(&self.client, &arguments, &log)
    }
}
