//! `preview.png`: three planes through the middle of what was found, with a legend. No patient data.

mod canvas;
mod view;

use super::common::model_name;
use super::segmentation::RESEARCH_MARK;
use super::stats::Stats;
use crate::models::{Label, Manifest, Status};
use crate::volume::{LabelMap, Quantity, Volume};
pub use canvas::{Canvas, Font, Rgb};
use view::{Axis, Plane, View, Window};

const WIDTH: usize = 1280;
const MARGIN: usize = 16;
const GAP: usize = 12;
const HEAD: usize = 68;
const TALLEST: usize = 560;
const LEGEND_COLUMNS: usize = 4;
const LEGEND_LINE: usize = 22;

const BACKGROUND: Rgb = [18, 20, 24];
const FRAME: Rgb = [8, 9, 11];
const TEXT: Rgb = [222, 226, 232];
const FAINT: Rgb = [140, 148, 160];
const AMBER: Rgb = [255, 190, 60];

/// The picture as a PNG file.
pub fn render(labels: &LabelMap, volume: &Volume, stats: &Stats, model: &Manifest) -> Result<Vec<u8>, png::EncodingError> {
    let views = Plane::ALL.map(|p| View::through(p, &volume.affine, volume.shape, stats.centre));
    let (panels, panel_height) = layout(&views);
    let present: Vec<&Label> = labels.present().into_iter().filter_map(|v| labels.table().get(v)).collect();
    let lines = present.len().div_ceil(LEGEND_COLUMNS).max(1);
    let height = HEAD + panel_height + GAP + lines * LEGEND_LINE + MARGIN;

    let mut canvas = Canvas::new(WIDTH, height, BACKGROUND);
    head(&mut canvas, volume, model, labels.table().len(), present.len());
    let window = Window::of(volume);
    for (view, panel) in views.iter().zip(&panels) {
        draw_panel(&mut canvas, view, *panel, labels, volume, window);
    }
    legend(&mut canvas, HEAD + panel_height + GAP, &present, stats);
    canvas.into_png()
}

/// A rectangle of the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Panel {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

/// Places of the three panels: side by side, or the axial one beside the others on top of each other, whichever shows more.
fn layout(views: &[View; 3]) -> ([Panel; 3], usize) {
    let inner = WIDTH - 2 * MARGIN;
    let third = (inner - 2 * GAP) / 3;
    let row = views.map(|v| fit(v.extent(), third, TALLEST));
    let half = (inner - GAP) / 2;
    let axial = fit(views[0].extent(), half, TALLEST);
    let rest = [1, 2].map(|i| fit(views[i].extent(), half, (TALLEST - GAP) / 2));
    let area = |sizes: &[[usize; 2]]| sizes.iter().map(|[w, h]| w * h).sum::<usize>();
    let centred = |cell_x: usize, cell_width: usize, y: usize, [width, height]: [usize; 2]| Panel {
        x: cell_x + (cell_width - width) / 2,
        y: HEAD + y,
        width,
        height,
    };
    if area(&row) >= area(&[axial, rest[0], rest[1]]) {
        let tallest = row.iter().map(|s| s[1]).max().unwrap_or(0);
        let panels = std::array::from_fn(|i| centred(MARGIN + i * (third + GAP), third, (tallest - row[i][1]) / 2, row[i]));
        (panels, tallest)
    } else {
        let stacked = rest[0][1] + GAP + rest[1][1];
        let tallest = axial[1].max(stacked);
        let (left, right, top) = (MARGIN, MARGIN + half + GAP, (tallest - stacked) / 2);
        let panels = [
            centred(left, half, (tallest - axial[1]) / 2, axial),
            centred(right, half, top, rest[0]),
            centred(right, half, top + rest[0][1] + GAP, rest[1]),
        ];
        (panels, tallest)
    }
}

/// The largest size with that aspect ratio; at least a few pixels, so that a single slice can be seen.
fn fit([mm_wide, mm_high]: [f64; 2], width: usize, height: usize) -> [usize; 2] {
    let scale = (width as f64 / mm_wide).min(height as f64 / mm_high);
    [((mm_wide * scale) as usize).clamp(8, width), ((mm_high * scale) as usize).clamp(8, height)]
}

fn head(canvas: &mut Canvas, volume: &Volume, model: &Manifest, labels: usize, found: usize) {
    let (title, colour) = match model.status {
        Status::Research => (RESEARCH_MARK, AMBER),
        Status::Clinical => ("Segmentation", TEXT),
    };
    canvas.text(MARGIN, 10, title, Font::Title, colour);
    let room = WIDTH - 2 * MARGIN - Font::Title.width(title) - GAP;
    let model = Font::SmallBold.fit(&model_name(model), room);
    canvas.text(WIDTH - MARGIN - Font::SmallBold.width(&model), 14, &model, Font::SmallBold, TEXT);
    let [nz, ny, nx] = volume.shape;
    let [sz, sy, sx] = volume.spacing_zyx();
    let quantity = match volume.quantity.first() {
        Some(Quantity::Hu) => "CT  ",
        Some(Quantity::SuvBw | Quantity::PetUnits) => "PET  ",
        _ => "",
    };
    let grid = format!("{quantity}{nx} x {ny} x {nz} voxels of {sx:.2} x {sy:.2} x {sz:.2} mm");
    canvas.text(MARGIN, 40, &grid, Font::Small, FAINT);
    let count = match found {
        0 => "no structure found".into(),
        n => format!("{n} of {labels} structures found"),
    };
    canvas.text(WIDTH - MARGIN - Font::Small.width(&count), 40, &count, Font::Small, FAINT);
}

fn draw_panel(canvas: &mut Canvas, view: &View, p: Panel, labels: &LabelMap, volume: &Volume, window: Window) {
    canvas.fill(p.x - 1, p.y - 1, p.width + 2, p.height + 2, FRAME);
    let pixels = view.sample(volume, labels, window, p.width, p.height);
    let label_at = |x: usize, y: usize| pixels[y * p.width + x].1;
    for y in 0..p.height {
        for x in 0..p.width {
            let (grey, label) = pixels[y * p.width + x];
            let grey = (grey * 255.0).round() as u8;
            canvas.blend(p.x + x, p.y + y, [grey; 3], 1.0);
            if let Some(known) = labels.table().get(label) {
                let inner = x > 0 && y > 0 && x + 1 < p.width && y + 1 < p.height;
                let edge = inner && [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)].iter().any(|&(x, y)| label_at(x, y) != label);
                canvas.blend(p.x + x, p.y + y, known.rgb, if edge { 0.95 } else { 0.4 });
            }
        }
    }
    annotate(canvas, view, p);
}

/// Orientation letters, the name of the plane and a scale bar.
fn annotate(canvas: &mut Canvas, view: &View, p: Panel) {
    let (line, letter) = (Font::SmallBold.height(), Font::SmallBold.width("X"));
    let Axis { letters: [left, right], .. } = view.across;
    let Axis { letters: [top, bottom], .. } = view.down;
    let (cx, cy) = (p.x + (p.width - letter.min(p.width)) / 2, p.y + (p.height.saturating_sub(line)) / 2);
    let mut put = |x: usize, y: usize, text: &str| canvas.text_on_image(x, y, text, Font::SmallBold, TEXT);
    put(p.x + 5, cy, &left.to_string());
    put(p.x + p.width.saturating_sub(letter + 5), cy, &right.to_string());
    if p.height >= 4 * line {
        put(cx, p.y + 4, &top.to_string());
        put(cx, p.y + p.height - line - 3, &bottom.to_string());
        put(p.x + 6, p.y + 4, view.plane.name());
        scale_bar(canvas, view, p);
    }
}

fn scale_bar(canvas: &mut Canvas, view: &View, p: Panel) {
    let per_mm = p.width as f64 / view.extent()[0];
    let Some(mm) = [100.0, 50.0, 20.0, 10.0, 5.0, 1.0].into_iter().find(|mm| mm * per_mm <= p.width as f64 / 3.0) else { return };
    let length = (mm * per_mm).round() as usize;
    let (x, y) = (p.x + p.width - length - 8, p.y + p.height - 10);
    canvas.fill(x - 1, y - 1, length + 2, 5, [0; 3]);
    canvas.fill(x, y, length, 3, TEXT);
    let text = format!("{mm} mm");
    let width = Font::Small.width(&text);
    canvas.text_on_image((x + length).saturating_sub(width), y - 20, &text, Font::Small, TEXT);
}

fn legend(canvas: &mut Canvas, y: usize, present: &[&Label], stats: &Stats) {
    if present.is_empty() {
        canvas.text(MARGIN, y, "no structure found", Font::Small, FAINT);
        return;
    }
    let lines = present.len().div_ceil(LEGEND_COLUMNS);
    let column = (WIDTH - 2 * MARGIN + GAP) / LEGEND_COLUMNS;
    for (n, label) in present.iter().enumerate() {
        let (x, y) = (MARGIN + n / lines * column, y + n % lines * LEGEND_LINE);
        let figures = stats.labels[usize::from(label.value)];
        let amount = if figures.touches_edge { "incomplete".to_owned() } else { format!("{} ml", volume_text(figures.volume_ml)) };
        let amount_width = Font::Small.width(&amount);
        let right = x + column - GAP - 14;
        canvas.fill(x, y + 2, 13, 13, label.rgb);
        canvas.text(right - amount_width, y, &amount, Font::Small, FAINT);
        let name = Font::Small.fit(&label.name.replace('_', " "), right - amount_width - x - 28);
        canvas.text(x + 20, y, &name, Font::Small, TEXT);
    }
}

/// Three figures, as a reader would give them.
fn volume_text(ml: f64) -> String {
    match ml {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::Affine;

    #[test]
    fn panels_lie_inside_and_keep_the_aspect_ratio() {
        for (shape, spacing) in
            [([300, 512, 512], [0.8, 0.8, 1.5]), ([20, 512, 512], [0.98, 0.98, 2.0]), ([900, 100, 100], [1.0; 3]), ([1, 64, 64], [1.0; 3])]
        {
            let affine = Affine::new([spacing[0], 0.0, 0.0], [0.0, spacing[1], 0.0], [0.0, 0.0, spacing[2]], [0.0; 3]).expect("affine");
            let views = Plane::ALL.map(|p| View::through(p, &affine, shape, [0.0; 3]));
            let (panels, height) = layout(&views);
            for (view, p) in views.iter().zip(&panels) {
                assert!(p.x >= MARGIN && p.x + p.width <= WIDTH - MARGIN && p.y >= HEAD && p.y + p.height <= HEAD + height, "{p:?}");
                let [w, h] = view.extent();
                if p.width > 8 && p.height > 8 {
                    let ratio = (p.width as f64 / p.height as f64) / (w / h);
                    assert!((ratio - 1.0).abs() < 0.1, "{p:?} {ratio}");
                }
            }
        }
    }

    #[test]
    fn volumes_have_three_figures() {
        for (ml, text) in [(1234.56, "1235"), (99.96, "100"), (12.34, "12.3"), (9.999, "10.0"), (0.123, "0.12")] {
            assert_eq!(volume_text(ml), text);
        }
    }
}
