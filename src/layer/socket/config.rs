use std::time::Duration;

#[cfg(feature = "deflate")]
use super::deflate;
use super::side::Side;

/// Settings of a [`Socket`](super::Socket): sizes, rates and timeouts.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) max_message_size: Option<usize>,
    pub(crate) buffer_size: usize,
    pub(crate) write_timeout: Duration,
    pub(crate) min_send_rate: Option<u64>,
    pub(crate) send_window: Duration,
    pub(crate) min_receive_rate: Option<u64>,
    pub(crate) receive_window: Duration,
    pub(crate) close_timeout: Duration,
    #[cfg(feature = "deflate")]
    pub(crate) deflate: Option<deflate::Config>,
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
    /// Sets the largest inbound message in bytes: by default 4 MiB for the side that accepted and
    /// 16 MiB for the side that dialled. A larger one closes the link with 1009.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = Some(bytes);
        self
    }

    /// Sets how many bytes are read at once while little arrives, at most 8 KiB, and written at
    /// once while little leaves: 8 KiB. An idle connection holds 1 KiB to read into.
    #[must_use]
    pub fn buffer_size(mut self, bytes: usize) -> Self {
        self.buffer_size = bytes;
        self
    }

    /// Sets the time in which the peer must accept at least one byte while something waits to be
    /// written: 10 s. A TCP connection accepts up to 64 KiB at a time, so it should be long enough
    /// for that.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets the lowest rate at which the peer must take what waits to be written, in bytes per
    /// second: 1,024. A slower one loses the link, and may resume its session. `None` disables the
    /// check.
    #[must_use]
    pub fn min_send_rate(mut self, bytes_per_second: impl Into<Option<u64>>) -> Self {
        self.min_send_rate = bytes_per_second.into();
        self
    }

    /// Sets the time over which [`min_send_rate`](Self::min_send_rate) is measured: 30 s. Time
    /// during which nothing waits is left out.
    #[must_use]
    pub fn send_window(mut self, window: Duration) -> Self {
        self.send_window = window;
        self
    }

    /// Sets the lowest rate of an inbound message that has begun, in bytes per second: 1,024.
    /// Control frames within it do not count. A slower one closes the link with 1008, and its
    /// session ends too. `None` disables the check.
    #[must_use]
    pub fn min_receive_rate(mut self, bytes_per_second: impl Into<Option<u64>>) -> Self {
        self.min_receive_rate = bytes_per_second.into();
        self
    }

    /// Sets the time over which [`min_receive_rate`](Self::min_receive_rate) is measured: 30 s, so
    /// a link may stall for almost as long. Time during which this side does not read is left out.
    #[must_use]
    pub fn receive_window(mut self, window: Duration) -> Self {
        self.receive_window = window;
        self
    }

    /// Sets the timeout of the closing handshake: 2 s. After it the connection is cut.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Sets what permessage-deflate is offered or accepted with: `None`, the default, does
    /// neither.
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
