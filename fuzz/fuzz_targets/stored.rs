#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fogpost::fuzzing::run("stored", bytes);
});
