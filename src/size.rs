//! Sizes in bytes, as people write and read them.

use std::fmt;

/// Reads a size in bytes: a number, alone or with one of the units `K`, `M`, `G`, `T` (`KiB` …, powers of 1024) or `KB`
/// … (powers of 1000).
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim();
    let power = |letter: &str| "KMGT".find(letter).filter(|_| letter.len() == 1).map(|i| i as u32 + 1);
    let factor = match unit {
        "" | "B" => Some(1),
        _ => match (unit.strip_suffix("iB").or(unit.strip_suffix('i')), unit.strip_suffix('B')) {
            (Some(letter), _) => power(letter).map(|power| 1024u64.pow(power)),
            (None, Some(letter)) => power(letter).map(|power| 1000u64.pow(power)),
            (None, None) => power(unit).map(|power| 1024u64.pow(power)),
        },
    }?;
    number.checked_mul(factor)
}

/// A size for people: `3.0 GiB`.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let units = ["KiB", "MiB", "GiB", "TiB"];
        let Some(exponent) = (1..=4u32).rev().find(|exponent| bytes >= 1024u64.pow(*exponent)) else {
            return write!(f, "{bytes} B");
        };
        write!(f, "{:.1} {}", bytes as f64 / 1024f64.powi(exponent as i32), units[exponent as usize - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, size) in
            [("0", 0), ("16MiB", 16 << 20), ("16 M", 16 << 20), ("1Gi", 1 << 30), ("2KB", 2000), ("7B", 7)]
        {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5G", "1XB", "1MiBs", "99999999999999999999", "99999999999T"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(Size(3 << 30).to_string(), "3.0 GiB");
        assert_eq!(Size(1023).to_string(), "1023 B");
    }
}
