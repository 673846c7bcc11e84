#![no_main]

#[path = "../targets/inflate.rs"]
mod inflate;

libfuzzer_sys::fuzz_target!(|data: &[u8]| inflate::run(data));
