//! Peers that fall silent, and those that are only slow.

mod half_open;
mod heartbeat;
mod slow_reader;
