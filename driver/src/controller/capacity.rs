//! How large a volume is said to be: as large as its model, or as the claim wants it.

use modelmount::size::Size;
use tonic::Status;

use crate::csi::CapacityRange;
use crate::status::message;

/// The capacity of a volume for a model of `size` bytes, as far as the source tells them. 0 stands for "unknown".
///
/// The provisioner wants at least what the claim asks for; a claim that asks for less than its model needs is told so,
/// unless `ignored`: its quota would be a lie.
///
/// Errors: `OUT_OF_RANGE`, with the size to ask for; `INVALID_ARGUMENT` for a range that makes no sense.
pub(super) fn capacity(model: &str, size: u64, range: Option<&CapacityRange>, ignored: bool) -> Result<i64, Status> {
    let (required, limit) = range.map_or((0, 0), |range| (range.required_bytes, range.limit_bytes));
    if required < 0 || limit < 0 || (limit > 0 && required > limit) {
        return Err(Status::invalid_argument("capacity_range makes no sense: it must be 0 <= required <= limit"));
    }
    // No disk of this world holds more than an i64 can count.
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    // 0 is "no wish" and "no limit".
    let fits = limit == 0 || size <= limit;
    if !ignored && (!fits || (required > 0 && required < size)) {
        return Err(Status::out_of_range(message(&format!(
            "{model} has {} ({size} bytes), and the claim asks for less: request storage: {}, or let the StorageClass say \
             ignoreCapacity: \"true\"",
            Size(size.unsigned_abs()),
            quantity(size)
        ))));
    }
    Ok(if fits { size.max(required) } else { required })
}

/// The size as a claim writes it, rounded up.
fn quantity(bytes: i64) -> String {
    let mebibytes = bytes.unsigned_abs().div_ceil(1 << 20);
    if mebibytes.is_multiple_of(1024) { format!("{}Gi", mebibytes / 1024) } else { format!("{mebibytes}Mi") }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn of(size: u64, required: i64, limit: i64, ignored: bool) -> Result<i64, (Code, String)> {
        let range = CapacityRange { required_bytes: required, limit_bytes: limit };
        capacity("s3://b/m", size, Some(&range), ignored).map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn a_volume_is_as_large_as_its_model_or_as_its_claim() {
        assert_eq!(of(100, 100, 0, false), Ok(100));
        assert_eq!(of(100, 101, 0, false), Ok(101));
        assert_eq!(of(100, 0, 0, false), Ok(100));
        assert_eq!(of(100, 0, 100, false), Ok(100));
        assert_eq!(of(0, 7, 9, false), Ok(7), "of unknown size");
        assert_eq!(of(0, 0, 0, false), Ok(0));
        assert_eq!(capacity("s3://b/m", 5, None, false).unwrap(), 5);
        assert_eq!(of(u64::MAX, 0, 0, false), Ok(i64::MAX));
    }

    #[test]
    fn a_claim_that_asks_for_less_is_told_what_to_ask_for() {
        for (size, required, limit, quantity) in
            [(100 << 20, 1, 0, "100Mi"), ((1 << 30) + 1, 1 << 30, 0, "1025Mi"), (2 << 30, 0, 1, "2Gi")]
        {
            let (code, message) = of(size, required, limit, false).unwrap_err();
            assert_eq!(code, Code::OutOfRange);
            for words in [format!("storage: {quantity},"), format!("({size} bytes)"), "ignoreCapacity".to_owned()] {
                assert!(message.contains(&words), "{message}");
            }
        }
    }

    #[test]
    fn unless_the_class_does_not_care() {
        assert_eq!(of(100, 1, 0, true), Ok(100));
        assert_eq!(of(100, 1, 50, true), Ok(1), "a limit is never passed");
        assert_eq!(of(100, 0, 50, true), Ok(0));
    }

    #[test]
    fn a_range_that_makes_no_sense_is_refused() {
        for (required, limit) in [(-1, 0), (0, -1), (2, 1)] {
            assert_eq!(of(1, required, limit, true).unwrap_err().0, Code::InvalidArgument);
        }
    }
}
