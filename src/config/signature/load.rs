//! Reads the signature server's file. Every error is kept.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use vodrelay_host::regular_file;

use super::SignatureConfig;
use super::keys::{CALLER_KEYS, CALLERS, FileKey, KEYS};
use super::weigh::weigh;
use crate::config::document::{self, TomlDocument, word};
use crate::config::load::{ConfigError, ConfigErrors, MAX_BYTES};
use crate::config::value::{RawValue, unknown};
use crate::serve::signature::CallerOptions;

/// A file that was read, and what is doubtful about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedSignatureConfig {
    /// What the program may rely on.
    pub config: SignatureConfig,
    /// What an operator should look at.
    pub warnings: Vec<ConfigError>,
}

impl SignatureConfig {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, not only the first.
    pub fn load(path: &Path) -> Result<LoadedSignatureConfig, ConfigErrors> {
        let mut reader = Reader { path, config: Self::default(), headings: Vec::new(), errors: Vec::new() };
        reader.read();
        if reader.errors.is_empty() {
            let mut warnings = Vec::new();
            for found in weigh(&reader.config) {
                let at = found.caller.and_then(|number| reader.headings.get(number).copied());
                let told = ConfigError { place: reader.place(at), message: found.message };
                if found.wrong { reader.errors.push((at, told.message)) } else { warnings.push(told) }
            }
            if reader.errors.is_empty() {
                return Ok(LoadedSignatureConfig { config: reader.config, warnings });
            }
        }
        let mut errors = std::mem::take(&mut reader.errors);
        errors.sort();
        let told = errors.into_iter().map(|(at, message)| ConfigError { place: reader.place(at), message });
        Err(ConfigErrors(told.collect()))
    }
}

struct Reader<'a> {
    path: &'a Path,
    config: SignatureConfig,
    /// The lines of the headings of the callers.
    headings: Vec<usize>,
    errors: Vec<(Option<usize>, String)>,
}

impl Reader<'_> {
    fn place(&self, line: Option<usize>) -> String {
        let file = self.path.display();
        line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"))
    }

    fn error(&mut self, line: usize, message: impl Into<String>) {
        self.errors.push((Some(line), message.into()));
    }

    fn read(&mut self) {
        let text = match document::text(regular_file::read(self.path, MAX_BYTES), "--file") {
            Ok(text) => text,
            Err(error) => return self.errors.push(error),
        };
        let document = TomlDocument::parse(&text);
        self.errors.extend(document.errors.iter().map(|(line, message)| (Some(*line), message.clone())));
        for (section, at, content) in document.sections() {
            match (section, content) {
                (CALLERS, DeValue::Array(tables)) => {
                    for table in tables {
                        let at = document.line(table.span().start);
                        match table.get_ref() {
                            DeValue::Table(table) => self.caller(at, table, &document),
                            _ => self.error(at, "a caller is a table; write [[callers]] above its keys"),
                        }
                    }
                }
                (CALLERS, _) => {
                    self.error(at, "there can be several callers; write [[callers]] in double brackets")
                }
                (section, DeValue::Table(table)) => self.section(section, at, table, &document),
                (section, _) => self.outside(section, at),
            }
        }
    }

    fn caller(&mut self, at: usize, table: &DeTable<'_>, document: &TomlDocument<'_>) {
        let mut caller = CallerOptions::default();
        let errors = read_keys(&mut caller, CALLER_KEYS, "[[callers]]", table, document);
        self.errors.extend(errors.into_iter().map(|(line, message)| (Some(line), message)));
        self.headings.push(at);
        self.config.callers.push(caller);
    }

    fn section(&mut self, section: &str, at: usize, table: &DeTable<'_>, document: &TomlDocument<'_>) {
        let known = sections();
        if !known.contains(&section) {
            let what = format!("unknown section [{}]", word(section));
            return self.error(at, unknown(&what, section, &known, heading));
        }
        let of_section = |key: &&FileKey<SignatureConfig>| key.section == section;
        let keys: Vec<&FileKey<SignatureConfig>> = KEYS.iter().filter(of_section).collect();
        let errors = read_keys(&mut self.config, keys, &heading(section), table, document);
        self.errors.extend(errors.into_iter().map(|(line, message)| (Some(line), message)));
    }

    /// A value that stands before the first heading.
    fn outside(&mut self, name: &str, at: usize) {
        let message = if sections().contains(&name) {
            format!("{name:?} is a section; write {} on a line of its own and its keys below", heading(name))
        } else if let Some(home) = home(name) {
            format!("{name:?} stands in no section; put it under {home}")
        } else {
            unknown(&format!("unknown key {:?} in no section", word(name)), name, &sections(), heading)
        };
        self.error(at, message);
    }
}

/// The names of the sections, each once, in order.
fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections.push(CALLERS);
    sections
}

fn heading(section: &str) -> String {
    if section == CALLERS { format!("[[{section}]]") } else { format!("[{section}]") }
}

/// The heading under which a key of this name belongs, if there is one and only one.
fn home(name: &str) -> Option<String> {
    let of_sections = KEYS.iter().filter(|key| key.name == name).map(|key| key.section);
    let of_callers = CALLER_KEYS.iter().filter(|key| key.name == name).map(|key| key.section);
    let mut homes = of_sections.chain(of_callers);
    homes.next().filter(|_| homes.next().is_none()).map(heading)
}

/// Reads the keys of a table. Returns what is wrong, by its line.
fn read_keys<'k, T: 'static>(
    into: &mut T,
    keys: impl IntoIterator<Item = &'k FileKey<T>>,
    heading: &str,
    table: &DeTable<'_>,
    document: &TomlDocument<'_>,
) -> Vec<(usize, String)> {
    let keys: Vec<&FileKey<T>> = keys.into_iter().collect();
    let mut errors = Vec::new();
    for (name, at, value) in document.keys(table) {
        match keys.iter().find(|key| key.name == name) {
            Some(key) => {
                if let Err(message) = (key.read)(into, &RawValue::Toml(value)) {
                    errors.push((at, format!("{}.{} {message}", key.section, key.name)));
                }
            }
            None => {
                let what = format!("unknown key {:?} in {heading}", word(name));
                let message = match home(name) {
                    Some(home) => format!("{what}; it belongs under {home}"),
                    None => {
                        let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
                        unknown(&what, name, &known, |name| format!("{name:?}"))
                    }
                };
                errors.push((at, message));
            }
        }
    }
    errors
}
