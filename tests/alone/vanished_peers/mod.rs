//! A peer that floods and then goes, or is barely there, gives back all that it has taken, soon,
//! and at nobody else's expense.
//!
//! By default a few scenes, drawn by a seed that is printed (`MCP_WS_SEED` sets it), with short
//! timeouts. With `MCP_WS_FULL` set, every flood, end and mode, with the default timeouts.

mod clients;
mod gone;
mod scene;
mod servers;

use std::{
    fmt::{self, Display, Formatter},
    time::Duration,
};

use futures::future::join_all;

use self::{
    clients::Clients,
    gone::FLOODS,
    scene::{Peak, floods, scenes},
    servers::Servers,
};

/// The worst of all scenes.
#[derive(Debug, Default)]
struct Worst {
    scenes: usize,
    free: Duration,
    call: Duration,
    each: usize,
}

impl Worst {
    fn note(&mut self, free: Duration, call: Duration, each: usize) {
        self.scenes += 1;
        self.free = self.free.max(free);
        self.call = self.call.max(call);
        self.each = self.each.max(each);
    }
}

impl Display for Worst {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scenes, free, call, each } = self;
        let kibibytes = each >> 10;
        write!(
            f,
            "{scenes} scenes of {} peers, free after {free:.1?} at most, {kibibytes} KiB each, a good \
             client's call {call:.1?}",
            FLOODS.len()
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_rid_of_clients_that_flood_and_go() {
    alone!();
    let mut worst = Worst::default();
    for (end, modes) in scenes() {
        let floods = floods(&modes, true);
        let scenes = modes.iter().zip(floods).map(|(mode, floods)| Clients::new(*mode, floods));
        let mut scenes = join_all(scenes).await;
        let peak = Peak::new();
        let left = join_all(scenes.iter_mut().map(|scene| scene.flood_and_go(end))).await;
        let gone = join_all(scenes.iter().map(Clients::all_have_gone)).await;
        let each = peak.end() / (modes.len() * FLOODS.len());
        for ((scene, mode), gone) in scenes.into_iter().zip(modes).zip(gone) {
            let received = scene.server.registry().health().messages_received;
            scene.assert_places().await;
            let slowest = scene.end().await;
            println!(
                "{end:?}, {mode:?}: {received} messages, all are gone after {gone:?}, a good client's call took {slowest:?} at most"
            );
            worst.note(gone, slowest, each);
        }
        println!("{end:?}: {} KiB each at most", each >> 10);
        assert!(each < 8 << 20, "{each}");
        drop(left);
    }
    println!("figure: server: {worst}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_leaves_a_server_that_floods_it_and_goes() {
    alone!();
    let mut worst = Worst::default();
    for (end, modes) in scenes() {
        let floods = floods(&modes, false);
        let scenes = modes.iter().zip(floods).map(|(mode, floods)| Servers::new(*mode, floods));
        let mut scenes = join_all(scenes).await;
        let peak = Peak::new();
        let left = join_all(scenes.iter_mut().map(|scene| scene.flood_and_go(end))).await;
        let back = join_all(scenes.iter_mut().map(Servers::all_are_back)).await;
        let each = peak.end() / (modes.len() * FLOODS.len());
        for ((scene, mode), back) in scenes.into_iter().zip(modes).zip(back) {
            let slowest = scene.end().await;
            println!(
                "{end:?}, {mode:?}: all are back after {back:?}, a good client's call took {slowest:?} at most"
            );
            worst.note(back, slowest, each);
        }
        println!("{end:?}: {} KiB each at most", each >> 10);
        assert!(each < 8 << 20, "{each}");
        drop(left);
    }
    println!("figure: client: {worst}");
}
