//! The waker and the lock of a shared link under every interleaving of their threads, by loom.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

#[path = "../src/layer/shared_link/try_lock.rs"]
#[allow(dead_code, reason = "the library uses what is not tried here")]
mod try_lock;
#[path = "../src/layer/shared_link/wakers.rs"]
#[allow(dead_code, reason = "the library uses what is not tried here")]
mod wakers;

use try_lock::{TryLock, Waiter};
use wakers::WakerSet;

/// The `AtomicWaker` of `futures`, in a form that loom knows.
#[derive(Debug, Default)]
struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    fn register(&self, waker: &Waker) {
        *self.0.lock().unwrap() = Some(waker.clone());
    }

    fn wake(&self) {
        let waker = self.0.lock().unwrap().take();
        waker.into_iter().for_each(Waker::wake);
    }
}

/// A task that waits until it is woken; loom finds out when that does not happen.
#[derive(Default)]
struct Task(Mutex<bool>, Condvar);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }
}

impl Task {
    /// Calls `poll` each time it is woken, until it is ready.
    fn run(self: &Arc<Self>, mut poll: impl FnMut(&Waker) -> bool) {
        let waker = Waker::from(self.clone());
        while !poll(&waker) {
            let mut woken = self.0.lock().unwrap();
            while !*woken {
                woken = self.1.wait(woken).unwrap();
            }
            *woken = false;
        }
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
            thread::spawn(move || {
                Arc::<Task>::default().run(|waker| {
                    match key {
                        None => wakers.register_reader(waker),
                        Some(key) => drop(wakers.register_flush(key, waker)),
                    }
                    happened.load(SeqCst)
                });
            })
        });
        happened.store(true, SeqCst);
        Waker::from(wakers).wake();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

/// The queue of a link, and what of it was flushed.
struct Queue {
    queued: AtomicU64,
    flushed: AtomicU64,
    wakers: Arc<WakerSet>,
    link: TryLock<()>,
    /// Number of writes before the link has no room, if that is bounded.
    room: Option<AtomicU64>,
}

impl Queue {
    fn new() -> Self {
        let wakers = Arc::new(WakerSet::default());
        let link = TryLock::new((), wakers.clone());
        let (queued, flushed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { queued, flushed, wakers, link, room: None }
    }

    /// Writes all that is queued, as who has the link does.
    fn write(&self) {
        let queued = self.queued.load(SeqCst);
        if let Some(room) = &self.room {
            if queued == self.flushed.load(SeqCst) || room.load(SeqCst) == 0 {
                return;
            }
            room.fetch_sub(1, SeqCst);
        }
        self.flushed.store(queued, SeqCst);
        self.wakers.wake_flushed(queued);
    }

    /// Waits until it has had the link once.
    fn read(self: &Arc<Self>) {
        Arc::<Task>::default().run(|waker| {
            self.wakers.register_reader(waker);
            self.link.try_lock_or_wait(Waiter::Reader).is_some()
        });
    }

    /// Queues a message, and waits until it is flushed.
    fn send(self: &Arc<Self>) {
        let seq = self.queued.fetch_add(1, SeqCst) + 1;
        Arc::<Task>::default().run(|waker| {
            if self.flushed.load(SeqCst) >= seq || !self.wakers.register_flush((seq, seq), waker) {
                return true;
            }
            if let Some(link) = self.link.try_lock_or_wait(Waiter::Writer) {
                self.write();
                drop(link);
            }
            self.flushed.load(SeqCst) >= seq
        });
        self.wakers.deregister_flush((seq, seq));
    }

    /// Makes room for another write, which the link says by its waker.
    fn make_room(&self) {
        if let Some(room) = &self.room {
            room.fetch_add(1, SeqCst);
        }
        self.wakers.wake_by_ref();
    }
}

/// Whoever finds the link taken is woken by who has it, or finds that its message was written.
#[test]
fn who_finds_the_link_taken_is_woken_when_it_is_free() {
    for first in [Queue::send as fn(&_), Queue::read] {
        let ways = [first, Queue::send];
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let queue = Arc::new(Queue::new());
            let tasks = ways.map(|way| {
                let queue = queue.clone();
                thread::spawn(move || way(&queue))
            });
            drop(queue.link.try_lock());
            tasks.into_iter().for_each(|task| task.join().unwrap());
        });
    }
}

/// A wake-up of the link goes to one who still has something to write, and not to one whose message
/// another has written meanwhile.
#[test]
fn a_flush_that_has_happened_takes_no_wake_up() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let queue = Arc::new(Queue { room: Some(AtomicU64::new(1)), ..Queue::new() });
        let tasks = [(); 2].map(|()| {
            let queue = queue.clone();
            thread::spawn(move || queue.send())
        });
        if let Some(link) = queue.link.try_lock() {
            queue.write();
            drop(link);
        }
        queue.make_room();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

/// A value that is dropped while another uses it is gone when that is over.
#[test]
fn a_link_that_is_dropped_while_it_is_used_is_gone_then() {
    loom::model(|| {
        let alive = Arc::new(());
        let lock = Arc::new(TryLock::new(alive.clone(), Arc::new(WakerSet::default())));
        let user = {
            let lock = lock.clone();
            thread::spawn(move || drop(lock.try_lock()))
        };
        lock.discard();
        user.join().unwrap();
        assert_eq!(Arc::strong_count(&alive), 1);
        assert!(lock.try_lock().is_none_or(|mut guard| guard.get().is_none()));
    });
}
