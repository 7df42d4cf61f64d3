//! The header `Authorization`, and others that hold secrets.

use http::HeaderValue;

/// A header's value that is kept out of logs; `None` if it has characters that no header can have.
pub(crate) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 7617.
pub(crate) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret_value(&format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
}

/// RFC 6750 section 2.1.
#[cfg(any(feature = "http", feature = "oci"))]
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    secret_value(&format!("Bearer {token}"))
}

/// Base64 of RFC 4648 section 4, for basic authentication.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            text.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
