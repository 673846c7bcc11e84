//! How connections and servers end.

mod answers;
mod close;
mod drain;
mod stages;
