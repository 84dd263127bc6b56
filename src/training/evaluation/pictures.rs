//! The largest changes as pictures, cut to the organ: person, serving model, candidate.

use super::Request;
use super::measure::{folder_of, labels_file, read_image, read_labels};
use crate::fault::{Code, Fault};
use crate::results::Canvas;
use crate::training::gates::{Evaluation, Picture};
use std::path::Path;

/// Pictures of a report.
const MOST: usize = 6;
/// Voxels around the organ.
const MARGIN: usize = 6;
/// Longest edge of one of the three parts, pixels.
const EDGE: usize = 240;
/// HU that are black and white.
const WINDOW: [f32; 2] = [-160.0, 240.0];
const COLOUR: [u8; 3] = [230, 70, 40];
/// Of the colour over the image.
const OPACITY: f32 = 0.45;

/// The pictures of the patients and classes whose Dice changed most, worse or better.
///
/// # Errors
/// A file that can not be read.
pub(super) fn pictures(request: &Request, digests: [&str; 2], scores: &Path, evaluation: &Evaluation) -> Result<Vec<Picture>, Fault> {
    let mut changes: Vec<(f64, &str, u16, [f64; 2])> = Vec::new();
    for patient in &evaluation.patients {
        changes.extend(
            patient
                .scores
                .iter()
                .map(|(&class, [old, new])| ((new.dice - old.dice).abs(), patient.id.as_str(), class, [old.dice, new.dice])),
        );
    }
    changes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut pictures = Vec::new();
    for (_, patient, class, dice) in changes.into_iter().filter(|change| change.0 > 0.0).take(MOST) {
        let Some(subject) = request.locked.iter().find(|subject| subject.patient == patient) else { continue };
        let Some(truth) = &subject.labels else { continue };
        let image = read_image(&subject.image)?;
        let labels = |digest: &str| read_labels(&labels_file(&folder_of(scores, digest), &subject.name), image.shape);
        let three = [read_labels(truth, image.shape)?, labels(digests[0])?, labels(digests[1])?];
        let Some(png) = picture(&image.data, image.shape, &three, class)? else { continue };
        pictures.push(Picture { patient: patient.into(), class, dice, png: base64(&png) });
    }
    Ok(pictures)
}

/// The slice in which the label's outlines differ most, three times side by side.
fn picture(image: &[f32], shape: [usize; 3], labels: &[Vec<u16>; 3], class: u16) -> Result<Option<Vec<u8>>, Fault> {
    let [nz, ny, nx] = shape;
    let slice = |labels: &[u16], z: usize| -> Vec<bool> { labels[z * ny * nx..(z + 1) * ny * nx].iter().map(|l| *l == class).collect() };
    let differing = |z: usize| {
        let [truth, old, new] = labels.each_ref().map(|labels| slice(labels, z));
        (0..ny * nx).filter(|&i| truth[i] != old[i] || truth[i] != new[i]).count()
    };
    let Some(z) = (0..nz).max_by_key(|&z| differing(z)).filter(|&z| differing(z) > 0) else { return Ok(None) };
    let masks = labels.each_ref().map(|labels| slice(labels, z));
    let inside = (0..ny * nx).filter(|&i| masks.iter().any(|mask| mask[i]));
    let (mut low, mut high) = ([usize::MAX; 2], [0; 2]);
    for at in inside.map(|i| [i / nx, i % nx]) {
        for axis in 0..2 {
            low[axis] = low[axis].min(at[axis]);
            high[axis] = high[axis].max(at[axis]);
        }
    }
    let low = low.map(|v| v.saturating_sub(MARGIN));
    let high = [(high[0] + MARGIN).min(ny - 1), (high[1] + MARGIN).min(nx - 1)];
    let size = [high[0] - low[0] + 1, high[1] - low[1] + 1];
    let zoom = (EDGE / size[0].max(size[1])).max(1);
    let (width, height) = (size[1] * zoom, size[0] * zoom);
    let mut canvas = Canvas::new(3 * width + 8, height, [0; 3]);
    for (part, mask) in masks.iter().enumerate() {
        for y in 0..height {
            for x in 0..width {
                let at = (low[0] + y / zoom) * nx + low[1] + x / zoom;
                let grey = ((image[z * ny * nx + at] - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clamp(0.0, 1.0) * 255.0;
                let left = part * (width + 4) + x;
                canvas.blend(left, y, [grey as u8; 3], 1.0);
                if mask[at] {
                    canvas.blend(left, y, COLOUR, OPACITY);
                }
            }
        }
    }
    canvas.into_png().map(Some).map_err(|e| Fault::new(Code::InternalBug, format!("a picture: {e}")))
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")];
        pairs.iter().for_each(|(plain, coded)| assert_eq!(base64(plain.as_bytes()), *coded));
    }

    #[test]
    fn a_picture_shows_the_organ_and_little_more() {
        let shape = [3, 200, 200];
        let mut labels = [vec![0; 120_000], vec![0; 120_000], vec![0; 120_000]];
        (100..110).for_each(|y| (50..70).for_each(|x| labels[0][40_000 + y * 200 + x] = 4));
        let image: Vec<f32> = (0..120_000).map(|i| (i % 300) as f32).collect();
        let png = picture(&image, shape, &labels, 4).expect("drawn").expect("a picture");
        // Width and height of the PNG: 32 by 22 voxels, each 7 by 7 pixels, three times.
        let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("bytes"));
        assert_eq!((number(16), number(20)), (3 * 32 * 7 + 8, 22 * 7));
        assert!(picture(&image, shape, &labels, 5).expect("drawn").is_none());
    }
}
