//! Requests, their handlers and their answers.

mod backpressure;
mod both_ways;
mod cancel_safety;
mod extensions;
mod handlers;
mod lifecycles;
mod ordering;
mod panics;
mod toolbox;
mod wakeup;
