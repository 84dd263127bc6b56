//! Pixels: every transfer syntax, every pixel layout, SUV, and what hostile frames do to decode workers.

use crate::need;
use crate::support::cases::{cases, decoder, decoder_config, grouped, manifest, series_in};
use crate::support::{data, golden};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use stunetd::fault::{Class, Code, Fault};
use stunetd::series::{Case, Policy, Series};
use stunetd::volume::decode::{Codec, Decoder, DecoderConfig, EncodedFrame, FrameSpec};
use stunetd::volume::{PetValues, Quantity, ReadLimits, Source, Statistics, Volume, read};

fn case(series: Series) -> Case {
    Case { channels: vec![series], grid: 0, volume_key: [0; 32] }
}

fn of_case(volume: &Volume) -> &Case {
    match &volume.source {
        Source::Case(case) => case,
        Source::Nifti { .. } => panic!("not from DICOM"),
    }
}

/// The volume of the only series in a folder, PET in its own unit.
fn read_only(folder: &Path, decoder: &Decoder) -> Volume {
    let mut series = series_in(folder, decoder);
    assert_eq!(series.len(), 1, "{}", folder.display());
    let limits = ReadLimits { pet: PetValues::Stored, assume_mbq: true, ..ReadLimits::default() };
    read(case(series.remove(0)), &limits, decoder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

fn goldens() -> PathBuf {
    golden("dicom").expect("part of the repository")
}

fn expected() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string(goldens().join("expected.json")).expect("expected.json");
    serde_json::from_str(&text).expect("json")
}

/// Every codec, by small files in the repository: one phantom in 18 transfer syntaxes, an odd number of 8-bit pixels, a multi-frame object.
#[test]
fn every_codec_gives_the_golden_voxels() {
    let decoder = decoder();
    let expected = expected();
    let plain = |name: &str| read_only(&goldens().join(name), &decoder);
    let twins = BTreeMap::from([("syntax", plain("syntax/explicit_le")), ("odd", plain("odd"))]);
    let mut keys = BTreeMap::new();
    for (name, want) in &expected {
        let Some(twin) = want["like"].as_str() else {
            let folder = if name == "syntax" { "syntax/explicit_le" } else { name };
            let got = Statistics::of(&plain(folder), 0);
            assert_eq!(got.sha256_f32le, want["sha256"].as_str().expect("sha256"), "{name}");
            continue;
        };
        let volume = plain(name);
        let worst = largest_difference(&volume.data, &twins[twin].data);
        let tolerance = want["max_abs_error"].as_f64().expect("number") as f32;
        assert!(worst <= tolerance, "{name}: {worst} HU off, {tolerance} allowed");
        assert_eq!(volume.quantity, [Quantity::Hu]);
        if tolerance == 0.0 && name.starts_with("syntax/") && !name.ends_with("_signed") {
            keys.insert(of_case(&volume).volume_key, name);
        }
    }
    assert_eq!(keys.len(), 1, "the key of a volume does not depend on the transfer syntax: {keys:?}");
}

/// All generated cases that have volumes and no other room's subject: hash or tolerance of the manifest, unit, SUV factor, warnings.
#[test]
fn generated_cases_have_the_manifests_voxels() {
    let cases = need!(cases(), "no generated cases");
    let decoder = decoder();
    let mut checked = 0;
    for entry in manifest(cases) {
        let name = entry["name"].as_str().expect("name");
        if !["ts_", "px_", "pet_", "enh_", "geo_", "fourd_"].iter().any(|p| name.starts_with(p)) {
            continue;
        }
        let found = grouped(&cases.join(name), &Policy::default(), &decoder);
        let volumes = entry["expect"]["volumes"].as_array().expect("volumes");
        // Where our policy refuses what the manifest would take, or the other way round, the header side's tests say so.
        for series in found.series {
            let limits = ReadLimits { pet: PetValues::Stored, assume_mbq: true, ..ReadLimits::default() };
            let volume = read(case(series.clone()), &limits, &decoder).unwrap_or_else(|e| panic!("{name}: {e}"));
            let got = Statistics::of(&volume, 0);
            let uid = series.series_uid.as_str();
            let same = |v: &&Value| v["series_instance_uid"] == uid && fits(v, &got);
            let want = volumes.iter().find(same).unwrap_or_else(|| panic!("{name}: no volume of the manifest is like {got:?}"));
            let not_hu = want["quantity"] == "not_HU";
            assert_eq!(volume.quantity[0] == Quantity::NotHu, not_hu || series.hold.is_some(), "{name}");
            if let Some(factor) = want.get("suvbw_factor") {
                let timing: Vec<_> = series.planes.iter().map(|p| p.timing).collect();
                let factors = stunetd::volume::suv::factors(series.pet.as_ref().expect("PET"), &timing, true);
                let got = factors.ok().and_then(|f| f.of_series());
                match factor.as_f64() {
                    Some(want) => assert!((got.expect("a factor") / want - 1.0).abs() < 1e-6, "{name}: {got:?} instead of {want}"),
                    None => assert_eq!(got, None, "{name}"),
                }
            }
            for warning in entry["expect"]["warnings"].as_array().expect("warnings") {
                let warning = warning.as_str().expect("text");
                assert!(of_case(&volume).channels[0].warnings.iter().any(|w| w == warning), "{name}: {warning}");
            }
            checked += 1;
        }
    }
    assert!(checked >= 70, "{checked} volumes");
}

/// Whether statistics are those of a manifest entry (as `score_inspect.py` compares them).
fn fits(want: &Value, got: &Statistics) -> bool {
    let number = |key: &str| want[key].as_f64().expect("number");
    if want["sha256_f32le"] == got.sha256_f32le.as_str() {
        return true;
    }
    let (Some(absolute), Some(relative)) = (want["max_abs_error"].as_f64().or(Some(0.0)), want["value_rel_tol"].as_f64().or(Some(0.0)))
    else {
        return false;
    };
    absolute + relative > 0.0
        && [("min", f64::from(got.min)), ("max", f64::from(got.max)), ("mean", got.mean)]
            .iter()
            .all(|(key, value)| (number(key) - value).abs() <= absolute + relative * number(key).abs().max(1.0))
}

#[test]
fn real_series_have_the_references_voxels() {
    let root = need!(data(""), "shared data is not there");
    let decoder = decoder();
    let policy = Policy { irregular: stunetd::series::Irregular::Resample, min_slices: 2, ..Policy::default() };
    for (folder, reference) in [
        ("ct_real/dicom", "ct_real/reference.json"),
        ("ct_ge_tilt_varspacing", "ct_ge_tilt_varspacing/reference.json"),
        ("ct_siemens_tilt_4slices", "ct_siemens_tilt_4slices/reference.json"),
        ("ct_ge_missing_slice_4slices", "ct_ge_missing_slice_4slices/reference.json"),
        ("petct_sts001/CT", "petct_sts001/CT_reference.json"),
        ("petct_sts001/PT", "petct_sts001/PT_reference.json"),
    ] {
        let reference: Value = serde_json::from_str(&std::fs::read_to_string(root.join(reference)).expect("reference")).expect("json");
        let mut found = grouped(&root.join(folder), &policy, &decoder).series;
        assert_eq!(found.len(), 1, "{folder}");
        let volume = read(case(found.remove(0)), &ReadLimits::default(), &decoder).expect(folder);
        let got = Statistics::of(&volume, 0);
        let want = &reference["series"][0];
        if want["sha256_f32le_kji"] != got.sha256_f32le.as_str() {
            // The reference keeps padding values, which lie below air.
            assert!(got.min == -1024.0 && want["min"].as_f64().expect("min") < -1024.0, "{folder}: {got:?}");
            assert_eq!(f64::from(got.max), want["max"].as_f64().expect("max"), "{folder}");
        }
        assert!(matches!(volume.quantity[..], [Quantity::Hu | Quantity::SuvBw]), "{folder}: {:?}", of_case(&volume).channels[0].hold);
    }
}

/// The 17 digital reference objects of the IBSI: every one has SUVbw 0.20, 1.00 and 4.00 within its mask.
#[test]
fn reference_objects_have_their_suv() {
    let archive = need!(data("pet_suv_dro/ibsi_suv_dro.zip"), "the reference objects are not there");
    let folder = tempfile::tempdir().expect("folder");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(archive).expect("zip")).expect("zip");
    archive.extract(folder.path()).expect("unpacked");
    let decoder = decoder();
    let mut checked = 0;
    for entry in std::fs::read_dir(folder.path().join("DRO")).expect("DRO") {
        let object = entry.expect("entry").path();
        if !object.join("PT").is_dir() {
            continue;
        }
        let name = object.file_name().expect("name").to_string_lossy().into_owned();
        let mut found = series_in(&object.join("PT"), &decoder);
        assert_eq!(found.len(), 1, "{name}");
        let series = found.remove(0);
        // The one object whose dose is given in MBq is refused unless the assumption is allowed, and then says so.
        let mbq = name == "DRO_3_0";
        let refused = read(case(series.clone()), &ReadLimits::default(), &decoder).expect(&name);
        assert_eq!(refused.quantity, [if mbq { Quantity::PetUnits } else { Quantity::SuvBw }], "{name}");
        let held = of_case(&refused).channels[0].hold.as_ref().map(|h| h.code);
        assert_eq!(held, mbq.then_some(Code::QuantitySuvDoseUnit), "{name}");
        let allowed = ReadLimits { assume_mbq: true, ..ReadLimits::default() };
        let volume = read(case(series), &allowed, &decoder).expect(&name);
        assert_eq!(of_case(&volume).channels[0].warnings.contains(&"dose_assumed_mbq".to_string()), mbq, "{name}");
        let mut inside: Vec<f32> =
            volume.data.iter().zip(mask(&object.join("mask/DRO_mask.nii.gz"))).filter(|(_, m)| *m).map(|(v, _)| *v).collect();
        inside.sort_by(f32::total_cmp);
        let middle = (inside[inside.len() / 2] + inside[(inside.len() - 1) / 2]) / 2.0;
        // The objects store whole numbers, cut off: three of them with steps above a thousandth (0.038 for body surface).
        let step = step_of(&volume);
        for (got, want) in [(inside[0], 0.20), (middle, 1.00), (inside[inside.len() - 1], 4.00f32)] {
            assert!((want * 0.999 - step..=want * 1.001).contains(&got), "{name}: {got} instead of {want}, in steps of {step}");
        }
        checked += 1;
    }
    assert_eq!(checked, 17);
}

/// The largest difference that one stored unit makes.
fn step_of(volume: &Volume) -> f32 {
    let series = &of_case(volume).channels[0];
    let timing: Vec<_> = series.planes.iter().map(|p| p.timing).collect();
    let factors = stunetd::volume::suv::factors(series.pet.as_ref().expect("PET"), &timing, true).expect("factors").per_plane;
    let steps = series.planes.iter().zip(factors).map(|(p, f)| (p.rescale.slope * f) as f32);
    steps.fold(0.0, f32::max)
}

/// A mask in NIfTI, `[z, y, x]`: 352 bytes of header and one byte a voxel, or what its datatype says.
fn mask(path: &Path) -> Vec<bool> {
    use std::io::Read;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).expect("mask")).read_to_end(&mut bytes).expect("gzip");
    let short = |at: usize| i16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let float = |at: usize| f32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (width, start) = ((short(72) / 8) as usize, float(108) as usize);
    bytes[start..].chunks_exact(width).map(|v| v.iter().any(|b| *b != 0)).collect()
}

#[test]
fn two_channels_share_the_first_ones_grid() {
    let cases = need!(cases(), "no generated cases");
    let decoder = decoder();
    let mut series = series_in(&cases.join("pet_ct_pair"), &decoder);
    series.sort_by(|a, b| a.modality.cmp(&b.modality));
    let limits = ReadLimits::default();
    let alone = read(case(series[1].clone()), &limits, &decoder).expect("PET");
    let both = Case { channels: series.clone(), grid: 0, volume_key: [0; 32] };
    let pair = read(both, &limits, &decoder).expect("pair");
    assert_eq!((pair.channels, pair.shape, &pair.quantity[..]), (2, [16, 56, 64], &[Quantity::Hu, Quantity::SuvBw][..]));
    let voxels = 16 * 56 * 64;
    assert_eq!(pair.data.len(), 2 * voxels);
    // At a PET voxel's centre the second channel has nearly the PET's value: compare in the flat part of the body.
    let at = |v: &Volume, place: [f64; 3]| {
        let [i, j, k] = v.affine.invert(place).map(|x| x.round() as usize);
        v.data[v.data.len() - v.shape.iter().product::<usize>() + (k * v.shape[1] + j) * v.shape[2] + i]
    };
    let place = [-60.0, 40.0, 30.0];
    assert!((at(&pair, place) / at(&alone, place) - 1.0).abs() < 0.05);
    series.reverse();
    let turned = read(Case { channels: series, grid: 0, volume_key: [0; 32] }, &limits, &decoder).expect("pair");
    assert_ne!(of_case(&turned).volume_key, of_case(&pair).volume_key);
}

#[test]
fn a_volume_beyond_the_limit_is_refused_before_memory_is_reserved() {
    let decoder = decoder();
    let mut series = series_in(&goldens().join("odd"), &decoder);
    let bytes = 33 * 31 * 3 * 4;
    let limits = ReadLimits { memory: bytes - 1, ..ReadLimits::default() };
    let fault = read(case(series.remove(0)), &limits, &decoder).expect_err("too large");
    assert_eq!(fault.code, Code::MemoryTooLarge);
    assert!(fault.detail.contains(&bytes.to_string()) && fault.detail.contains(&(bytes - 1).to_string()), "{fault}");
}

/// A code stream of 64 × 56 pixels and what it is made of.
fn stream(name: &str) -> (FrameSpec, Vec<u8>) {
    let file = goldens().join("syntax").join(name).join("1.dcm");
    let pixels = stunetd::dicom::PixelData::open(&file, &Default::default()).expect(name);
    let spec = FrameSpec { rows: 56, columns: 64, word: 2 };
    let mut bytes = Vec::new();
    pixels.frame(0, 1, spec.bytes() as u64, &mut bytes).expect(name);
    (spec, bytes)
}

fn decode_one(decoder: &Decoder, codec: Codec, spec: FrameSpec, bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut pixels = Vec::new();
    decoder.decode(&[EncodedFrame { codec, spec, bytes }], |_, words| pixels = words.to_vec())?;
    Ok(pixels)
}

/// Ids of living children of this process that are decode workers of `program`.
fn children(marker: &str) -> Vec<u32> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").expect("proc").filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    processes
        .filter(|pid| {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
            let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
            let mut fields = rest.split(' ');
            let (state, parent) = (fields.next(), fields.next());
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            state != Some("Z") && parent == Some(&own.to_string()) && String::from_utf8_lossy(&line).contains(marker)
        })
        .collect()
}

/// A decoder whose workers are told by their memory limit, so that tests that run at once do not see each other's.
fn marked(memory: u64) -> (DecoderConfig, String) {
    (DecoderConfig { memory, workers: 1, ..decoder_config() }, memory.to_string())
}

#[test]
fn workers_are_confined_reused_and_end_with_their_decoder() {
    let (config, marker) = marked((1 << 30) + 1);
    let decoder = Decoder::new(config).expect("decoder");
    assert!(children(&marker).is_empty(), "started when first needed");
    let (spec, bytes) = stream("j2k_lossless");
    let pixels = decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect("decoded");
    assert_eq!(pixels.len(), 64 * 56 * 2);
    let first = decoder.idle_workers();
    assert_eq!(first, children(&marker));
    let status = std::fs::read_to_string(format!("/proc/{}/status", first[0])).expect("status");
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", first[0])).expect("limits");
    let soft = |name: &str| {
        let line = limits.lines().find(|l| l.starts_with(name)).expect(name);
        line[name.len()..].split_whitespace().next().expect("number").to_owned()
    };
    assert_eq!((soft("Max core file size"), soft("Max file size")), ("0".into(), "0".into()));
    assert!(soft("Max address space").parse::<u64>().expect("limited") < 64 << 30);
    decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect("decoded");
    assert_eq!(decoder.idle_workers(), first, "the same worker again");
    drop(decoder);
    assert!(children(&marker).is_empty(), "none left behind");
}

/// A fork of a process with threads would hold locks that nobody opens: such a process starts the program anew.
#[test]
fn workers_are_forked_by_a_process_with_one_thread_only() {
    let (config, marker) = marked((1 << 30) + 4);
    let decoder = Decoder::new(DecoderConfig { fork: true, ..config }).expect("decoder");
    assert!(decoder.idle_workers().is_empty(), "tests run on threads");
    let (spec, bytes) = stream("htj2k_lossless");
    decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect("decoded");
    assert_eq!(children(&marker), decoder.idle_workers());

    // `inspect` has one thread when it makes its decoder.
    let mut inspect = std::process::Command::new(env!("CARGO_BIN_EXE_stunetd"));
    inspect.arg("inspect").arg(goldens().join("syntax/j2k_lossless")).args(["--min-slices", "2", "--json"]);
    let output = inspect.output().expect("inspect");
    let report: Value = serde_json::from_slice(&output.stdout).expect("json");
    assert_eq!(report["volumes"][0]["sha256_f32le"], expected()["syntax"]["sha256"], "{report}");
}

#[test]
fn a_killed_worker_is_replaced() {
    let (config, marker) = marked((1 << 30) + 2);
    let decoder = Decoder::new(config).expect("decoder");
    let (spec, bytes) = stream("jpegls_lossless");
    decode_one(&decoder, Codec::JpegLs, spec, &bytes).expect("decoded");
    let first = decoder.idle_workers();
    // SAFETY: a process that this test started.
    assert_eq!(unsafe { libc::kill(first[0] as i32, libc::SIGKILL) }, 0);
    while !children(&marker).is_empty() {
        std::thread::yield_now();
    }
    decode_one(&decoder, Codec::JpegLs, spec, &bytes).expect("decoded by another");
    assert_ne!(decoder.idle_workers(), first);
}

/// A program that behaves as no worker should: the daemon's side has to live with whatever is at the other end.
fn impostor(folder: &Path, script: &str) -> DecoderConfig {
    let program = folder.join("worker");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("mode");
    DecoderConfig { program, workers: 1, timeout: Duration::from_millis(200), ..DecoderConfig::default() }
}

#[test]
fn crashing_hanging_and_lying_workers_fail_one_batch_with_a_code() {
    let (spec, bytes) = stream("j2k_lossless");
    let ready = r"printf '\001\000\000\000\000' >&0";
    for (after, script, code) in [
        (ready, "kill -SEGV $$", Code::CodecCrashed),
        (ready, "kill -SYS $$", Code::CodecCrashed),
        (ready, "exit 3", Code::CodecCrashed),
        (ready, "kill -KILL $$", Code::CodecWorker),
        (ready, "exec sleep 1000", Code::CodecTimeout),
        // an answer that is longer than any, one of an unknown kind, half of one
        (ready, r"printf '\377\377\377\377' >&0; exec sleep 1000", Code::CodecCrashed),
        (ready, r"printf '\005\000\000\000\377\000\000\000\000' >&0; exec sleep 1000", Code::CodecCrashed),
        (ready, r"printf '\005\000' >&0; exec sleep 1000", Code::CodecTimeout),
        // a program that does not come so far as to decode
        (":", "exit 127", Code::CodecWorker),
        (":", "kill -SEGV $$", Code::CodecWorker),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        // `dd` takes the length of the batch's message, so that the script acts only when there is one.
        let wait = if after == ready { "dd bs=4 count=1 of=/dev/null 2>/dev/null" } else { ":" };
        let decoder = Decoder::new(impostor(folder.path(), &format!("{after}; {wait}; {script}"))).expect("decoder");
        for _ in 0..2 {
            let fault = decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect_err(script);
            assert_eq!(fault.code, code, "{script}: {fault}");
            assert_eq!(fault.class == Class::Retryable, code == Code::CodecWorker);
            assert!(decoder.idle_workers().is_empty(), "{script}: not used again");
        }
        drop(decoder);
        assert!(children(&folder.path().display().to_string()).is_empty(), "{script}: none left behind");
    }
    let missing = DecoderConfig { program: "/nonexistent/stunetd".into(), ..DecoderConfig::default() };
    let fault = decode_one(&Decoder::new(missing).expect("decoder"), Codec::Jpeg2000, spec, &bytes).expect_err("no program");
    assert_eq!(fault.code, Code::CodecWorker);
}

/// With a real worker: a frame that takes longer than allowed, and one that needs more memory than allowed.
#[test]
fn time_and_memory_of_a_real_worker_are_bounded() {
    let (spec, bytes) = stream("j2k_lossless");
    // A whole batch of frames takes tens of milliseconds.
    let hasty = DecoderConfig { timeout: Duration::from_millis(1), ..decoder_config() };
    let decoder = Decoder::new(hasty).expect("decoder");
    let batch = vec![EncodedFrame { codec: Codec::Jpeg2000, spec, bytes: &bytes }; Decoder::BATCH];
    let fault = Fault::from(decoder.decode(&batch, |_, _| panic!("no frame comes out")).expect_err("too slow"));
    assert_eq!(fault.code, Code::CodecTimeout, "{fault}");

    // The same stream with a header that says 16384 × 16384: sound until the decoder asks for a gigabyte.
    let large = FrameSpec { rows: 16384, columns: 16384, word: 2 };
    let hostile = resized(&bytes, 16384);
    let poor = DecoderConfig { memory: 700 << 20, ..decoder_config() };
    let decoder = Decoder::new(poor).expect("decoder");
    let fault = decode_one(&decoder, Codec::Jpeg2000, large, &hostile).expect_err("too large");
    assert!(matches!(fault.code, Code::CodecDecode | Code::CodecCrashed), "{fault}");
    assert_eq!(decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect("as before").len(), 64 * 56 * 2);
}

/// A JPEG 2000 stream whose header says that image and tile are squares of that size.
fn resized(stream: &[u8], size: u32) -> Vec<u8> {
    let mut stream = stream.to_vec();
    let at = stream.windows(2).position(|w| w == [0xff, 0x51]).expect("SIZ") + 6;
    for field in [at, at + 4, at + 16, at + 20] {
        stream[field..field + 4].copy_from_slice(&size.to_be_bytes());
    }
    stream
}

/// A code stream that is not what the header says, or damaged inside, is refused by name.
#[test]
fn contradicting_and_damaged_streams_are_refused() {
    let decoder = decoder();
    for (name, codec) in [
        ("j2k_lossless", Codec::Jpeg2000),
        ("htj2k_lossless", Codec::Jpeg2000),
        ("jpegls_lossless", Codec::JpegLs),
        ("jpeg_lossless_sv1", Codec::Jpeg),
        ("jpeg_extended12", Codec::Jpeg),
    ] {
        let (spec, bytes) = stream(name);
        for other in [FrameSpec { rows: 57, ..spec }, FrameSpec { columns: 63, ..spec }, FrameSpec { word: 1, ..spec }] {
            let fault = decode_one(&decoder, codec, other, &bytes).expect_err(name);
            assert!(fault.code == Code::CodecDecode && fault.detail.contains("64 × 56"), "{name}: {fault}");
        }
        let fault = decode_one(&decoder, codec, spec, &bytes[..bytes.len() / 2]).expect_err(name);
        assert_eq!(fault.code, Code::CodecDecode, "{name}, cut short: {fault}");
        let fault = decode_one(&decoder, codec, spec, &[]).expect_err(name);
        assert_eq!(fault.code, Code::CodecDecode, "{name}, empty: {fault}");
    }
    // JPEG 2000 has no checksum; the decoder alone would return noise.
    let (spec, mut bytes) = stream("j2k_lossless");
    let middle = bytes.len() * 2 / 3;
    bytes[middle..middle + 120].chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&[0xff, 0]));
    let fault = decode_one(&decoder, Codec::Jpeg2000, spec, &bytes).expect_err("damaged");
    assert!(fault.detail.contains("misses its length"), "{fault}");
}

/// Changed bytes anywhere give pixels or a code, never a dead daemon, and never a worker left behind.
#[test]
fn mutated_streams_end_in_pixels_or_a_code() {
    let (config, marker) = marked((1 << 30) + 3);
    let decoder = Decoder::new(DecoderConfig { timeout: Duration::from_secs(20), ..config }).expect("decoder");
    let streams: Vec<_> = [
        ("j2k_lossless", Codec::Jpeg2000),
        ("htj2k_lossless", Codec::Jpeg2000),
        ("jpegls_near", Codec::JpegLs),
        ("jpeg_lossless_p14_sv6", Codec::Jpeg),
        ("jpeg_extended12", Codec::Jpeg),
    ]
    .map(|(name, codec)| (codec, stream(name)))
    .into();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12);
    let strategy = (0..streams.len(), changes, any::<Option<prop::sample::Index>>());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: crate::support::cases_of(60), failure_persistence: None, ..ProptestConfig::default() });
    let mut outcomes = BTreeMap::<&str, usize>::new();
    let outcome = std::cell::RefCell::new(&mut outcomes);
    runner
        .run(&strategy, |(which, changes, cut)| {
            let (codec, (spec, bytes)) = &streams[which];
            let mut bytes = bytes.clone();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.map_or(bytes.len(), |c| c.index(bytes.len())));
            let name = match decode_one(&decoder, *codec, *spec, &bytes) {
                Ok(pixels) => {
                    prop_assert_eq!(pixels.len(), spec.bytes());
                    "pixels"
                }
                Err(fault) => fault.code.name(),
            };
            *outcome.borrow_mut().entry(name).or_default() += 1;
            prop_assert!(children(&marker).len() <= 1);
            Ok(())
        })
        .expect("all mutations");
    assert!(outcomes.keys().all(|name| *name == "pixels" || name.starts_with("codec.")), "{outcomes:?}");
    assert!(outcomes.contains_key("codec.decode_error"), "{outcomes:?}");
    let (codec, (spec, bytes)) = &streams[0];
    decode_one(&decoder, *codec, *spec, bytes).expect("as good as new");
    drop(decoder);
    assert!(children(&marker).is_empty());
}

/// What is wrong with one plane stops the volume, names the plane, and leaves the decoder as good as new.
#[test]
fn a_damaged_plane_is_named() {
    let decoder = decoder();
    let folder = tempfile::tempdir().expect("folder");
    for i in 0..3 {
        let mut bytes = std::fs::read(goldens().join(format!("syntax/jpegls_lossless/{i}.dcm"))).expect("golden");
        if i == 1 {
            let at = bytes.windows(2).position(|w| w == [0xff, 0xf7]).expect("frame header");
            bytes[at + 4] = 3;
        }
        std::fs::write(folder.path().join(format!("{i}.dcm")), bytes).expect("written");
    }
    let mut series = series_in(folder.path(), &decoder);
    let fault = read(case(series.remove(0)), &ReadLimits::default(), &decoder).expect_err("damaged");
    assert!(fault.code == Code::CodecDecode && fault.detail.starts_with("Plane 2 of 3"), "{fault}");
    read_only(&goldens().join("syntax/jpegls_lossless"), &decoder);
}
