//! Connections that are lost, servers that go away, and clients that come back.

mod losses;
mod refusals;
mod restart;
mod warnings;
