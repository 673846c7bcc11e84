//! The [`Lobby`]: seats for those who have yet to show who they are.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::limit::network;

/// How long somebody may take to leave, before another has to.
const PATIENCE: Duration = Duration::from_millis(50);

/// Where clients wait while they show who they are.
#[derive(Debug)]
pub(super) struct Lobby {
    seats: usize,
    rows: Mutex<Rows>,
    /// Tells that somebody has.
    left: Notify,
}

#[derive(Debug, Default)]
struct Rows {
    arrived: u64,
    seated: Row,
    /// Who is being answered something else meanwhile, and takes up no seat.
    standing: Row,
}

#[derive(Debug, Default)]
struct Row {
    guests: HashMap<u64, Stranger>,
    /// The same by where they come from, in the order of their arrival.
    by_address: HashMap<Option<IpAddr>, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Stranger {
    address: Option<IpAddr>,
    dropped: CancellationToken,
}

impl Row {
    /// The one who has been here the longest, of the address from which the most are.
    fn longest(&self) -> Option<u64> {
        let groups = self.by_address.values();
        let first = |group: &BTreeSet<u64>| group.first().copied();
        first(groups.max_by_key(|group| (group.len(), Reverse(first(group))))?)
    }

    fn insert(&mut self, number: u64, stranger: Stranger) {
        self.by_address.entry(stranger.address).or_default().insert(number);
        self.guests.insert(number, stranger);
    }

    fn remove(&mut self, number: u64) -> Option<Stranger> {
        let stranger = self.guests.remove(&number)?;
        if let Some(group) = self.by_address.get_mut(&stranger.address) {
            group.remove(&number);
            if group.is_empty() {
                self.by_address.remove(&stranger.address);
            }
        }
        Some(stranger)
    }

    fn remove_longest(&mut self) -> Option<Stranger> {
        self.longest().and_then(|longest| self.remove(longest))
    }
}

impl Lobby {
    pub(super) fn new(seats: usize) -> Arc<Self> {
        Arc::new(Self { seats, rows: Mutex::default(), left: Notify::new() })
    }

    /// A seat for somebody at `address`, for which another may have to leave.
    pub(super) fn enter(self: &Arc<Self>, address: Option<IpAddr>) -> Seat {
        let address = address.map(network);
        let dropped = CancellationToken::new();
        let mut rows = self.lock();
        rows.arrived += 1;
        let number = rows.arrived;
        self.seat(rows, number, Stranger { address, dropped: dropped.clone() });
        Seat { lobby: self.clone(), number, dropped }
    }

    /// Has somebody leave for want of other things than seats: whom it would be for that; else, who is
    /// being answered. Whether there was anybody; it resolves when somebody has left.
    pub(super) async fn make_room(&self) -> bool {
        let left = self.left.notified();
        let longest = {
            let mut rows = self.lock();
            rows.seated.remove_longest().or_else(|| rows.standing.remove_longest())
        };
        let Some(longest) = longest else { return false };
        longest.dropped.cancel();
        let _ = timeout(PATIENCE, left).await;
        true
    }

    fn seat(&self, mut rows: MutexGuard<'_, Rows>, number: u64, stranger: Stranger) {
        rows.seated.insert(number, stranger);
        let is_full = rows.seated.guests.len() > self.seats.max(1);
        let longest = is_full.then(|| rows.seated.remove_longest()).flatten();
        drop(rows);
        if let Some(longest) = longest {
            longest.dropped.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat in the lobby. Its number says who came first, and stays the same.
#[derive(Debug)]
pub(super) struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    dropped: CancellationToken,
}

impl Seat {
    /// Resolves when somebody else needs the seat.
    pub(super) async fn taken(&self) {
        self.dropped.cancelled().await;
    }

    /// Gives it up for a while.
    pub(super) fn stand(&self) {
        let mut rows = self.lobby.lock();
        if let Some(stranger) = rows.seated.remove(self.number) {
            rows.standing.insert(self.number, stranger);
        }
    }

    /// Takes one again, for which another may have to leave.
    pub(super) fn sit(&self) {
        let mut rows = self.lobby.lock();
        if let Some(stranger) = rows.standing.remove(self.number) {
            self.lobby.seat(rows, self.number, stranger);
        }
    }

    /// Gives it up for good.
    pub(super) fn leave(&self) {
        let mut rows = self.lobby.lock();
        if rows.seated.remove(self.number).is_none() {
            rows.standing.remove(self.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.lobby.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_full_lobby_loses_whoever_came_first() {
        let lobby = Lobby::new(2);
        let (first, second) = (lobby.enter(None), lobby.enter(None));
        let third = lobby.enter(None);
        let dropped = [&first, &second, &third].map(|seat| seat.dropped.is_cancelled());
        assert_eq!(dropped, [true, false, false]);
        drop((first, third));
        let _fourth = lobby.enter(None);
        assert!(!second.dropped.is_cancelled());
    }

    #[test]
    fn of_a_full_lobby_those_leave_who_are_many() {
        let lobby = Lobby::new(3);
        let alone = lobby.enter(at("2001:db8::1"));
        let many = ["10.0.0.1"; 4].map(|address| lobby.enter(at(address)));
        assert_eq!(
            many.each_ref().map(|seat| seat.dropped.is_cancelled()),
            [true, true, false, false]
        );
        let _other = lobby.enter(at("10.0.0.2"));
        assert!(many[2].dropped.is_cancelled() && !alone.dropped.is_cancelled());
        // Where each has one, the first leaves.
        let _another = lobby.enter(at("10.0.0.3"));
        assert!(alone.dropped.is_cancelled() && !many[3].dropped.is_cancelled());
        drop(many);
        assert_eq!(lobby.lock().seated.by_address.len(), 2);
    }

    #[tokio::test]
    async fn room_is_made_by_those_who_are_not_answered_first() {
        let lobby = Lobby::new(8);
        let [first, second] = [(); 2].map(|()| lobby.enter(None));
        first.stand();
        let is_dropped = || [&first, &second].map(|seat| seat.dropped.is_cancelled());
        assert!(lobby.make_room().await);
        assert_eq!(is_dropped(), [false, true]);
        assert!(lobby.make_room().await);
        assert_eq!(is_dropped(), [true, true]);
        assert!(!lobby.make_room().await);
    }

    #[test]
    fn who_stands_takes_up_no_seat_and_has_come_no_later() {
        let lobby = Lobby::new(2);
        let [first, second] = [(); 2].map(|()| lobby.enter(None));
        first.stand();
        let third = lobby.enter(None);
        let is_dropped = || [&first, &second, &third].map(|seat| seat.dropped.is_cancelled());
        assert_eq!(is_dropped(), [false; 3]);
        first.sit();
        assert_eq!(is_dropped(), [true, false, false]);
        for seat in [&first, &second, &third] {
            seat.stand();
            seat.leave();
            seat.sit();
        }
        let rows = lobby.lock();
        assert!(rows.seated.by_address.is_empty() && rows.standing.by_address.is_empty());
    }
}
