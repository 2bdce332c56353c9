//! What may come into the program with its dependencies, by the lists in `deny.toml`. `cargo deny` itself, which also knows
//! the advisories, is a part of `scripts/test full`: it has to be compiled first.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, ParseMode};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

struct Lists {
    licences: Vec<String>,
    banned: Vec<String>,
}

impl Lists {
    fn read() -> Self {
        let text = std::fs::read_to_string(Path::new(ROOT).join("deny.toml")).unwrap();
        let deny: toml::Table = text.parse().unwrap();
        let texts = |list: &toml::Value, key: Option<&str>| {
            let text = |item: &toml::Value| key.map_or(item, |key| &item[key]).as_str().unwrap().to_owned();
            list.as_array().unwrap().iter().map(text).collect::<Vec<_>>()
        };
        Self {
            licences: texts(&deny["licenses"]["allow"], None),
            banned: texts(&deny["bans"]["deny"], Some("crate")),
        }
    }

    /// What is wrong with one package of `cargo metadata`.
    fn violations(&self, package: &Value) -> Vec<String> {
        let name = package["name"].as_str().unwrap();
        let mut found = Vec::new();
        if self.banned.iter().any(|banned| banned == name) {
            found.push(format!("{name} is banned by deny.toml"));
        }
        if package["source"].as_str().is_some_and(|source| !source.starts_with("registry+")) {
            found.push(format!("{name} comes from {}, which is no registry", package["source"]));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        let known = |allowed: &spdx::LicenseReq| {
            let licence = allowed.license.id();
            licence.is_some_and(|licence| self.licences.iter().any(|allowed| allowed == licence.name))
        };
        match Expression::parse_mode(licence, ParseMode::LAX) {
            Ok(expression) if expression.evaluate(known) => {}
            Ok(_) => {
                found.push(format!("{name} has the licence {licence:?}, which deny.toml does not allow"))
            }
            Err(error) => found.push(format!("{name}: {error}")),
        }
        found
    }
}

/// The packages that the program is built from on this machine, and those that its tests need.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(ROOT).args(["metadata", "--locked", "--offline", "--format-version", "1"]);
    command.args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let used = |package: &&Value| nodes.iter().any(|node| node["id"] == package["id"]);
    metadata["packages"].as_array().unwrap().iter().filter(used).cloned().collect()
}

#[test]
fn licences_bans_and_sources_are_as_deny_toml_says() {
    let lists = Lists::read();
    let packages = packages();
    assert!(packages.len() > 100, "{} packages", packages.len());
    let found: Vec<String> = packages.iter().flat_map(|package| lists.violations(package)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));

    let wrong = |change: &str, value: &str| {
        let mut package = packages[0].clone();
        package[change] = value.into();
        lists.violations(&package).len()
    };
    assert_eq!(wrong("license", "GPL-3.0-only"), 1);
    assert_eq!(wrong("license", "MIT AND GPL-3.0-only"), 1);
    assert_eq!(wrong("license", "MIT OR GPL-3.0-only"), 0);
    assert_eq!(wrong("license", ""), 1);
    assert_eq!(wrong("name", "openssl-sys"), 1);
    assert_eq!(wrong("source", "git+https://example.com/x"), 1);
}

/// The dependencies of a section of Cargo.toml that no file of these folders names.
fn unused(manifest: &toml::Table, section: &str, sources: &str) -> Vec<String> {
    let names = manifest[section].as_table().unwrap().keys();
    let used = |name: &&String| {
        let name = name.replace('-', "_");
        ["::", ";", " as "].iter().any(|after| sources.contains(&format!("{name}{after}")))
    };
    names.filter(|name| !used(name)).cloned().collect()
}

/// The compiler looks for unused dependencies of the library (`src/lib.rs`); of the tests it cannot, as each of them is a crate.
#[test]
fn every_dependency_of_the_tests_is_used() {
    let mut sources = String::new();
    for folder in ["src", "tests", "benches"] {
        for (_, source) in super::house::rust_files(folder) {
            writeln!(sources, "{source}").unwrap();
        }
    }
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    let mut manifest: toml::Table = manifest.parse().unwrap();
    assert_eq!(unused(&manifest, "dev-dependencies", &sources), [""; 0]);
    let planted = BTreeMap::from([("never-named-anywhere", "1")]);
    manifest.insert("dev-dependencies".to_owned(), toml::Value::try_from(planted).unwrap());
    assert_eq!(unused(&manifest, "dev-dependencies", &sources), ["never-named-anywhere"]);
}
