#![doc = include_str!("../README.md")]

mod body;
mod bus;
mod connect;
mod link;
mod outbox;
mod run;

pub use self::{
    bus::Redis,
    connect::{Connect, ConnectError},
};
