//! An abdomen made of analytic shapes: where which tissue is, in Hounsfield units.
//!
//! Millimetres, DICOM patient directions from the middle of the body at the height of the kidneys: x to the left, y to the
//! back, z to the head. Sizes and places are those of an ordinary adult; no shape stems from a person's images.

/// A point in millimetres.
pub type Point = [f32; 3];

/// A tissue with its place. Later ones lie over earlier ones.
pub struct Part {
    /// The organ it is part of, by the name that the demo model uses; empty for all else.
    pub organ: &'static str,
    /// Mean in HU.
    pub hu: f32,
    /// Low and high corner of a box that holds it.
    pub bounds: [Point; 2],
    /// Distance in mm from its surface, roughly; negative inside.
    pub distance: Distance,
}

/// A distance from a surface.
pub type Distance = Box<dyn Fn(Point) -> f32 + Send + Sync>;

const AIR: f32 = -1000.0;
const FAT: f32 = -100.0;
const MUSCLE: f32 = 45.0;
const LUNG: f32 = -830.0;

/// Centre of the spine at a height: the lumbar curve.
fn spine(z: f32) -> [f32; 2] {
    [4.0, 20.0 + 0.0012 * (z + 50.0) * (z + 50.0)]
}

/// Distance from an ellipsoid, good near its surface.
fn ellipsoid(p: Point, centre: Point, radii: Point) -> f32 {
    let (mut k0, mut k1) = (0.0f32, 0.0f32);
    for a in 0..3 {
        let q = (p[a] - centre[a]) / radii[a];
        k0 += q * q;
        k1 += (q / radii[a]) * (q / radii[a]);
    }
    let (k0, k1) = (k0.sqrt(), k1.sqrt());
    if k1 == 0.0 { -radii.iter().copied().fold(f32::INFINITY, f32::min) } else { k0 * (k0 - 1.0) / k1 }
}

/// The same in the plane.
fn ellipse(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let (qx, qy) = (x / rx, y / ry);
    let (k0, k1) = (qx.hypot(qy), (qx / rx).hypot(qy / ry));
    if k1 == 0.0 { -rx.min(ry) } else { k0 * (k0 - 1.0) / k1 }
}

/// A rounded box in the plane: the outline of a trunk.
fn outline(x: f32, y: f32, rx: f32, ry: f32) -> f32 {
    let n = ((x / rx).abs().powf(2.5) + (y / ry).abs().powf(2.5)).powf(0.4);
    (n - 1.0) * rx.min(ry)
}

/// Distance from a ball of radius `r`, stretched to a segment from `a` to `b`.
fn capsule(p: Point, a: Point, b: Point, r: f32) -> f32 {
    let (ab, ap): (Point, Point) = (std::array::from_fn(|i| b[i] - a[i]), std::array::from_fn(|i| p[i] - a[i]));
    let dot = |u: Point, v: Point| u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
    let t = (dot(ap, ab) / dot(ab, ab)).clamp(0.0, 1.0);
    let d: Point = std::array::from_fn(|i| ap[i] - t * ab[i]);
    dot(d, d).sqrt() - r
}

/// Smooth union of two distances.
fn blend(a: f32, b: f32, width: f32) -> f32 {
    let h = (0.5 + 0.5 * (b - a) / width).clamp(0.0, 1.0);
    b + (a - b) * h - width * h * (1.0 - h)
}

/// The inside of the abdominal wall.
fn cavity([x, y, _]: Point) -> f32 {
    outline(x, y + 6.0, 140.0, 98.0)
}

/// The parts in the order in which they are painted.
pub fn parts() -> Vec<Part> {
    const ALL: f32 = 1e4;
    let everywhere = [[-ALL; 3], [ALL; 3]];
    let mut parts = Vec::new();
    let mut add = |organ, hu: f32, bounds: [Point; 2], distance: Distance| parts.push(Part { organ, hu, bounds, distance });

    // The table: a thin shell under the back.
    add("", -450.0, everywhere, Box::new(|[x, y, _]| ((y - 150.0 + x * x / 900.0).abs() - 2.0).max(x.abs() - 190.0)));
    // Skin, fat, the muscular wall, the fat that the organs lie in.
    add("", 15.0, everywhere, Box::new(|[x, y, _]| outline(x, y, 172.0, 133.0)));
    add("", FAT, everywhere, Box::new(|[x, y, _]| outline(x, y, 169.5, 130.5)));
    add("", MUSCLE, everywhere, Box::new(|[x, y, _]| outline(x, y + 6.0, 151.0, 109.0)));
    add("", FAT, everywhere, Box::new(cavity));
    // Rectus muscles' gap, psoas and the muscles beside the spine.
    for side in [-1.0f32, 1.0] {
        let psoas = move |p: Point| {
            let [sx, sy] = spine(p[2]);
            let grow = (12.0 + 0.11 * (40.0 - p[2])).clamp(6.0, 24.0);
            ellipse(p[0] - sx - side * (26.0 + 0.6 * grow), p[1] - sy - 4.0, grow, grow * 1.15)
        };
        add("", 50.0, [[-110.0, -40.0, -ALL], [110.0, 100.0, 80.0]], Box::new(psoas));
        let quadratus = move |p: Point| {
            let [sx, sy] = spine(p[2]);
            ellipse(p[0] - sx - side * 72.0, p[1] - sy - 36.0, 24.0, 9.0)
        };
        add("", 45.0, [[-120.0, 20.0, -ALL], [120.0, 110.0, 10.0]], Box::new(quadratus));
    }
    bowel(&mut add);
    organs(&mut add);
    chest(&mut add);
    back_muscles(&mut add);
    spine_parts(&mut add);
    parts
}

type Add<'a> = dyn FnMut(&'static str, f32, [Point; 2], Distance) + 'a;

/// A tube of gut along a line: wall, content, and gas in front, where it collects in a patient on the back.
fn gut(add: &mut Add<'_>, line: &[Point], radius: f32, content: f32, gas: f32) {
    for pair in line.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        let low = std::array::from_fn(|i| a[i].min(b[i]) - radius - 2.0);
        let high = std::array::from_fn(|i| a[i].max(b[i]) + radius + 2.0);
        let inner = radius - 3.0;
        add("", 38.0, [low, high], Box::new(move |p| capsule(p, a, b, radius)));
        add("", content, [low, high], Box::new(move |p| capsule(p, a, b, inner)));
        if gas > -1.0 {
            let level = move |p: Point| p[1] - (a[1] + b[1]) / 2.0 + gas * inner;
            add("", AIR + 20.0, [low, high], Box::new(move |p| capsule(p, a, b, inner).max(level(p))));
        }
    }
}

fn bowel(add: &mut Add<'_>) {
    // Ascending, transverse and descending colon, then loops of the small bowel. `gas` is the height of the level in radii.
    gut(add, &[[-108.0, 5.0, -90.0], [-104.0, -5.0, -40.0], [-92.0, -35.0, -22.0]], 22.0, -20.0, 0.2);
    gut(add, &[[-92.0, -50.0, -22.0], [-40.0, -78.0, -30.0], [30.0, -80.0, -26.0], [92.0, -58.0, 18.0]], 19.0, 10.0, 0.0);
    gut(add, &[[114.0, 2.0, 2.0], [116.0, 8.0, -40.0], [108.0, 12.0, -115.0]], 15.0, 0.0, 0.4);
    gut(add, &[[-55.0, -35.0, -58.0], [-15.0, -60.0, -64.0], [25.0, -45.0, -56.0], [70.0, -40.0, -66.0]], 14.0, 25.0, -2.0);
    gut(add, &[[70.0, -20.0, -36.0], [35.0, -35.0, -30.0], [-5.0, -38.0, -34.0]], 13.0, 22.0, -2.0);
    gut(add, &[[-50.0, -20.0, -88.0], [0.0, -30.0, -90.0], [55.0, -25.0, -86.0]], 14.0, 28.0, -2.0);
    // Duodenum and the head of the pancreas, the body of the pancreas.
    gut(add, &[[-32.0, -30.0, 38.0], [-38.0, -12.0, 8.0], [-20.0, -12.0, -14.0], [12.0, -18.0, -16.0]], 12.0, 25.0, -2.0);
    add("", 35.0, [[-50.0, -60.0, 0.0], [100.0, 40.0, 80.0]], Box::new(|p| capsule(p, [-18.0, -22.0, 18.0], [40.0, -20.0, 40.0], 11.0)));
    add("", 35.0, [[-50.0, -60.0, 0.0], [120.0, 50.0, 90.0]], Box::new(|p| capsule(p, [40.0, -20.0, 40.0], [88.0, 18.0, 58.0], 9.0)));
}

fn organs(add: &mut Add<'_>) {
    // Kidneys: a bean, its sinus of fat and the urine in it. The lower pole lies further out and in front.
    for (side, centre, radii) in [(1.0f32, [74.0, 42.0, 14.0], [26.0, 28.0, 50.0]), (-1.0, [-70.0, 38.0, 6.0], [27.0, 29.0, 52.0])] {
        let bounds = [[centre[0] - 60.0, centre[1] - 60.0, centre[2] - 70.0], [centre[0] + 60.0, centre[1] + 60.0, centre[2] + 70.0]];
        let lean = move |[x, y, z]: Point| {
            let down = centre[2] - z;
            [x - side * 0.16 * down, y + 0.14 * down, z]
        };
        add("kidneys", 8.0, bounds, Box::new(move |p| ellipsoid(lean(p), centre, radii)));
        let hilum: Point = [centre[0] - side * 19.0, centre[1] - 9.0, centre[2]];
        add("", FAT + 20.0, bounds, Box::new(move |p| ellipsoid(lean(p), hilum, [16.0, 10.0, 24.0])));
        let pelvis: Point = [centre[0] - side * 16.0, centre[1] - 8.0, centre[2]];
        add("", 8.0, bounds, Box::new(move |p| ellipsoid(lean(p), pelvis, [9.0, 5.0, 12.0])));
    }
    // Spleen: behind on the left, hollow towards the stomach.
    let spleen = |p: Point| {
        let body = ellipsoid([p[0] + 0.3 * (p[1] - 40.0), p[1], p[2]], [100.0, 40.0, 78.0], [38.0, 52.0, 56.0]);
        body.max(-ellipsoid(p, [56.0, -4.0, 76.0], [28.0, 44.0, 70.0])).max(cavity(p) + 1.0)
    };
    add("spleen", 43.0, [[40.0, -30.0, 10.0], [150.0, 110.0, 140.0]], Box::new(spleen));
    // Liver: the right lobe, the left lobe over the stomach, the gall bladder below, vessels inside.
    let liver = |p: Point| {
        let right = ellipsoid(p, [-78.0, -8.0, 66.0], [66.0, 86.0, 74.0]);
        let left = ellipsoid([p[0], p[1] - 0.15 * p[0], p[2]], [-8.0, -58.0, 84.0], [70.0, 32.0, 40.0]);
        blend(right, left, 24.0).max(cavity(p) + 1.0).max(-ellipsoid(p, [-64.0, 48.0, 10.0], [38.0, 44.0, 66.0]))
    };
    add("liver", 47.0, [[-160.0, -120.0, -20.0], [80.0, 100.0, 150.0]], Box::new(liver));
    for (a, b, r) in [
        ([-28.0, -8.0, 62.0], [-88.0, -8.0, 74.0], 6.0),
        ([-22.0, 4.0, 100.0], [-90.0, 20.0, 92.0], 4.5),
        ([-22.0, 0.0, 102.0], [-60.0, -55.0, 90.0], 4.0),
    ] {
        add("liver", 36.0, [[-110.0, -80.0, 40.0], [0.0, 60.0, 120.0]], Box::new(move |p| capsule(p, a, b, r)));
    }
    add("", 8.0, [[-90.0, -90.0, 0.0], [-20.0, -10.0, 60.0]], Box::new(|p| ellipsoid(p, [-56.0, -56.0, 24.0], [14.0, 19.0, 24.0])));
    // Stomach: wall, fluid, gas in front; the antrum crosses to the right.
    let stomach = |p: Point, shrink: f32| {
        let fundus = ellipsoid(p, [60.0, -16.0, 84.0], [25.0 - shrink, 36.0 - shrink, 34.0 - shrink]);
        let body = capsule(p, [58.0, -30.0, 70.0], [40.0, -62.0, 40.0], 17.0 - shrink);
        let antrum = capsule(p, [40.0, -64.0, 38.0], [-6.0, -66.0, 36.0], 13.0 - shrink);
        blend(blend(fundus, body, 10.0), antrum, 8.0)
    };
    let bounds = [[-50.0, -110.0, -10.0], [120.0, 60.0, 130.0]];
    add("stomach", 42.0, bounds, Box::new(move |p| stomach(p, 0.0)));
    add("stomach", 10.0, bounds, Box::new(move |p| stomach(p, 8.0)));
    add("stomach", AIR + 30.0, bounds, Box::new(move |p| stomach(p, 9.0).max(p[1] + 0.35 * p[2] + 8.0)));
    // Adrenals are left out. The great vessels, and the crura of the diaphragm beside them.
    for side in [-1.0f32, 1.0] {
        let crus = move |[x, y, z]: Point| {
            let [sx, sy] = spine(z);
            ellipse(x - sx - side * 17.0 - 5.0, y - sy + 18.0, 5.5, 12.0)
        };
        add("", 48.0, [[-60.0, -40.0, 20.0], [60.0, 60.0, 1e4]], Box::new(crus));
    }
    let aorta = |[x, y, z]: Point| {
        let [sx, sy] = spine(z);
        let (dx, r) = (11.0 + 0.02 * z, 9.5 + 0.02 * z.max(0.0));
        // The bifurcation, low down.
        let split = (-z - 62.0).max(0.0) * 0.5;
        let one = |side: f32| ellipse(x - sx - dx - side * split, y - sy + 27.0, r - split.min(3.0), r - split.min(3.0));
        one(1.0).min(one(-1.0))
    };
    add("aorta", 44.0, [[-40.0, -60.0, -1e4], [70.0, 60.0, 1e4]], Box::new(aorta));
    let cava = |[x, y, z]: Point| {
        let [sx, sy] = spine(z);
        let up = (z - 40.0).max(0.0);
        ellipse(x - sx + 24.0, y - sy + 24.0 + 0.3 * up, 12.0, 10.0)
    };
    add("", 40.0, [[-60.0, -80.0, -1e4], [30.0, 60.0, 112.0]], Box::new(cava));
}

fn chest(add: &mut Add<'_>) {
    // Lung above the dome and down into the recess behind; the heart rests on the middle.
    let lung = |p: Point| {
        let wall = cavity(p);
        let [sx, sy] = spine(p[2]);
        let middle = -ellipse(p[0] - sx, p[1] - sy + 20.0, 34.0, 60.0);
        // Its lower end is a sheet between the wall and the diaphragm, at the back.
        let thick = (p[2] - 46.0) * 0.3 + 0.12 * (p[1] - 50.0);
        wall.max(middle).max(-wall - thick).max(12.0 - p[1])
    };
    add("lungs", LUNG, [[-150.0, -110.0, 10.0], [150.0, 110.0, 1e4]], Box::new(lung));
    add("", 40.0, [[-80.0, -120.0, 96.0], [100.0, 20.0, 1e4]], Box::new(|p| ellipsoid(p, [22.0, -44.0, 140.0], [58.0, 44.0, 40.0])));
    // Ribs: inclined rings inside the wall, a few of them, open in front.
    for (i, height) in [-6.0f32, 22.0, 50.0, 78.0, 106.0, 134.0].into_iter().enumerate() {
        let open = -60.0 + 4.0 * i as f32;
        let rib = move |p: Point, r: f32| {
            let ring = outline(p[0], p[1] + 4.0, 145.0, 104.0);
            let z = p[2] - height - 22.0 * (p[1] / 100.0);
            (ring.hypot(z * 0.75) - r).max(open - p[1])
        };
        let bounds = [[-170.0, -130.0, height - 45.0], [170.0, 130.0, height + 45.0]];
        add("", 420.0, bounds, Box::new(move |p| rib(p, 5.2)));
        add("", 160.0, bounds, Box::new(move |p| rib(p, 3.0)));
    }
}

/// The muscles beside the spine.
fn back_muscles(add: &mut Add<'_>) {
    for side in [-1.0f32, 1.0] {
        let erector = move |p: Point| {
            let [sx, sy] = spine(p[2]);
            let width = 34.0 + 0.03 * (p[2] + 40.0);
            let height = 22.0 - 0.06 * (p[2] + 20.0);
            ellipse(p[0] - sx - side * (width + 3.5), p[1] - sy - 57.0 + 0.10 * (p[2] + 20.0), width, height)
        };
        add("autochthon", 20.0, [[-120.0, 20.0, -1e4], [120.0, 133.0, 1e4]], Box::new(erector));
    }
}

/// Height of a vertebra with its disc, and of the disc.
const LEVEL: f32 = 35.0;
const DISC: f32 = 8.5;

fn spine_parts(add: &mut Add<'_>) {
    let bounds = [[-50.0, -30.0, -1e4], [60.0, 133.0, 1e4]];
    // Height within the level, from the middle of the vertebral body.
    let within = |z: f32| (z + LEVEL * 100.0 + LEVEL / 2.0).rem_euclid(LEVEL) - LEVEL / 2.0;
    let body = |[x, y, z]: Point, shrink: f32| {
        let [sx, sy] = spine(z);
        ellipse(x - sx, y - sy, 23.5 - shrink, 17.5 - shrink)
    };
    add("", 75.0, bounds, Box::new(move |p| body(p, 0.0)));
    let bone = move |p: Point, shrink: f32| body(p, shrink).max(within(p[2]).abs() - (LEVEL - DISC) / 2.0 + shrink);
    add("vertebrae", 330.0, bounds, Box::new(move |p| bone(p, 0.0)));
    add("vertebrae", 155.0, bounds, Box::new(move |p| bone(p, 2.2)));
    // Arch, processes and the canal.
    let arch = move |[x, y, z]: Point, shrink: f32| {
        let [sx, sy] = spine(z);
        let (x, y, w) = ((x - sx).abs(), y - sy, within(z - 4.0));
        let lamina = ellipse(x, y - 28.0, 17.5, 15.5).max(w.abs() - 14.0);
        let spinous = (x - 3.6).max((y - 52.0).abs() - 20.0).max((w + 7.0).abs() - 10.5);
        let transverse = capsule([x, y, w], [12.0, 22.0, 2.0], [36.0, 30.0, 2.0], 5.0);
        lamina.min(spinous).min(transverse) + shrink
    };
    add("vertebrae", 300.0, bounds, Box::new(move |p| arch(p, 0.0)));
    add("vertebrae", 190.0, bounds, Box::new(move |p| arch(p, 2.0)));
    let canal = |[x, y, z]: Point| {
        let [sx, sy] = spine(z);
        ellipse(x - sx, y - sy - 25.0, 11.0, 8.5)
    };
    add("", 20.0, bounds, Box::new(canal));
}
