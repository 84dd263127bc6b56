//! What may stand for a key that offers a choice; the command line offers the same.

use super::units::by_text;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// A choice by name: the enum, its names, reading and printing.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every choice.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// As it is written.
            pub fn name(self) -> &'static str { match self { $($name::$variant => $text,)* } }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<$name, String> {
                $name::ALL.iter().copied().find(|c| c.name() == text).ok_or_else(|| {
                    let names: Vec<_> = $name::ALL.iter().map(|c| c.name()).collect();
                    format!("`{text}` is not one of: {}", names.join(", "))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.name()) }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(self.name()) }
        }

        by_text!($name);
    };
}
pub(super) use choice;

choice! {
    /// What is written for a result.
    Format {
        /// DICOM Segmentation, `seg.dcm`.
        Seg = "seg",
        /// DICOM Label Map Segmentation, `labelmap.dcm`.
        LabelMap = "labelmap",
        /// NIfTI label map, `labels.nii.gz`.
        Nifti = "nifti",
        /// Picture of three planes, `preview.png`.
        Preview = "preview",
    }
}

choice! {
    /// What happens to a series with missing slices or varying distances.
    Irregular {
        /// Refused by name.
        Refuse = "refuse",
        /// Interpolated to even distances; labels return to the slices that exist.
        Resample = "resample",
    }
}

choice! {
    /// What happens to the files of a watched folder once their result is published and everybody who gets it has it.
    After {
        /// They stay.
        Keep = "keep",
        /// They go into another folder.
        Move = "move",
        /// They are removed.
        Delete = "delete",
    }
}

choice! {
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// What is logged.
    LogLevel {
        /// Failures only.
        Error = "error",
        /// And what may need attention.
        Warn = "warn",
        /// And what was done.
        Info = "info",
        /// And how.
        Debug = "debug",
    }
}

/// A share in (0, 1].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Share(f64);

impl Share {
    /// Half.
    pub const HALF: Share = Share(0.5);

    /// `None` outside (0, 1].
    pub fn new(value: f64) -> Option<Share> {
        (value > 0.0 && value <= 1.0).then_some(Share(value))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;
    fn from_str(text: &str) -> Result<Share, String> {
        text.parse().ok().and_then(Share::new).ok_or_else(|| format!("`{text}` is not a number above 0 and at most 1"))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Share::new(value).ok_or_else(|| serde::de::Error::custom(format!("{value} is not above 0 and at most 1")))
    }
}
