//! Memory that resume takes while nothing is lost: none for each message.

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures::{Sink, Stream};
use mcp_ws_transport::{
    Error, Message,
    layer::{Resume, resume::Config},
    link::{LinkEvent, Outgoing},
    message::Text,
};

use crate::HEAP;

/// A peer that sends everything back, acknowledgements included.
#[derive(Default)]
struct Echo(VecDeque<Message>);

impl Stream for Echo {
    type Item = Result<LinkEvent<Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.pop_front() {
            Some(message) => Poll::Ready(Some(Ok(LinkEvent::Item(message)))),
            None => Poll::Pending,
        }
    }
}

impl Sink<Outgoing> for Echo {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, item: Outgoing) -> Result<(), Error> {
        self.0.push_back(item.message);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_message_is_kept_without_an_allocation() {
    alone!();
    const MESSAGES: usize = 64 * 200;
    let mut resume = pin!(Resume::new(Echo::default(), Config::default()));
    let mut cx = Context::from_waker(Waker::noop());
    let text = Text::try_from(Bytes::from(vec![b'x'; 1000])).unwrap();
    let mut before = 0;
    for number in 0..2 * MESSAGES {
        if number == MESSAGES {
            before = HEAP.total_allocated();
        }
        assert!(resume.as_mut().poll_ready(&mut cx).is_ready());
        let message = Outgoing::new(number as u64 + 1, Message::Text(text.clone()));
        resume.as_mut().start_send(message).unwrap();
        assert!(resume.as_mut().poll_next(&mut cx).is_ready());
        assert!(resume.as_mut().poll_next(&mut cx).is_pending());
    }
    let allocated = HEAP.total_allocated() - before;
    println!("{allocated} bytes for {MESSAGES} messages");
    // One acknowledgement for every 64, of some ten bytes.
    assert!(allocated < MESSAGES, "{allocated} bytes for {MESSAGES} messages");
}
