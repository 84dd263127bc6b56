//! The answer of `stunetd inspect` for people.

use super::report::{Rejected, Report, VolumeEntry};
use crate::cli::report::print_line;
use std::collections::BTreeMap;
use std::io;

/// Prints every volume, every refusal with what to do next, and how many files were left out for which reason.
pub fn print(report: &Report) -> io::Result<()> {
    let mut studies: BTreeMap<&str, (Vec<&VolumeEntry>, Vec<&Rejected>)> = BTreeMap::new();
    for volume in &report.volumes {
        studies.entry(volume.study_instance_uid.as_deref().unwrap_or("")).or_default().0.push(volume);
    }
    for rejected in &report.rejected {
        studies.entry(&rejected.study_instance_uid).or_default().1.push(rejected);
    }
    let mut lines = Vec::new();
    for (study, (volumes, rejected)) in studies {
        if !study.is_empty() {
            lines.push(format!("study {study}"));
        }
        volumes.iter().for_each(|v| accepted(v, &mut lines));
        rejected.iter().for_each(|r| refused(r, &mut lines));
    }
    let mut counts: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for file in &report.ignored_files {
        counts.entry(file.code.name()).or_insert((0, file.code.meaning())).0 += 1;
    }
    if !counts.is_empty() {
        lines.push("files not used (names: --json)".into());
        lines.extend(counts.iter().map(|(code, (count, meaning))| format!("  {count:>6}  {code}: {meaning}")));
    }
    if report.volumes.is_empty() && report.rejected.is_empty() {
        lines.push("no CT or PET image here; give a folder with DICOM images, or a NIfTI file".into());
    }
    let held = report.volumes.iter().filter(|v| !v.segmentable).count();
    lines.push(format!(
        "{} accepted, {held} shown only, {} refused, {} files not used",
        report.volumes.len() - held,
        report.rejected.len(),
        report.ignored_files.len()
    ));
    print_line(&lines.join("\n"))
}

fn accepted(v: &VolumeEntry, lines: &mut Vec<String>) {
    let verdict = if v.segmentable { "accepted" } else { "shown only, not segmented" };
    let phase = v.phase.map(|p| format!(", phase {p}")).unwrap_or_default();
    lines.push(format!(
        "  {}{}{phase}: {verdict}",
        v.modality.as_deref().unwrap_or("NIfTI"),
        title(v.series_number, v.series_description.as_deref(), v.series_instance_uid.as_deref())
    ));
    let ([nx, ny, nz], [dx, dy, dz]) = (v.shape_ijk, v.spacing_ijk);
    let s = &v.statistics;
    lines.push(format!(
        "      {nx} x {ny} x {nz} voxels of {dx:.3} x {dy:.3} x {dz:.3} mm, {} from {} to {}, mean {:.2}",
        plain(&v.quantity),
        s.min,
        s.max,
        s.mean
    ));
    if let Some(factor) = v.suvbw_factor {
        lines.push(format!("      SUVbw = value x {factor:.6e}"));
    }
    if !v.warnings.is_empty() {
        lines.push(format!("      warnings: {}", v.warnings.join(", ")));
    }
    if let Some(hold) = &v.hold {
        lines.push(format!("      {}: {} {}", hold.code, hold.code.meaning(), hold.detail));
        lines.push(format!("      next: {}", hold.action));
    }
    if let Some(selection) = &v.selection {
        lines.push(format!("      {}", selection.line()));
    }
    if let Some(path) = &v.nifti {
        lines.push(format!("      written to {}", path.display()));
    }
}

fn refused(r: &Rejected, lines: &mut Vec<String>) {
    let title = title(r.series_number, r.series_description.as_deref(), Some(&r.series_instance_uid));
    lines.push(format!("  refused:{title}, {} files", r.files));
    lines.push(format!("      {}: {} {}", r.code, r.code.meaning(), plain(&r.detail)));
    lines.push(format!("      next: {}", r.action));
}

/// ` series 2 "CT Body" 1.2.3`, as far as known.
fn title(number: Option<i32>, description: Option<&str>, uid: Option<&str>) -> String {
    let mut title = String::new();
    if let Some(number) = number {
        title += &format!(" series {number}");
    }
    if let Some(description) = description {
        title += &format!(" \"{}\"", plain(description));
    }
    if let Some(uid) = uid {
        title += &format!(" {uid}");
    }
    title
}

/// Text of a header without the control characters that a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
