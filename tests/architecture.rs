//! The walls of the house (docs/architecture.md), kept by reading the source with `syn`: who may know whom, who may
//! use which crate, where `unsafe` and `#[allow]` may stand, how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// Rooms from the top of the house to the bottom. A room may use the rooms of lower floors, never its own floor's neighbours or above.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["web"],
    &["pipeline"],
    &["delivery", "training"],
    &["results"],
    &["segment"],
    &["volume"],
    &["intake"],
    &["series"],
    &["models"],
    &["ledger"],
    &["audit"],
    &["config"],
    &["dicom", "telemetry", "stunet"],
    &["sys"],
    &["fault"],
];

/// External crates that belong to some rooms only. What is not listed may be used anywhere.
const CRATES: &[(&str, &[&str])] = &[
    ("tch", &["stunet", "segment", "training"]),
    ("torch_sys", &["stunet"]),
    ("dicom_object", &["dicom", "series", "intake", "volume", "results"]),
    ("dicom_core", &["dicom", "series", "intake", "volume", "results"]),
    ("dicom_dictionary_std", &["dicom", "series", "intake", "volume", "results"]),
    ("dicom_encoding", &["dicom", "volume"]),
    ("dicom_transfer_syntax_registry", &["dicom", "volume"]),
    ("charls", &["volume"]),
    ("openjpeg_sys", &["volume"]),
    ("turbojpeg_sys", &["volume"]),
    ("seccompiler", &["volume"]),
    ("dicom_ul", &["intake", "delivery"]),
    ("rustls", &["intake", "delivery", "audit", "sys"]),
    ("axum", &["web"]),
    ("tokio", &["web", "pipeline", "cli", "intake", "sys"]),
    ("notify", &["intake"]),
    ("sd_notify", &["sys"]),
    ("maud", &["web", "training"]),
    ("tokio_rustls", &["web"]),
    ("rusqlite", &["ledger"]),
    ("prometheus", &["telemetry"]),
    ("clap", &["cli"]),
    ("anyhow", &["cli"]),
    ("indicatif", &["cli"]),
    ("crossbeam", &["cli", "pipeline", "intake", "audit", "sys", "training"]),
    ("rayon", &["volume", "segment", "results", "dicom", "intake", "series", "stunet", "sys"]),
    ("png", &["results"]),
    ("libloading", &["sys", "stunet"]),
    ("safetensors", &["stunet", "models", "cli", "training"]),
    ("toml", &["config", "models", "cli", "training"]),
    ("jiff", &["config", "training"]),
];

/// Rooms with `unsafe` code.
const UNSAFE: &[&str] = &["stunet", "sys", "volume", "dicom", "intake"];

/// Lines of a source file that a person reads in one sitting.
const SITTING: usize = 550;

struct Source {
    room: String,
    path: PathBuf,
    text: String,
    file: syn::File,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("src") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).expect("below src").to_path_buf();
            let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
            let room = first.trim_end_matches(".rs").trim_end_matches("_codes").to_string();
            let text = std::fs::read_to_string(&path).expect("source");
            let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", relative.display()));
            Source { room, path: relative, text, file }
        })
        .filter(|s| s.room != "lib")
        .collect()
}

/// Every path of a file as its first two segments, those inside macro calls too.
#[derive(Default)]
struct Paths {
    heads: BTreeSet<(String, Option<String>)>,
    unsafe_code: bool,
    allows: BTreeSet<String>,
}

impl Paths {
    fn tree(&mut self, prefix: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(p) => {
                let mut prefix = prefix.to_vec();
                prefix.push(p.ident.to_string());
                self.tree(&prefix, &p.tree);
            }
            syn::UseTree::Group(g) => g.items.iter().for_each(|t| self.tree(prefix, t)),
            syn::UseTree::Name(n) => self.head(prefix, n.ident.to_string()),
            syn::UseTree::Rename(r) => self.head(prefix, r.ident.to_string()),
            syn::UseTree::Glob(_) => self.head(prefix, "*".into()),
        }
    }

    fn head(&mut self, prefix: &[String], last: String) {
        let mut all = prefix.iter().cloned().chain([last]);
        let first = all.next().expect("a segment");
        self.heads.insert((first, all.next()));
    }

    fn tokens(&mut self, text: &str) {
        let words: Vec<&str> = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).filter(|w| !w.is_empty()).collect();
        let joined = words.join(" ").replace(" :: ", "::").replace(":: ", "::").replace(" ::", "::");
        for path in joined.split(' ').filter(|p| p.contains("::")) {
            let mut parts = path.split("::").filter(|p| !p.is_empty());
            if let Some(first) = parts.next() {
                self.heads.insert((first.into(), parts.next().map(Into::into)));
            }
        }
        self.unsafe_code |= words.contains(&"unsafe");
    }
}

fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|a| match &a.meta {
        syn::Meta::List(l) => l.path.is_ident("cfg") && l.tokens.to_string().contains("test"),
        _ => false,
    })
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, m: &'a syn::ItemMod) {
        if !is_test(&m.attrs) {
            visit::visit_item_mod(self, m);
        }
    }
    fn visit_item_use(&mut self, u: &'a syn::ItemUse) {
        self.tree(&[], &u.tree);
    }
    fn visit_path(&mut self, p: &'a syn::Path) {
        let mut names = p.segments.iter().map(|s| s.ident.to_string());
        if let Some(first) = names.next() {
            self.heads.insert((first, names.next()));
        }
        visit::visit_path(self, p);
    }
    fn visit_macro(&mut self, m: &'a syn::Macro) {
        self.tokens(&m.tokens.to_string());
        visit::visit_macro(self, m);
    }
    fn visit_expr_unsafe(&mut self, e: &'a syn::ExprUnsafe) {
        self.unsafe_code = true;
        visit::visit_expr_unsafe(self, e);
    }
    fn visit_signature(&mut self, s: &'a syn::Signature) {
        self.unsafe_code |= s.unsafety.is_some();
        visit::visit_signature(self, s);
    }
    fn visit_item_impl(&mut self, i: &'a syn::ItemImpl) {
        self.unsafe_code |= i.unsafety.is_some();
        visit::visit_item_impl(self, i);
    }
    fn visit_attribute(&mut self, a: &'a syn::Attribute) {
        if let syn::Meta::List(list) = &a.meta
            && (list.path.is_ident("allow") || list.path.is_ident("expect"))
        {
            let text = list.tokens.to_string();
            let lints = text.split("reason").next().unwrap_or_default();
            self.allows.extend(lints.split(',').map(|l| l.replace(' ', "")).filter(|l| !l.is_empty()));
        }
    }
}

fn paths_of(source: &Source) -> Paths {
    let mut paths = Paths::default();
    paths.visit_file(&source.file);
    paths
}

fn report(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn imports_run_downwards_only() {
    let floor: BTreeMap<&str, usize> = FLOORS.iter().enumerate().flat_map(|(i, rooms)| rooms.iter().map(move |r| (*r, i))).collect();
    let mut broken = Vec::new();
    for source in sources() {
        let Some(&own) = floor.get(source.room.as_str()) else {
            broken.push(format!("{}: the room `{}` is not in the house plan", source.path.display(), source.room));
            continue;
        };
        for (first, second) in paths_of(&source).heads {
            let target = match (first.as_str(), second) {
                ("crate" | "stunetd", Some(second)) => second,
                _ => continue,
            };
            if let Some(&other) = floor.get(target.as_str())
                && target != source.room
                && other <= own
            {
                broken.push(format!("{}: `{}` may not use `{target}`", source.path.display(), source.room));
            }
        }
    }
    report(broken);
}

#[test]
fn crates_stay_in_their_rooms() {
    let mut broken = Vec::new();
    for source in sources() {
        let heads = paths_of(&source).heads;
        for (name, rooms) in CRATES {
            if !rooms.contains(&source.room.as_str())
                && heads.iter().any(|(first, second)| first == name && (second.is_some() || *name != "png"))
            {
                broken.push(format!("{}: `{name}` belongs to {rooms:?}", source.path.display()));
            }
        }
    }
    report(broken);
}

#[test]
fn unsafe_stands_in_few_rooms_and_is_proven() {
    let mut broken = Vec::new();
    for source in sources() {
        if !paths_of(&source).unsafe_code {
            continue;
        }
        if !UNSAFE.contains(&source.room.as_str()) {
            broken.push(format!("{}: no `unsafe` in `{}`", source.path.display(), source.room));
        }
        if !source.text.contains("SAFETY:") {
            broken.push(format!("{}: `unsafe` without a SAFETY comment", source.path.display()));
        }
    }
    report(broken);
}

#[test]
fn lints_are_allowed_where_they_are_owned() {
    // (lint, rooms that may allow it)
    const OWNERS: &[(&str, &[&str])] = &[
        ("clippy::disallowed_methods", &["sys"]),
        ("clippy::too_many_arguments", &["volume", "segment", "stunet"]),
        ("clippy::needless_range_loop", &["volume", "segment", "stunet"]),
        ("clippy::excessive_precision", &["volume"]),
        ("clippy::large_enum_variant", &["cli"]),
        ("non_camel_case_types", &["stunet"]),
        ("dead_code", &[]),
    ];
    let mut broken = Vec::new();
    for source in sources() {
        for lint in paths_of(&source).allows {
            let ok = OWNERS.iter().any(|(l, rooms)| *l == lint && rooms.contains(&source.room.as_str()));
            if !ok {
                broken.push(format!("{}: `{lint}` may not be allowed in `{}`", source.path.display(), source.room));
            }
        }
    }
    report(broken);
}

#[test]
fn files_are_read_in_one_sitting() {
    report(
        sources()
            .iter()
            .filter(|s| s.text.lines().count() > SITTING)
            .map(|s| format!("{}: {} lines; is there a second subject in it?", s.path.display(), s.text.lines().count()))
            .collect(),
    );
}

/// A metric is renamed, or found, in one place.
#[test]
fn metric_names_stand_in_one_file() {
    #[derive(Default)]
    struct Literals(Vec<String>);
    impl<'a> Visit<'a> for Literals {
        fn visit_lit_str(&mut self, literal: &'a syn::LitStr) {
            self.0.push(literal.value());
        }
        fn visit_macro(&mut self, m: &'a syn::Macro) {
            self.0.extend(m.tokens.to_string().split('"').skip(1).step_by(2).map(str::to_owned));
        }
        fn visit_item_mod(&mut self, m: &'a syn::ItemMod) {
            if !is_test(&m.attrs) {
                visit::visit_item_mod(self, m);
            }
        }
    }
    let mut broken = Vec::new();
    for source in sources() {
        let mut literals = Literals::default();
        literals.visit_file(&source.file);
        let named = literals.0.iter().any(|text| text.starts_with("stunetd_"));
        if source.path == Path::new("telemetry/names.rs") {
            assert!(named, "the table of names has no name");
        } else if named {
            broken.push(format!("{}: the name of a metric stands in telemetry/names.rs only", source.path.display()));
        }
    }
    report(broken);
}

#[test]
fn rooms_open_with_a_sentence() {
    report(
        sources()
            .iter()
            .filter(|s| s.path.ends_with("mod.rs") && !s.text.starts_with("//!"))
            .map(|s| format!("{}: a room opens with what it is for", s.path.display()))
            .collect(),
    );
}

#[test]
fn the_plan_names_every_room() {
    let plan = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).expect("docs/architecture.md");
    let rooms: BTreeSet<String> = sources().into_iter().map(|s| s.room).filter(|r| r != "main").collect();
    report(
        rooms
            .into_iter()
            .filter(|r| !plan.contains(&format!("`{r}/`")) && !plan.contains(&format!("`{r}.rs`")))
            .map(|r| format!("docs/architecture.md does not name `{r}`"))
            .collect(),
    );
}

/// Every capacity constant of `pipeline/channels.rs` is drawn in the plan as `NAME = n`.
#[test]
fn the_plan_draws_the_channel_capacities() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plan = std::fs::read_to_string(root.join("docs/architecture.md")).expect("docs/architecture.md");
    let Ok(channels) = std::fs::read_to_string(root.join("src/pipeline/channels.rs")) else { return };
    let mut broken = Vec::new();
    for line in channels.lines().filter_map(|l| l.trim().strip_prefix("pub const ")) {
        let Some((name, value)) = line.split_once(": usize = ") else { continue };
        let drawn = format!("{name} = {}", value.trim_end_matches(';'));
        if !plan.contains(&drawn) {
            broken.push(format!("docs/architecture.md does not say `{drawn}`"));
        }
    }
    report(broken);
}
