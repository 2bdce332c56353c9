//! Events as the cloud would write them, for `trigger`, `demo` and tests.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::samples::{PIECES, SAMPLES, Sample};

/// The number of event types with samples.
const TYPES: usize = SAMPLES.len();

/// The names of all event types with samples.
pub const EVENT_TYPES: &[&str] = &{
    let mut names = [""; TYPES];
    let mut at = 0;
    while at < TYPES {
        names[at] = SAMPLES[at].event_type;
        at += 1;
    }
    names
};

/// The account that all samples come from.
const APP_ID: &str = "1500004321";

/// One event of a type, as JSON without `EventHandle`. Equal indexes give equal events, other indexes others. `None` for a
/// type that is not one of [`EVENT_TYPES`].
///
/// Every eighth index writes the members of other types as explicit nulls, as the cloud's documents do.
pub fn sample(event_type: &str, index: u64) -> Option<String> {
    let sample = SAMPLES.iter().find(|sample| sample.event_type == event_type)?;
    Some(write(sample, &SampleValues { index, salt: sample.member, procedure: false }))
}

/// The vendor's tutorial as two events: a file is uploaded with a source context, and its procedure ends with
/// a transcode and a cover. `ProcedureTaskId` of the first is `TaskId` of the second.
pub fn upload_story(index: u64) -> [String; 2] {
    let values = SampleValues { index, salt: "upload", procedure: true };
    [write(&SAMPLES[0], &values), write(&SAMPLES[1], &values)]
}

/// The known types nearest to a misspelt one, nearest first.
pub fn nearest(event_type: &str) -> Vec<&'static str> {
    let lower = event_type.to_lowercase();
    let mut scored: Vec<(f64, &str)> = EVENT_TYPES
        .iter()
        .map(|name| (strsim::jaro_winkler(&lower, &name.to_lowercase()), *name))
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

/// What a text contains in place of events.
#[derive(Debug, thiserror::Error)]
pub enum NoEvents {
    /// It is not JSON.
    #[error("not JSON")]
    NotJson(#[source] serde_json::Error),
    /// It is JSON, and contains something that is not an event.
    #[error("element {0} is not an object")]
    NotAnObject(usize),
}

/// The events in a text: one object, a list, one a line, or a whole answer to `PullEvents`. Handles are
/// removed. The rest of each event stays unchanged.
///
/// # Errors
///
/// When the text is not JSON, or an element of it is not an object.
pub fn read(text: &str) -> Result<Vec<String>, NoEvents> {
    #[derive(serde::Deserialize)]
    struct PullBody<'a> {
        #[serde(rename = "Response", borrow)]
        response: EventSet<'a>,
    }
    #[derive(serde::Deserialize)]
    struct EventSet<'a> {
        #[serde(rename = "EventSet", borrow)]
        event_set: Vec<&'a RawValue>,
    }
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        let value = value.map_err(NoEvents::NotJson)?.get();
        if value.starts_with('[') {
            let list: Vec<&RawValue> = serde_json::from_str(value).map_err(NoEvents::NotJson)?;
            events.extend(list.into_iter().map(RawValue::get));
        } else if let Ok(answer) = serde_json::from_str::<PullBody<'_>>(value) {
            events.extend(answer.response.event_set.into_iter().map(RawValue::get));
        } else {
            events.push(value);
        }
    }
    let without = |(at, event): (usize, &str)| without_handle(event).ok_or(NoEvents::NotAnObject(at));
    events.into_iter().enumerate().map(without).collect()
}

/// Sets one value inside an event. Dots separate the parts of the path, and a number is an index of a list.
/// Missing parts are created. Everything around it stays unchanged.
///
/// # Errors
///
/// Names the part of the path whose value is neither an object nor a list.
pub fn set(event: &str, path: &str, value: &str) -> Result<String, String> {
    // A value that is not JSON is a string, which saves a second level of quotes in a shell.
    let value = match serde_json::from_str::<&RawValue>(value) {
        Ok(value) => value.get().to_owned(),
        Err(_) => serde_json::Value::from(value).to_string(),
    };
    let parts: Vec<&str> = path.split('.').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(format!("{path} has an empty part"));
    }
    set_in(event, &parts, &value)
}

fn set_in(json: &str, path: &[&str], value: &str) -> Result<String, String> {
    let Some((first, rest)) = path.split_first() else { return Ok(value.to_owned()) };
    if json.starts_with('[') {
        let mut items: Vec<String> = serde_json::from_str::<Vec<&RawValue>>(json)
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|item| item.get().to_owned())
            .collect();
        let place = first.parse::<usize>().ok().filter(|place| *place <= items.len());
        let place = place.ok_or_else(|| format!("{first} is not a place in a list of {}", items.len()))?;
        if place == items.len() {
            items.push("{}".to_owned());
        }
        items[place] = set_in(&items[place], rest, value)?;
        return Ok(format!("[{}]", items.join(",")));
    }
    // A null or a scalar on the way to a deeper member becomes an object.
    let mut members = members(json).unwrap_or_default();
    match members.iter_mut().find(|(key, _)| key == first) {
        Some((_, old)) => *old = set_in(old, rest, value)?,
        None => members.push(((*first).to_owned(), set_in("{}", rest, value)?)),
    }
    Ok(object(&members))
}

fn without_handle(event: &str) -> Option<String> {
    let mut members = members(event)?;
    let before = members.len();
    members.retain(|(key, _)| key != "EventHandle");
    // Without a handle there is nothing to remove.
    Some(if members.len() == before { event.to_owned() } else { object(&members) })
}

/// An object's members in their order, values as they are written. `None` for what is not an object.
fn members(json: &str) -> Option<Vec<(String, String)>> {
    struct Members(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                    let mut members = Vec::new();
                    while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                        members.push((key, value.get().to_owned()));
                    }
                    Ok(Members(members))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Members>(json).ok().map(|members| members.0)
}

fn object(members: &[(String, String)]) -> String {
    let mut json = String::from("{");
    for (at, (key, value)) in members.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(json, "{comma}{}:{value}", serde_json::Value::from(key.as_str()));
    }
    json.push('}');
    json
}

/// The values of the placeholders of one sample.
struct SampleValues<'a> {
    index: u64,
    /// Samples of one salt and index name the same file and task.
    salt: &'a str,
    /// Whether an upload has asked for a procedure.
    procedure: bool,
}

impl SampleValues<'_> {
    /// A number that looks random, and is the same for the same name, salt and index.
    fn number(&self, name: &str) -> u64 {
        let text = self.salt.bytes().chain(name.bytes());
        let seed =
            text.fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        fastrand::Rng::with_seed(seed ^ self.index.wrapping_mul(0x9E37_79B9_7F4A_7C15)).u64(..)
    }

    /// The value of `<name>`; `None` for an unknown name.
    fn value(&self, name: &str) -> Option<String> {
        let number = self.number(name);
        Some(match name {
            "appid" => APP_ID.to_owned(),
            "n" => self.index.to_string(),
            "file" | "file2" | "file3" => file_id(number),
            // The documents once show this member as a bare number.
            "maybe_bare_file" if self.index.is_multiple_of(2) => file_id(number),
            "maybe_bare_file" => format!("\"{}\"", file_id(number)),
            "hex" => format!("{number:016x}{:08x}", self.index),
            "hex8" => format!("{:08x}", number >> 32),
            "md5" => {
                format!("{number:016x}{:016x}", number.rotate_left(29).wrapping_mul(0x9E37_79B9_7F4A_7C15))
            }
            "short" => format!("{:010x}", number >> 24),
            "session_id" if number.is_multiple_of(3) => format!("{:08x}-{}", number >> 32, self.index),
            "session_id" => String::new(),
            "context" if self.procedure => format!("user-{}", number >> 44),
            "context" => context(number),
            "procedure" if self.procedure => format!("{APP_ID}-Procedure-{}t0", self.value("hex")?),
            "procedure" => String::new(),
            // As raw UTF-8 and as escapes: consumers get these bytes, not their meaning.
            "name" => {
                let names = ["Animal World", "动物世界", r#"caf\u00e9 \"live\""#];
                format!("{} {}", names[usize::try_from(number % 3).unwrap_or(0)], self.index)
            }
            "url" => {
                format!(
                    "http://{APP_ID}.vod2.myqcloud.com/{:08x}vodcq{APP_ID}/{}",
                    number >> 32,
                    self.value("file")?
                )
            }
            "size" => (1_000_000 + number % 4_000_000_000).to_string(),
            "bitrate" => (200_000 + number % 4_000_000).to_string(),
            "seconds" => format!("{}.{:012}", 5 + number % 3_600, number % 1_000_000_000_000),
            "time" => moment(self.index),
            "later" => moment(self.index.wrapping_add(40)),
            _ => return None,
        })
    }

    /// Appends the template with every placeholder replaced.
    fn expand(&self, template: &str, out: &mut String) {
        let mut left = template;
        while let Some((before, after)) = left.split_once('<') {
            out.push_str(before);
            let Some((name, after)) = after.split_once('>') else { break };
            match (PIECES.iter().find(|(piece, _)| *piece == name), self.value(name)) {
                (Some((_, piece)), _) => self.expand(piece, out),
                (None, value) => out.push_str(&value.unwrap_or_default()),
            }
            left = after;
        }
        out.push_str(left);
    }
}

/// Nineteen or twenty digits: file ids exceed a double, and some exceed a signed number of 64 bits.
fn file_id(number: u64) -> String {
    (1_000_000_000_000_000_000 + number % 17_000_000_000_000_000_000).to_string()
}

/// A second of 2026 in the cloud's form. Later events have later ones.
fn moment(second: u64) -> String {
    let second = 1_767_225_600 + i64::try_from(second % 31_000_000).unwrap_or(0);
    jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Contexts of users: none, a key, JSON in a string, another script.
fn context(number: u64) -> String {
    match number % 4 {
        0 => String::new(),
        1 => format!("user={}", number >> 44),
        2 => format!(r#"{{\"order\":{},\"tags\":[\"a/b\",null]}}"#, number >> 40),
        _ => format!(r"\u7528\u6237 {} 😀\n", number >> 48),
    }
}

fn write(sample: &Sample, values: &SampleValues<'_>) -> String {
    let mut spaced = format!(r#"{{"EventType": "{}", "{}": "#, sample.event_type, sample.member);
    values.expand(sample.body, &mut spaced);
    if values.index % 8 == 7 {
        for other in SAMPLES.iter().take(8).filter(|other| other.member != sample.member) {
            let _ = write!(spaced, r#", "{}": null"#, other.member);
        }
    }
    spaced.push('}');
    compact(&spaced)
}

/// Drops white space outside strings.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let mut keep = |c: char| {
        let kept = in_string || !c.is_ascii_whitespace();
        if !escaped && c == '"' {
            in_string = !in_string;
        }
        escaped = in_string && !escaped && c == '\\';
        kept
    };
    json.chars().filter(|c| keep(*c)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn parsed(event: &str) -> Value {
        serde_json::from_str(event).unwrap_or_else(|error| panic!("{error} in {event}"))
    }

    #[test]
    fn every_type_has_a_sample_with_one_body_under_its_member() {
        assert_eq!(EVENT_TYPES.len(), 37);
        assert_eq!(EVENT_TYPES.iter().collect::<HashSet<_>>().len(), 37);
        for sample in SAMPLES {
            for index in [0, 1, 2, 7, 12_345] {
                let json = super::sample(sample.event_type, index).unwrap();
                assert!(!json.contains('<') && !json.contains('\n'), "{json}");
                let event = parsed(&json);
                assert_eq!(event["EventType"], sample.event_type);
                assert!(event.get("EventHandle").is_none());
                let bodies: Vec<&String> = event
                    .as_object()
                    .unwrap()
                    .iter()
                    .filter(|(_, v)| v.is_object())
                    .map(|(k, _)| k)
                    .collect();
                assert_eq!(bodies, [sample.member]);
            }
        }
    }

    #[test]
    fn members_that_break_the_rule_of_their_names_are_as_documented() {
        let member = |name: &str| SAMPLES.iter().find(|s| s.event_type == name).unwrap().member;
        assert_eq!(member("RemoveWatermark"), "RemoveWatermarkCompleteEvent");
        assert_eq!(member("AigcVideoTaskComplete"), "AigcVideoCompleteEvent");
        assert_eq!(member("CreateSnapshotByTimeOffsetComplete"), "SnapshotByTimeOffsetCompleteEvent");
        assert_eq!(member("ExtractBlindWatermarkComplete"), "ExtractBlindWatermarkComplete");
    }

    #[test]
    fn events_differ_by_index_and_only_by_index() {
        for event_type in EVENT_TYPES {
            let events: HashSet<String> = (0..200).map(|n| sample(event_type, n).unwrap()).collect();
            assert_eq!(events.len(), 200, "{event_type}");
            assert_eq!(sample(event_type, 3), sample(event_type, 3));
        }
        assert_eq!(sample("NoSuchType", 1), None);
    }

    #[test]
    fn the_story_s_two_events_belong_together() {
        for index in 0..20 {
            let [upload, procedure] = upload_story(index).map(|event| parsed(&event));
            let (upload, procedure) = (&upload["FileUploadEvent"], &procedure["ProcedureStateChangeEvent"]);
            assert_eq!(upload["ProcedureTaskId"], procedure["TaskId"]);
            assert!(procedure["TaskId"].as_str().unwrap().starts_with("1500004321-Procedure-"));
            assert_eq!(upload["FileId"], procedure["FileId"]);
            let file_id = upload["FileId"].as_str().unwrap();
            assert!((19..=20).contains(&file_id.len()) && file_id.bytes().all(|b| b.is_ascii_digit()));
            assert_ne!(upload["MediaBasicInfo"]["SourceInfo"]["SourceContext"], "");
            let kinds: Vec<&Value> =
                procedure["MediaProcessResultSet"].as_array().unwrap().iter().map(|r| &r["Type"]).collect();
            assert_eq!(kinds, ["Transcode", "CoverBySnapshot"]);
        }
    }

    #[test]
    fn setting_a_path_leaves_everything_else_as_it_was_written() {
        let event = r#"{"EventType":"X","A":{"n":1.0,"s":"\/","l":[{"x":1},2]},"B":null}"#;
        let cases = [
            ("A.n", "2", r#"{"EventType":"X","A":{"n":2,"s":"\/","l":[{"x":1},2]},"B":null}"#),
            ("A.s", "text", r#"{"EventType":"X","A":{"n":1.0,"s":"text","l":[{"x":1},2]},"B":null}"#),
            ("A.l.0.x", "[]", r#"{"EventType":"X","A":{"n":1.0,"s":"\/","l":[{"x":[]},2]},"B":null}"#),
            ("B.c", "true", r#"{"EventType":"X","A":{"n":1.0,"s":"\/","l":[{"x":1},2]},"B":{"c":true}}"#),
            (
                "New",
                "\"7\"",
                r#"{"EventType":"X","A":{"n":1.0,"s":"\/","l":[{"x":1},2]},"B":null,"New":"7"}"#,
            ),
        ];
        for (path, value, expected) in cases {
            assert_eq!(set(event, path, value).unwrap(), expected, "{path}");
        }
        assert!(set(event, "A.l.9", "1").is_err());
        assert!(set(event, "A..n", "1").is_err());
    }

    #[test]
    fn events_are_read_in_every_wrapping_and_lose_their_handle() {
        let expected = [r#"{"EventType":"X","a":1.0}"#.to_owned(), r#"{ "EventType":"Y" }"#.to_owned()];
        let texts = [
            r#"[{"EventHandle":"h","EventType":"X","a":1.0},{ "EventType":"Y" }]"#,
            "{\"EventType\":\"X\",\"a\":1.0}\n{ \"EventType\":\"Y\" }\n",
            r#"{"Response":{"EventSet":[{"EventType":"X","a":1.0,"EventHandle":"h"},{ "EventType":"Y" }],"RequestId":""}}"#,
        ];
        for text in texts {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        assert!(matches!(read("[1]"), Err(NoEvents::NotAnObject(0))));
        assert!(matches!(read("{"), Err(NoEvents::NotJson(_))));
    }

    #[test]
    fn misspelt_types_are_near_their_names() {
        assert_eq!(nearest("NewFileUplaod").first(), Some(&"NewFileUpload"));
        assert_eq!(nearest("proceduretatechange").first(), Some(&"ProcedureStateChanged"));
        assert!(nearest("zzz").is_empty());
    }
}
