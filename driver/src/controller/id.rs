//! Ids of volumes: made from what a volume is, so that nobody has to remember which there are.

use std::collections::BTreeMap;

use modelmount::Digest;

/// The id of the volume with this name and these attributes: `mm-`, 32 hexadecimal digits, `-`, and 8 more that follow
/// from the ones before, so that an invented id can be told from a real one without remembering any.
pub(super) fn volume_id(name: &str, attributes: &BTreeMap<String, String>) -> String {
    // Each text with its length in front: no two different inputs look alike.
    let mut input = Vec::new();
    let texts = attributes.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    for text in std::iter::once(name).chain(texts) {
        input.extend((text.len() as u64).to_le_bytes());
        input.extend(text.as_bytes());
    }
    let mut id = Digest::of(&input).hex();
    id.truncate(32);
    id.insert_str(0, "mm-");
    let check = checksum(&id);
    id + "-" + &check
}

/// Whether [`volume_id`] made this.
pub(super) fn is_volume_id(id: &str) -> bool {
    let Some((body, check)) = id.rsplit_once('-') else { return false };
    let hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let well_formed = |digits: &str| digits.len() == 32 && digits.bytes().all(hex);
    body.strip_prefix("mm-").is_some_and(well_formed) && checksum(body) == check
}

fn checksum(text: &str) -> String {
    let mut digits = Digest::of(text).hex();
    digits.truncate(8);
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_and_attributes_make_the_id() {
        let attributes = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let id = volume_id("pvc-1", &attributes(&[("a", "bc")]));
        assert_eq!(volume_id("pvc-1", &attributes(&[("a", "bc")])), id);
        assert!(id.len() <= 128, "{id}");
        assert_ne!(volume_id("pvc-2", &attributes(&[("a", "bc")])), id);
        assert_ne!(volume_id("pvc-1", &attributes(&[("ab", "c")])), id);
        assert_ne!(volume_id("pvc-1a", &attributes(&[("", "bc")])), id);
    }

    #[test]
    fn an_id_stays_the_same_from_release_to_release() {
        // Persistent volumes outlive the plugin. Worked out apart from this code.
        assert_eq!(volume_id("n", &BTreeMap::new()), "mm-37df42124b790aa017a5d7102ead911b-4220e6d9");
    }

    proptest! {
        #[test]
        fn real_ids_are_recognised_and_changed_ones_are_not(name in ".{1,20}", at in 0..44usize, to in "[0-9a-f-]") {
            let id = volume_id(&name, &BTreeMap::new());
            prop_assert!(is_volume_id(&id));
            let mut changed = id.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(is_volume_id(&changed), changed == id);
            prop_assert!(!is_volume_id(&id[..at]));
        }

        #[test]
        fn invented_ids_are_not_recognised(id in "(mm-)?[0-9a-f]{30,34}-[0-9a-f]{8}|.{0,50}") {
            prop_assert!(!is_volume_id(&id));
        }
    }
}
