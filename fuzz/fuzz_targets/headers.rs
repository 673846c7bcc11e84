#![no_main]

#[path = "../targets/headers.rs"]
mod headers;
#[path = "../targets/runtime.rs"]
mod runtime;

libfuzzer_sys::fuzz_target!(|data: &[u8]| headers::run(data));
