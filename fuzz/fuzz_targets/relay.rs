#![no_main]

#[path = "../targets/relay.rs"]
mod relay;
#[path = "../targets/runtime.rs"]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay::run(data));
