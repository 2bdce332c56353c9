//! How a secret can look in a text: libraries write bytes in many ways.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The secret in every encoding that is looked for, with its name.
pub fn encodings(secret: &str) -> Vec<(&'static str, String)> {
    let debug = format!("{secret:?}");
    let debug = debug.trim_matches('"').to_owned();
    let json = |text: &str| {
        let quoted = serde_json::to_string(text).unwrap();
        quoted[1..quoted.len() - 1].to_owned()
    };
    let list = |separator: &str| secret.bytes().map(|b| b.to_string()).collect::<Vec<_>>().join(separator);
    let mut all = vec![
        ("plain", secret.to_owned()),
        ("JSON", json(secret)),
        ("Debug in JSON", json(&debug)),
        ("Debug", debug),
        ("percent", utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string()),
        ("hex", hex::encode(secret)),
        ("HEX", hex::encode_upper(secret)),
        ("byte list", list(", ")),
        ("dense byte list", list(",")),
    ];
    for skipped in 0..3 {
        all.push(("base64", base64_within(secret.as_bytes(), skipped)));
    }
    all
}

/// What of its base64 does not depend on the bytes around it, when so many bytes are before it.
fn base64_within(bytes: &[u8], before: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<bool> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let first = (6 - before * 8 % 6) % 6;
    bits[first..]
        .chunks_exact(6)
        .map(|six| char::from(ALPHABET[six.iter().fold(0, |sum, bit| sum * 2 + usize::from(*bit))]))
        .collect()
}

#[test]
fn each_encoding_is_found_where_it_stands() {
    let secret = "pl\"a\\n/t+ed";
    let looked_for = encodings(secret);
    let finds = |text: &str| looked_for.iter().any(|(_, encoded)| text.contains(encoded));
    // Of `pl"a\n/t+ed` behind none, one and two other bytes (coreutils' base64).
    for text in ["cGwiYVxuL3QrZWQ=", "eHBsImFcbi90K2Vk", "eHhwbCJhXG4vdCtlZA=="] {
        assert!(finds(text), "{text}");
    }
    for text in [
        format!("<{secret}>"),
        format!("{secret:?}"),
        serde_json::to_string(&format!("{secret:?}")).unwrap(),
        format!("{:?}", secret.as_bytes()),
        "?token=pl%22a%5Cn%2Ft%2Bed&".to_owned(),
        format!("x{}x", hex::encode(secret)),
    ] {
        assert!(finds(&text), "{text}");
    }
    assert!(!finds("planted"));
}
