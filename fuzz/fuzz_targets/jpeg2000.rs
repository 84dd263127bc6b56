#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stunetd_fuzz::jpeg2000(data));
