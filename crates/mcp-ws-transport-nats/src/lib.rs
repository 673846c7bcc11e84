#![doc = include_str!("../README.md")]

mod connect;
mod link;
mod nats;
mod outbox;

pub use self::{
    connect::{Connect, ConnectError},
    nats::Nats,
};
