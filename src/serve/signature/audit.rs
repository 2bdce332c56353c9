//! The line of the log for each request of a known caller: who got what, and until when. The signature itself never stands in it.

use std::net::IpAddr;

use tencentcloud_signing::upload::{self, Grant, Signature};
use tracing::info;

use super::signer::SignedGrant;

/// What these lines are filtered by; they are logged whatever `log.level` says.
pub const TARGET: &str = "audit";

/// A signature was given.
pub(super) fn granted(caller: &str, peer: IpAddr, signed: &SignedGrant) {
    let Grant { random, expire_time, .. } = signed.grant;
    info!(
        target: TARGET,
        caller,
        %peer,
        random,
        expire_time,
        granted = %parameters(&signed.signature),
        signature_sha256 = %upload::digest(&signed.signature),
        "upload signature granted"
    );
}

/// A caller asked for what it cannot have.
pub(super) fn refused(caller: &str, peer: IpAddr, status: u16, code: &str, message: &str) {
    info!(target: TARGET, caller, %peer, status, code, cause = %plain(message), "upload signature refused");
}

/// What the signature says of the upload, as a JSON object: without the key's id, times and numbers, which stand beside it.
fn parameters(signature: &str) -> String {
    const ELSEWHERE: [&str; 4] = ["secretId", "currentTimeStamp", "expireTime", "random"];
    let Ok(read) = Signature::parse(signature) else { return String::new() };
    let granted: serde_json::Map<String, serde_json::Value> = read
        .parameters()
        .into_iter()
        .filter(|(name, _)| !ELSEWHERE.contains(&name.as_ref()))
        .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
        .collect();
    plain(&serde_json::Value::Object(granted).to_string())
}

/// JSON, or a line, without a character that a terminal would obey or show in another place. In JSON it means the same.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}');
        if c.is_control() || turns {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_of_one_line_that_no_terminal_obeys() {
        let grant = Grant {
            source_context: Some("a\r\nb\u{1b}[2J\u{9b}1m\u{202e}\"&=".to_owned()),
            one_time_valid: Some(true),
            ..Grant::new("AKIDexample", 1_800_000_000, 1_800_000_600, 7)
        };
        let text = parameters(&grant.sign("the key").unwrap());
        assert_eq!(text, r#"{"oneTimeValid":"1","sourceContext":"a\r\nb\u001b[2J\u009b1m\u202e\"&="}"#);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["sourceContext"], "a\r\nb\u{1b}[2J\u{9b}1m\u{202e}\"&=");
    }
}
