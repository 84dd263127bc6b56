//! The transfer syntaxes of images that can be read (PS3.5 section 10, PS3.6 annex A).

/// Whether a transfer syntax loses information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Never.
    Never,
    /// It may: the syntax allows both.
    Possible,
    /// Always.
    Always,
}

/// UID, name, loss.
const READABLE: &[(&str, &str, Loss)] = &[
    ("1.2.840.10008.1.2", "Implicit VR Little Endian", Loss::Never),
    ("1.2.840.10008.1.2.1", "Explicit VR Little Endian", Loss::Never),
    ("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian", Loss::Never),
    ("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", Loss::Never),
    ("1.2.840.10008.1.2.2", "Explicit VR Big Endian", Loss::Never),
    ("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", Loss::Always),
    ("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)", Loss::Always),
    ("1.2.840.10008.1.2.4.57", "JPEG Lossless (Process 14)", Loss::Never),
    ("1.2.840.10008.1.2.4.70", "JPEG Lossless (Process 14, Selection Value 1)", Loss::Never),
    ("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", Loss::Never),
    ("1.2.840.10008.1.2.4.81", "JPEG-LS Near-lossless", Loss::Possible),
    ("1.2.840.10008.1.2.4.90", "JPEG 2000 (Lossless Only)", Loss::Never),
    ("1.2.840.10008.1.2.4.91", "JPEG 2000", Loss::Possible),
    ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 (Lossless Only)", Loss::Never),
    ("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 with RPCL (Lossless Only)", Loss::Never),
    ("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000", Loss::Possible),
    ("1.2.840.10008.1.2.5", "RLE Lossless", Loss::Never),
    ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", Loss::Never),
];

/// Whether images in that transfer syntax can be read.
pub fn is_readable(uid: &str) -> bool {
    READABLE.iter().any(|(u, ..)| *u == uid)
}

/// Whether images in that transfer syntax have lost information to compression.
pub fn loss(uid: &str) -> Loss {
    READABLE.iter().find(|(u, ..)| *u == uid).map_or(Loss::Never, |(.., loss)| *loss)
}

/// The name that the standard gives it, for readable ones.
pub fn name(uid: &str) -> Option<&'static str> {
    READABLE.iter().find(|(u, ..)| *u == uid).map(|(_, name, _)| *name)
}

/// UIDs of all readable transfer syntaxes.
pub fn readable() -> impl Iterator<Item = &'static str> {
    READABLE.iter().map(|(uid, ..)| *uid)
}

/// Whether pixel data comes in fragments in that transfer syntax.
pub fn is_encapsulated(uid: &str) -> bool {
    !matches!(uid, "1.2.840.10008.1.2" | "1.2.840.10008.1.2.1" | "1.2.840.10008.1.2.1.99" | "1.2.840.10008.1.2.2")
}
