//! Servers whose instances are joined by a broker, as the crates for NATS and Redis test them.

pub(crate) mod chaos;
#[allow(unreachable_pub, reason = "it is shared with other tests")]
#[path = "../common/counting.rs"]
mod counting;
pub(crate) mod instances;
#[allow(dead_code, unreachable_pub, reason = "it is shared with other tests")]
#[path = "../common/proxy.rs"]
mod proxy;
pub(crate) mod relay;
mod server;
