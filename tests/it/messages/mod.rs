//! The forms and sizes of messages, right and wrong.

mod absurd_numbers;
mod bad_answers;
mod bad_input;
#[cfg(feature = "deflate")]
mod deflate;
mod dialects;
mod peer_limits;
mod session_fields;
