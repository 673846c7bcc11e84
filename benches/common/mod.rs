//! What the benchmarks share: server processes, the machine, the other transports, figures.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod adder;
pub(crate) mod figures;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod server;
pub(crate) mod stock;

use std::error::Error;

use tokio::runtime::{Builder, Runtime};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

pub(crate) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
