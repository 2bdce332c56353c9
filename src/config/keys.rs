//! The one list of keys: the name of each, and how its value is read.

use std::time::Duration;

use tencentcloud_signing::Secret;

use super::value::RawValue;
use super::{Config, ConfirmAfter, CredentialSource, LogFormat, OutputKind, SwitchUrl};
use crate::output::amqp::{Auth, BodyFormat, Topology};

/// A key of the configuration.
pub(super) struct Key {
    /// Its section.
    pub(super) section: &'static str,
    /// Its name in the section.
    pub(super) name: &'static str,
    /// Where to give a value that must not be in the file.
    pub(super) not_in_file: Option<&'static str>,
    /// Whether a reload takes a new value over. The others need a restart.
    pub(super) live: bool,
    /// Puts a value into the configuration, or returns what is wrong with it.
    pub(super) read: fn(&mut Config, &RawValue<'_>) -> Result<(), String>,
    /// Copies the value from another configuration.
    pub(super) take: fn(&mut Config, &Config),
    /// Whether the value differs between two configurations.
    pub(super) differs: fn(&Config, &Config) -> bool,
}

/// Makes [`KEYS`] of the rows below.
macro_rules! keys {
    ($($section:ident.$name:ident $(($($field:ident).+))? $when:ident $read:expr $(, not_in_file $instead:literal)?;)*) => {
        /// Every key, in the order of `config.example.toml`.
        pub(super) const KEYS: &[Key] = &[$(Key {
            section: stringify!($section),
            name: stringify!($name),
            not_in_file: keys!(@instead $($instead)?),
            live: keys!(@live $when),
            read: |config, value| {
                let read: fn(&RawValue<'_>) -> Result<_, String> = $read;
                keys!(@field config $section $name $($($field).+)?) = read(value)?;
                Ok(())
            },
            take: |old, new| {
                keys!(@field old $section $name $($($field).+)?)
                    .clone_from(&keys!(@field new $section $name $($($field).+)?));
            },
            differs: |old, new| {
                keys!(@field old $section $name $($($field).+)?) != keys!(@field new $section $name $($($field).+)?)
            },
        }),*];
    };
    (@field $config:ident $section:ident $name:ident) => { $config.$section.$name };
    (@field $config:ident $section:ident $name:ident $($field:ident).+) => { $config.$section.$($field).+ };
    (@instead) => { None };
    (@instead $instead:literal) => { Some($instead) };
    (@live live) => { true };
    (@live restart) => { false };
}

impl Key {
    /// The environment variable that overrides the file.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// The prefix of all our environment variables.
pub(super) const PREFIX: &str = "VODRELAY_";

/// Our environment variables that are not keys: the file itself, which the command line reads.
pub(super) const OTHER_VARIABLES: [&str; 1] = ["VODRELAY_CONFIG"];

/// Whether Kubernetes made this variable for a service whose name begins with `vodrelay`. It does so for
/// every service in the namespace, as Docker's links did. `rest` is the name without [`PREFIX`].
pub(super) fn is_of_kubernetes(rest: &str, value: &str) -> bool {
    let ends = |end: &str| rest == end || rest.ends_with(&format!("_{end}"));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let after = |word: &str| match rest.strip_prefix(word) {
        Some(after) => Some(after),
        None => rest.split_once(&format!("_{word}")).map(|(_, after)| after),
    };
    let port = after("PORT_").is_some_and(|port| {
        let mut parts = port.split('_');
        parts.next().is_some_and(number)
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
            && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
    });
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    ends("SERVICE_HOST")
        || ends("SERVICE_PORT")
        || after("SERVICE_PORT_").is_some()
        || port
        || (ends("PORT") && address)
}

/// The cloud keeps unconfirmed events for four days ("PullEvents", document 266/33433): until then an event can come again,
/// and must be known.
const RETENTION_MIN: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// Less would be a hot loop against an API that answers at once.
const BACKOFF_MIN: Duration = Duration::from_millis(10);

const CONFIRM_AFTER: &[(&str, ConfirmAfter)] =
    &[("publish", ConfirmAfter::Publish), ("journal", ConfirmAfter::Journal)];
const OUTPUT_KINDS: &[(&str, OutputKind)] = &[("amqp", OutputKind::Amqp), ("stdout", OutputKind::Stdout)];
const AUTHS: &[(&str, Auth)] = &[("password", Auth::Password), ("external", Auth::External)];
const TOPOLOGIES: &[(&str, Topology)] = &[("declare", Topology::Declare), ("verify", Topology::Verify)];
const FORMATS: &[(&str, BodyFormat)] =
    &[("event", BodyFormat::Event), ("cloudevents", BodyFormat::CloudEvents)];
pub(super) const LOG_FORMATS: &[(&str, LogFormat)] = &[
    ("auto", LogFormat::Auto),
    ("pretty", LogFormat::Pretty),
    ("json", LogFormat::Json),
    ("journald", LogFormat::Journald),
];

// Every key, in the order of `config.example.toml`. A row has section and name, the field if it has another
// name, `live` or `restart`, the reader, and where to give a value that must not be in the file.
keys! {
    vod.endpoint restart |v| v.endpoint();
    vod.region restart |v| v.region();
    vod.sub_app_ids live |v| v.sub_app_ids();
    vod.credentials restart |v| v.one_of(CredentialSource::NAMES);
    vod.window restart |v| v.duration(Duration::ZERO);
    vod.requests_per_second live |v| v.number(1);
    relay.confirm_after restart |v| v.one_of(CONFIRM_AFTER);
    relay.lease_margin restart |v| v.duration(Duration::ZERO);
    // One answer brings up to 16 events.
    relay.max_in_flight live |v| v.number(16);
    relay.idle_backoff_min live |v| v.duration(BACKOFF_MIN);
    relay.idle_backoff_max live |v| v.duration(BACKOFF_MIN);
    relay.publish_attempts live |v| v.number(1);
    output.kind restart |v| v.one_of(OUTPUT_KINDS);
    amqp.urls restart |v| v.amqp_urls();
    amqp.auth restart |v| v.one_of(AUTHS);
    amqp.username restart |v| v.optional();
    amqp.password restart |v| v.name().map(|password| Some(Secret::new(password))), not_in_file
        "set VODRELAY_AMQP__PASSWORD, or give the service manager's credential amqp_password";
    amqp.exchange restart |v| v.name().and_then(|_| v.amqp_name());
    amqp.queue restart |v| v.amqp_name();
    amqp.routing_key restart |v| v.routing_key();
    amqp.binding_key restart |v| v.binding_key();
    amqp.topology restart |v| v.one_of(TOPOLOGIES);
    amqp.format restart |v| v.one_of(FORMATS);
    amqp.ca_file(tls.ca_file) restart |v| v.optional_path();
    amqp.client_cert_file(tls.client_cert_file) restart |v| v.optional_path();
    amqp.client_key_file(tls.client_key_file) restart |v| v.optional_path();
    journal.path restart |v| v.path();
    journal.retention restart |v| v.duration(RETENTION_MIN);
    http.listen restart |v| v.optional_socket_address();
    health.ready_limit restart |v| v.duration(Duration::from_secs(1));
    health.exit_after restart |v| v.duration(Duration::ZERO);
    health.dead_mans_switch_url restart |v| Ok(v.optional_url()?.map(SwitchUrl));
    status.socket restart |v| v.optional_path();
    maintenance.prune restart |v| v.cron("0 17 * * * *");
    maintenance.vacuum restart |v| v.cron("0 47 3 * * *");
    maintenance.backup restart |v| v.cron("0 30 3 * * *");
    maintenance.summary restart |v| v.cron("0 0 0 * * *");
    maintenance.backlog restart |v| v.cron("0 * * * * *");
    maintenance.backups_kept restart |v| v.number(0);
    maintenance.backup_dir restart |v| v.optional_path();
    log.format restart |v| v.one_of(LOG_FORMATS);
    log.level live |v| v.log_level();
}

/// The key of this name in this section.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section == section && key.name == name)
}

/// The sections, each once, in order.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
    sections.dedup();
    sections
}

/// The names that a section of the file may have.
pub(super) fn names(section: &str) -> Vec<&'static str> {
    KEYS.iter()
        .filter(|key| key.section == section && key.not_in_file.is_none())
        .map(|key| key.name)
        .collect()
}

/// The section of a key by its name alone, for a key in a wrong place.
pub(super) fn home(name: &str) -> Option<&'static str> {
    let mut homes = KEYS.iter().filter(|key| key.name == name).map(|key| key.section);
    // `format` exists in two sections: wrong advice is worse than none.
    homes.next().filter(|_| homes.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_key_in_this_order() {
        let mut lines = include_str!("../../config.example.toml").lines();
        let mut section = "";
        for key in KEYS {
            if key.section != section {
                section = key.section;
                assert!(lines.any(|line| line == format!("[{section}]")), "[{section}]");
            }
            // A key that must not be in the file is at least named in it.
            let shown = |line: &str| match key.not_in_file {
                None => line.starts_with(&format!("{} = ", key.name)),
                Some(_) => line.contains(&key.variable()),
            };
            assert!(lines.any(shown), "{section}.{}", key.name);
        }
    }

    #[test]
    fn no_variable_of_a_key_is_taken_for_one_of_kubernetes() {
        for key in KEYS {
            assert!(
                !is_of_kubernetes(key.variable().strip_prefix(PREFIX).unwrap(), "tcp://x"),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn every_variable_stands_for_one_key() {
        let mut variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        assert!(variables.contains(&"VODRELAY_VOD__SUB_APP_IDS".to_owned()));
        variables.extend(OTHER_VARIABLES.map(str::to_owned));
        let all = variables.len();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }
}
