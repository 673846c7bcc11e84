//! Connections that are lost, servers that go away, and clients that come back.

mod chaos;
mod losses;
mod refusals;
mod restart;
mod warnings;
