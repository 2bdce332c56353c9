//! `docs/emulator.md` against the emulator.

use std::collections::BTreeSet;

use serde_json::Value;
use tencent_vod_emulator::{Fault, UploadSettings};

fn document() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/emulator.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the tables of a section, cell by cell.
fn rows(text: &str, section: &str) -> Vec<Vec<String>> {
    let section = text.split(&format!("\n## {section}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The names of the variants of `FaultKind`, from its source.
fn fault_names() -> BTreeSet<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/emulator/src/faults.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let body = source.split("pub enum FaultKind {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let snake = |name: &str| {
        let mut snake = String::new();
        for c in name.chars().take_while(char::is_ascii_alphanumeric) {
            if c.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
        }
        snake
    };
    variants.map(snake).collect()
}

#[test]
fn every_fault_is_in_the_table_as_it_is_read() {
    let rows = rows(&document(), "Faults");
    let mut named = BTreeSet::new();
    for row in rows.iter().filter(|row| row[0].contains('"')) {
        let json = row[0].trim_matches('`');
        let fault: Fault = serde_json::from_str(&format!("{{\"fault\":{json}}}"))
            .unwrap_or_else(|error| panic!("{json}: {error}"));
        let written = serde_json::to_value(&fault.fault).unwrap();
        let name = written.as_str().map(str::to_owned);
        named.insert(name.unwrap_or_else(|| written.as_object().unwrap().keys().next().unwrap().clone()));
    }
    assert_eq!(named, fault_names());
}

#[test]
fn every_setting_is_in_the_table_with_its_default() {
    let text = document();
    let rows = rows(&text, "Settings of uploads");
    let Value::Object(settings) = serde_json::to_value(UploadSettings::default()).unwrap() else { panic!() };
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let there: Vec<(String, String)> =
        settings.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    let mut listed: Vec<(String, String)> =
        rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect();
    listed.sort();
    assert_eq!(listed, there);
}
