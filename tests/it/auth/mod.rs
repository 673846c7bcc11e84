//! Authentication.

mod in_band;
mod tokens;
