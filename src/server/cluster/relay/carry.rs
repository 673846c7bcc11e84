//! [`RelayedLink`]: the messages of a client here, to and from its session at another instance.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{SinkExt, StreamExt, join};
use tokio::time::{Sleep, sleep, timeout};
use tracing::Span;

use super::pipe::Pipe;
use crate::{
    close::{CloseCode, CloseReason},
    end_report::EndReport,
    error::{Error, LinkError},
    message::Message,
    server::sessions::new_link::NewLink,
};

/// Time for which a Close of the client that explains a failed write is looked for.
const CLOSE_SEARCH_TIME: Duration = Duration::from_millis(100);

/// Link of a client, and the pipe to its session.
///
/// Each direction goes on whatever the other waits for. No more waits here than the two ends of the
/// pipe may have on the way. Pings of the client are answered here.
pub(in crate::server) struct RelayedLink {
    client: NewLink,
    pipe: Pipe,
    /// Message of the client that was read before the relay began.
    early: Option<Message>,
    /// `true` while something that was handed to the client's link is not flushed.
    is_unflushed: bool,
    /// Error of a write to the client, and the end of the search for its reason.
    broken: Option<(Error, Pin<Box<Sleep>>)>,
}

/// End of a relay.
///
/// | | the client | the session |
/// |---|---|---|
/// | `Client`: it has closed, or is lost | | is told the same |
/// | `Session`: its instance has closed | is told the same | |
/// | `Lost`: the pipe is lost, or the session's instance has ended without a Close | 1001 | |
/// | `Stopping`: this instance stops | is told the reason | is told the same |
enum RelayEnd {
    Client(Option<CloseReason>),
    Session(Option<CloseReason>),
    Lost,
    Stopping(CloseReason),
}

impl RelayedLink {
    /// Creates the relay of a client, on whose link the first frame of its session is under way.
    pub(super) fn new(client: NewLink, pipe: Pipe, early: Option<Message>) -> Self {
        Self { client, pipe, early, is_unflushed: true, broken: None }
    }

    /// Returns the report of the end of the client's connection, whose session is elsewhere.
    pub(in crate::server) fn end_report(&self) -> EndReport {
        EndReport::new(Span::current(), self.client.stats().clone(), false)
    }

    /// Carries messages until one end closes or is lost, or `stopping` says to close with a reason.
    /// Returns why the connection of the client has ended.
    pub(in crate::server) async fn run(
        mut self: Box<Self>,
        stopping: impl Future<Output = CloseReason>,
        close_timeout: Duration,
    ) -> CloseReason {
        let end = tokio::select! {
            end = poll_fn(|cx| self.poll(cx)) => end,
            reason = stopping => RelayEnd::Stopping(reason),
        };
        let Self { client, pipe, .. } = *self;
        match end {
            RelayEnd::Client(reason) => {
                let told = tell_session(pipe, reason.clone(), close_timeout);
                join!(told, close(client, None, close_timeout));
                reason.unwrap_or_else(|| CloseCode::NoStatus.into())
            }
            RelayEnd::Session(reason) => {
                // Dropped first: that answers the Close.
                drop(pipe);
                let reason = reason.filter(|reason| reason.code != CloseCode::NoStatus);
                let is_sendable = reason.as_ref().is_none_or(|reason| reason.code.is_sendable());
                let reason = if is_sendable { reason } else { Some(relay_lost()) };
                close(client, Some(reason.clone()), close_timeout).await;
                reason.unwrap_or_else(|| CloseCode::NoStatus.into())
            }
            RelayEnd::Lost => {
                drop(pipe);
                close(client, Some(Some(relay_lost())), close_timeout).await;
                relay_lost()
            }
            RelayEnd::Stopping(reason) => {
                let told = tell_session(pipe, Some(reason.clone()), close_timeout);
                join!(told, close(client, Some(Some(reason.clone())), close_timeout));
                reason
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let to_client = self.poll_to_client(cx);
        if to_client.is_ready() {
            return to_client;
        }
        let to_session = self.poll_to_session(cx);
        if to_session.is_ready() {
            return to_session;
        }
        self.poll_broken(cx)
    }

    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        while self.broken.is_none() {
            match self.client.poll_ready_unpin(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.note_broken(error);
                    break;
                }
                Poll::Pending => {
                    self.pipe.poll_drive(cx);
                    break;
                }
            }
            match self.pipe.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(Message::Close(reason)))) => {
                    return Poll::Ready(RelayEnd::Session(reason));
                }
                Poll::Ready(Some(Ok(message))) => {
                    self.is_unflushed = true;
                    if let Err(error) = self.client.start_send_unpin(message) {
                        self.note_broken(error);
                    }
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(RelayEnd::Lost),
                Poll::Pending => break,
            }
        }
        if self.is_unflushed && self.broken.is_none() {
            match self.client.poll_flush_unpin(cx) {
                Poll::Ready(Ok(())) => self.is_unflushed = false,
                Poll::Ready(Err(error)) => self.note_broken(error),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn poll_to_session(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        loop {
            let is_taken = match self.pipe.poll_ready_unpin(cx) {
                Poll::Ready(Ok(())) => true,
                // The session has closed. What it has sent before is still written to the client,
                // whose messages are dropped meanwhile.
                Poll::Ready(Err(_)) if self.pipe.has_heard_close() => false,
                Poll::Ready(Err(_)) => return Poll::Ready(RelayEnd::Lost),
                Poll::Pending => break,
            };
            let message = match self.early.take() {
                Some(message) => message,
                None => match self.client.poll_next_unpin(cx) {
                    Poll::Ready(Some(Ok(Message::Close(reason)))) => {
                        return Poll::Ready(RelayEnd::Client(reason));
                    }
                    Poll::Ready(Some(Ok(message))) => message,
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(client_lost(&error)),
                    Poll::Ready(None) => {
                        return Poll::Ready(RelayEnd::Client(Some(CloseCode::Abnormal.into())));
                    }
                    Poll::Pending => break,
                },
            };
            if is_taken && self.pipe.start_send_unpin(message).is_err() {
                return Poll::Ready(RelayEnd::Lost);
            }
        }
        match self.pipe.poll_flush_unpin(cx) {
            Poll::Ready(Err(_)) if !self.pipe.has_heard_close() => Poll::Ready(RelayEnd::Lost),
            _ => Poll::Pending,
        }
    }

    /// Becomes ready when no Close has explained a failed write in time, also while the session
    /// takes nothing from the client.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Some((error, timer)) = &mut self.broken else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(client_lost(error))
    }

    fn note_broken(&mut self, error: Error) {
        self.broken.get_or_insert_with(|| (error, Box::pin(sleep(CLOSE_SEARCH_TIME))));
    }
}

/// Returns the end of a relay whose client is lost for this `cause`.
fn client_lost(cause: &Error) -> RelayEnd {
    RelayEnd::Client(Some(match cause {
        Error::Link(error) => LinkError::close_reason(error),
        _ => CloseCode::Internal.into(),
    }))
}

/// Returns the reason to close a client's link whose relay is lost.
///
/// Not 1012, after which a client waits: another way to the session may be there at once.
pub(super) fn relay_lost() -> CloseReason {
    CloseReason::new(CloseCode::GoingAway, "the way to the session's instance is lost")
}

/// Sends the session what the client has sent before, and why its link ends.
async fn tell_session(mut pipe: Pipe, reason: Option<CloseReason>, time: Duration) {
    // What is not sent in time is forgotten when the pipe is dropped, but for the Close.
    if pipe.start_send_unpin(Message::Close(reason)).is_ok() {
        let _ = timeout(time, pipe.flush()).await;
    }
}

/// Ends the link of the client: with this Close, or by the answer to its own.
async fn close(mut client: NewLink, reason: Option<Option<CloseReason>>, time: Duration) {
    let closing = async {
        if let Some(reason) = reason {
            client.send(Message::Close(reason)).await?;
        }
        client.close().await
    };
    let _ = timeout(time, closing).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::{Bus, Local, Subject},
        layer::fake,
        link::MessageLimits,
        server::cluster::relay::pipe::{PipeEnd, bounds::Bounds},
        stats::Stats,
    };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_though_its_session_takes_nothing_either() {
        let (link, peer) = fake::link();
        let (stats, limits) = (Stats::default(), MessageLimits::default());
        let client = NewLink::new(Box::pin(link), stats, None, limits, None);
        let bus = Arc::new(Local::default().connect());
        let [own, to] = ["own", "other"].map(|text| Subject::new(text).unwrap());
        let bounds = Bounds::new(1 << 20, 5 << 20);
        let subscription = bus.subscribe(&own, bounds.subscription()).await.unwrap();
        let mut pipe = Pipe::new(bus, PipeEnd::Client, subscription, to, bounds, None);
        // More than the pipe takes, under way and waiting together.
        for _ in 0..6 {
            pipe.start_send_unpin(Message::Binary(vec![0; 1 << 20].into())).unwrap();
        }
        peer.break_writes();
        let mut relay = RelayedLink::new(client, pipe, None);
        let end = timeout(2 * CLOSE_SEARCH_TIME, poll_fn(|cx| relay.poll(cx))).await;
        let Ok(RelayEnd::Client(Some(reason))) = end else { panic!("no end of the client") };
        assert_eq!(reason.code, CloseCode::Abnormal);
    }
}
