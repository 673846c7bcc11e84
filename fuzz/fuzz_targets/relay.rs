#![no_main]

#[path = "../targets/relay.rs"]
mod relay;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay::run(data));
