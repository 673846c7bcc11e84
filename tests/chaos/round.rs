//! One round: a server, its clients, and the network between them.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    child::Process,
    faults::{Done, Faults},
    journal::{self, Report},
    proxy::Proxy,
    scenario::Plan,
    verdict::{Record, Verdict},
};

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

/// A client's place, which one process after the other has.
pub struct Place {
    number: u64,
    pub proxy: Proxy,
    pub kill: Notify,
    report: PathBuf,
}

impl Round {
    /// Runs it. Its files stay if anything is wrong.
    pub async fn run(&self) -> (Verdict, Done) {
        let start = Instant::now();
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&self.folder).unwrap();
        let (server, address) = self.start_server().await;
        let mut places = Vec::new();
        for number in 0..self.plan.clients {
            let proxy = Proxy::new(address).await;
            proxy.draw_faults(self.plan.network.draw(self.seed ^ (number << 32)));
            let report = self.folder.join(format!("client-{number}.report"));
            places.push(Place { number, proxy, kill: Notify::new(), report });
        }

        let enough = AtomicBool::new(false);
        let clients = async {
            let failures = join_all(places.iter().map(|place| self.run_clients(place))).await;
            enough.store(true, SeqCst);
            failures
        };
        let faults = Faults::new(self, &places, server).run(&enough);
        let (clients, (changes, mut done, mut failures)) = tokio::join!(clients, faults);

        failures.extend(clients.into_iter().flatten());
        for place in &places {
            done.connections += place.proxy.dials.load(SeqCst);
            done.cuts += place.proxy.cut_at.lock().unwrap().len();
        }
        done.time = start.elapsed();
        let record = Record {
            reports: places.iter().map(|place| Report::read(&place.report)).collect(),
            executions: journal::executions(&self.journal()),
            changes,
            resumes: self.plan.resumes,
            failures,
        };
        let verdict = record.verdict();
        if verdict.is_good() {
            let _ = fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("{} has:", self.folder.display());
            verdict.findings.iter().take(20).for_each(|finding| eprintln!("- {finding}"));
        }
        (verdict, done)
    }

    fn journal(&self) -> PathBuf {
        self.folder.join("server.journal")
    }

    /// Returns a server, and where it listens.
    pub async fn start_server(&self) -> (Process, SocketAddr) {
        let arguments = ["server".to_owned(), format!("--journal={}", self.journal().display())];
        Process::server(&self.server, &arguments, &self.folder.join("server.log")).await
    }

    /// Runs clients at this place until all calls are made, one after the other if they are killed.
    /// Returns what is wrong with the last.
    async fn run_clients(&self, place: &Place) -> Option<String> {
        let calls = self.plan.calls / self.plan.clients;
        loop {
            let made = Report::read(&place.report).calls.len() as u64;
            let mut client = self.start_client(place, made, calls - made);
            // All could hang together, and the first connection.
            let limit = self.patience * 4 + Duration::from_millis(calls * 50);
            tokio::select! {
                ended = timeout(limit, client.ended()) => {
                    return match ended {
                        Ok(status) if status.success() => None,
                        Ok(status) => Some(format!("client {}: {status}", place.number)),
                        Err(_) => Some(format!("client {} does not end", place.number)),
                    };
                }
                () = place.kill.notified() => {}
            }
            client.kill().await;
        }
    }

    fn start_client(&self, place: &Place, made: u64, calls: u64) -> Process {
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
