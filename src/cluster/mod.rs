//! Several instances of one server, joined by a message bus.
//!
//! A [`Bus`] carries small messages between the instances: NATS, Redis, or whatever else implements
//! the trait. [`Local`] is one within a process, for tests and simulations.

mod bus;
mod local;
mod subject;
mod subscription;

pub use self::{
    bus::{AskError, Bus, PublishError, SubscribeError},
    local::{Local, LocalBus},
    subject::{InvalidSubject, Subject},
    subscription::{Delivery, Feed, Subscription},
};
