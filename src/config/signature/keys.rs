//! The keys of the signature server's file: where each is written, and how its value is read. A row each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tencentcloud_signing::upload::{MAX_LIFE, MAX_TASK_PRIORITY, TaskNotifyMode};

use super::SignatureConfig;
use crate::config::CredentialSource;
use crate::config::keys::LOG_FORMATS;
use crate::config::value::RawValue;
use crate::serve::signature::{Allowed, CallerOptions, OneTimeRule, TokenFile};

type KeyResult<T> = Result<T, String>;

/// A key of `T`: the whole file, or one caller.
pub(super) struct FileKey<T> {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// Whether a reload takes a new value over. The others need a restart.
    pub(super) live: bool,
    pub(super) read: fn(&mut T, &RawValue<'_>) -> KeyResult<()>,
    pub(super) take: fn(&mut T, &T),
    pub(super) differs: fn(&T, &T) -> bool,
}

/// Makes a list of keys of its rows: section and name, the field, whether a reload takes a new value over, the reader.
macro_rules! keys {
    ($of:ty: $($section:ident.$name:ident ($($field:tt)+) $when:ident $read:expr;)*) => {
        &[$(FileKey {
            section: stringify!($section),
            name: stringify!($name),
            live: keys!(@live $when),
            read: |into: &mut $of, value| {
                let read: fn(&RawValue<'_>) -> KeyResult<_> = $read;
                into.$($field)+ = read(value)?;
                Ok(())
            },
            take: |old, new| old.$($field)+.clone_from(&new.$($field)+),
            differs: |old, new| old.$($field)+ != new.$($field)+,
        }),*]
    };
    (@live live) => { true };
    (@live restart) => { false };
}

/// The heading of a caller's table.
pub(super) const CALLERS: &str = "callers";

const ONE_TIME: &[(&str, OneTimeRule)] =
    &[("never", OneTimeRule::Never), ("always", OneTimeRule::Always), ("request", OneTimeRule::Request)];
const NOTIFY_MODES: &[(&str, TaskNotifyMode)] =
    &[("Finish", TaskNotifyMode::Finish), ("Change", TaskNotifyMode::Change), ("None", TaskNotifyMode::None)];

/// The keys that stand once, in the order of the example.
pub(super) const KEYS: &[FileKey<SignatureConfig>] = keys! { SignatureConfig:
    server.listen (server.listen) restart |v| v.socket_address();
    server.metrics_listen (server.metrics_listen) restart |v| v.optional_socket_address();
    server.credentials (server.credentials) live |v| v.one_of(CredentialSource::NAMES);
    server.cors_origins (server.cors_origins) live |v| v.list("origin", |v| v.name()?.parse().map_err(told));
    server.trusted_proxies (server.trusted_proxies) live |v| v.list("address", address);
    server.connections (server.connections) restart |v| v.number(1);
    server.requests_per_second (server.requests_per_second) live |v| v.number(1);
    log.format (log.format) restart |v| v.one_of(LOG_FORMATS);
    log.level (log.level) live |v| v.log_level();
};

/// The keys of a caller, in the order of the example.
pub(super) const CALLER_KEYS: &[FileKey<CallerOptions>] = keys! { CallerOptions:
    callers.name (name) live |v| caller_name(v);
    callers.tokens (tokens) live |v| v.list("file", token_file);
    callers.requests_per_second (requests_per_second) live |v| v.number(1);
    callers.sub_app_id (policy.sub_app_id.fixed) live |v| v.integer().map(Some);
    callers.sub_app_ids (policy.sub_app_id.allowed) live |v| allowed(v, "id", |v| v.integer());
    callers.procedure (policy.procedure.fixed) live |v| v.name().map(Some);
    callers.procedures (policy.procedure.allowed) live |v| allowed(v, "procedure", |v| v.name());
    callers.class_id (policy.class_id.fixed) live |v| class_id(v).map(Some);
    callers.class_ids (policy.class_id.allowed) live |v| allowed(v, "id", class_id);
    callers.storage_region (policy.storage_region.fixed) live |v| v.name().map(Some);
    callers.storage_regions (policy.storage_region.allowed) live |v| allowed(v, "region", |v| v.name());
    callers.task_priority (policy.task_priority.fixed) live |v| priority(v).map(Some);
    callers.task_priorities (policy.task_priority.allowed) live |v| allowed(v, "priority", priority);
    callers.task_notify_mode (policy.task_notify_mode.fixed) live |v| v.one_of(NOTIFY_MODES).map(Some);
    callers.task_notify_modes (policy.task_notify_mode.allowed) live |v| allowed(v, "mode", |v| v.one_of(NOTIFY_MODES));
    callers.source_context (policy.source_context) live |v| v.text()?.parse().map_err(told);
    callers.session_context (policy.session_context) live |v| v.text()?.parse().map_err(told);
    callers.expiry (policy.expiry) live |v| expiry(v);
    callers.expiry_max (policy.expiry_max) live |v| expiry(v);
    callers.one_time (policy.one_time) live |v| v.one_of(ONE_TIME);
};

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// A list of values that a request may have, or `["*"]` for any.
fn allowed<T>(
    value: &RawValue<'_>,
    what: &str,
    parse: impl Fn(&RawValue<'_>) -> KeyResult<T>,
) -> KeyResult<Allowed<T>> {
    let items = value.list(what, |item| match item.text() {
        Ok(text) if text == "*" => Ok(None),
        _ => parse(item).map(Some),
    })?;
    if items.len() > 1 && items.iter().any(Option::is_none) {
        return Err("has \"*\" beside other values; \"*\" alone allows any".to_owned());
    }
    let any = items.iter().any(Option::is_none);
    Ok(if any { Allowed::Any } else { Allowed::These(items.into_iter().flatten().collect()) })
}

fn class_id(value: &RawValue<'_>) -> KeyResult<i64> {
    value.signed(i64::MIN, i64::MAX)
}

fn priority(value: &RawValue<'_>) -> KeyResult<i8> {
    value.signed(-i64::from(MAX_TASK_PRIORITY), MAX_TASK_PRIORITY.into())
}

fn address(value: &RawValue<'_>) -> KeyResult<IpAddr> {
    let parsed = value.text()?.parse::<IpAddr>();
    parsed
        .map(|address| address.to_canonical())
        .map_err(|_| "is no IP address, like \"127.0.0.1\"".to_owned())
}

/// How long a signature holds: whole seconds, because the signature has no others.
fn expiry(value: &RawValue<'_>) -> KeyResult<Duration> {
    let duration = value.duration(Duration::from_secs(1))?;
    if duration.as_secs() > MAX_LIFE.unsigned_abs() {
        return Err("is more than 90d, which the cloud does not allow".to_owned());
    }
    if duration.subsec_nanos() != 0 {
        return Err("must be whole seconds".to_owned());
    }
    Ok(duration)
}

/// A name that stands in the log, in metrics and in contexts.
fn caller_name(value: &RawValue<'_>) -> KeyResult<String> {
    let name = value.name()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() > 64 || !name.chars().all(plain) {
        return Err("must be at most 64 letters, digits, \"-\", \"_\" and \".\"".to_owned());
    }
    Ok(name)
}

/// A path, or the name of a credential: `LoadCredential=` knows no folders.
fn token_file(value: &RawValue<'_>) -> KeyResult<TokenFile> {
    let path: PathBuf = value.path()?;
    let is_name = path.components().count() == 1 && path.file_name().is_some();
    if path.is_absolute() || is_name {
        return Ok(TokenFile(path));
    }
    Err("is neither an absolute path nor the name of a credential of the unit".to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../signature.example.toml");

    #[test]
    fn the_example_shows_every_key_in_this_order() {
        let mut lines = EXAMPLE.lines();
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                assert!(lines.any(|line| line == format!("[{section}]")), "[{section}]");
            }
            assert!(lines.any(|line| line.starts_with(&format!("{} = ", key.name))), "{}", key.name);
        }
        let callers = EXAMPLE.split("[[callers]]\n").nth(1).unwrap();
        for key in CALLER_KEYS {
            // Of a pair, the example sets one and names both.
            let set = callers.lines().any(|line| line.starts_with(&format!("{} = ", key.name)));
            let named =
                callers.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == key.name);
            assert!(set || named, "{}", key.name);
        }
    }

    #[test]
    fn the_example_is_read_and_shows_the_defaults_of_the_server() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("signature.example.toml");
        let loaded = SignatureConfig::load(&path).unwrap();
        assert_eq!(loaded.warnings, []);
        let default = SignatureConfig::default();
        assert_eq!((&loaded.config.server, &loaded.config.log), (&default.server, &default.log));
        assert_eq!(loaded.config.callers.len(), 1);
    }

    #[test]
    fn the_table_in_the_documents_is_that_of_the_program() {
        let text = include_str!("../../../docs/configuration.md");
        let table = text.split("## The signature server's file").nth(1).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
        let row = |section: &str, name: &str| {
            let key = format!("`{section}.{name}`");
            let found = rows.iter().find(|row| row.split('|').nth(1).is_some_and(|cell| cell.contains(&key)));
            found.unwrap_or_else(|| panic!("{key} has no row")).split('|').map(str::trim).collect::<Vec<_>>()
        };
        for key in KEYS {
            let cells = row(key.section, key.name);
            assert_eq!(cells[3], if key.live { "yes" } else { "restart" }, "{}", key.name);
            let value = cells[2].trim_matches('`');
            assert!(EXAMPLE.contains(&format!("\n{} = {value}\n", key.name)), "{} = {value}", key.name);
        }
        for key in CALLER_KEYS {
            assert_eq!(row(key.section, key.name)[3], "yes", "{}", key.name);
        }
        let named =
            rows.iter().flat_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.matches("`,")).count();
        assert_eq!(rows.len() + named, KEYS.len() + CALLER_KEYS.len());
    }
}
