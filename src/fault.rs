//! The one error that crosses rooms.
//!
//! Every room has its own `thiserror` enum and maps it to a [`Fault`] in one visible `match`. A fault carries a
//! [`Code`] from a closed set: a stable dotted name that scripts, metrics and `jobs explain` rely on, one sentence of
//! meaning and one sentence of what to do next. The message never holds patient data.

use std::fmt;

/// What may be done with the work that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The same work may succeed later: wait and try again.
    Retryable,
    /// This input can not be done right, now or later: park it, leave its files untouched.
    Poison,
    /// The process or its set-up is broken: stop, say why, let the supervisor restart.
    Fatal,
}

/// Who can do something about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody has to: a scout, a report, our own result. Only counted.
    Expected,
    /// Someone at the scanner or the sending system: missing slices, a missing weight.
    Source,
    /// Someone who runs this machine.
    System,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 3] = [Kind::Expected, Kind::Source, Kind::System];

    /// As reports and metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Expected => "expected",
            Kind::Source => "source",
            Kind::System => "system",
        }
    }

    /// Who that is, for people.
    pub fn who(self) -> &'static str {
        match self {
            Kind::Expected => "nobody has to do anything",
            Kind::Source => "for those at the scanner or the sending system",
            Kind::System => "for those who run this machine",
        }
    }
}

macro_rules! codes {
    ($($variant:ident, $name:literal, $class:ident, $meaning:literal, $action:literal;)*) => {
        /// Stable failure codes. The part before the dot is the room or resource, the part after it is what
        /// `inspect --json` prints as `reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $meaning] $variant,)* }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The stable dotted name, e.g. `series.missing_slice`.
            pub fn name(self) -> &'static str { match self { $(Code::$variant => $name,)* } }

            /// The code of a stable name.
            pub fn from_name(name: &str) -> Option<Code> { Code::ALL.iter().copied().find(|code| code.name() == name) }

            /// The class that a fault with this code has.
            pub fn class(self) -> Class { match self { $(Code::$variant => Class::$class,)* } }

            /// One sentence: what happened.
            pub fn meaning(self) -> &'static str { match self { $(Code::$variant => $meaning,)* } }

            /// One sentence: what the operator does next.
            pub fn action(self) -> &'static str { match self { $(Code::$variant => $action,)* } }
        }
    };
}

include!("fault_codes.rs");

impl Code {
    /// The part of the name after the dot: the `reason` of `inspect --json`.
    pub fn reason(self) -> &'static str {
        let name = self.name();
        name.split_once('.').map_or(name, |(_, reason)| reason)
    }

    /// Who can do something about it.
    pub fn kind(self) -> Kind {
        match self {
            Code::InputSopClass | Code::InputSegmentation | Code::InputDicomdir | Code::InputNotDicom | Code::InputTemporary => {
                Kind::Expected
            }
            Code::SeriesLocalizer | Code::SeriesDerived | Code::SeriesNotMonochrome | Code::SeriesNotVolume => Kind::Expected,
            Code::SeriesNotAttenuationCorrected => Kind::Expected,
            Code::SelectNoRule | Code::SelectIgnored | Code::SelectNotBest => Kind::Expected,
            Code::InputSpecialFile | Code::InputUnreadableFile | Code::InputTooLarge | Code::InputTooMany => Kind::System,
            _ => match self.area() {
                "input" | "codec" | "series" | "quantity" | "select" => Kind::Source,
                _ => Kind::System,
            },
        }
    }

    /// The part of the name before the dot.
    pub fn area(self) -> &'static str {
        let name = self.name();
        name.split_once('.').map_or(name, |(area, _)| area)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

/// A failure on its way to whoever handles it: what may be done, which code, and the words for a person.
#[derive(Debug)]
pub struct Fault {
    /// What may be done with the work.
    pub class: Class,
    /// The stable code.
    pub code: Code,
    /// The job it happened to, once there is one.
    pub job: Option<String>,
    /// What exactly, and where; no patient data.
    pub detail: String,
    /// The room's own error, for the log.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// A fault with the code's own class.
    pub fn new(code: Code, detail: impl Into<String>) -> Fault {
        Fault { class: code.class(), code, job: None, detail: detail.into(), source: None }
    }

    /// The same fault with the error that caused it.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
        self.source = Some(source.into());
        self
    }

    /// The same fault, said of a job.
    pub fn of_job(mut self, job: impl Into<String>) -> Fault {
        self.job = Some(job.into());
        self
    }

    /// What lies behind the fault, each cause in brackets, for the log; what the detail says already is left out.
    pub fn causes(&self) -> String {
        let mut text = String::new();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let said = error.to_string();
            if !self.detail.contains(&said) && !text.contains(&said) {
                text += &format!("({said})");
            }
            source = error.source();
        }
        text
    }

    /// The process exit code that a verb ends with on this fault: 1 input refused, 70 internal, 74 storage,
    /// 78 configuration.
    pub fn exit_code(&self) -> u8 {
        match self.code.area() {
            "config" => match self.code {
                Code::ConfigNotAvailable | Code::ConfigUsage => 2,
                _ => 78,
            },
            "internal" | "device" => 70,
            "disk" | "ledger" | "spool" => 74,
            "results" if self.code == Code::ResultsChanged => 74,
            _ => 1,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.code.meaning())?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_dotted_unique_and_explained() {
        let mut seen = BTreeSet::new();
        for &code in Code::ALL {
            let (area, reason) = code.name().split_once('.').expect("dotted");
            assert!(!area.is_empty() && reason.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{code}");
            assert!(seen.insert(code.name()), "{code} twice");
            assert!(code.meaning().ends_with('.') && code.action().ends_with('.'), "{code}: sentences end with a full stop");
        }
    }
}
