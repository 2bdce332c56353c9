//! The rules of the house that no compiler knows: which way imports flow, and what no file holds.

use std::path::{Path, PathBuf};

/// What all rooms share.
const SHARED: [&str; 6] = ["clock", "heartbeat", "routing_key", "latency", "failpoint", "cron"];
const ADAPTERS: [&str; 3] = ["cloud", "journal", "output"];
const SHELLS: [&str; 4] = ["relay", "ops", "serve", "config"];
const TOP: [&str; 2] = ["app", "cli"];

/// The crates of this workspace that each of them may use. The compiler keeps to it; this keeps the manifests to the plan.
const CRATES: [(&str, &[&str]); 8] = [
    ("signing", &[]),
    ("event", &[]),
    ("host", &[]),
    ("serve", &[]),
    ("core", &["tencent-vod-event"]),
    // It knows nothing of what the relay decides: others can take it.
    ("cloud", &["tencent-vod-event", "tencentcloud-signing", "vodrelay-host"]),
    // Tests only: it knows the whole program.
    ("testkit", &["tencent-vod", "tencent-vod-emulator", "tencent-vod-event", "vodrelay-core", "vodrelay"]),
    // A local VOD with its own reading of the API: a mistake in the client must not be repeated here.
    ("emulator", &["tencentcloud-signing", "vodrelay-serve"]),
];

/// The crates that decide: values in, values out.
const PURE: [&str; 3] = ["core", "event", "signing"];

/// What a crate that decides does not contain, and why.
const IMPURE: [(&str, &str); 9] = [
    ("tokio", "it has no runtime"),
    ("std::time::Instant", "time comes in as a value"),
    ("SystemTime", "time comes in as a value"),
    ("::now(", "time comes in as a value"),
    (".await", "it waits for nothing"),
    ("async fn", "it waits for nothing"),
    ("std::fs", "it does no I/O"),
    ("std::net", "it does no I/O"),
    ("std::env", "it does no I/O"),
];

/// The rooms that a file may use, besides its own room.
fn may_use(path: &str) -> Vec<&'static str> {
    let room = room_of(path);
    let groups: &[&[&str]] = match room {
        "clock" | "heartbeat" | "routing_key" | "latency" | "failpoint" | "cron" | "cloud" | "journal"
        | "output" => &[&SHARED],
        // A section of the configuration holds the adapters' own types. Of what operators see it holds how the log looks.
        "config" => &[&SHARED, &ADAPTERS, &["ops::logging", "ops::maintenance", "serve::signature"]],
        "relay" | "ops" => &[&SHARED, &ADAPTERS],
        // Of what operators see, what it counts into.
        "serve" => &[&SHARED, &ADAPTERS, &["ops::metrics"]],
        "app" => &[&SHARED, &ADAPTERS, &SHELLS],
        "cli" => &[&SHARED, &ADAPTERS, &SHELLS, &["app"]],
        // The root names its rooms, and uses none.
        "lib" | "main" => &[],
        unknown => {
            panic!("src/{path} is in the room {unknown:?}, whose arrows are not drawn yet: draw them here")
        }
    };
    groups.concat()
}

fn room_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

fn rooms() -> Vec<&'static str> {
    [&SHARED[..], &ADAPTERS, &SHELLS, &TOP].concat()
}

/// What is wrong with a file of `src`, by its path in there and its text.
fn violations(path: &str, source: &str) -> Vec<String> {
    let code = without_comments(source);
    let room = room_of(path);
    let allowed = may_use(path);
    let mut found = Vec::new();
    for used in paths_from_the_root(path, &code) {
        let other = used.split("::").next().unwrap_or_default();
        let own = other == room;
        let known =
            allowed.iter().any(|allowed| used == *allowed || used.starts_with(&format!("{allowed}::")));
        if rooms().contains(&other) && !own && !known {
            found.push(format!("src/{path} uses crate::{used}: {room} does not know {other}"));
        }
    }
    found
}

/// What a file of a crate that decides has and must not have. Its tests may.
fn impurities(path: &str, source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = without_comments(source);
    let impure = IMPURE.iter().filter(|(word, _)| code.contains(word));
    impure.map(|(word, reason)| format!("{path} has {word:?}: {reason}")).collect()
}

/// The text without what follows `//`; the slashes of an URL stay.
fn without_comments(source: &str) -> String {
    let mut code = String::new();
    for line in source.lines() {
        let end = line.match_indices("//").map(|(at, _)| at).find(|at| !line[..*at].ends_with(':'));
        code.push_str(&line[..end.unwrap_or(line.len())]);
        code.push('\n');
    }
    code
}

/// Every path that begins at the crate's root, wherever it stands: `use` with and without braces, and paths in the code.
/// `super::` counts where it climbs up to the root.
fn paths_from_the_root(path: &str, code: &str) -> Vec<String> {
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    let climb = "super::".repeat(depth);
    let mut paths = Vec::new();
    for root in ["crate::", climb.as_str()] {
        for (at, _) in code.match_indices(root) {
            let begins =
                !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':');
            if begins {
                expand("", &code[at + root.len()..], &mut paths);
            }
        }
    }
    paths
}

/// Reads one path, or one tree of paths in braces, and returns what is left of the text.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = expand(prefix, rest, paths);
            if let Some(renamed) = rest.trim_start().strip_prefix("as ") {
                rest = renamed.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            }
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(deeper) => expand(&name, deeper, paths),
        None => {
            paths.push(name.trim_end_matches("::").to_owned());
            rest.strip_prefix('*').unwrap_or(rest)
        }
    }
}

/// Every Rust file below a folder of the repository, with its path from there.
pub(crate) fn rust_files(folder: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn imports_flow_one_way() {
    let files = rust_files("src");
    let found: Vec<String> = files.iter().flat_map(|(path, source)| violations(path, source)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_map_of_the_house_and_its_rooms_are_the_same() {
    let mut declared: Vec<String> = rust_files("src")
        .into_iter()
        .filter(|(path, _)| path == "lib.rs")
        .flat_map(|(_, source)| {
            let rooms = source.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
            rooms.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    declared.sort();
    let mut drawn = rooms();
    drawn.sort_unstable();
    assert_eq!(declared, drawn);
}

#[test]
fn the_manifests_keep_to_the_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut there: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    let mut planned: Vec<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    planned.sort_unstable();
    assert_eq!(there, planned);
    for (name, may_use) in CRATES {
        let manifest = std::fs::read_to_string(folder.join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        let uses: Vec<&str> = dependencies
            .lines()
            .filter_map(|line| line.split_once('.').map(|(name, _)| name))
            .filter(|name| ["vodrelay", "tencent"].iter().any(|ours| name.starts_with(ours)))
            .collect();
        assert_eq!(uses, may_use, "crates/{name}");
    }
}

#[test]
fn what_decides_does_nothing_else() {
    let mut found = Vec::new();
    for name in PURE {
        let folder = format!("crates/{name}/src");
        let files = rust_files(&folder);
        assert!(!files.is_empty(), "{folder} is not where this test looks for it");
        for (path, source) in files.iter().filter(|(path, _)| !path.contains("tests")) {
            found.extend(impurities(&format!("{folder}/{path}"), source));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    for wrong in ["use tokio::time::sleep;", "let now = std::time::Instant::now();", "rest().await;"] {
        assert!(!impurities("core", wrong).is_empty(), "{wrong}");
    }
    assert!(impurities("core", "// rest().await;\npub(crate) fn f(at: Moment) {}").is_empty());
}

/// What keeps an owner of the core's state from having it alone: a field that others see, or a method of the core's outside of
/// `machine/mod.rs`, where the owners meet.
fn shared_state(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let owner = [("events/mod.rs", "Events"), ("handles/mod.rs", "Handles"), ("polls/mod.rs", "Polls")];
    if let Some((_, name)) = owner.iter().find(|(file, _)| path == *file) {
        let fields =
            source.split_once(&format!("struct {name} {{")).map(|(_, rest)| rest.split("\n}").next());
        let fields = fields.flatten().unwrap_or_else(|| panic!("{path} has no struct {name}"));
        let seen =
            fields.lines().map(str::trim).filter(|line| line.starts_with("pub ") || line.starts_with("pub("));
        found.extend(seen.map(|line| format!("{path}: others can reach the field '{line}'")));
    }
    if path != "mod.rs" && source.contains("impl Core ") {
        found.push(format!("{path}: only machine/mod.rs has methods of the core"));
    }
    found
}

#[test]
fn the_owners_of_the_core_have_their_state_alone() {
    let files = rust_files("crates/core/src/machine");
    let found: Vec<String> = files.iter().flat_map(|(path, source)| shared_state(path, source)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    for owner in ["events", "handles", "polls"] {
        assert!(files.iter().any(|(path, _)| *path == format!("{owner}/mod.rs")), "{owner}");
    }
    let wrong = "struct Polls {\n    queue: FairQueue,\n    pub(super) paused: bool,\n}\n";
    assert_eq!(shared_state("polls/mod.rs", wrong).len(), 1);
    assert_eq!(shared_state("handles/requests.rs", "impl Core {}").len(), 1);
}

#[test]
fn an_arrow_that_points_up_is_seen_however_it_is_written() {
    let wrong = [
        ("cloud/codes.rs", "use crate::journal::Store;"),
        ("cloud/mod.rs", "use crate::{clock::Now, output};"),
        ("cloud/mod.rs", "use crate::{\n    clock::{Now, boot_id as H},\n    config::Config,\n};"),
        ("cloud/mod.rs", "fn f() -> crate::relay::Core { todo() }"),
        ("cloud/mod.rs", "use super::journal::Store;"),
        ("cloud/codes.rs", "use super::super::journal::Store;"),
        ("latency.rs", "pub use crate::journal::Verdict;"),
        ("cron.rs", "use super::cloud;"),
        ("config/mod.rs", "use crate::relay::Snapshot;"),
        ("config/mod.rs", "use crate::ops::health::Health;"),
        ("relay/mod.rs", "use crate::config::Config;"),
        ("ops/http.rs", "use crate::app::App;"),
        ("serve/signature/service.rs", "use crate::config::Config;"),
        ("serve/signature/service.rs", "use crate::ops::health::Health;"),
        ("ops/http.rs", "use crate::serve::signature;"),
        ("app.rs", "use crate::cli::Cli;"),
    ];
    for (path, source) in wrong {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
    let right = [
        ("cloud/codes.rs", "use crate::{clock::Now, latency::*, cloud::codes};"),
        ("cloud/codes.rs", "use super::codes;"),
        ("cloud/mod.rs", "mod tests { use super::*; }"),
        ("latency.rs", "/// See [`crate::relay`].\nconst URL: &str = \"https://x\"; // crate::relay"),
        ("config/mod.rs", "use crate::{ops::logging::LogFormat, cloud::observer};"),
        ("relay/mod.rs", "use crate::{cloud, journal, output};\nuse tokio::time::sleep;"),
        ("cli/mod.rs", "use crate::{app, config::Config, relay::commits};"),
    ];
    for (path, source) in right {
        assert_eq!(violations(path, source), [""; 0], "{path}: {source}");
    }
}

/// What no file of this repository holds, written so that this one does not hold it either.
const BANNED: [(&str, &str); 4] = [
    (concat!("#[", "ignore"), "a test that does not run proves nothing"),
    (concat!("todo", "!("), "unfinished work is not committed"),
    (concat!("unimplemented", "!("), "unfinished work is not committed"),
    (concat!("#[", "allow("), "an expectation with its reason tells when it is no longer needed"),
];

/// About as much as one can keep in mind.
const MOST_LINES: usize = 1_000;

fn untidy(path: &str, source: &str) -> Vec<String> {
    let banned = BANNED.iter().filter(|(word, _)| source.contains(word));
    let mut found: Vec<String> =
        banned.map(|(word, reason)| format!("{path} has {word:?}: {reason}")).collect();
    let lines = source.lines().count();
    if lines > MOST_LINES {
        found.push(format!(
            "{path} has {lines} lines, more than {MOST_LINES}: give its parts files of their own"
        ));
    }
    found
}

#[test]
fn the_tree_is_tidy() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "crates"] {
        for (path, source) in rust_files(folder) {
            found.extend(untidy(&format!("{folder}/{path}"), &source));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    let bad = format!("{} = \"slow\"]\n{}", BANNED[0].0, "\n".repeat(MOST_LINES));
    assert_eq!(untidy("bad.rs", &bad).len(), 2);
}

/// Warnings that are no problem of the relay: an operator's own second signal.
const WITHOUT_A_CODE: [&str; 1] = ["second signal"];

#[test]
fn every_warning_and_error_of_the_log_has_a_code() {
    let mut found = Vec::new();
    for (path, source) in rust_files("src") {
        // The emulator is no relay, and has no operator.
        if path.starts_with("emulator/") || path.contains("/tests") {
            continue;
        }
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        for start in ["warn!(", "error!("] {
            for (_, call) in code.match_indices(start).map(|(at, _)| (at, &code[at..])) {
                let call = call.split(");").next().unwrap_or_default();
                let coded = call.contains("%error_code") || call.contains("error_code = ");
                if !coded && !WITHOUT_A_CODE.iter().any(|words| call.contains(words)) {
                    found.push(format!("src/{path}: {}", call.replace('\n', " ")));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
