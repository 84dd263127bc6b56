//! Display colours as DICOM says them.

/// Recommended Display CIELab Value of an sRGB colour (PS3.3 C.10.7.1.1): L* 0..100 and a*, b* -128..127, each scaled to
/// 0..65535. White point D65, as sRGB has it and as the common SEG tools write it.
pub fn cielab(rgb: [u8; 3]) -> [u16; 3] {
    let [r, g, b] = rgb.map(|v| {
        let v = f64::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let x = 0.412_456_4 * r + 0.357_576_1 * g + 0.180_437_5 * b;
    let y = 0.212_672_9 * r + 0.715_152_2 * g + 0.072_175_0 * b;
    let z = 0.019_333_9 * r + 0.119_192_0 * g + 0.950_304_1 * b;
    let f = |t: f64| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
    let (fx, fy, fz) = (f(x / 0.950_47), f(y), f(z / 1.088_83));
    let scale = |v: f64| v.round().clamp(0.0, 65535.0) as u16;
    let axis = |v: f64| scale((v + 128.0) * 65535.0 / 255.0);
    [scale((116.0 * fy - 16.0) * 655.35), axis(500.0 * (fx - fy)), axis(200.0 * (fy - fz))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        // From the coded dictionary of TotalSegmentator's classes, which was made with D65; black is exact.
        assert_eq!(cielab([0, 0, 0]), [0, 0x8080, 0x8080]);
        for (rgb, lab) in [
            ([0x32, 0xaa, 0x3c], [40264, 18802, 44698]),
            ([0x22, 0x66, 0x88], [26610, 30557, 26499]),
            ([0x2e, 0x8a, 0xb8], [35556, 30024, 24736]),
            ([0x36, 0xd8, 0x77], [50341, 16988, 42221]),
        ] {
            for (a, b) in cielab(rgb).into_iter().zip(lab) {
                assert!(a.abs_diff(b) <= 2, "{rgb:?}: {:?}, expected {lab:?}", cielab(rgb));
            }
        }
    }
}
