//! What the layers above a single connection hand each other: [`Numbered`] messages down, and a
//! [`Link`] up, in which the end of one connection and the beginning of the next have their place
//! among the messages.

use crate::{error::Error, message::Message};

/// An outbound message, and its number in the order of all that were ever queued.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Numbered {
    /// The first is 1.
    pub ticket: u64,
    /// The message.
    pub message: Message,
    /// It means something to a peer that knows nothing of what was before.
    pub survives: bool,
}

impl Numbered {
    /// The message with this number.
    #[must_use]
    pub fn new(ticket: u64, message: Message) -> Self {
        Self { ticket, message, survives: false }
    }
}

/// What comes in over one connection after the other.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Link<T> {
    /// A message.
    Item(T),
    /// The connection is lost, and another may follow.
    Down(Down),
    /// There is another connection.
    Up(Up),
}

impl<T> Link<T> {
    /// The message, if it is one.
    #[must_use]
    pub fn item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Down(_) | Self::Up(_) => None,
        }
    }
}

impl<T> From<T> for Link<T> {
    fn from(item: T) -> Self {
        Self::Item(item)
    }
}

/// The end of a connection that need not be the last.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Down {
    /// Why it ended.
    pub cause: Error,
    /// The number of the last message that was handed to it. What has a higher one never left.
    pub handed: u64,
}

impl Down {
    /// An end for this `cause`.
    #[must_use]
    pub fn new(cause: Error) -> Self {
        Self { cause, handed: 0 }
    }
}

/// What a new connection is to those that were before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Up {
    /// The peer knows nothing of what was before.
    Restarted,
    /// The peer goes by the name of the one that was here before. Whether it is that one, and goes on, or
    /// begins anew, shows by what it says first; until then nothing is sent.
    Returned,
    /// The peer has kept the session, and nothing is lost.
    Resumed(Resumed),
}

/// How a session goes on over a new connection. A source makes it by
/// [`Frozen::resumed`](crate::layer::resume::Frozen::resumed).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// How many messages of this side the peer has received in the session.
    pub received: u64,
    /// How many messages are sent again. Above [`Resume`](crate::layer::Resume), which counts them.
    pub replayed: u64,
    /// Which freeze of this side's own count the peer was told of.
    pub(crate) freeze: u64,
}
