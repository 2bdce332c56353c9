//! What a request asks for.

use serde::{Deserialize, Deserializer, de};
use tencentcloud_signing::upload::TaskNotifyMode;

/// The largest body. The longest texts that can be granted fit in several times, however they are escaped.
pub const MAX_BODY: usize = 8 * 1024;

/// What the body says. An empty body asks for nothing in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Wanted {
    /// `sourceContext`.
    pub source_context: Option<String>,
    /// `sessionContext`.
    pub session_context: Option<String>,
    /// `procedure`.
    pub procedure: Option<String>,
    /// `classId`.
    pub class_id: Option<i64>,
    /// `storageRegion`.
    pub storage_region: Option<String>,
    /// `taskPriority`.
    pub task_priority: Option<i8>,
    /// `taskNotifyMode`.
    #[serde(deserialize_with = "notify_mode")]
    pub task_notify_mode: Option<TaskNotifyMode>,
    /// `oneTimeValid`.
    pub one_time_valid: Option<bool>,
    /// Seconds for which the signature holds.
    pub ttl: Option<u64>,
    /// The sub-application.
    pub sub_app_id: Option<u64>,
}

fn notify_mode<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TaskNotifyMode>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let unknown = || de::Error::custom("taskNotifyMode is Finish, Change or None");
    TaskNotifyMode::from_name(&name).map(Some).ok_or_else(unknown)
}

/// Why a body is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not the JSON object of a request: {0}")]
pub struct NotARequest(String);

impl Wanted {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in a line.
    pub fn read(body: &[u8]) -> Result<Self, NotARequest> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        // The reader would take a list of the values for an object.
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(NotARequest("it does not begin with a brace".to_owned()));
        }
        serde_json::from_slice(body).map_err(|error| NotARequest(bounded(&error.to_string())))
    }
}

/// The words of a reader that repeats what it reads, in a bounded line.
fn bounded(text: &str) -> String {
    const MOST: usize = 200;
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = plain.clone().take(MOST).collect();
    if plain.count() > MOST {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_asks_for_what_it_names() {
        assert_eq!(Wanted::read(b""), Ok(Wanted::default()));
        assert_eq!(Wanted::read(b"{}"), Ok(Wanted::default()));
        let body = r#"{"sourceContext":"u&=1","classId":-3,"taskPriority":-10,"taskNotifyMode":"Change","oneTimeValid":true,
            "ttl":60,"subAppId":18446744073709551615,"procedure":null}"#;
        let wanted = Wanted::read(body.as_bytes()).unwrap();
        assert_eq!((wanted.source_context.as_deref(), wanted.class_id), (Some("u&=1"), Some(-3)));
        assert_eq!(
            (wanted.task_priority, wanted.task_notify_mode),
            (Some(-10), Some(TaskNotifyMode::Change))
        );
        assert_eq!((wanted.one_time_valid, wanted.ttl), (Some(true), Some(60)));
        assert_eq!((wanted.sub_app_id, wanted.procedure), (Some(u64::MAX), None));
    }

    #[test]
    fn what_is_no_request_is_named_in_a_short_line() {
        let long = format!("{{\"{}\":1}}", "x".repeat(5_000));
        let deep = "[".repeat(5_000);
        for (body, words) in [
            ("{\"secretId\":\"x\"}", "unknown field `secretId`"),
            ("{\"classId\":1,\"classId\":2}", "duplicate field `classId`"),
            ("{\"a\\r\\nb\":1}", "unknown field `a  b`"),
            ("{\"classId\":\"1\"}", "invalid type"),
            ("{\"classId\":1.5}", "invalid type"),
            ("{\"taskPriority\":200}", "invalid value"),
            ("{\"subAppId\":-1}", "invalid value"),
            ("{\"taskNotifyMode\":\"finish\"}", "Finish, Change or None"),
            ("{\"oneTimeValid\":1}", "invalid type"),
            ("[]", "brace"),
            ("null", "brace"),
            (" \n", "brace"),
            ("{} {}", "trailing"),
            ("\u{feff}{}", "brace"),
            (long.as_str(), "unknown field"),
            (deep.as_str(), "brace"),
        ] {
            let told = Wanted::read(body.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(words), "{body:.40}: {told}");
            assert!(told.chars().count() < 300 && !told.contains(char::is_control), "{told}");
        }
        assert!(Wanted::read(b"{\"procedure\":\"\xff\"}").is_err());
    }
}
