//! What operators read is kept in step with itself and with the program: metrics, dashboard, alerts, runbook, policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use vodrelay_core::error_code::ErrorCode;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a text that begin with `start`, where a word is what can be a metric's name: a package's file has a number, or
/// a star, behind the same beginning.
fn names<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(start).filter_map(move |(at, _)| {
        let goes_on = text[at + start.len()..].starts_with(|c: char| c.is_ascii_alphabetic());
        let begins = goes_on && !text[..at].ends_with(is_name);
        let end = text[at..].find(|c| !is_name(c)).map_or(text.len(), |length| at + length);
        begins.then(|| (at, &text[at..end]))
    })
}

/// A row of `docs/metrics.md`.
struct Metric {
    histogram: bool,
    labels: String,
}

/// The metrics that `docs/metrics.md` has in the first columns of its tables.
fn metrics() -> BTreeMap<String, Metric> {
    let text = document("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let metrics = rows.map(|row| {
        let (name, rest) = row.split_once("` | ").unwrap();
        let mut columns = rest.split(" | ");
        let kind = columns.next().unwrap();
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
        let labels = columns.next().unwrap().to_owned();
        (name.to_owned(), Metric { histogram: kind == "histogram", labels })
    });
    metrics.collect()
}

/// What is wrong with the metrics that `text` names, and with the labels that it selects them by.
fn strangers(text: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    // What Prometheus itself puts on every series.
    const OF_PROMETHEUS: [&str; 3] = ["instance", "job", "le"];
    let mut found = Vec::new();
    for (at, name) in names(text, "vodrelay_").chain(names(text, "process_")) {
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let histogram = part.and_then(|base| metrics.get(base)).filter(|metric| metric.histogram);
        let Some(metric) = metrics.get(name).or(histogram) else {
            found.push(format!("docs/metrics.md does not have {name}"));
            continue;
        };
        let Some(selector) = text[at + name.len()..].strip_prefix('{') else { continue };
        let selector = selector.split('}').next().unwrap();
        // Every second part is a value, because values are in quotes.
        let parts: Vec<&str> = selector.split(['"', '\'']).collect();
        for pair in parts.chunks_exact(2) {
            let label = pair[0].trim_matches([',', ' ', '=', '!', '~', '\\']);
            let exact = pair[0].trim_end_matches('\\').ends_with("=") && !pair[0].contains('!');
            if OF_PROMETHEUS.contains(&label) {
                continue;
            }
            if !metric.labels.contains(&format!("`{label}`")) {
                found.push(format!("{name} has no label {label}"));
            } else if exact && !metric.labels.contains(&format!("`{}`", pair[1].trim_end_matches('\\'))) {
                found.push(format!("{name} has no {label} {:?}", pair[1]));
            }
        }
    }
    found
}

#[test]
fn strangers_are_seen() {
    let metrics = metrics();
    for right in [
        "rate(vodrelay_publish_seconds_bucket[5m])",
        r#"vodrelay_published_total{instance=~"$instance", outcome!="acked"}"#,
        r#"vodrelay_api_requests_total{code=~"RequestLimitExceeded.*"} / process_open_fds"#,
        "target/package/vodrelay_*.deb and vodrelay_0.1.0_amd64.deb",
    ] {
        assert_eq!(strangers(right, &metrics), [""; 0], "{right}");
    }
    for wrong in [
        "vodrelay_published",
        "sum(vodrelay_events_received_total_bucket)",
        "process_cpu_seconds",
        r#"vodrelay_published_total{result="acked"}"#,
        r#"vodrelay_published_total{outcome="acknowledged"}"#,
        r#"vodrelay_stage_state{instance="a", stage="pulls"}"#,
    ] {
        assert_eq!(strangers(wrong, &metrics).len(), 1, "{wrong}");
    }
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let metrics = metrics();
    assert!(metrics.len() > 30, "the tables of docs/metrics.md are not where this test looks for them");
    let dashboard: Value = serde_json::from_str(&document("docs/monitoring/grafana-dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    collect(&dashboard, "expr", &mut expressions);
    collect(&dashboard, "definition", &mut expressions);
    assert!(expressions.len() > 40, "{}", expressions.len());
    let found: Vec<String> = expressions.iter().flat_map(|text| strangers(text, &metrics)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// All texts under a key, however deep.
fn collect<'a>(value: &'a Value, key: &str, texts: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            texts.extend(members.get(key).and_then(Value::as_str));
            members.values().for_each(|value| collect(value, key, texts));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, key, texts)),
        _ => {}
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(&document("docs/monitoring/grafana-dashboard.json")).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    // Grafana 10 writes 38, and every later version reads it.
    assert_eq!(dashboard["schemaVersion"], 38);
    assert!(dashboard["id"].is_null(), "a number of one Grafana's own");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource"));
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(number(&panel["id"])), "{title}: its id is another panel's");
        let place = &panel["gridPos"];
        let (left, top) = (number(&place["x"]), number(&place["y"]));
        for x in left..left + number(&place["w"]) {
            for y in top..top + number(&place["h"]) {
                assert!(
                    x < 24 && taken.insert((x, y)),
                    "{title}: its place is another panel's, or not there"
                );
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let sources = panel["targets"].as_array().unwrap().iter().map(|target| &target["datasource"]);
        for source in sources.chain([&panel["datasource"]]) {
            assert_eq!(source["uid"], "${datasource}", "{title}");
        }
    }
}

/// One alert of `docs/monitoring/alerts.yml`: its name, and the lines up to the next.
fn alerts() -> Vec<(String, String)> {
    let text = document("docs/monitoring/alerts.yml");
    let rules: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let rules = rules.join("\n");
    let alerts = rules.split("- alert: ").skip(1);
    alerts.map(|alert| alert.split_once('\n').unwrap()).map(|(n, a)| (n.to_owned(), a.to_owned())).collect()
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_read_on() {
    let anchors: BTreeSet<String> = headings(&document("docs/runbook.md")).map(anchor).collect();
    let metrics = metrics();
    for (name, alert) in alerts() {
        let value = |key: &str| {
            let line = alert.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} has no {key}"))
        };
        assert!(["page", "ticket"].contains(&value("severity")), "{name}");
        assert!(!value("summary").is_empty() && !value("description").is_empty(), "{name}");
        let section = value("runbook_url").strip_prefix("docs/runbook.md#").unwrap();
        assert!(anchors.contains(section), "{name}: docs/runbook.md has no #{section}");
        assert_eq!(strangers(&alert, &metrics), [""; 0], "{name}");
    }
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let tests = document("docs/monitoring/alerts.test.yml");
    let mut tested: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for test in tests.split("alertname: ").skip(1) {
        let (name, rest) = test.split_once('\n').unwrap();
        let (fires, rests) = tested.entry(name).or_default();
        if rest.trim_start().starts_with("exp_alerts: []") { *rests += 1 } else { *fires += 1 }
    }
    let alerts = alerts();
    for (name, _) in &alerts {
        let (fires, rests) = tested.remove(name.as_str()).unwrap_or_default();
        assert!(fires > 0 && rests > 0, "{name}: {fires} tests fire it, {rests} do not");
    }
    assert!(tested.is_empty(), "tests of alerts that do not exist: {tested:?}");
}

/// The headings of the third level: one a section of the runbook.
fn headings(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("### "))
}

/// The name by which a link leads to a heading, as GitHub and GitLab make it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn anchors_are_made_as_the_forges_make_them() {
    assert_eq!(anchor("VodrelayDown"), "vodrelaydown");
    assert_eq!(anchor("VR-204 The journal's disk is full"), "vr-204-the-journals-disk-is-full");
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_each_code_and_no_others() {
    let runbook = document("docs/runbook.md");
    let written: Vec<&str> = headings(&runbook).collect();
    let alerts = alerts().into_iter().map(|(name, _)| name);
    let codes = ErrorCode::ALL.iter().map(|reason| format!("{} {}", reason.as_str(), reason.summary()));
    let expected: Vec<String> = alerts.chain(codes).collect();
    assert_eq!(written, expected);
    for section in runbook.split("\n### ").skip(1) {
        let heading = section.lines().next().unwrap();
        let parts = ["**Means.**", "**Look.**", "**Do.**", "**At risk.**"];
        let places: Vec<Option<usize>> = parts.iter().map(|part| section.find(part)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{heading} lacks one of {parts:?}");
    }
}

/// References such as `docs/runbook.md`, "Alerts", in whichever document they stand.
#[test]
fn the_sections_that_are_referred_to_are_there() {
    let mut paths: Vec<String> = [
        "README.md",
        "ARCHITECTURE.md",
        "RELIABILITY.md",
        "CHANGELOG.md",
        "config.example.toml",
        "benches/README.md",
    ]
    .map(str::to_owned)
    .into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            paths.push(format!("docs/{name}"));
        }
    }
    let reference = regex_lite::Regex::new("([A-Za-z/.-]+\\.md)`?,(?:\\s|#)+\"([^\"]+)\"").unwrap();
    let mut referred = 0;
    for path in paths {
        for found in reference.captures_iter(&document(&path)) {
            referred += 1;
            let text = document(&found[1]);
            let mut titles = text.lines().filter_map(|line| line.strip_prefix('#'));
            let is_there = titles.any(|title| title.trim_start_matches('#').trim() == &found[2]);
            assert!(is_there, "{path}: {} has no section {:?}", &found[1], &found[2]);
        }
    }
    assert!(referred > 5, "{referred}");
}

/// The documents for operators.
const FOR_OPERATORS: [&str; 6] = [
    "README.md",
    "docs/metrics.md",
    "docs/runbook.md",
    "docs/security.md",
    "docs/monitoring/alerts.yml",
    "docs/monitoring/grafana-dashboard.json",
];

#[test]
fn what_the_documents_name_is_there() {
    let metrics = metrics();
    let codes: BTreeSet<&str> = ErrorCode::ALL.iter().map(|reason| reason.as_str()).collect();
    let alerts: BTreeSet<String> = alerts().into_iter().map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for path in FOR_OPERATORS {
        let text = document(path);
        found.extend(
            strangers(&text.replace("\\\"", "\""), &metrics).into_iter().map(|m| format!("{path}: {m}")),
        );
        for (at, _) in text.match_indices("VR-") {
            let code = text.get(at..at + 6).unwrap_or_default();
            let is_one = code[3..].bytes().all(|b| b.is_ascii_digit());
            if is_one && !codes.contains(code) {
                found.push(format!("{path}: there is no code {code}"));
            }
        }
        for (_, name) in names(&text, "Vodrelay") {
            // The example for the host's disk is the reader's own.
            if !alerts.contains(name) && name != "VodrelayDiskFillsUp" {
                found.push(format!("{path}: there is no alert {name}"));
            }
        }
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path =
                ["docs/", "src/", "scripts/", "systemd/", "tests/"].iter().any(|f| quoted.starts_with(f));
            if is_path && !root().join(quoted).exists() {
                found.push(format!("{path}: there is no {quoted}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_policy_grants_the_calls_that_are_made_and_no_others() {
    let security = document("docs/security.md");
    let policy = security.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy: Value = serde_json::from_str(policy).unwrap();
    let statements = policy["statement"].as_array().unwrap();
    assert!(statements.iter().all(|statement| statement["effect"] == "allow"));
    let actions = statements.iter().flat_map(|statement| statement["action"].as_array().unwrap());
    let granted: BTreeSet<&str> = actions.map(|action| action.as_str().unwrap()).collect();
    // The arms of `Action::name`: the one place that has the names of the calls.
    let source = document("crates/cloud/src/classify.rs");
    let arms = source.split("impl Action {").nth(1).and_then(|rest| rest.split("\n}\n").next()).unwrap();
    let called: BTreeSet<String> = arms
        .lines()
        .filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\","))
        .map(|name| format!("vod:{name}"))
        .collect();
    assert!(called.contains("vod:PullEvents"), "the calls are not where this test looks for them");
    assert_eq!(granted, called.iter().map(String::as_str).collect());
}
