//! One round: a server, its clients, and the network between them.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    faults::{FaultCounts, Faults},
    journal::{self, Report},
    proxy::Proxy,
    setup::{Place, Round},
    verdict::{Record, Verdict},
};

impl Round {
    /// Runs it. Its files stay if anything is wrong.
    pub async fn run(&self) -> (Verdict, FaultCounts) {
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

    /// Runs clients at this place until all calls are made, one after the other if they are killed.
    /// Returns what is wrong with the last.
    async fn run_clients(&self, place: &Place) -> Option<String> {
        let calls = self.plan.calls / self.plan.clients;
        loop {
            let made = Report::read(&place.report).calls.len() as u64;
            let mut client = self.start_client(place, made, calls - made);
            // The first connection, the calls and the end may take the patience each.
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
}
