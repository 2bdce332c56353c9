//! The file and the environment: errors with a place and without a secret, or a configuration that holds what was meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use tempfile::TempDir;
use tencent_vod_event::SubAppId;
use tencentcloud_signing::Secret;
use url::Url;
use vodrelay::config::{
    Config, ConfigErrors, ConfirmAfter, CredentialSource, HealthConfig, HttpConfig, JournalConfig, LogConfig,
    LogFormat, OutputConfig, OutputKind, RelaySettings, StatusConfig, VodConfig,
};
use vodrelay::cron::Cron;
use vodrelay::ops::maintenance;
use vodrelay::output::amqp::{self, Address, Auth, BodyFormat, TlsFiles, Topology};
use vodrelay::routing_key::RoutingKeyTemplate;

use crate::harness::{cases, fuzz};

/// What stands in the URLs and must not come out of them.
const PLANTED: &str = "hunter2";

const TOKENS: &[&str] = &[
    "[vod]\n",
    "[relay]\n",
    "[output]\n",
    "[amqp]\n",
    "[journal]\n",
    "[maintenance]\n",
    "[log]\n",
    "[[amqp]]\n",
    "[amqp.urls]\n",
    "[",
    "]",
    "\"",
    "\"\"\"",
    "'",
    "'''",
    " = ",
    "\n",
    "\r\n",
    "\r",
    "#",
    "{",
    "}",
    ",",
    ".",
    "\\",
    "\\u0000",
    "\u{feff}",
    "true",
    "1979-05-27T07:32:00Z",
    "inf",
    "nan",
    "0x",
    "30s",
    "window = ",
    "urls = [",
    "password = ",
    "endpoint = \"http://",
    "é",
    "\0",
    "routing_key = \"{",
    "prune = \"0 * ",
    "*/5 1-3,7 L W# ? MON JAN ",
    "level = \"",
    "info,vodrelay::vod=debug",
    "[{a=",
    "99999999999999999999y",
];

struct File {
    folder: TempDir,
    path: PathBuf,
}

impl File {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        Self { folder, path }
    }

    fn load(&self, text: &[u8], env: &[(String, String)]) -> Result<Config, ConfigErrors> {
        std::fs::write(&self.path, text).unwrap();
        let loaded = Config::load(Some(&self.path), env.iter().cloned());
        match &loaded {
            Ok(config) => assert_usable(config),
            Err(errors) => self.assert_placed(errors, text, env),
        }
        loaded
    }

    /// Every error is one line, with a line of the file that is there, or with a variable that was set.
    fn assert_placed(&self, errors: &ConfigErrors, text: &[u8], env: &[(String, String)]) {
        let lines = text.split(|byte| *byte == b'\n').count();
        let prefix = format!("{}:", self.path.display());
        assert!(errors.iter().next().is_some(), "no configuration, and no error");
        for error in errors.iter() {
            let line = error.place.strip_prefix(&prefix).map(|line| line.parse::<usize>().unwrap());
            let variable = env.iter().any(|(name, _)| *name == error.place);
            assert!(
                variable || line.is_some_and(|line| (1..=lines).contains(&line)),
                "{error:?} of {lines} lines"
            );
            assert!(!error.message.is_empty() && !error.message.contains(['\n', '\r']), "{error:?}");
        }
    }
}

/// What was loaded can be worked with, and prints no secret.
fn assert_usable(config: &Config) {
    let template = config.amqp.routing_key.to_string().parse::<RoutingKeyTemplate>();
    assert_eq!(template.as_ref(), Ok(&config.amqp.routing_key));
    assert!(!config.amqp.urls.is_empty());
    assert!(config.relay.lease_margin < config.vod.window);
    assert!(config.relay.idle_backoff_min <= config.relay.idle_backoff_max);
    for url in &config.amqp.urls {
        if let Some(password) = url.password.as_ref().filter(|password| !password.expose().is_empty()) {
            let shown = format!("{:?}", Address { password: None, ..url.clone() });
            assert_eq!(format!("{url:?}").replace("Some(***)", "None"), shown, "{}", password.expose());
        }
        assert_eq!(Address::of(&written(url).parse().unwrap()), *url);
    }
}

/// The address as a URL in the file.
fn written(url: &Address) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let user = url.username.as_deref().map(encoded).unwrap_or_default();
    let secret = url.password.as_ref().map(|password| format!(":{}", encoded(password.expose())));
    let host = if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
    let login = format!("{user}{}", secret.unwrap_or_default());
    let at = if login.is_empty() { "" } else { "@" };
    let scheme = if url.tls { "amqps" } else { "amqp" };
    format!("{scheme}://{login}{at}{host}:{}/{}", url.port, encoded(&url.vhost))
}

fn assert_secret(errors: &ConfigErrors, forms: &[&str]) {
    for shown in [errors.to_string(), format!("{errors:?}"), format!("{errors:#?}")] {
        assert!(!forms.iter().any(|form| shown.contains(form)), "{shown}");
    }
}

#[test]
fn mutated_files_are_loaded_or_refused_with_places_and_without_secrets() {
    let file = File::new();
    fuzz("configs", TOKENS, 3_000, |input| {
        if let Err(errors) = file.load(input, &[]) {
            // A mutation may make it a word like any other. In an URL, or in the end of one, it is a secret.
            assert_secret(&errors, &["hunter2@"]);
        }
    });
    assert!(file.folder.path().is_dir());
}

/// The sections and keys, as the example shows them.
fn keys() -> Vec<(String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in include_str!("../../config.example.toml").lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            keys.push((section.clone(), name.to_owned()));
        }
    }
    assert!(keys.len() > 20, "{keys:?}");
    keys
}

/// What is written behind an equals sign, rightly and wrongly.
fn value() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "",
        "\"\"",
        "\" \"",
        "0",
        "-1",
        "1.5",
        "nan",
        "true",
        "[]",
        "[[]]",
        "[1, 1]",
        "[0, 18446744073709551615]",
        "{}",
        "{ a = 1 }",
        "1979-05-27",
        "\"30s\"",
        "\"0s\"",
        "\"30\"",
        "\"584554530872y\"",
        "\"18446744073709551615s\"",
        "\"99999999999999999999s\"",
        "\"1ns\"",
        "18446744073709551616",
        "0xffffffffffffffff",
        "0o7",
        "0b1",
        "1_000",
        "\"https://\"",
        "\"http://localhost\"",
        "\"http://a.localhost\"",
        "\"http://[::1]:1\"",
        "\"https://h:0\"",
        "\"https://\u{e9}.example\"",
        "\"amqp://h\"",
        "[\"amqp://h\", \"amqps://\u{e9}:\u{e9}@h/%2f\"]",
        "\"{event_type}\"",
        "\"{\"",
        "\"\\u0007\"",
        "\"\\u0000\"",
        "\"trace\"",
        "\"a=b=c\"",
        "\"[a]=info\"",
        "\"x[{y=\\\"z\\\"}]=info\"",
        "\"declare\"",
        "\"Declare\"",
        "\"amqp\"",
        "\"json\"",
        "'''\n\n'''",
    ];
    prop_oneof![
        3 => prop::sample::select(ODD).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => any::<u64>().prop_map(|n| n.to_string()),
        1 => "\"[0-9]{1,20}(ns|us|ms|s|m|h|d|w|M|y)\"",
    ]
}

/// An URL and its likes, with a password that says [`PLANTED`] in an unlucky place.
fn url_with_secret() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(
        &["amqp://", "amqps://", "amqp:", "amqp:/", "//", "", "http://", " amqp://"][..],
    );
    let odd = "[0-9:/?#@%,;=&+\\[\\]\\\\ \"a-z]{0,4}";
    let host = prop::sample::select(
        &["@h", "@", "", "@h:5672/%2f", "@[::1]", "@h:port", "@h/a/b", "@h/?x=1", "@h#f"][..],
    );
    (scheme, "(r:|:|r|)", odd, odd, host).prop_map(|(scheme, user, before, after, host)| {
        format!("{scheme}{user}{before}{PLANTED}{after}{host}")
    })
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn any_value_of_any_key_is_taken_or_refused_where_it_stands(
        (at, values) in (0..keys().len(), prop::collection::vec(value(), 1..3)),
        junk in "([A-Z_]{0,6}|AMQP__PASWORD|VOD__WINDOWS)",
        with_junk in any::<bool>(),
    ) {
        let file = File::new();
        let (section, name) = &keys()[at];
        let text = format!("[{section}]\n{name} = {}\n", values[0]);
        let _in_the_file = file.load(text.as_bytes(), &[]);
        let variable = |name: &str, value: &str| (format!("VODRELAY_{name}"), value.to_owned());
        for value in values {
            let bare = value.trim_matches('"').replace('\0', "");
            let key = format!("{}__{}", section.to_uppercase(), name.to_uppercase());
            let mut env = vec![variable(&key, &bare)];
            if with_junk {
                env.push(variable(&junk, &bare));
            }
            let _in_the_environment = file.load(b"", &env);
        }
    }

    #[test]
    fn no_url_however_wrong_gives_its_password_away(
        urls in prop::collection::vec(url_with_secret(), 1..3),
        key in prop::sample::select(&["urls", "url", "urlz", "username"][..]),
    ) {
        let file = File::new();
        let quoted: Vec<String> = urls.iter().map(|url| serde_json::to_string(url).unwrap()).collect();
        let list = quoted.join(", ");
        for value in [format!("[{list}]"), list, quoted[0].clone(), format!("[\n{}", quoted[0])] {
            if let Err(errors) = file.load(format!("[amqp]\n{key} = {value}\n").as_bytes(), &[]) {
                assert_secret(&errors, &[PLANTED]);
            }
            let bare = urls.join(",");
            for value in [value, bare] {
                let env = [(format!("VODRELAY_AMQP__{}", key.to_uppercase()), value)];
                if let Err(errors) = file.load(b"", &env) {
                    assert_secret(&errors, &[PLANTED]);
                }
            }
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{1,12}", any::<String>()].prop_map(|text| {
        let text: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
        if text.trim().is_empty() { "x".to_owned() } else { text }
    })
}

fn printable() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[a-z0-9-]{1,20}")
}

/// A path in a folder of its own: files that lie in each other are refused.
fn path(folder: &'static str) -> impl Strategy<Value = PathBuf> {
    let stays = |text: &String| !text.split('/').any(|part| part == "..");
    text()
        .prop_filter("it leaves its folder", stays)
        .prop_map(move |text| Path::new(folder).join(text.trim_start_matches('/')))
}

/// Durations that the file can say, to the nanosecond.
fn duration(least_ms: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0..10_000_u64).prop_map(move |more| Duration::from_millis(least_ms + more)),
        (0..1_000_000_000_000_u64)
            .prop_map(move |more| Duration::from_millis(least_ms) + Duration::from_nanos(more)),
        (0..u64::from(u32::MAX))
            .prop_map(move |more| Duration::from_millis(least_ms) + Duration::from_secs(more)),
    ]
}

fn amqp_urls() -> impl Strategy<Value = Vec<Address>> {
    let host = prop::sample::select(&["h", "mq.example:5999", "[::1]:5672", "127.0.0.1"][..]);
    let url = (any::<bool>(), "[a-z%0-9]{0,6}", "[a-zA-Z0-9!$*_~.-]{0,9}", host, "(/|/%2f|/vhost|)")
        .prop_map(|(tls, user, password, host, vhost)| {
            let user = user.replace('%', "%25");
            let secret = if password.is_empty() { String::new() } else { format!(":{password}") };
            let scheme = if tls { "amqps" } else { "amqp" };
            format!("{scheme}://{user}{secret}@{host}{vhost}")
        });
    prop::collection::vec(url, 1..4).prop_map(|urls| {
        let variable = ("VODRELAY_AMQP__URLS".to_owned(), urls.join(","));
        Config::from_variables(std::iter::once(variable)).unwrap().amqp.urls
    })
}

prop_compose! {
    fn vod()(
        endpoint in prop::sample::select(&[
            "https://vod.tencentcloudapi.com", "http://127.0.0.1:8900", "http://[::1]/", "http://localhost", "https://h:1/",
        ][..]),
        region in printable(),
        ids in prop::collection::btree_set(any::<u64>(), 0..4),
        source in 0_usize..5,
        window in duration(30_000),
        requests_per_second in 1_u32..,
    ) -> VodConfig {
        use CredentialSource::{Auto, CvmRole, Env, File, Systemd};
        VodConfig {
            endpoint: Url::parse(endpoint).unwrap(),
            region,
            sub_app_ids: ids.into_iter().map(SubAppId).collect(),
            credentials: [Auto, Env, File, CvmRole, Systemd][source],
            window,
            requests_per_second,
        }
    }
}

prop_compose! {
    fn relay()(
        after_publish in any::<bool>(),
        lease_margin in 0_u64..30_000,
        max_in_flight in 16_usize..,
        min in duration(10),
        more in duration(0),
        publish_attempts in 1_u32..,
    ) -> RelaySettings {
        RelaySettings {
            confirm_after: if after_publish { ConfirmAfter::Publish } else { ConfirmAfter::Journal },
            lease_margin: Duration::from_millis(lease_margin),
            max_in_flight,
            idle_backoff_min: min,
            idle_backoff_max: min + more,
            publish_attempts,
        }
    }
}

prop_compose! {
    fn amqp()(
        urls in amqp_urls(),
        (username, password) in (prop::option::of(text()), text()),
        exchange in text(),
        queue in prop_oneof![Just(String::new()), text()],
        key in prop::sample::select(&["vod.{sub_app_id}.{event_type}", "x", "{file_id}\u{e9}{task_id}", "\" \\ '"][..]),
        declare in any::<bool>(),
        external in any::<bool>(),
        event in any::<bool>(),
        certificates in (path("/ca"), path("/client"), 0_u8..3),
    ) -> amqp::Options {
        let tls = urls.iter().any(|url| url.tls);
        let (ca_file, client, which) = certificates;
        let no_user = |url: &Address| url.username.is_none() && url.password.is_none();
        let external = external && which > 1 && urls.iter().all(|url| url.tls && no_user(url));
        let username = username.filter(|_| !external);
        amqp::Options {
            password: username.is_some().then(|| Secret::new(password)),
            username,
            exchange,
            queue,
            routing_key: key.parse().unwrap(),
            binding_key: "#".to_owned(),
            auth: if external { Auth::External } else { Auth::Password },
            topology: if declare { Topology::Declare } else { Topology::Verify },
            format: if event { BodyFormat::Event } else { BodyFormat::CloudEvents },
            tls: TlsFiles {
                ca_file: (tls && which > 0).then_some(ca_file),
                client_cert_file: (tls && which > 1).then(|| client.clone()),
                client_key_file: (tls && which > 1).then_some(client),
            },
            ..amqp::Options::new(urls)
        }
    }
}

fn cron() -> impl Strategy<Value = Option<Cron>> {
    let field = |least: u8, most: u8| {
        prop_oneof![
            Just("*".to_owned()),
            (least..=most).prop_map(|number| number.to_string()),
            (1..9_u8).prop_map(|step| format!("*/{step}")),
        ]
    };
    // The 28th comes in every month.
    let fields = (field(0, 59), field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 6));
    let cron = fields.prop_map(|(second, minute, hour, day, month, weekday)| {
        Cron::parse(&format!("{second} {minute} {hour} {day} {month} {weekday}")).unwrap()
    });
    prop::option::of(cron)
}

prop_compose! {
    fn maintenance()(
        (prune, vacuum, backup, summary, backlog) in (cron(), cron(), cron(), cron(), cron()),
        backups_kept in any::<usize>(),
        backup_dir in prop::option::of(path("/backups")),
    ) -> maintenance::Options {
        maintenance::Options { prune, vacuum, backup, summary, backlog, backups_kept, backup_dir }
    }
}

prop_compose! {
    fn config()(
        vod in vod(),
        relay in relay(),
        amqp in amqp(),
        stdout in any::<bool>(),
        path in path("/journal"),
        retention in duration(4 * 24 * 3_600_000),
        port in proptest::option::of(any::<u16>()),
        ready_limit in duration(1_000),
        exit_after in duration(0),
        socket in proptest::option::of(path("/status")),
        maintenance in maintenance(),
        format in 0_usize..4,
        level in prop::sample::select(&["info", "off", "info,vodrelay::vod=debug", "trace"][..]),
    ) -> Config {
        use LogFormat::{Auto, Journald, Json, Pretty};
        Config {
            vod,
            relay,
            output: OutputConfig { kind: if stdout { OutputKind::Stdout } else { OutputKind::Amqp } },
            amqp,
            journal: JournalConfig { path, retention },
            http: HttpConfig { listen: port.map(|port| ([127, 0, 0, 1], port).into()) },
            // The switch's address is a secret, and has tests of its own.
            health: HealthConfig { ready_limit, exit_after, dead_mans_switch_url: None },
            status: StatusConfig { socket },
            maintenance,
            log: LogConfig { format: [Auto, Pretty, Json, Journald][format], level: level.to_owned() },
        }
    }
}

/// The configuration as a file, and what cannot stand in one as variables.
fn rendered(config: &Config) -> (String, Vec<(String, String)>) {
    let quoted = |text: &str| {
        let escaped: String = text
            .chars()
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        format!("\"{escaped}\"")
    };
    let optional = |text: Option<&str>| quoted(text.unwrap_or_default());
    let file = |path: &Option<PathBuf>| optional(path.as_ref().map(|path| path.to_str().unwrap()));
    let time = |duration: Duration| quoted(&format!("{}s {}ns", duration.as_secs(), duration.subsec_nanos()));
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let cron = |cron: &Option<Cron>| optional(cron.as_ref().map(Cron::as_str));
    let Config { vod, relay, output, amqp, journal, http, health, status, maintenance, log } = config;
    let word = |word: &str| quoted(word);
    let lines = [
        "[vod]".to_owned(),
        format!("endpoint = {}", quoted(vod.endpoint.as_str())),
        format!("region = {}", optional(vod.region.as_deref())),
        // TOML's own integers end at 2^63.
        format!("window = {}", time(vod.window)),
        format!("requests_per_second = {}", vod.requests_per_second),
        format!(
            "credentials = {}",
            word(match vod.credentials {
                CredentialSource::Auto => "auto",
                CredentialSource::Env => "env",
                CredentialSource::File => "file",
                CredentialSource::CvmRole => "cvm-role",
                CredentialSource::Systemd => "systemd",
            })
        ),
        "[relay]".to_owned(),
        format!(
            "confirm_after = {}",
            word(match relay.confirm_after {
                ConfirmAfter::Publish => "publish",
                ConfirmAfter::Journal => "journal",
            })
        ),
        format!("lease_margin = {}", time(relay.lease_margin)),
        format!("max_in_flight = {}", relay.max_in_flight),
        format!("idle_backoff_min = {}", time(relay.idle_backoff_min)),
        format!("idle_backoff_max = {}", time(relay.idle_backoff_max)),
        format!("publish_attempts = {}", relay.publish_attempts),
        "[output]".to_owned(),
        format!(
            "kind = {}",
            word(match output.kind {
                OutputKind::Amqp => "amqp",
                OutputKind::Stdout => "stdout",
            })
        ),
        "[amqp]".to_owned(),
        format!("urls = {}", list(amqp.urls.iter().map(|url| quoted(&written(url))).collect())),
        format!("username = {}", optional(amqp.username.as_deref())),
        format!("exchange = {}", quoted(&amqp.exchange)),
        format!("queue = {}", quoted(&amqp.queue)),
        format!("routing_key = {}", quoted(&amqp.routing_key.to_string())),
        format!("binding_key = {}", quoted(&amqp.binding_key)),
        format!("auth = {}", word(if amqp.auth == Auth::External { "external" } else { "password" })),
        format!(
            "topology = {}",
            word(match amqp.topology {
                Topology::Declare => "declare",
                Topology::Verify => "verify",
            })
        ),
        format!(
            "format = {}",
            word(match amqp.format {
                BodyFormat::Event => "event",
                BodyFormat::CloudEvents => "cloudevents",
            })
        ),
        format!("ca_file = {}", file(&amqp.tls.ca_file)),
        format!("client_cert_file = {}", file(&amqp.tls.client_cert_file)),
        format!("client_key_file = {}", file(&amqp.tls.client_key_file)),
        "[journal]".to_owned(),
        format!("path = {}", quoted(journal.path.to_str().unwrap())),
        format!("retention = {}", time(journal.retention)),
        "[http]".to_owned(),
        format!("listen = {}", quoted(&http.listen.map_or(String::new(), |listen| listen.to_string()))),
        "[health]".to_owned(),
        format!("ready_limit = {}", time(health.ready_limit)),
        format!("exit_after = {}", time(health.exit_after)),
        "[status]".to_owned(),
        format!("socket = {}", file(&status.socket)),
        "[maintenance]".to_owned(),
        format!("prune = {}", cron(&maintenance.prune)),
        format!("vacuum = {}", cron(&maintenance.vacuum)),
        format!("backup = {}", cron(&maintenance.backup)),
        format!("summary = {}", cron(&maintenance.summary)),
        format!("backlog = {}", cron(&maintenance.backlog)),
        // TOML's own integers end at 2^63.
        format!("backup_dir = {}", file(&maintenance.backup_dir)),
        "[log]".to_owned(),
        format!(
            "format = {}",
            word(match log.format {
                LogFormat::Auto => "auto",
                LogFormat::Pretty => "pretty",
                LogFormat::Json => "json",
                LogFormat::Journald => "journald",
            })
        ),
        format!("level = {}", quoted(&log.level)),
    ];
    let ids: Vec<String> = vod.sub_app_ids.iter().map(ToString::to_string).collect();
    let mut env = vec![
        ("VODRELAY_VOD__SUB_APP_IDS".to_owned(), ids.join(",")),
        ("VODRELAY_MAINTENANCE__BACKUPS_KEPT".to_owned(), maintenance.backups_kept.to_string()),
    ];
    let password = amqp.password.as_ref().map(|password| password.expose().to_owned());
    env.extend(password.map(|password| ("VODRELAY_AMQP__PASSWORD".to_owned(), password)));
    (lines.join("\n"), env)
}

#[test]
fn what_is_written_down_is_what_is_loaded() {
    let run = || {
        proptest!(cases(300), |(config in config())| {
            let (text, env) = rendered(&config);
            let loaded = File::new().load(text.as_bytes(), &env);
            prop_assert_eq!(loaded, Ok(config), "{}", text);
        });
    };
    // Without optimisation, the strategy for a whole configuration needs more stack than the thread of a test has.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run);
    thread.unwrap().join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..cases(200) })]

    #[test]
    fn an_endpoint_and_a_region_that_are_loaded_make_a_client(
        host in prop::sample::select(&[
            "https://h", "http://localhost", "http://a.localhost", "http://LOCALHOST", "http://127.1", "http://[::1]",
            "http://[::ffff:127.0.0.1]", "http://localhost.", "https://h/?", "https://h#",
        ][..]),
        region in prop_oneof!["[a-z-]{0,9}", any::<String>()],
    ) {
        let env = [("ENDPOINT", host), ("REGION", region.as_str())];
        let env = env.map(|(name, value)| (format!("VODRELAY_VOD__{name}"), value.to_owned()));
        if let Ok(config) = Config::from_variables(env.into_iter()) {
            let mut options = tencent_vod::Options::new(config.vod.endpoint, tencent_vod::CredentialSource::Env);
            options.region = config.vod.region;
            let client = tencent_vod::Client::new(options);
            prop_assert!(client.is_ok(), "{host} {region:?}: {}", client.unwrap_err());
        }
    }
}
