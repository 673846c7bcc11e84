#![no_main]

#[path = "../targets/inflate.rs"]
mod inflate;
#[path = "../targets/runtime.rs"]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| inflate::run(data));
