#![no_main]

#[path = "../targets/runtime.rs"]
mod runtime;
#[path = "../targets/upgrade.rs"]
mod upgrade;

libfuzzer_sys::fuzz_target!(|data: &[u8]| upgrade::run(data));
