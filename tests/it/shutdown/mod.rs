//! Ends of connections and servers.

mod answers;
mod close;
mod drain;
mod stages;
