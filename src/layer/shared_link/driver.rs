//! [`Driver`]: the link behind a [`SharedLink`](super::SharedLink).

use std::pin::Pin;

use tokio::time::Sleep;

use crate::{
    duplex::Duplex,
    link::{LinkEvent, Outgoing},
    message::Message,
};

/// Links, one after the other, of any type.
pub(super) type BoxLinks = Pin<Box<dyn Duplex<Outgoing, LinkEvent<Message>> + Send>>;

/// The link, and what is known of it by the task that reads or writes.
pub(super) struct Driver {
    pub(super) links: BoxLinks,
    /// `true` if the link had nothing to read when last polled. It wakes someone when that changes.
    pub(super) read_pending: bool,
    /// `true` if the link had no room to write when last polled. It wakes someone when that
    /// changes.
    pub(super) write_pending: bool,
    /// The last message when the reader began to wait for somebody to write it.
    pub(super) timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Driver {
    pub(super) fn new(links: BoxLinks) -> Self {
        Self { links, read_pending: false, write_pending: false, timer: None }
    }
}
