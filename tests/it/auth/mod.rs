//! Who is let in.

mod in_band;
mod tokens;
