//! A small RGB picture: rectangles, blended pixels, letters, PNG.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// sRGB.
pub type Rgb = [u8; 3];

/// Letter heights and weights in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Font {
    /// 16 pixels.
    Small,
    /// 16 pixels, bold.
    SmallBold,
    /// 24 pixels, bold.
    Title,
}

impl Font {
    fn raster(self) -> (FontWeight, RasterHeight) {
        match self {
            Font::Small => (FontWeight::Regular, RasterHeight::Size16),
            Font::SmallBold => (FontWeight::Bold, RasterHeight::Size16),
            Font::Title => (FontWeight::Bold, RasterHeight::Size24),
        }
    }

    /// Height of a line of text.
    pub fn height(self) -> usize {
        self.raster().1 as usize
    }

    /// Width of `text`.
    pub fn width(self, text: &str) -> usize {
        let (weight, height) = self.raster();
        get_raster_width(weight, height) * text.chars().count()
    }

    /// `text`, or as much of it as fits into `width` with two dots.
    pub fn fit(self, text: &str, width: usize) -> String {
        let most = width / self.width("x");
        if text.chars().count() <= most { text.into() } else { text.chars().take(most.saturating_sub(2)).chain("..".chars()).collect() }
    }
}

/// Pixels, row by row.
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// A picture of one colour.
    pub fn new(width: usize, height: usize, colour: Rgb) -> Canvas {
        Canvas { width, height, pixels: vec![colour; width * height] }
    }

    /// Puts a pixel over what is there; `opacity` 0 to 1. Outside the picture nothing happens.
    pub fn blend(&mut self, x: usize, y: usize, colour: Rgb, opacity: f32) {
        if x < self.width && y < self.height {
            let pixel = &mut self.pixels[y * self.width + x];
            *pixel = mix(*pixel, colour, opacity);
        }
    }

    /// A filled rectangle.
    pub fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Rgb) {
        for row in y..(y + height).min(self.height) {
            self.pixels[row * self.width..][x.min(self.width)..(x + width).min(self.width)].fill(colour);
        }
    }

    /// Text with its upper left corner at `(x, y)`. What the font lacks is drawn as `?`.
    pub fn text(&mut self, x: usize, y: usize, text: &str, font: Font, colour: Rgb) {
        let (weight, height) = font.raster();
        let advance = get_raster_width(weight, height);
        for (n, c) in text.chars().enumerate() {
            let Some(glyph) = get_raster(c, weight, height).or_else(|| get_raster('?', weight, height)) else { continue };
            for (dy, row) in glyph.rows().enumerate() {
                for (dx, &ink) in row.iter().enumerate().filter(|(_, ink)| **ink > 0) {
                    self.blend(x + n * advance + dx, y + dy, colour, f32::from(ink) / 255.0);
                }
            }
        }
    }

    /// Text over an image: with a dark edge, so that it can be read on any grey.
    pub fn text_on_image(&mut self, x: usize, y: usize, text: &str, font: Font, colour: Rgb) {
        for (dx, dy) in [(0, 1), (2, 1), (1, 0), (1, 2), (2, 2)] {
            self.text((x + dx).saturating_sub(1), (y + dy).saturating_sub(1), text, font, [0; 3]);
        }
        self.text(x, y, text, font, colour);
    }

    /// The picture as a PNG file.
    pub fn into_png(self) -> Result<Vec<u8>, png::EncodingError> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(self.pixels.as_flattened())?;
        writer.finish()?;
        Ok(out)
    }
}

/// `over` upon `under`.
pub fn mix(under: Rgb, over: Rgb, opacity: f32) -> Rgb {
    std::array::from_fn(|c| (f32::from(under[c]) * (1.0 - opacity) + f32::from(over[c]) * opacity).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_its_column() {
        let one = Font::Small.width("x");
        assert_eq!(Font::Small.fit("spleen", 6 * one), "spleen");
        assert_eq!(Font::Small.fit("spleens", 6 * one), "sple..");
        assert_eq!(Font::Small.fit("spleens", 0), "..");
    }

    #[test]
    fn nothing_is_drawn_outside() {
        let mut canvas = Canvas::new(4, 3, [1, 2, 3]);
        canvas.fill(2, 2, 100, 100, [9; 3]);
        canvas.text(3, 1, "Wg\u{1F600}", Font::Title, [255; 3]);
        canvas.text_on_image(0, 0, "x", Font::Small, [255; 3]);
        canvas.blend(100, 100, [0; 3], 1.0);
        let png = canvas.into_png().expect("encodes");
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("decodes");
        let mut pixels = vec![0; reader.output_buffer_size().expect("size")];
        reader.next_frame(&mut pixels).expect("frame");
        assert_eq!(pixels.len(), 4 * 3 * 3);
    }
}
