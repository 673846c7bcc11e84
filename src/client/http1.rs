//! Requests by hyper on a stream that is had back afterwards.

use futures::future::{BoxFuture, Either, select};

/// Default `User-Agent`.
pub(super) const PRODUCT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// Resolves `future`, which waits for what `connection` does, and drives that meanwhile.
pub(super) async fn driving<T>(
    connection: &mut (impl Future + Unpin),
    future: BoxFuture<'_, T>,
) -> T {
    match select(future, connection).await {
        Either::Left((output, _)) => output,
        Either::Right((_, future)) => future.await,
    }
}
