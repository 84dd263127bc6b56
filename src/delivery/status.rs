//! What statuses of C-STORE (PS3.4 table B.2-1, PS3.7 annex C) and failure reasons of STOW-RS (PS3.18 annex I) mean for a delivery.

use super::transport::Failure;
use crate::fault::{Code, Fault};

/// What a status means.
#[derive(Debug)]
pub enum Judged {
    /// It is there.
    Stored,
    /// It is there, and something was said about it.
    With(Fault),
    /// It is not there.
    Not(Failure, Fault),
}

/// The meaning of a status, and of the attributes that it names.
pub fn judge(status: u16, elements: &[(u16, u16)]) -> Judged {
    let said = format!("Status {status:04X}.");
    match status {
        // 0111: an instance with this UID is there already, and this UID names these bytes.
        0x0000 | 0x0111 => Judged::Stored,
        0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF => {
            let tags: Vec<String> = elements.iter().map(|(g, e)| format!("({g:04X},{e:04X})")).collect();
            let named = if tags.is_empty() { String::new() } else { format!(" It names {}.", tags.join(" ")) };
            Judged::With(Fault::new(Code::DeliveryCoerced, said + &named))
        }
        0xA700..=0xA7FF => Judged::Not(Failure::Passing, Fault::new(Code::DeliveryBusy, said)),
        0x0110 => Judged::Not(Failure::Doubted, Fault::new(Code::DeliveryBusy, said)),
        _ => Judged::Not(Failure::Refused, Fault::new(Code::DeliveryRefused, said)),
    }
}

/// Words of an error as a sentence.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    first + chars.as_str().trim_end_matches('.') + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_means_what_the_standard_says() {
        let cases = [
            (0x0000, "stored"),
            (0x0111, "stored"),
            (0xB000, "with"),
            (0xB007, "with"),
            (0x0107, "with"),
            (0xA700, "Passing"),
            (0xA7FF, "Passing"),
            (0x0110, "Doubted"),
            (0xA900, "Refused"),
            (0xC000, "Refused"),
            (0x0122, "Refused"),
            (0x0124, "Refused"),
            (0x0211, "Refused"),
        ];
        for (status, meaning) in cases {
            let judged = match judge(status, &[(0x0010, 0x0010)]) {
                Judged::Stored => "stored".to_string(),
                Judged::With(fault) => {
                    assert!(fault.detail.contains("(0010,0010)"), "{fault}");
                    "with".to_string()
                }
                Judged::Not(failure, _) => format!("{failure:?}"),
            };
            assert_eq!(judged, meaning, "{status:04X}");
        }
    }
}
