//! The fan-out waker under every interleaving of its threads, by loom.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

#[path = "../src/layer/shared_link/wakers.rs"]
#[allow(dead_code, reason = "the library uses what is not tried here")]
mod wakers;

use wakers::WakerSet;

struct Task(AtomicBool);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Two tasks that look whether something has happened, and one event: each task either sees it or
/// is woken.
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let wakers = Arc::new(WakerSet::default());
        let happened = Arc::new(AtomicBool::new(false));
        let tasks = [None, Some((1, 1))].map(|key| {
            let (wakers, happened) = (wakers.clone(), happened.clone());
            let task = Arc::new(Task(AtomicBool::new(false)));
            thread::spawn(move || {
                let waker = Waker::from(task.clone());
                match key {
                    None => wakers.register_reader(&waker),
                    Some(key) => wakers.register_flush(key, &waker),
                }
                let seen = happened.load(SeqCst);
                (task, seen)
            })
        });
        happened.store(true, SeqCst);
        Waker::from(wakers).wake();
        for task in tasks {
            let (task, seen) = task.join().unwrap();
            assert!(seen || task.0.load(SeqCst));
        }
    });
}
