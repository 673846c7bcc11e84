//! Sessions that outlive their connections.

mod client;
mod cuts;
mod hijack;
mod ids;
mod instances;
mod migration;
mod offer;
mod order;
mod server;
