//! The one list of keys: where each is written, and how its value is read.

use std::time::Duration;

use tencentcloud_signing::Secret;

use super::value::RawValue;
use super::{
    Auth, BodyFormat, Config, ConfirmAfter, CredentialSource, LogFormat, OutputKind, SwitchUrl, Topology,
};

/// A key of the configuration.
pub(super) struct Key {
    /// Its section.
    pub(super) section: &'static str,
    /// Its name in the section.
    pub(super) name: &'static str,
    /// Where a value that must not stand in the file is given instead.
    pub(super) not_in_file: Option<&'static str>,
    /// Puts a value into the configuration, or says what is wrong with it.
    pub(super) read: Read,
}

type Read = fn(&mut Config, &RawValue<'_>) -> Result<(), String>;

impl Key {
    /// The environment variable that overrides the file.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}__{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// What the names of all our environment variables begin with.
pub(super) const PREFIX: &str = "VODRELAY_";

/// Our environment variables that are no keys: the file itself, which the command line reads.
pub(super) const OTHER_VARIABLES: [&str; 1] = ["VODRELAY_CONFIG"];

/// Whether Kubernetes made this variable for a service whose name begins with `vodrelay`: it does for every service in the
/// namespace, as Docker's links did. `rest` is the name without [`PREFIX`].
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

const CREDENTIALS: &[(&str, CredentialSource)] = &[
    ("auto", CredentialSource::Auto),
    ("env", CredentialSource::Env),
    ("file", CredentialSource::File),
    ("cvm-role", CredentialSource::CvmRole),
    ("systemd", CredentialSource::Systemd),
];
const CONFIRM_AFTER: &[(&str, ConfirmAfter)] =
    &[("publish", ConfirmAfter::Publish), ("journal", ConfirmAfter::Journal)];
const OUTPUT_KINDS: &[(&str, OutputKind)] = &[("amqp", OutputKind::Amqp), ("stdout", OutputKind::Stdout)];
const AUTHS: &[(&str, Auth)] = &[("password", Auth::Password), ("external", Auth::External)];
const TOPOLOGIES: &[(&str, Topology)] = &[("declare", Topology::Declare), ("verify", Topology::Verify)];
const FORMATS: &[(&str, BodyFormat)] =
    &[("event", BodyFormat::Event), ("cloudevents", BodyFormat::CloudEvents)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[
    ("auto", LogFormat::Auto),
    ("pretty", LogFormat::Pretty),
    ("json", LogFormat::Json),
    ("journald", LogFormat::Journald),
];

/// Every key, in the order of `config.example.toml`.
pub(super) const KEYS: &[Key] = &[
    key("vod", "endpoint", |c, v| v.endpoint().map(|url| c.vod.endpoint = url)),
    key("vod", "region", |c, v| v.region().map(|region| c.vod.region = region)),
    key("vod", "sub_app_ids", |c, v| v.sub_app_ids().map(|ids| c.vod.sub_app_ids = ids)),
    key("vod", "credentials", |c, v| v.one_of(CREDENTIALS).map(|source| c.vod.credentials = source)),
    key("vod", "window", |c, v| v.duration(Duration::ZERO).map(|window| c.vod.window = window)),
    key("vod", "requests_per_second", |c, v| v.number(1).map(|rate| c.vod.requests_per_second = rate)),
    key("relay", "confirm_after", |c, v| v.one_of(CONFIRM_AFTER).map(|after| c.relay.confirm_after = after)),
    key("relay", "lease_margin", |c, v| {
        v.duration(Duration::ZERO).map(|margin| c.relay.lease_margin = margin)
    }),
    // One answer brings up to 16 events.
    key("relay", "max_in_flight", |c, v| v.number(16).map(|most| c.relay.max_in_flight = most)),
    key("relay", "idle_backoff_min", |c, v| {
        v.duration(BACKOFF_MIN).map(|min| c.relay.idle_backoff_min = min)
    }),
    key("relay", "idle_backoff_max", |c, v| {
        v.duration(BACKOFF_MIN).map(|max| c.relay.idle_backoff_max = max)
    }),
    key("relay", "publish_attempts", |c, v| v.number(1).map(|attempts| c.relay.publish_attempts = attempts)),
    key("output", "kind", |c, v| v.one_of(OUTPUT_KINDS).map(|kind| c.output.kind = kind)),
    key("amqp", "urls", |c, v| v.amqp_urls().map(|urls| c.amqp.urls = urls)),
    key("amqp", "auth", |c, v| v.one_of(AUTHS).map(|auth| c.amqp.auth = auth)),
    key("amqp", "username", |c, v| v.optional().map(|username| c.amqp.username = username)),
    Key {
        section: "amqp",
        name: "password",
        not_in_file: Some(
            "set VODRELAY_AMQP__PASSWORD, or give the service manager's credential amqp_password",
        ),
        read: |c, v| v.name().map(|password| c.amqp.password = Some(Secret::new(password))),
    },
    key("amqp", "exchange", |c, v| {
        v.name()?;
        v.amqp_name().map(|exchange| c.amqp.exchange = exchange)
    }),
    key("amqp", "queue", |c, v| v.amqp_name().map(|queue| c.amqp.queue = queue)),
    key("amqp", "routing_key", |c, v| v.routing_key().map(|routing_key| c.amqp.routing_key = routing_key)),
    key("amqp", "binding_key", |c, v| v.binding_key().map(|binding_key| c.amqp.binding_key = binding_key)),
    key("amqp", "topology", |c, v| v.one_of(TOPOLOGIES).map(|topology| c.amqp.topology = topology)),
    key("amqp", "format", |c, v| v.one_of(FORMATS).map(|format| c.amqp.format = format)),
    key("amqp", "ca_file", |c, v| v.optional_path().map(|path| c.amqp.ca_file = path)),
    key("amqp", "client_cert_file", |c, v| v.optional_path().map(|path| c.amqp.client_cert_file = path)),
    key("amqp", "client_key_file", |c, v| v.optional_path().map(|path| c.amqp.client_key_file = path)),
    key("journal", "path", |c, v| v.path().map(|path| c.journal.path = path)),
    key("journal", "retention", |c, v| {
        v.duration(RETENTION_MIN).map(|retention| c.journal.retention = retention)
    }),
    key("http", "listen", |c, v| v.optional_socket_address().map(|listen| c.http.listen = listen)),
    key("health", "ready_limit", |c, v| {
        v.duration(Duration::from_secs(1)).map(|limit| c.health.ready_limit = limit)
    }),
    key("health", "exit_after", |c, v| v.duration(Duration::ZERO).map(|after| c.health.exit_after = after)),
    key("health", "dead_mans_switch_url", |c, v| {
        v.optional_url().map(|url| c.health.dead_mans_switch_url = url.map(SwitchUrl))
    }),
    key("status", "socket", |c, v| v.optional_path().map(|socket| c.status.socket = socket)),
    key("maintenance", "prune", |c, v| v.cron("0 17 * * * *").map(|cron| c.maintenance.prune = cron)),
    key("maintenance", "vacuum", |c, v| v.cron("0 47 3 * * *").map(|cron| c.maintenance.vacuum = cron)),
    key("maintenance", "backup", |c, v| v.cron("0 30 3 * * *").map(|cron| c.maintenance.backup = cron)),
    key("maintenance", "summary", |c, v| v.cron("0 0 0 * * *").map(|cron| c.maintenance.summary = cron)),
    key("maintenance", "backlog", |c, v| v.cron("0 * * * * *").map(|cron| c.maintenance.backlog = cron)),
    key("maintenance", "backups_kept", |c, v| v.number(0).map(|kept| c.maintenance.backups_kept = kept)),
    key("maintenance", "backup_dir", |c, v| v.optional_path().map(|path| c.maintenance.backup_dir = path)),
    key("log", "format", |c, v| v.one_of(LOG_FORMATS).map(|format| c.log.format = format)),
    key("log", "level", |c, v| v.log_level().map(|level| c.log.level = level)),
];

const fn key(section: &'static str, name: &'static str, read: Read) -> Key {
    Key { section, name, not_in_file: None, read }
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

/// The names that may stand in a section of the file.
pub(super) fn names(section: &str) -> Vec<&'static str> {
    KEYS.iter()
        .filter(|key| key.section == section && key.not_in_file.is_none())
        .map(|key| key.name)
        .collect()
}

/// The section of a key by its name alone, when it stands elsewhere than it should.
pub(super) fn home(name: &str) -> Option<&'static str> {
    let mut homes = KEYS.iter().filter(|key| key.name == name).map(|key| key.section);
    // `format` is at home in two sections: no advice is better than wrong advice.
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
            // A key that must not stand in the file is at least spoken of.
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
