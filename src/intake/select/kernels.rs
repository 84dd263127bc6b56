//! What reconstruction kernels are made for, by the names that makers give them.

/// From smooth to sharp: the order in which a model of soft tissue wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kernel {
    /// Soft tissue.
    Soft,
    /// A name that says nothing to us, or none.
    Unknown,
    /// Lung, bone, edges.
    Sharp,
}

/// Words that GE and others use.
const SHARP: [&str; 6] = ["LUNG", "BONE", "EDGE", "CHST", "ULTRA", "SHARP"];
const SOFT: [&str; 4] = ["SOFT", "STANDARD", "STND", "SMOOTH"];
/// Philips has letters.
const SHARP_LETTERS: [&str; 7] = ["D", "E", "L", "YA", "YB", "YC", "YD"];
const SOFT_LETTERS: [&str; 4] = ["A", "B", "UA", "UB"];
/// Canon's `FC30` and Siemens' `Br50`, `B50f`, `I50` and above are sharp.
const CANON: u32 = 30;
const SIEMENS: u32 = 50;

impl Kernel {
    /// Of Convolution Kernel (0018,1210): its first value counts.
    pub fn of(text: &str) -> Kernel {
        let name = text.split('\\').next().unwrap_or_default().trim().to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        let is = |letters: &[&str]| letters.contains(&name.as_str());
        if has(&SHARP) || is(&SHARP_LETTERS) {
            return Kernel::Sharp;
        }
        if has(&SOFT) || is(&SOFT_LETTERS) {
            return Kernel::Soft;
        }
        let letters = name.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(name.len());
        let (letters, rest) = name.split_at(letters);
        let limit = match letters.len() {
            _ if letters == "FC" => CANON,
            1 | 2 => SIEMENS,
            _ => return Kernel::Unknown,
        };
        match rest.get(..2).and_then(|digits| digits.parse::<u32>().ok()) {
            Some(number) if number < limit => Kernel::Soft,
            Some(_) => Kernel::Sharp,
            None => Kernel::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_names_are_known() {
        for name in ["B30f", "Br40d\\3", "I31f", "Hr38", "STANDARD", "SOFT", "FC18", "FC08-H", "B", "UB", " b20s "] {
            assert_eq!(Kernel::of(name), Kernel::Soft, "{name}");
        }
        for name in ["B70f", "Bl57d\\2", "I70f", "LUNG", "BONEPLUS", "EDGE", "FC51", "FC30", "L", "YB"] {
            assert_eq!(Kernel::of(name), Kernel::Sharp, "{name}");
        }
        for name in ["", "NONE", "DETAIL", "C", "IMR1", "Q", "12", "Br", "ß5"] {
            assert_eq!(Kernel::of(name), Kernel::Unknown, "{name}");
        }
    }
}
