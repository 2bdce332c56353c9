//! The MACs of the older signatures.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

fn mac_sha1(key: &[u8], message: &[u8]) -> Hmac<Sha1> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac
}

fn mac_sha256(key: &[u8], message: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac
}

pub(crate) fn hmac_sha1(key: &[u8], message: &[u8]) -> [u8; 20] {
    mac_sha1(key, message).finalize().into_bytes().into()
}

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    mac_sha256(key, message).finalize().into_bytes().into()
}

/// Compares in constant time.
pub(crate) fn hmac_sha1_is(key: &[u8], message: &[u8], expected: &[u8]) -> bool {
    mac_sha1(key, message).verify_slice(expected).is_ok()
}

/// Compares in constant time.
pub(crate) fn hmac_sha256_is(key: &[u8], message: &[u8], expected: &[u8]) -> bool {
    mac_sha256(key, message).verify_slice(expected).is_ok()
}

/// SHA-1, in lower-case hex.
pub(crate) fn sha1_hex(bytes: &[u8]) -> String {
    hex::encode(Sha1::digest(bytes))
}
