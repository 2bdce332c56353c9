//! What a policy makes of a request, from the file to the signature: a row for each rule.

use super::server::{OTHER_TOKEN, Server, bearer, caller};

/// A policy, a request, and what stands in the signature besides what always does, or the error.
type Row = (
    &'static str,
    &'static str,
    Result<&'static [(&'static str, &'static str)], (u16, &'static str, &'static str)>,
);

const NOT_ALLOWED: &str = "parameter_not_allowed";
const INVALID: &str = "parameter_invalid";

const ROWS: &[Row] = &[
    // Nothing but contexts may be chosen when the policy says nothing.
    ("", "", Ok(&[])),
    ("", "{}", Ok(&[])),
    ("", r#"{"procedure":null}"#, Ok(&[])),
    ("", r#"{"sourceContext":"u=1"}"#, Ok(&[("sourceContext", "u=1")])),
    ("", r#"{"sessionContext":"s"}"#, Ok(&[("sessionContext", "s")])),
    ("", r#"{"procedure":"P"}"#, Err((403, NOT_ALLOWED, "procedure"))),
    ("", r#"{"classId":1}"#, Err((403, NOT_ALLOWED, "classId"))),
    ("", r#"{"subAppId":1}"#, Err((403, NOT_ALLOWED, "subAppId"))),
    ("", r#"{"storageRegion":"r"}"#, Err((403, NOT_ALLOWED, "storageRegion"))),
    ("", r#"{"taskPriority":1}"#, Err((403, NOT_ALLOWED, "taskPriority"))),
    ("", r#"{"taskNotifyMode":"None"}"#, Err((403, NOT_ALLOWED, "taskNotifyMode"))),
    ("", r#"{"oneTimeValid":true}"#, Err((403, NOT_ALLOWED, "oneTimeValid"))),
    ("", r#"{"oneTimeValid":false}"#, Ok(&[])),
    ("", r#"{"ttl":601}"#, Err((403, NOT_ALLOWED, "ttl"))),
    ("", r#"{"ttl":0}"#, Err((400, INVALID, ""))),
    // What is fixed wins.
    ("procedure = \"P\"", r#"{"procedure":"Q"}"#, Ok(&[("procedure", "P")])),
    ("procedure = \"P\"", "", Ok(&[("procedure", "P")])),
    ("class_id = -7", r#"{"classId":1}"#, Ok(&[("classId", "-7")])),
    ("sub_app_id = 5", r#"{"subAppId":6}"#, Ok(&[("vodSubAppId", "5")])),
    ("sub_app_id = 0", r#"{"subAppId":6}"#, Ok(&[])),
    ("storage_region = \"ap-x\"", r#"{"storageRegion":"ap-y"}"#, Ok(&[("storageRegion", "ap-x")])),
    ("task_priority = -10", r#"{"taskPriority":10}"#, Ok(&[("taskPriority", "-10")])),
    ("task_notify_mode = \"None\"", r#"{"taskNotifyMode":"Finish"}"#, Ok(&[("taskNotifyMode", "None")])),
    // One of a list.
    ("procedures = [\"P\", \"Q\"]", r#"{"procedure":"Q"}"#, Ok(&[("procedure", "Q")])),
    ("procedures = [\"P\", \"Q\"]", "", Ok(&[])),
    ("procedures = [\"P\", \"Q\"]", r#"{"procedure":"q"}"#, Err((403, NOT_ALLOWED, "procedure"))),
    ("procedures = [\"P\"]", r#"{"procedure":""}"#, Err((403, NOT_ALLOWED, "procedure"))),
    ("procedures = [\"P\"]", r#"{"procedure":"P&classId=9"}"#, Err((403, NOT_ALLOWED, "procedure"))),
    ("class_ids = [1, 2]", r#"{"classId":2}"#, Ok(&[("classId", "2")])),
    ("class_ids = [1, 2]", r#"{"classId":3}"#, Err((403, NOT_ALLOWED, "classId"))),
    ("sub_app_ids = [5, 0]", r#"{"subAppId":5}"#, Ok(&[("vodSubAppId", "5")])),
    ("sub_app_ids = [5, 0]", r#"{"subAppId":0}"#, Ok(&[])),
    ("sub_app_ids = [5, 0]", r#"{"subAppId":6}"#, Err((403, NOT_ALLOWED, "subAppId"))),
    ("storage_regions = [\"r\"]", r#"{"storageRegion":"r"}"#, Ok(&[("storageRegion", "r")])),
    ("storage_regions = [\"r\"]", r#"{"storageRegion":"s"}"#, Err((403, NOT_ALLOWED, "storageRegion"))),
    ("task_priorities = [-1, 1]", r#"{"taskPriority":-1}"#, Ok(&[("taskPriority", "-1")])),
    ("task_priorities = [-1, 1]", r#"{"taskPriority":0}"#, Err((403, NOT_ALLOWED, "taskPriority"))),
    (
        "task_notify_modes = [\"Change\"]",
        r#"{"taskNotifyMode":"Change"}"#,
        Ok(&[("taskNotifyMode", "Change")]),
    ),
    (
        "task_notify_modes = [\"Change\"]",
        r#"{"taskNotifyMode":"None"}"#,
        Err((403, NOT_ALLOWED, "taskNotifyMode")),
    ),
    // Any value, and the limits of the documents all the same.
    ("procedures = [\"*\"]", r#"{"procedure":"a&b=c"}"#, Ok(&[("procedure", "a&b=c")])),
    ("procedures = [\"*\"]", r#"{"procedure":""}"#, Err((400, INVALID, "procedure"))),
    ("class_ids = [\"*\"]", r#"{"classId":99}"#, Ok(&[("classId", "99")])),
    ("task_priorities = [\"*\"]", r#"{"taskPriority":11}"#, Err((400, INVALID, "taskPriority"))),
    // Contexts.
    (
        "source_context = \"{caller}:{request}\"",
        r#"{"sourceContext":"u=1"}"#,
        Ok(&[("sourceContext", "web:u=1")]),
    ),
    ("source_context = \"{caller}:{request}\"", "", Err((400, INVALID, "sourceContext"))),
    (
        "source_context = \"{caller}:{request}\"",
        r#"{"sourceContext":""}"#,
        Err((400, INVALID, "sourceContext")),
    ),
    ("source_context = \"of {caller}\"", r#"{"sourceContext":"me"}"#, Ok(&[("sourceContext", "of web")])),
    ("source_context = \"\"", r#"{"sourceContext":"me"}"#, Err((403, NOT_ALLOWED, "sourceContext"))),
    ("source_context = \"\"", "", Ok(&[])),
    ("session_context = \"\"", r#"{"sessionContext":"s"}"#, Err((403, NOT_ALLOWED, "sessionContext"))),
    ("", r#"{"sourceContext":""}"#, Err((400, INVALID, "sourceContext"))),
    // One upload.
    ("one_time = \"always\"", "", Ok(&[("oneTimeValid", "1")])),
    ("one_time = \"always\"", r#"{"oneTimeValid":false}"#, Ok(&[("oneTimeValid", "1")])),
    ("one_time = \"request\"", r#"{"oneTimeValid":true}"#, Ok(&[("oneTimeValid", "1")])),
    ("one_time = \"request\"", r#"{"oneTimeValid":false}"#, Ok(&[("oneTimeValid", "0")])),
    ("one_time = \"request\"", "", Ok(&[])),
    ("one_time = \"never\"", r#"{"oneTimeValid":true}"#, Err((403, NOT_ALLOWED, "oneTimeValid"))),
];

#[test]
fn each_rule_of_a_policy_holds_from_the_file_to_the_signature() {
    let mut policies: Vec<&str> = ROWS.iter().map(|(policy, ..)| *policy).collect();
    policies.dedup();
    let mut server = Server::start("", &caller("web", policies[0]));
    let mut current = policies[0];
    for (policy, body, expected) in ROWS {
        if *policy != current {
            server.reload("", &caller("web", policy), "were read again");
            current = policy;
        }
        let answer = server.web(body);
        match expected {
            Ok(parameters) => {
                let signature = answer.signature();
                let read = signature.parameters();
                let said: Vec<(&str, &str)> =
                    read.iter().skip(4).map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
                assert_eq!(said, *parameters, "{policy} {body}");
            }
            Err((status, code, parameter)) => {
                let parameter = Some((*parameter).to_owned()).filter(|name| !name.is_empty());
                assert_eq!(answer.error(), (*status, (*code).to_owned(), parameter), "{policy} {body}");
            }
        }
    }
    server.ends_well();
}

#[test]
fn a_signature_lives_as_long_as_policy_and_request_say() {
    let server = Server::start("", &caller("web", "expiry = \"5m\"\nexpiry_max = \"1h\""));
    for (body, expected) in [
        ("", Some(300)),
        (r#"{"ttl":1}"#, Some(1)),
        (r#"{"ttl":3600}"#, Some(3_600)),
        (r#"{"ttl":3601}"#, None),
    ] {
        let answer = server.web(body);
        let Some(life) = expected else {
            assert_eq!(answer.error().0, 403);
            continue;
        };
        let grant = answer.signature().grant().unwrap();
        assert_eq!(grant.expire_time - grant.current_time_stamp, life, "{body}");
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 5..=now).contains(&grant.current_time_stamp), "{now}");
    }
    server.ends_well();
}

#[test]
fn each_caller_has_its_own_policy() {
    let callers = caller("web", "procedure = \"Web\"") + &caller("app", "procedure = \"App\"");
    let server = Server::start("", &callers);
    let procedure = |answer: super::server::Answer| answer.signature().grant().unwrap().procedure.unwrap();
    assert_eq!(procedure(server.web("")), "Web");
    assert_eq!(procedure(server.ask(&[&bearer(OTHER_TOKEN)], "")), "App");
    server.ends_well();
}

#[test]
fn a_text_with_characters_of_the_syntax_stays_one_value() {
    let server = Server::start("", &caller("web", ""));
    for said in
        ["a&procedure=Expensive&b", "a%26b=c", "\0", "\r\nSet-Cookie: a=b", "🎬", "+ %", "\u{202e}", "\"\\"]
    {
        let answer = server.web(&serde_json::json!({ "sourceContext": said }).to_string());
        let grant = answer.signature().grant().unwrap();
        assert_eq!((grant.source_context.as_deref(), grant.procedure), (Some(said), None));
        assert_eq!(answer.header("set-cookie"), None);
    }
    let long = serde_json::json!({ "sourceContext": "文".repeat(250), "sessionContext": "🎬".repeat(1_000) });
    server.web(&long.to_string()).signature();
    server.ends_well();
}

#[test]
fn two_signatures_are_never_the_same() {
    let server = Server::start("", &caller("web", "one_time = \"always\""));
    let mut made: Vec<String> = (0..200).map(|_| server.web("").json()["signature"].to_string()).collect();
    made.sort_unstable();
    made.dedup();
    assert_eq!(made.len(), 200);
    server.ends_well();
}
