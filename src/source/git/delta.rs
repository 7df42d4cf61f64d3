//! Differences between objects (gitformat-pack, "Deltified representation").

/// The sizes of base and result.
pub(super) fn sizes(mut delta: &[u8]) -> Option<(u64, u64)> {
    Some((take_size(&mut delta)?, take_size(&mut delta)?))
}

fn take_size(bytes: &mut &[u8]) -> Option<u64> {
    let mut size = 0;
    for shift in (0..=56).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        size |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}

/// Applies a difference: copies of parts of the base, and new bytes. `None` for what is none of this base.
pub(super) fn apply(base: &[u8], mut delta: &[u8]) -> Option<Vec<u8>> {
    let (from, to) = (take_size(&mut delta)?, take_size(&mut delta)?);
    if from != base.len() as u64 {
        return None;
    }
    let mut out = Vec::new();
    while let Some((&byte, rest)) = delta.split_first() {
        delta = rest;
        let part = if byte & 0x80 != 0 {
            let mut field = |bits: std::ops::Range<u8>| -> Option<usize> {
                let mut value = 0;
                for (i, bit) in bits.enumerate() {
                    if byte & 1 << bit != 0 {
                        let (&next, rest) = delta.split_first()?;
                        delta = rest;
                        value |= usize::from(next) << (8 * i);
                    }
                }
                Some(value)
            };
            let (offset, length) = (field(0..4)?, field(4..7)?);
            let length = if length == 0 { 0x10000 } else { length };
            base.get(offset..offset.checked_add(length)?)?
        } else {
            let (part, rest) = delta.split_at_checked(usize::from(byte)).filter(|_| byte != 0)?;
            delta = rest;
            part
        };
        if (out.len() + part.len()) as u64 > to {
            return None;
        }
        out.extend_from_slice(part);
    }
    (out.len() as u64 == to).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_the_base_and_new_bytes() {
        // Sizes 12 and 8; copies 5 bytes from 7; inserts "abc".
        let delta = [&[12, 8, 0x91, 7, 5, 3][..], b"abc"].concat();
        assert_eq!((sizes(&delta), apply(b"hello, hello", &delta).unwrap()), (Some((12, 8)), b"helloabc".to_vec()));
        for delta in [&[5, 5, 0][..], &[4, 5, 0x90, 5], &[5, 200, 0x90, 5], &[5, 3, 0x90, 5], &[5, 9, 0x91, 1, 9], &[5]]
        {
            assert!(apply(b"hello", delta).is_none(), "{delta:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_difference_or_none(base in prop::collection::vec(any::<u8>(), 0..9), delta in prop::collection::vec(0..12u8, 0..30)) {
            if let Some(result) = apply(&base, &delta) {
                prop_assert_eq!(sizes(&delta), Some((base.len() as u64, result.len() as u64)));
            }
        }
    }
}
