use super::*;

#[test]
fn the_default_file_says_the_defaults() {
    assert_eq!(parse(DEFAULT_FILE), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

/// The default file with its examples: lines whose `#` is followed by no blank.
fn with_examples() -> String {
    DEFAULT_FILE
        .lines()
        .map(|l| l.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(l))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_examples_of_the_default_file_are_valid() {
    let config = parse(&with_examples()).expect("valid");
    let rule = &config.select[0];
    assert_eq!((rule.name.as_str(), rule.per_study, rule.prefer.len(), rule.contrast), ("chest", PerStudy::Best, 5, Some(true)));
    assert_eq!((rule.slices, rule.coverage), (Range { min: Some(50.0), max: Some(2000.0) }, Range { min: Some(150.0), max: None }));
    let destination = &config.destination[0];
    assert_eq!((destination.name.as_str(), destination.kind), ("pacs", DestinationKind::Cstore));
    assert_eq!(Config { select: Vec::new(), destination: Vec::new(), ..config }, Config::default());
}

/// Every key of the schema stands in the default file, so that it documents all there is.
#[test]
fn the_default_file_names_every_key() {
    let document: toml::Table = with_examples().parse().expect("TOML");
    let mut missing = Vec::new();
    for (table, keys) in reader::TABLES {
        let entries = match document.get(*table) {
            _ if table.is_empty() => Some(&document),
            Some(toml::Value::Array(items)) => items.first().and_then(|i| i.as_table()),
            Some(other) => other.as_table(),
            None => None,
        };
        missing.extend(keys.iter().filter(|k| entries.is_none_or(|e| !e.contains_key(**k))).map(|k| format!("{table}.{k}")));
    }
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_mistake_is_told_with_its_line_and_the_nearest_name() {
    let text = r#"
host_memry = "8 GiB"
drain = 30
quiet = "1 s"

[watch]
path = "/in"

[intake]
quiet = "5 parsecs"
min_slices = -1
recsan = "1 s"

[model]
device = "gpu"
step = 1.5
frobnicate = true

[http]
listen = "0.0.0.0:80"

[logs]
format = "text"

[[select]]
name = "one"
modality = ["CT"]

[[select]]
name = "two"
modality = ["CT", "MR"]
kernal = "^B"
description = "(("
slices = { mim = 5 }
prefer = ["original", "sharp"]
contrast = "yes"
"#;
    let told: Vec<String> = parse(text).expect_err("mistakes").iter().map(|m| format!("{} {m}", m.code)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    config.unknown_key 2: unknown key `host_memry`; did you mean `host_memory`?
    config.invalid 3: `drain`: a unit is missing: write for example "30 s" (units: d, h, min, s, ms)
    config.unknown_key 4: unknown key `quiet`; `quiet` belongs to [intake]
    config.invalid 6: `watch` can be given several times: write [[watch]]
    config.invalid 10: `intake.quiet`: unknown unit `parsecs` (units: d, h, min, s, ms)
    config.invalid 11: `intake.min_slices`: expected a whole number, not below 0
    config.unknown_key 12: unknown key `recsan` in [intake]; did you mean `rescan`?
    config.invalid 15: `model.device`: `gpu` is not one of: auto, cpu, cuda:N (N from 0)
    config.invalid 16: `model.step`: 1.5 is not above 0 and at most 1
    config.unknown_key 17: unknown key `frobnicate` in [model]; valid here: path, device, precision, step, mirror, skip_air
    config.invalid 20: `http.listen`: `0.0.0.0:80` is not a loopback address; other machines get `http.remote`, with TLS and a token
    config.unknown_key 22: unknown key `logs`; did you mean `log`?
    config.invalid 31: `select.modality`: `MR` is not one of: CT, PT
    config.unknown_key 32: unknown key `kernal` in [select]; did you mean `kernel`?
    config.invalid 33: `select.description`: `((` is not a regular expression: unclosed group
    config.unknown_key 34: unknown key `mim` in [select.slices]; did you mean `min`?
    config.invalid 35: `select.prefer`: `sharp`: expected one of original, axial, soft_kernel, slice_distance, coverage, slices, { kernel = "pattern" }, { slice_distance = mm }
    config.invalid 36: `select.contrast`: invalid type: string "yes", expected a boolean
    "#);
}

#[test]
fn broken_toml_is_told_by_line() {
    let mistakes = parse("host_memory = \"8 GiB\"\n[model\ndevice = \"cpu\"\n").expect_err("mistakes");
    assert_eq!((mistakes[0].line, mistakes[0].code), (2, Code::ConfigInvalid), "{mistakes:?}");
}

#[test]
fn values_are_checked_against_each_other() {
    let told = |text: &str| parse(text).expect_err(text).into_iter().map(|m| m.to_string()).collect::<Vec<_>>().join("\n");
    let cases = [
        "watch = []",
        "host_memory = \"12 MiB\"",
        "[[watch]]\npath = \"/a\"\n[output]\npath = \"/a/b\"",
        "[[watch]]\npath = \"/a\"\n[[watch]]\npath = \"/a/b\"",
        "[output]\nformats = []",
        "[intake]\nmin_slices = 0",
        "[[select]]\nname = \"a\"\nmodality = [\"CT\", \"PT\"]\n[[select]]\nignore = true\n[[select]]\nname = \"a\"\nignore = true\npriority = \"stat\"",
        "[[select]]\nname = \"a\"\nprefer = [{ kernel = \"^B\" }, \"axial\"]\n[[select]]\nname = \"b\"\nslices = { min = 5, max = 4 }",
        "[[destination]]\nname = \"a\"\nkind = \"folder\"\n[[destination]]\nname = \"A B\"\naddress = \"pacs\"\nae_title = \"PACS\"\nformats = [\"nifti\", \"preview\"]",
        "[[destination]]\nname = \"a\"\nkind = \"folder\"\npath = \"/r/x\"\n[[destination]]\nname = \"a\"\nae_title = \"X\"\naddress = \"h:104\"\ntls_key = \"k\"\ntimeout = \"0 s\"\n[output]\npath = \"/r\"",
        "[training]\nwindows = [\"Mon-Fry 20:00-06:00\"]\ncurated = [\"/var/lib/stunetd/state/x\", \"/c\", \"/c/d\"]",
        "[training]\nzone = \"Mars/Olympus\"\nplan = \"\"",
    ];
    insta::assert_snapshot!(cases.map(told).join("\n"), @r#"
    1: `watch`: at least one folder has to be watched, or `dimse.listen` or `stow.enabled` be set
    1: `host_memory`: 12 MiB is too little for any study; at least 1 GiB
    2: `watch.path`: /a and output.path /a/b lie in each other
    4: `watch.path`: /a/b lies in, or holds, another watched folder
    2: `output.formats`: at least one of: seg, labelmap, nifti, preview
    2: `intake.min_slices`: at least 1
    4: `select`: every rule needs a `name`
    7: `select.name`: there is a rule `a` already
    8: `select.ignore`: a rule that ignores has no model, priority, per_study or accept
    3: `select.prefer`: needs per_study = "best"
    6: `select.slices`: min has to be at most max, both finite
    1: `destination`: a folder needs `path`
    4: `destination`: `cstore` needs `address`: a host and a port, such as "pacs.example:104"
    5: `destination.name`: 1 to 32 of a-z, 0-9, `-` and `_`
    8: `destination.formats`: `output.formats` has no `nifti`
    8: `destination.formats`: `preview` is no DICOM object
    4: `destination.path`: it and output.path /r lie in each other
    6: `destination.name`: there is another destination `a`
    9: `destination.tls_key`: `tls_certificate` and `tls_key` are given together
    10: `destination.timeout`: at least 1 ms
    2: `training.windows`: "Mon-Fry 20:00-06:00" is not a window; they are like `Mon-Fri 20:00-06:00`
    3: `training.curated`: /var/lib/stunetd/state/x and state /var/lib/stunetd/state lie in each other
    3: `training.curated`: /c/d and another folder of cases /c lie in each other
    2: `training.zone`: "Mars/Olympus" is not a time zone; names are like Europe/Berlin
    3: `training.plan`: the path is empty
    "#);
}

#[test]
fn relative_paths_start_from_the_file() {
    let config = parse("[[watch]]\npath = \"in\"\n[output]\npath = \"/out\"").expect("valid").relative_to(Path::new("/etc/stunetd"));
    assert_eq!(config.watch[0].path, Path::new("/etc/stunetd/in"));
    assert_eq!(config.output.path, Path::new("/out"));
    assert_eq!(config.libtorch_dir, Path::new(""));
}
