//! What operators read is kept in step with itself and with the program: metrics, dashboard, alerts, runbook, policy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::CommandFactory;
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

/// Every document for people: the Markdown files of the root and of `docs`, and the example of the configuration.
fn all_documents() -> Vec<String> {
    let mut paths = vec!["config.example.toml".to_owned(), "benches/README.md".to_owned()];
    for folder in ["", "docs/", "docs/decisions/"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                paths.push(format!("{folder}{name}"));
            }
        }
    }
    paths.sort();
    paths
}

/// References such as `docs/runbook.md`, "Alerts", in whichever document they stand.
#[test]
fn the_sections_that_are_referred_to_are_there() {
    let paths = all_documents();
    let reference = regex_lite::Regex::new("([A-Za-z0-9/.-]+\\.md)`?,(?:\\s|#)+\"([^\"]+)\"").unwrap();
    let mut referred = 0;
    for path in paths {
        for found in reference.captures_iter(&document(&path)) {
            referred += 1;
            let text = document(&found[1]);
            let mut titles = text.lines().filter_map(|line| line.strip_prefix('#'));
            let wanted = found[2].split_whitespace().collect::<Vec<_>>().join(" ");
            let is_there = titles.any(|title| title.trim_start_matches('#').trim() == wanted);
            assert!(is_there, "{path}: {} has no section {:?}", &found[1], &found[2]);
        }
    }
    assert!(referred > 5, "{referred}");
}

/// The documents for operators.
const FOR_OPERATORS: [&str; 11] = [
    "README.md",
    "docs/client-uploads.md",
    "docs/commands.md",
    "docs/configuration.md",
    "docs/journal.md",
    "docs/messages.md",
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
    // A person uploads, and with a key of their own.
    let is_of_an_upload = |name: &&str| UPLOAD.iter().any(|action| name.ends_with(action));
    assert_eq!(granted, called.iter().map(String::as_str).filter(|name| !is_of_an_upload(name)).collect());
}

/// What an upload asks for.
const UPLOAD: [&str; 4] =
    [":ApplyUpload", ":CommitUpload", ":ParseStreamingManifest", ":DescribeStorageRegions"];

/// The folders whose files documents name.
const FOLDERS: [&str; 9] =
    ["docs/", "src/", "crates/", "scripts/", "systemd/", "tests/", "benches/", "packaging/", ".github/"];

#[test]
fn the_files_that_documents_name_are_there() {
    let mut found = Vec::new();
    let mut named = 0;
    // The changelog names files of its time, and a decision those of its own.
    let documents = all_documents().into_iter().filter(|path| path != "CHANGELOG.md");
    for path in documents {
        let text = document(&path);
        let text = text.split("```").step_by(2).collect::<Vec<_>>().join(" ");
        for quoted in text.split('`').skip(1).step_by(2) {
            let quoted = quoted.split(' ').next().unwrap_or_default();
            let is_path = FOLDERS.iter().any(|folder| quoted.starts_with(folder))
                || (quoted.ends_with(".md") && !quoted.contains(['*', '/']) && !quoted.starts_with("00"));
            let beside = root().join(&path).with_file_name(quoted);
            if is_path && !quoted.contains(['*', 'N']) {
                named += 1;
                if !root().join(quoted).exists() && !beside.exists() {
                    found.push(format!("{path}: there is no {quoted}"));
                }
            }
        }
    }
    assert!(named > 60, "{named}");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_first_documents_stay_short() {
    for (path, most) in [("README.md", 200), ("README.zh-CN.md", 200), ("ARCHITECTURE.md", 250)] {
        let lines = document(path).lines().count();
        assert!(lines <= most, "{path} has {lines} lines, more than {most}: move details to docs");
    }
}

/// The cells of the rows of the tables of a document that begin with a text.
fn rows(text: &str, start: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with(start));
    rows.map(|row| row.trim_matches('|').split(" |").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_decision_is_in_the_index_and_has_its_parts() {
    let folder = root().join("docs/decisions");
    let mut pages: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    pages.sort();
    let index: Vec<(String, String)> = rows(&document("docs/decisions/README.md"), "| [`")
        .into_iter()
        .map(|row| (row[0].split('`').nth(1).unwrap().to_owned(), row[1].clone()))
        .collect();
    assert_eq!(index.iter().map(|(page, _)| page.clone()).collect::<Vec<_>>(), pages);
    for (number, (page, title)) in index.iter().enumerate() {
        let text = document(&format!("docs/decisions/{page}"));
        let headings: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
        let first = format!("# {} {title}", &page[..4]);
        let parts = ["## Context", "## Decision", "## Figures", "## What would change it"];
        assert_eq!(headings, [&[first.as_str()], &parts[..]].concat(), "{page}");
        assert_eq!(page[..4].parse(), Ok(number + 1), "{page}");
    }
}

#[test]
fn the_table_of_keys_is_that_of_the_program() {
    let example = document("config.example.toml");
    let keys = document("src/config/keys.rs");
    let mut section = "";
    let mut expected = Vec::new();
    for line in example.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, value)) = line.split_once(" = ") {
            let key = format!("{section}.{key}");
            let row = |line: &&str| line.trim().split([' ', '(']).next() == Some(key.as_str());
            let row = keys.lines().find(row).unwrap_or_else(|| panic!("{key}"));
            let live = row.contains(" live |v| ");
            assert!(live || row.contains(" restart |v| "), "{key}");
            let reload = if live { "yes" } else { "restart" };
            expected.push(vec![format!("`{key}`"), format!("`{value}`"), reload.to_owned()]);
        }
    }
    assert!(expected.len() > 30);
    let text = document("docs/configuration.md");
    let table = text.split("## Keys").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let written: Vec<Vec<String>> = rows(table, "| `").into_iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(written, expected);
}

/// Each command that `--help` shows, with its long options.
fn commands(prefix: &str, command: &clap::Command, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{prefix}{}", sub.get_name());
        if sub.has_subcommands() {
            commands(&format!("{name} "), sub, found);
        } else {
            let options =
                sub.get_arguments().filter(|option| !option.is_hide_set() && !option.is_global_set());
            let options = options.filter_map(|option| option.get_long()).map(|long| format!("--{long}"));
            found.insert(name, options.collect());
        }
    }
}

#[test]
fn the_table_of_commands_is_that_of_the_program() {
    let mut expected = BTreeMap::new();
    commands("", &vodrelay::cli::Cli::command(), &mut expected);
    let option = regex_lite::Regex::new("--[a-z-]+").unwrap();
    let text = document("docs/commands.md");
    let table = text.split("\n## ").next().unwrap();
    let mut written = BTreeMap::new();
    for row in rows(table, "| `") {
        let line = row[0].trim_matches('`');
        let words = line.split(' ').take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()));
        let options = option.find_iter(line).map(|found| found.as_str().to_owned()).collect();
        written.insert(words.collect::<Vec<_>>().join(" "), options);
    }
    assert_eq!(written, expected);
}

#[test]
fn the_columns_of_the_journal_are_those_of_its_views() {
    let schema = document("src/journal/schema.rs");
    let text = document("docs/journal.md");
    for view in ["event_log", "handle_log"] {
        let newest = schema.rsplit(&format!("CREATE VIEW {view} AS")).next().unwrap();
        let newest = newest.split(';').next().unwrap();
        let row = &rows(&text, &format!("| `{view}`"))[0][1];
        let columns: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(columns.len() > 5, "{row}");
        for column in columns {
            let is_there =
                newest.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == column);
            assert!(is_there, "{view} has no column {column}");
        }
    }
}

#[test]
fn the_chinese_readme_says_the_same() {
    let (english, chinese) = (document("README.md"), document("README.zh-CN.md"));
    // A picture has words; every other block is the same.
    let blocks = |text: &str| -> Vec<String> {
        let blocks = text.split("```").skip(1).step_by(2);
        blocks.filter(|block| !block.contains("+----")).map(str::to_owned).collect()
    };
    assert_eq!(blocks(&chinese), blocks(&english));
    assert!(blocks(&english).len() > 5);
    let quoted = |text: &str| -> BTreeSet<String> {
        let text = text.split("```").step_by(2).collect::<Vec<_>>().join(" ");
        text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    assert_eq!(quoted(&chinese), quoted(&english));
    let rows = |text: &str| text.lines().filter(|line| line.starts_with('|')).count();
    assert_eq!(rows(&chinese), rows(&english));
    let headings = |text: &str| text.lines().filter(|line| line.starts_with("##")).count();
    assert_eq!(headings(&chinese), headings(&english));
}

/// The runbook searches systemd's journal by fields, whose names are made of those in the log.
#[test]
fn the_fields_that_the_runbook_searches_by_are_those_of_the_log() {
    let sources: Vec<String> =
        crate::house::rust_files("src").into_iter().map(|(_, source)| source).collect();
    let field = regex_lite::Regex::new("VODRELAY_([A-Z_]+)").unwrap();
    let runbook = document("docs/runbook.md");
    // A key of the configuration has two underscores.
    let named: BTreeSet<String> = field
        .captures_iter(&runbook)
        .map(|found| found[1].to_lowercase())
        .filter(|name| !name.contains("__") && !name.is_empty())
        .collect();
    assert!(named.contains("error_code"), "{named:?}");
    let call = regex_lite::Regex::new(r"(?s)\b(?:warn|error|info|debug)!\((.*?)\);").unwrap();
    let literal = regex_lite::Regex::new("\"[^\"]*\"").unwrap();
    let calls: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            call.captures_iter(source).map(|found| literal.replace_all(&found[1], "").into_owned())
        })
        .collect();
    let is_logged = |name: &str| {
        let field = regex_lite::Regex::new(&format!("[(, ](?:{name} = |[%?]{name}\\b)")).unwrap();
        calls.iter().any(|call| field.is_match(&format!("({call}")))
    };
    for name in named {
        assert!(is_logged(&name), "no line of the log has the field {name}");
    }
    assert!(!is_logged("code"), "the field had this name once: it must not be found where it is no field");
}
