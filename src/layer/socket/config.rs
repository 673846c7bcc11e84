use std::time::Duration;

#[cfg(feature = "deflate")]
use super::deflate;
use super::side::Side;

/// Settings of a [`Socket`](super::Socket): sizes, rates and timeouts.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The largest inbound message in bytes; `None`, the default, is 4 MiB for the side that
    /// accepted and 16 MiB for the side that dialled. A larger one closes the link with 1009.
    pub max_message_size: Option<usize>,
    /// How much is read at once while little arrives, at most 8 KiB, and written at once while
    /// little leaves: 8 KiB. An idle connection holds 1 KiB to read into.
    pub buffer_size: usize,
    /// Time in which the peer must accept at least one byte while something waits to be written: 10
    /// s. A TCP connection accepts up to 64 KiB at a time, so it should be long enough for that.
    pub write_timeout: Duration,
    /// The lowest rate at which the peer must take what waits to be written, in bytes per second:
    /// 1,024. A slower one loses the link, and may resume its session; `None` disables the check.
    pub min_send_rate: Option<u64>,
    /// Time over which [`min_send_rate`](Self::min_send_rate) is measured: 30 s. Time during which
    /// nothing waits is left out.
    pub send_window: Duration,
    /// The lowest rate of an inbound message that has begun, in bytes per second: 1,024. Control
    /// frames within it do not count. A slower one closes the link with 1008, and its session ends
    /// too; `None` disables the check.
    pub min_receive_rate: Option<u64>,
    /// Time over which [`min_receive_rate`](Self::min_receive_rate) is measured: 30 s, so a link
    /// may stall for almost as long. Time during which this side does not read is left out.
    pub receive_window: Duration,
    /// Timeout of the closing handshake: 2 s. After it the connection is cut.
    pub close_timeout: Duration,
    /// Settings of permessage-deflate, to offer or to accept: `None`, the default, does neither.
    #[cfg(feature = "deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
    pub deflate: Option<deflate::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_message_size: None,
            buffer_size: 8 << 10,
            write_timeout: Duration::from_secs(10),
            min_send_rate: Some(1 << 10),
            send_window: Duration::from_secs(30),
            min_receive_rate: Some(1 << 10),
            receive_window: Duration::from_secs(30),
            close_timeout: Duration::from_secs(2),
            #[cfg(feature = "deflate")]
            deflate: None,
        }
    }
}

impl Config {
    /// Sets [`max_message_size`](Self::max_message_size).
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = Some(bytes);
        self
    }

    /// Sets [`buffer_size`](Self::buffer_size).
    #[must_use]
    pub fn buffer_size(mut self, bytes: usize) -> Self {
        self.buffer_size = bytes;
        self
    }

    /// Sets [`write_timeout`](Self::write_timeout).
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets [`min_send_rate`](Self::min_send_rate); `None` switches the check off.
    #[must_use]
    pub fn min_send_rate(mut self, bytes_per_second: impl Into<Option<u64>>) -> Self {
        self.min_send_rate = bytes_per_second.into();
        self
    }

    /// Sets [`send_window`](Self::send_window).
    #[must_use]
    pub fn send_window(mut self, window: Duration) -> Self {
        self.send_window = window;
        self
    }

    /// Sets [`min_receive_rate`](Self::min_receive_rate); `None` switches the check off.
    #[must_use]
    pub fn min_receive_rate(mut self, bytes_per_second: impl Into<Option<u64>>) -> Self {
        self.min_receive_rate = bytes_per_second.into();
        self
    }

    /// Sets [`receive_window`](Self::receive_window).
    #[must_use]
    pub fn receive_window(mut self, window: Duration) -> Self {
        self.receive_window = window;
        self
    }

    /// Sets [`close_timeout`](Self::close_timeout).
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets [`deflate`](Self::deflate).
    #[cfg(feature = "deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
    #[must_use]
    pub fn deflate(mut self, config: impl Into<Option<deflate::Config>>) -> Self {
        self.deflate = config.into();
        self
    }

    pub(crate) fn limit(&self, side: Side) -> usize {
        self.max_message_size.unwrap_or(match side {
            Side::Client => 16 << 20,
            Side::Server => 4 << 20,
        })
    }
}
