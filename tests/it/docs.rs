//! Pages that are made from the code stay equal to it. `STUNETD_BLESS=1 cargo test --release --test it docs::` writes them anew.

use std::path::Path;
use stunetd::fault::{Class, Code};

/// `docs/operations.md`: every fault code with its meaning and what the operator does.
fn operations() -> String {
    let mut page = String::from(
        "# When something fails\n\n\
         Every failure has a stable code. It stands in the message, in `--json` output and in the metrics; `reason` in `inspect --json` is the\n\
         part after the dot. A failed case is parked, its files stay untouched.\n\n\
         *This page is made from `src/fault_codes.rs`; do not edit it by hand.*\n\n\
         Class: **retry** may succeed later by itself · **park** this input can not be done · **stop** the process or its set-up is broken.\n",
    );
    let mut area = "";
    for &code in Code::ALL {
        if code.area() != area {
            area = code.area();
            page += &format!("\n## {area}\n\n| code | class | what happened | what to do |\n|---|---|---|---|\n");
        }
        let class = match code.class() {
            Class::Retryable => "retry",
            Class::Poison => "park",
            Class::Fatal => "stop",
        };
        page += &format!("| `{code}` | {class} | {} | {} |\n", code.meaning(), code.action());
    }
    page
}

#[test]
fn operations_page_lists_every_fault() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let made = operations();
    if std::env::var_os("STUNETD_BLESS").is_some() {
        std::fs::write(&path, &made).expect("write docs/operations.md");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "docs/operations.md is not what src/fault_codes.rs says; run `make docs`");
    // A code belongs to one run of lines, or its area would appear twice.
    let headings: Vec<&str> = made.lines().filter(|l| l.starts_with("## ")).collect();
    let unique: std::collections::BTreeSet<_> = headings.iter().collect();
    assert_eq!(headings.len(), unique.len(), "src/fault_codes.rs: keep the codes of one area together");
}
