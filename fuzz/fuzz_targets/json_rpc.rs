#![no_main]

#[path = "../targets/json_rpc.rs"]
mod json_rpc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| json_rpc::run(data));
