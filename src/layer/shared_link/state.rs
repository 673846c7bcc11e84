//! [`State`]: what the short lock of a [`SharedLink`](super::SharedLink) guards. That is the queue,
//! and what is known of the link. No I/O, and nobody is woken here.

use std::{collections::VecDeque, fmt, mem};

use super::read_ahead::ReadAhead;
use crate::{
    close::CloseReason,
    error::{Error, LinkError},
    link::{LinkUp, Outgoing, Retention},
    message::Message,
};

/// The link, as far as is known.
///
/// | | is written to | next |
/// |---|---|---|
/// | `Up` | yes | a write fails: `WriteFailed`; its end is read: `Down` |
/// | `WriteFailed` | no: what becomes of it is read | its end is read: `Down`; another takes its place: `Up` |
/// | `Down` | no: there is none | the next is there: `Up` |
/// | `Ended` | no, for good | – |
///
/// `Ended` is entered from all others, when the last link has ended or this side cuts it.
#[derive(Debug)]
pub(super) enum LinkState {
    Up,
    WriteFailed,
    Down {
        /// `true` if the peer may have the session all the same.
        may_resume: bool,
    },
    Ended(Error),
}

/// Gate between the queue and the link.
///
/// | | passes | entered | left |
/// |---|---|---|---|
/// | `Open` | everything | | |
/// | `HeldForReinit` | what is for this peer only | the next peer has to initialize first, or this one takes no more requests | released |
/// | `HeldForVerification` | nothing but what is sent before all else | the peer may be another than before | its first message shows which it is |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    HeldForReinit,
    HeldForVerification,
}

/// Kind of link, by what may follow it.
///
/// | | a failed write | a new peer |
/// |---|---|---|
/// | `SingleLink` | is the end, which is waited for | – |
/// | `Reconnects` | nobody waits for what becomes of it; answers are kept while the session may be resumed | with `hold`, what is for any peer waits until it has initialized |
/// | `PeerMayReturn` | likewise, and answers are kept however full the queue is | likewise |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuity {
    SingleLink,
    Reconnects {
        hold: bool,
    },
    #[cfg_attr(not(any(test, feature = "server")), expect(dead_code, reason = "servers wait so"))]
    PeerMayReturn {
        hold: bool,
    },
}

impl Continuity {
    fn holds(self) -> bool {
        match self {
            Self::SingleLink => false,
            Self::Reconnects { hold } | Self::PeerMayReturn { hold } => hold,
        }
    }
}

/// State of a shared link: the queue, and what is known of the link.
///
/// Four methods tell why something may not be written now:
///
/// | | no link | a write failed, and links follow | a write failed, and none follows | held for reinitialization | held for verification |
/// |---|---|---|---|---|---|
/// | `is_disconnected` | yes | yes | | | |
/// | `awaits_peer` | yes | | | yes | yes |
/// | `is_paused` | yes | yes | | yes | yes |
/// | `is_stuck` | yes | yes | yes | | yes |
pub(super) struct State {
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    /// Messages that go out before anything in the queue.
    priority: VecDeque<Message>,
    priority_bytes: usize,
    /// `true` if none of them waits, nor was handed to the link without having been flushed.
    priority_flushed: bool,
    link: LinkState,
    gate: Gate,
    continuity: Continuity,
    /// Number of the message that was queued last.
    seq: u64,
    /// Number of the message that was handed to the link last. All before it were too, or were
    /// taken out of the queue.
    handed: u64,
    /// Value of `handed` when the present link began.
    began: u64,
    /// Number and size of the largest broadcast that was queued since this was last taken.
    pub(super) largest_broadcast: Option<(u64, usize)>,
    /// Items that were read and not taken by the reader yet.
    pub(super) read_ahead: ReadAhead,
    /// The reason to be given when this side closes.
    pub(super) close_reason: Option<CloseReason>,
    /// The reason in a Close of ours: whatever follows it, this is why the link ended.
    sent_close: Option<CloseReason>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            priority: VecDeque::new(),
            priority_bytes: 0,
            priority_flushed: true,
            link: LinkState::Up,
            gate: Gate::Open,
            continuity: Continuity::SingleLink,
            seq: 0,
            handed: 0,
            began: 0,
            largest_broadcast: None,
            read_ahead: ReadAhead::default(),
            close_reason: None,
            sent_close: None,
        }
    }

    pub(super) fn link(&self) -> &LinkState {
        &self.link
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn handed(&self) -> u64 {
        self.handed
    }

    pub(super) fn began(&self) -> u64 {
        self.began
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.link, LinkState::Down { .. })
    }

    /// Fails with the error that ended the link, if it has ended.
    pub(super) fn ended(&self) -> Result<(), Error> {
        match &self.link {
            LinkState::Ended(error) => Err(error.clone()),
            LinkState::Up | LinkState::WriteFailed | LinkState::Down { .. } => Ok(()),
        }
    }

    /// Fails if nothing more is written: the link has ended, or a Close of ours is on its way.
    pub(super) fn accepts(&self) -> Result<(), Error> {
        self.ended()?;
        self.sent_close.as_ref().map_or(Ok(()), |own| Err(LinkError::closed_here(own).into()))
    }

    /// Returns `true` if sending is paused: there is no link, or something is held for a peer.
    pub(super) fn is_paused(&self) -> bool {
        self.is_disconnected() || self.is_held()
    }

    /// Returns `true` if the next link is awaited, or the peer of this one is to show who it is or
    /// to initialize. How long that takes is unknown.
    pub(super) fn awaits_peer(&self) -> bool {
        self.is_down() || self.is_held()
    }

    /// Returns `true` if this side makes the next link, and does not wait for a peer to return.
    pub(super) fn dials_again(&self) -> bool {
        matches!(self.continuity, Continuity::Reconnects { .. })
    }

    /// Returns `true` if there is no link, as far as is known.
    pub(super) fn is_disconnected(&self) -> bool {
        match self.link {
            LinkState::Down { .. } => true,
            LinkState::WriteFailed => self.continuity != Continuity::SingleLink,
            LinkState::Up | LinkState::Ended(_) => false,
        }
    }

    /// Returns `true` if nothing can be written before more is read. A write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(super) fn is_stuck(&self) -> bool {
        matches!(self.link, LinkState::WriteFailed | LinkState::Down { .. })
            || self.gate == Gate::HeldForVerification
    }

    fn is_held(&self) -> bool {
        self.gate != Gate::Open
    }

    /// Returns `true` if all that may pass the gate has been flushed, while something is held.
    pub(super) fn has_flushed_what_passes(&self) -> bool {
        self.is_held() && self.priority_flushed
    }

    /// Returns `true` if something that goes before the queue is not flushed.
    pub(super) fn has_priority(&self) -> bool {
        !self.priority_flushed
    }

    /// Returns `true` if something was queued that may go out and is not flushed.
    pub(super) fn is_unflushed(&self, flushed: u64) -> bool {
        !self.priority_flushed || !self.is_held() && flushed < self.seq
    }

    /// Returns `true` if there is no room within `limit` bytes.
    pub(super) fn is_full(&self, retention: Retention, limit: usize) -> bool {
        let passes =
            self.gate == Gate::HeldForReinit && !self.is_down() && retention == Retention::ThisPeer;
        limit <= if passes { self.priority_bytes } else { self.queued_bytes }
    }

    /// Returns `true` if a link that this side makes may go on where the last one did.
    pub(super) fn may_be_resumed(&self) -> bool {
        self.dials_again()
            && (!self.awaits_peer() || matches!(self.link, LinkState::Down { may_resume: true }))
    }

    /// Returns `true` if what is for the present peer may still reach it over another link.
    fn may_return(&self) -> bool {
        matches!(self.continuity, Continuity::PeerMayReturn { .. }) || self.may_be_resumed()
    }

    /// Makes room in a full queue while sending is [paused](Self::is_paused), if it can. Returns
    /// `true` if there is room.
    pub(super) fn make_room(&mut self, retention: Retention, answers: bool, limit: usize) -> bool {
        if !self.is_paused() || !self.is_full(retention, limit) {
            return true;
        }
        if !self.awaits_peer() || self.may_return() {
            return answers;
        }
        // Messages that would not be sent after a restart are dropped first.
        self.forget(|next| next.retention == Retention::ThisPeer);
        !self.is_full(retention, limit)
    }

    /// Queues `message`, and returns its number.
    pub(super) fn push(&mut self, message: Message, retention: Retention) -> Result<u64, Error> {
        self.accepts()?;
        if let Message::Close(reason) = &message {
            self.sent_close = reason.clone();
        }
        let waits = match self.gate {
            Gate::Open => true,
            Gate::HeldForReinit => retention == Retention::AnyPeer,
            Gate::HeldForVerification => {
                retention == Retention::AnyPeer || self.sent_close.is_none()
            }
        };
        if !waits {
            self.push_first(message);
            return Ok(self.seq);
        }
        self.seq += 1;
        self.queued_bytes += message.len();
        self.queue.push_back(Outgoing { retention, ..Outgoing::new(self.seq, message) });
        Ok(self.seq)
    }

    /// Records that the next message to be queued is a broadcast of this size.
    pub(super) fn note_broadcast(&mut self, size: usize) {
        if self.largest_broadcast.is_none_or(|(_, largest)| size > largest) {
            self.largest_broadcast = Some((self.seq + 1, size));
        }
    }

    /// Queues `message` before all others.
    pub(super) fn push_first(&mut self, message: Message) {
        self.priority_bytes += message.len();
        self.priority.push_back(message);
        self.priority_flushed = false;
    }

    /// Returns `true` if there is something to hand to the link.
    pub(super) fn has_next(&self) -> bool {
        !self.priority.is_empty() || !self.is_held() && !self.queue.is_empty()
    }

    /// Takes the next message out, to be handed to the link.
    pub(super) fn pop(&mut self) -> Option<Outgoing> {
        if let Some(message) = self.priority.pop_front() {
            self.priority_bytes -= message.len();
            return Some(Outgoing::new(0, message));
        }
        if self.is_held() {
            return None;
        }
        let next = self.queue.pop_front()?;
        self.queued_bytes -= next.message.len();
        self.handed = next.seq;
        Some(next)
    }

    /// Records that the link has flushed all that it was handed. Returns `true` if nothing waits
    /// for more than the link.
    pub(super) fn note_flushed(&mut self) -> bool {
        self.priority_flushed = self.priority.is_empty();
        let is_empty = self.queue.is_empty();
        if is_empty {
            // Frees the memory, since most sessions are idle most of the time.
            self.queue = VecDeque::new();
        }
        is_empty
    }

    /// Holds the messages for any peer, and moves the rest before them. Nothing follows a Close.
    pub(super) fn hold(&mut self) {
        if self.is_held() || self.accepts().is_err() {
            return;
        }
        self.gate = Gate::HeldForReinit;
        let (stays, goes): (VecDeque<_>, VecDeque<_>) = mem::take(&mut self.queue)
            .into_iter()
            .partition(|next| next.retention == Retention::AnyPeer);
        self.queue = stays;
        self.skip_to_front();
        for next in goes {
            self.queued_bytes -= next.message.len();
            self.push_first(next.message);
        }
    }

    /// Opens the gate.
    pub(super) fn release(&mut self) {
        self.gate = Gate::Open;
    }

    /// Records that other links may follow.
    pub(super) fn reconnects(&mut self) {
        if self.continuity == Continuity::SingleLink {
            self.continuity = Continuity::Reconnects { hold: false };
        }
    }

    /// Records that a peer that was lost may be back on the next link, and await its answers.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn expect_return(&mut self) {
        self.continuity = Continuity::PeerMayReturn { hold: self.continuity.holds() };
    }

    /// Holds messages for any peer on the next link until the gate is opened.
    pub(super) fn hold_on_restart(&mut self) {
        self.continuity = match self.continuity {
            Continuity::SingleLink | Continuity::Reconnects { .. } => {
                Continuity::Reconnects { hold: true }
            }
            Continuity::PeerMayReturn { .. } => Continuity::PeerMayReturn { hold: true },
        };
    }

    /// Records a failed write. Returns `true` if nobody waits for what becomes of it.
    pub(super) fn write_failed(&mut self) -> bool {
        if matches!(self.link, LinkState::Up) {
            self.link = LinkState::WriteFailed;
        }
        self.is_disconnected()
    }

    /// Records the loss of the link. Returns `false` if no other follows: it has ended, or was
    /// closed by this side.
    pub(super) fn down(&mut self, may_resume: bool) -> bool {
        if self.accepts().is_err() {
            return false;
        }
        self.link = LinkState::Down { may_resume };
        true
    }

    /// Records a new link.
    pub(super) fn up(&mut self, up: &LinkUp) -> Result<(), Error> {
        self.ended()?;
        self.link = LinkState::Up;
        self.began = self.handed;
        match up {
            LinkUp::NewPeer => self.begin_anew(),
            LinkUp::Unverified => self.gate = Gate::HeldForVerification,
            LinkUp::Resumed(_) => {}
        }
        Ok(())
    }

    /// Drops the messages that are for a former peer only.
    pub(super) fn begin_anew(&mut self) {
        self.gate = if self.continuity.holds() { Gate::HeldForReinit } else { Gate::Open };
        self.priority.clear();
        self.priority_bytes = 0;
        self.forget(|next| next.retention == Retention::ThisPeer);
    }

    /// Removes the message with this number, by binary search: many may be given up one by one.
    /// Returns `true` if it was there.
    pub(super) fn withdraw(&mut self, seq: u64) -> bool {
        if seq <= self.handed {
            return false;
        }
        let Ok(at) = self.queue.binary_search_by_key(&seq, |next| next.seq) else { return false };
        let Some(gone) = self.queue.remove(at) else { return false };
        self.queued_bytes -= gone.message.len();
        self.skip_to_front();
        true
    }

    /// Removes the `unwanted` messages from the queue. Returns `true` if there were any.
    pub(super) fn forget(&mut self, unwanted: impl Fn(&Outgoing) -> bool) -> bool {
        let before = self.queue.len();
        let gone = &mut self.queued_bytes;
        self.queue.retain(|next| {
            let stays = !unwanted(next);
            *gone -= if stays { 0 } else { next.message.len() };
            stays
        });
        if before == self.queue.len() {
            return false;
        }
        self.skip_to_front();
        true
    }

    /// Advances `handed` over the messages removed at the front: nobody need wait for them.
    fn skip_to_front(&mut self) {
        self.handed = self.queue.front().map_or(self.seq, |next| next.seq - 1);
    }

    /// Ends the link for `error`, or for the reason in a Close of ours. Returns that, and the
    /// messages that are no longer sent.
    ///
    /// # Errors
    /// The error that ended the link before.
    pub(super) fn end(&mut self, error: Error) -> Result<(Error, Unsent), Error> {
        self.ended()?;
        let error = match self.sent_close.take() {
            Some(own) => LinkError::closed_here(&own).into(),
            None => error,
        };
        self.link = LinkState::Ended(error.clone());
        self.gate = Gate::Open;
        self.queued_bytes = 0;
        self.priority_bytes = 0;
        self.priority_flushed = true;
        Ok((error, (mem::take(&mut self.queue), mem::take(&mut self.priority))))
    }
}

/// Messages that were queued when the link ended.
pub(super) type Unsent = (VecDeque<Outgoing>, VecDeque<Message>);

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("link", &self.link)
            .field("gate", &self.gate)
            .field("continuity", &self.continuity)
            .field("seq", &self.seq)
            .field("handed", &self.handed)
            .finish_non_exhaustive()
    }
}
