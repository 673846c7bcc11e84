//! Work that callgrind leaves out.

use std::{
    hint::black_box,
    pin::Pin,
    task::{Context, Poll},
};

/// The name of [`not_counted`], as callgrind sees it.
pub(crate) const NAME: &str = "instructions::uncounted::not_counted";

/// A future whose polls are not counted.
pub(crate) struct Uncounted<F>(Pin<Box<F>>);

impl<F: Future> Uncounted<F> {
    pub(crate) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Uncounted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut polled = Poll::Pending;
        not_counted(&mut || polled = self.0.as_mut().poll(cx));
        polled
    }
}

#[inline(never)]
fn not_counted(work: &mut dyn FnMut()) {
    work();
    // So that the call above is not the last thing that this does: that would be a jump.
    black_box(());
}
