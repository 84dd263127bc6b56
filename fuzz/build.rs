//! Builds the counters that the C codecs report their coverage to (`cc`).

fn main() {
    println!("cargo::rerun-if-changed=coverage.c");
    cc::Build::new().file("coverage.c").compile("coverage");
    // libFuzzer brings the function along, empty; the first one counts.
    println!("cargo::rustc-link-arg-bins=-Wl,--allow-multiple-definition");
}
