//! Nothing that opens a door stands where others read.

use std::process::Output;

use vodrelay_testkit::encodings::encodings;

use super::server::{ID, KEY, OTHER_TOKEN, Place, TOKEN, bearer, caller};

/// Where a secret stands in a text, in whichever encoding.
fn found(place: &str, text: &str, secrets: &[(&str, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (name, secret) in secrets {
        for (encoding, encoded) in encodings(secret) {
            if text.contains(&encoded) {
                found.push(format!("{place} has the {name} ({encoding})"));
            }
        }
    }
    found
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_planted_secret_is_in_no_output_log_or_audit_line() {
    let place = Place::new();
    // A token in whichever place: a wrong one that is almost right, and one in a file that has another problem.
    let lost = "planted-lost-token-0123456789-abcdef";
    let short = "planted-short-token-01234567";
    let callers = caller("web", "procedures = [\"*\"]") + &caller("app", "one_time = \"always\"");
    let log = "\n[log]\nlevel = \"trace,hyper=trace,vodrelay=trace,rustls=trace,mio=trace\"\n";
    place.write(
        &format!("requests_per_second = 10000\ncors_origins = [\"https://app.example\"]{log}"),
        &callers,
    );
    let mut shown = vec![("check".to_owned(), text(&place.command(&["--check"]).output().unwrap()))];
    let json = text(&place.command(&["--check", "--json"]).output().unwrap());
    assert!(json.contains("AKIDexam***") && json.contains("\"status\":\"ok\""), "{json}");
    shown.push(("check --json".to_owned(), json));
    let mut server = place.start();
    let mut signatures = Vec::new();
    for (token, body) in [
        (TOKEN, ""),
        (TOKEN, r#"{"sourceContext":"u","procedure":"P"}"#),
        (OTHER_TOKEN, "{}"),
        (lost, "{}"),
        (OTHER_TOKEN, r#"{"procedure":"P"}"#),
        (TOKEN, "{"),
        (TOKEN, r#"{"unknown":1}"#),
    ] {
        let answer = server.ask(&[&bearer(token), "Origin: https://app.example"], body);
        if answer.status == 200 {
            signatures.push(answer.json()["signature"].as_str().unwrap().to_owned());
            // The signature is the one thing that this answer is for.
            assert!(!answer.head.contains(&token.to_lowercase()));
        } else {
            shown.push((format!("the answer to {body}"), format!("{}{}", answer.head, answer.body)));
        }
    }
    assert_eq!(signatures.len(), 3);
    // Where people put a token that does not belong there.
    let request = format!(
        "POST /v1/upload-signature?token={lost} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {lost}\r\n\r\n"
    );
    let answer = server.send(request.as_bytes());
    shown.push(("the answer to a token in the URL".to_owned(), answer.head + &answer.body));
    // A reload that fails over a token.
    std::fs::write(server.folder.path().join("credentials/web"), short).unwrap();
    let more = format!("cors_origins = [\"https://app.example\"]{log}");
    server.reload(&more, &callers, "reload refused");
    shown.push(("metrics".to_owned(), server.metrics_page()));
    let pid = server.process.0.id();
    shown
        .push(("the arguments".to_owned(), std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap()));
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(cores.split_whitespace().nth(4), Some("0"), "{cores}");
    shown.push((
        "standard output".to_owned(),
        std::fs::read_to_string(server.folder.path().join("out")).unwrap(),
    ));
    let folder = server.folder.path().to_owned();
    let log = server.ends_well();
    assert!(!folder.join("core").exists());
    assert!(log.matches("upload signature granted").count() == 3, "{log}");
    assert!(log.contains("signature_sha256") && log.contains("VR-601"), "{log}");
    for signature in &signatures {
        let digest = tencentcloud_signing::upload::digest(signature);
        assert!(log.contains(&digest), "the audit names it by its digest");
    }
    shown.push(("the log".to_owned(), log));
    let mut secrets: Vec<(&str, String)> = vec![
        ("key", KEY.to_owned()),
        ("key's id", ID.to_owned()),
        ("token of web", TOKEN.to_owned()),
        ("token of app", OTHER_TOKEN.to_owned()),
        ("lost token", lost.to_owned()),
        ("short token", short.to_owned()),
    ];
    secrets.extend(signatures.into_iter().map(|signature| ("signature", signature)));
    let all: Vec<String> = shown.iter().flat_map(|(place, text)| found(place, text, &secrets)).collect();
    assert!(all.is_empty(), "{}", all.join("\n"));
    for there in [format!("<{TOKEN}>"), format!("{KEY:?}"), format!("{:?}", lost.as_bytes())] {
        assert!(!found("x", &there, &secrets).is_empty(), "what is there is seen");
    }
}
