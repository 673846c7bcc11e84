//! Reading and writing of a [`SharedLink`](super::SharedLink), by whoever has the [`Driver`].

use std::{
    sync::atomic::Ordering::SeqCst,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep};

use super::{driver::Driver, inner::Inner, state::LinkState};
use crate::{
    close::CloseCode,
    error::{Error, LinkError},
    event,
    link::{Down, LinkEvent, LinkUp, Retention},
    message::Message,
};

/// Time for which the reader leaves a message to those who wait for it. Not shorter than the
/// kernel's own tick: a timer that is the next to fire costs as much to set as half a call.
const WRITER_GRACE: Duration = Duration::from_millis(100);

/// The most that is read in one turn, in messages and bytes: others want to write.
const MAX_BATCH: usize = 32;
const MAX_BATCH_BYTES: usize = 64 << 10;

/// Number of times that all that is queued is written in one turn, where more comes meanwhile.
const MAX_WRITES: usize = 2;

impl Inner {
    /// Reads, and writes what is queued if nobody else does.
    pub(super) fn poll_serve(
        &self,
        driver: &mut Driver,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LinkEvent<Message>, Error>> {
        if self.wakers.take_woken() {
            driver.read_pending = false;
            driver.write_pending = false;
        }
        // The reader may be polled at every turn of a loop, for any reason.
        if !driver.read_pending
            && let Poll::Ready(first) = self.poll_read(driver)
        {
            if let Ok(first) = &first {
                self.read_on(driver, first);
            }
            return Poll::Ready(first);
        }
        if self.poll_left_alone(driver, cx) {
            // If the write fails, the reader is the one to tell.
            let written = self.poll_write(driver);
            if let Some(item) = self.lock().read_ahead.pop() {
                return Poll::Ready(Ok(item));
            }
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    /// Reads what has arrived behind the `first` item, up to the next that is no message.
    fn read_on(&self, driver: &mut Driver, first: &LinkEvent<Message>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut last = size(first);
        while let Some(more) = last {
            bytes += more;
            if batch.len() + 1 >= MAX_BATCH || bytes >= MAX_BATCH_BYTES {
                break;
            }
            // An error is kept for the next turn.
            let Poll::Ready(Ok(item)) = self.poll_read(driver) else { break };
            last = size(&item);
            batch.push(item);
        }
        if !batch.is_empty() {
            self.lock().read_ahead.extend(batch);
        }
    }

    /// Reads one item, and records what it says of the link.
    fn poll_read(&self, driver: &mut Driver) -> Poll<Result<LinkEvent<Message>, Error>> {
        let polled = driver.links.poll_next_unpin(&mut Context::from_waker(&self.waker));
        driver.read_pending = polled.is_pending();
        Poll::Ready(match ready!(polled) {
            Some(Ok(LinkEvent::Item(message))) => Ok(LinkEvent::Item(message)),
            Some(Ok(LinkEvent::Down(down))) => self.down(down).map(LinkEvent::Down),
            Some(Ok(LinkEvent::Up(up))) => {
                driver.write_pending = false;
                self.up(up).map(LinkEvent::Up)
            }
            Some(Err(error)) => Err(self.end(error)),
            None => Err(self.end(LinkError::Closed(CloseCode::Abnormal.into()).into())),
        })
    }

    /// Records the loss of the link. Nobody waits any longer for what was handed over.
    fn down(&self, down: Down) -> Result<Down, Error> {
        let mut state = self.lock();
        if !state.down(down.may_resume) {
            drop(state);
            // After a Close of ours there is no other link.
            return Err(self.end(down.cause));
        }
        let handed = state.handed();
        self.flushed.store(handed, SeqCst);
        drop(state);
        // The next link may be long in coming: nobody waits for it.
        self.wakers.wake_all_writers();
        Ok(Down { handed, ..down })
    }

    /// Records a new link, and wakes those who write.
    fn up(&self, up: LinkUp) -> Result<LinkUp, Error> {
        self.lock().up(&up)?;
        self.events.state.send_if_modified(|state| {
            let is_open = !matches!(state, event::State::Closed(_));
            if is_open {
                *state = event::State::Connected;
            }
            is_open
        });
        self.wake_writers();
        Ok(up)
    }

    /// Writes all that is queued, then flushes once. Ready when what was queued before is flushed,
    /// or with the error that ended the link. Pending, too, while it may not be written yet.
    pub(super) fn poll_write(&self, driver: &mut Driver) -> Poll<Result<(), Error>> {
        let mut writes = 0;
        loop {
            ready!(self.poll_writable(driver))?;
            let polled = self.poll_hand_over(driver);
            driver.write_pending = polled.is_pending();
            let Ok(handed) = ready!(polled) else {
                if self.lock().write_failed() {
                    self.wakers.wake_all_writers();
                }
                continue;
            };
            let mut state = self.lock();
            state.ended()?;
            let is_empty = state.note_flushed();
            let has_next = state.has_next();
            drop(state);
            if self.flushed.swap(handed, SeqCst) != handed {
                self.wakers.wake_flushed(handed);
            }
            writes += 1;
            if is_empty || has_next && writes == MAX_WRITES {
                return Poll::Ready(Ok(()));
            }
            if !has_next {
                // Held messages wait for more than the link.
                return Poll::Pending;
            }
        }
    }

    /// Ready when the link is written to. After a failed write, reads on until it shows what became
    /// of the link: whoever waits for a write may be the only one to poll.
    fn poll_writable(&self, driver: &mut Driver) -> Poll<Result<(), Error>> {
        loop {
            let state = self.lock();
            match state.link() {
                LinkState::Up => return Poll::Ready(Ok(())),
                LinkState::Ended(error) => return Poll::Ready(Err(error.clone())),
                // Nothing is written over the next link before the reader knows of it.
                LinkState::Down { .. } => return Poll::Pending,
                LinkState::WriteFailed if state.read_ahead.is_full() => return Poll::Pending,
                LinkState::WriteFailed => drop(state),
            }
            let item = ready!(self.poll_read(driver))?;
            self.lock().read_ahead.push(item);
            self.wakers.wake_reader();
        }
    }

    /// Hands all that may go out to the link, and flushes it. Ready with the number of the last
    /// message that is through.
    fn poll_hand_over(&self, driver: &mut Driver) -> Poll<Result<u64, Error>> {
        let mut cx = Context::from_waker(&self.waker);
        let state = self.lock();
        let (mut has_next, mut handed) = (state.has_next(), state.handed());
        drop(state);
        while has_next {
            ready!(driver.links.poll_ready_unpin(&mut cx))?;
            let mut state = self.lock();
            let next = state.pop();
            (has_next, handed) = (state.has_next(), state.handed());
            drop(state);
            if let Some(next) = next {
                driver.links.start_send_unpin(next)?;
            }
        }
        driver.links.poll_flush_unpin(&mut cx).map_ok(|()| handed)
    }

    /// Closes the link, after all that is queued is written.
    pub(super) fn poll_close(&self, driver: &mut Driver) -> Poll<Result<(), Error>> {
        let mut state = self.lock();
        if let Some(reason) = state.close_reason.take() {
            // A link that has ended has nobody to tell. The Close does not wait for what is held.
            let _ = state.push(Message::Close(Some(reason)), Retention::ThisPeer);
        }
        let is_written_to = state.ended().is_ok() && !state.is_disconnected();
        drop(state);
        if is_written_to && self.poll_write(driver).is_pending() {
            let state = self.lock();
            if !state.is_disconnected() && !state.has_flushed_what_passes() {
                return Poll::Pending;
            }
        }
        driver.links.poll_close_unpin(&mut Context::from_waker(&self.waker))
    }

    /// Returns `true` if something could be written and nobody else will. Where someone waits for
    /// it, the writing is left to them, since by then more has gathered and goes out with the same
    /// flush. But a future may also be kept without being polled.
    fn poll_left_alone(&self, driver: &mut Driver, cx: &mut Context<'_>) -> bool {
        let state = self.lock();
        let is_unflushed = state.is_unflushed(self.flushed());
        let (last, has_priority) = (state.seq(), state.has_priority());
        drop(state);
        if driver.write_pending || !is_unflushed {
            return false;
        }
        if has_priority || self.waiting.load(SeqCst) == 0 {
            return true;
        }
        let (awaited, timer) =
            driver.timer.get_or_insert_with(|| (last, Box::pin(sleep(WRITER_GRACE))));
        while timer.as_mut().poll(cx).is_ready() {
            if self.flushed() < *awaited {
                driver.timer = None;
                return true;
            }
            *awaited = last;
            timer.as_mut().reset(Instant::now() + WRITER_GRACE);
        }
        false
    }
}

/// Returns the size of a message that others may follow in one turn, and `None` for what ends it.
fn size(item: &LinkEvent<Message>) -> Option<usize> {
    match item {
        LinkEvent::Item(Message::Close(_)) | LinkEvent::Down(_) | LinkEvent::Up(_) => None,
        LinkEvent::Item(message) => Some(message.len()),
    }
}
