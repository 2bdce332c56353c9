//! The glossary of `CONTRIBUTING.md`: its table is sorted, and the words of its last column are not used.

use std::collections::BTreeSet;
use std::path::Path;

use regex_lite::Regex;

use crate::house::rust_files;

/// Names that keep a word of the last column, with the reason.
const KEPT: [(&str, &str); 1] =
    [("room", "a column of journals that exist: a new name would cost a migration and bring nothing")];

/// A row of the glossary.
struct Row {
    word: String,
    /// The words that no name contains.
    not_in_names: Vec<String>,
    /// The words that no sentence contains either.
    not_in_prose: Vec<String>,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let text = read("CONTRIBUTING.md");
    let table = text.split("| word | meaning | in code | not |\n").nth(1).unwrap();
    let quoted = |cell: &str, mark: &str| -> Vec<String> {
        cell.split(mark).skip(1).step_by(2).map(str::to_owned).collect()
    };
    let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    let rows: Vec<Row> = lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
            assert_eq!(cells.len(), 4, "{line}");
            let not_in_prose = quoted(cells[3], "**");
            let not_in_names = [quoted(cells[3], "`"), not_in_prose.clone()].concat();
            Row { word: cells[0].to_owned(), not_in_names, not_in_prose }
        })
        .collect();
    assert!(rows.len() > 40, "the glossary is not where this test looks for it");
    rows
}

/// The words of a text in lower case; parts of a name in `snake_case` and `CamelCase` count as words.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        let begins = c.is_uppercase() && word.chars().last().is_some_and(char::is_lowercase);
        if begins || !(c.is_alphabetic() || c == '-') {
            words.push(std::mem::take(&mut word).to_lowercase());
        }
        if c.is_alphabetic() || c == '-' {
            word.push(c);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The banned words of a text, also in the plural or with `-ed`.
fn banned(text: &str, list: &BTreeSet<String>) -> Vec<String> {
    let is_banned = |word: &String| {
        let one = word.strip_suffix('s').unwrap_or(word);
        let past = word.strip_suffix("ed").unwrap_or(word);
        [word.as_str(), one, past].into_iter().any(|form| list.contains(form))
    };
    words(text).into_iter().filter(is_banned).collect()
}

/// The names that a Rust file gives to its readers: types, variants, fields, columns, metrics, log fields and JSON members.
fn names(source: &str) -> Vec<String> {
    let patterns = [
        r"\b(?:struct|enum|trait|type|union|mod)\s+([A-Za-z]\w*)",
        // Fields, and parameters on lines of their own.
        r"(?m)^\s*(?:pub(?:\([a-z ]+\))? )?([a-z][a-z0-9_]*): ",
        r"(?m)^\s+([A-Z][A-Za-z0-9]*)(?:,|\(| \{)",
        // Columns of the schema.
        r"(?m)^\s+([a-z_]+) +(?:INTEGER|TEXT|BLOB)",
        r"ADD COLUMN ([a-z_]+)",
        r"\bAS ([a-z_]+)",
        r#""(vodrelay_[a-z_]+)""#,
        // Fields of log lines, and the members of JSON that is written by hand.
        r"[(,]\s*([a-z_]+) = [%?]?[a-z]",
        r#""([a-z_]+)": "#,
    ];
    let source = Regex::new(r"#!?\[expect\([^\]]*\]").unwrap().replace_all(source, "").into_owned();
    let mut names = Vec::new();
    for pattern in patterns {
        let pattern = Regex::new(pattern).unwrap();
        names.extend(pattern.captures_iter(&source).map(|found| found[1].to_owned()));
    }
    names
}

/// The documents that the ban on words holds for. The changelog names what was renamed.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec!["config.example.toml".to_owned(), "benches/README.md".to_owned()];
    for folder in ["", "docs/", "docs/decisions/"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") && name != "CHANGELOG.md" {
                paths.push(format!("{folder}{name}"));
            }
        }
    }
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for folder in ["src", "crates", "tests", "benches"] {
        sources.extend(rust_files(folder).into_iter().map(|(path, text)| (format!("{folder}/{path}"), text)));
    }
    sources
}

#[test]
fn the_glossary_is_sorted() {
    let words: Vec<String> = rows().into_iter().map(|row| row.word).collect();
    let mut sorted = words.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(words, sorted);
}

#[test]
fn no_name_has_a_word_that_the_glossary_replaces() {
    let list: BTreeSet<String> = rows().into_iter().flat_map(|row| row.not_in_names).collect();
    assert!(list.len() > 8, "{list:?}");
    let mut found = Vec::new();
    let production =
        sources().into_iter().filter(|(path, _)| !path.starts_with("tests/") && !path.contains("/tests"));
    for (path, source) in production {
        let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in names(source).into_iter().chain([path.clone()]) {
            let kept = KEPT.iter().any(|(kept, _)| *kept == name);
            for word in banned(&name, &list).into_iter().filter(|_| !kept) {
                found.push(format!("{path}: {name} has {word:?}"));
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_banned_name_is_seen_wherever_it_is_given() {
    let list = BTreeSet::from(["wrong".to_owned()]);
    for source in [
        "struct WrongHealth;",
        "enum Way {\n    Wrong,\n}",
        "struct Way {\n    pub(crate) is_wrong: bool,\n}",
        "\"CREATE TABLE event (\n    wrong INTEGER NOT NULL\n)\"",
        "ALTER TABLE event ADD COLUMN wrongs BLOB",
        "describe_counter!(\"vodrelay_wrong_total\")",
        "warn!(wrong = %error, \"it failed\")",
        "json!({\"wrong\": 1})",
    ] {
        let seen = names(source).iter().any(|name| !banned(name, &list).is_empty());
        assert!(seen, "{source}");
    }
    let reason = BTreeSet::from(["reason".to_owned()]);
    let expected = "#[expect(dead_code, reason = \"tests use it\")]\nstruct Way;";
    assert!(names(expected).iter().all(|name| banned(name, &reason).is_empty()));
}

#[test]
fn no_sentence_has_a_word_that_the_glossary_replaces() {
    let list: BTreeSet<String> = rows().into_iter().flat_map(|row| row.not_in_prose).collect();
    assert!(list.len() > 6, "{list:?}");
    let mut found = Vec::new();
    for (path, text) in sources().into_iter().chain(documents()) {
        let is_glossary = path == "CONTRIBUTING.md";
        for line in text.lines().chain([path.as_str()]).filter(|line| !(is_glossary && line.starts_with('|')))
        {
            for word in banned(line, &list) {
                found.push(format!("{path} has {word:?}"));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let first = list.first().unwrap();
    let planted =
        format!("struct {}{}Health; // two {first}s, {first}ed", first[..1].to_uppercase(), &first[1..]);
    assert_eq!(banned(&planted, &list).len(), 3, "{planted}");
}
