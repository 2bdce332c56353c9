//! What a wrong configuration is told, and what the program's exit code is then.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tencent_vod_event::SubAppId;
use vodrelay::config::{Config, ConfirmAfter, CredentialSource, OutputKind};

/// Loads text as `config.toml`, and gives its errors without the folder that it lay in.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let loaded = Config::load(Some(&path), env);
    loaded.map_err(|errors| errors.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

fn errors(text: &str) -> Vec<String> {
    load(text, &[]).expect_err(text).lines().map(str::to_owned).collect()
}

/// Files that are refused, each with what is said of it.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    (
        "[journal]\nretenton = \"30d\"",
        "config.toml:2: unknown key \"retenton\" in [journal]; did you mean \"retention\"?",
    ),
    (
        "[vod]\nmargin = \"3s\"",
        "config.toml:2: unknown key \"margin\" in [vod]; known are \"endpoint\", \"region\", \"sub_app_ids\", \
         \"credentials\", \"window\", \"requests_per_second\"",
    ),
    (
        "[vod]\n\nretention = \"30d\"",
        "config.toml:3: unknown key \"retention\" in [vod]; it belongs under [journal]",
    ),
    ("[jurnal]", "config.toml:1: unknown section [jurnal]; did you mean [journal]?"),
    (
        "[database]",
        "config.toml:1: unknown section [database]; known are [vod], [relay], [output], [amqp], [journal], [http], [health], [status], [maintenance], [log]",
    ),
    ("window = \"30s\"", "config.toml:1: \"window\" stands in no section; put it under [vod]"),
    (
        "log = \"info\"",
        "config.toml:1: \"log\" is a section; write [log] on a line of its own and its keys below",
    ),
    ("[[log]]", "config.toml:1: \"log\" is a section; write [log] on a line of its own and its keys below"),
    (
        "[relay]\nlease_margin = 3",
        "config.toml:2: relay.lease_margin has no unit; a duration needs a unit, for example \"30s\"",
    ),
    (
        "[relay]\nlease_margin = \"3\"",
        "config.toml:2: relay.lease_margin has no unit; a duration needs a unit, for example \"30s\"",
    ),
    (
        "[relay]\nlease_margin = \"3 parsecs\"",
        "config.toml:2: relay.lease_margin cannot be \"3 parsecs\"; a duration looks like \"30s\", \"200ms\" or \"30d\"",
    ),
    (
        "[vod]\nendpoint = \"https://\"",
        "config.toml:2: vod.endpoint has no host; a URL looks like scheme://host:port/",
    ),
    (
        "[vod]\nendpoint = \"vod.tencentcloudapi.com\"",
        "config.toml:2: vod.endpoint has no scheme; a URL looks like scheme://host:port/",
    ),
    (
        "[vod]\nendpoint = \"http://vod.tencentcloudapi.com\"",
        "config.toml:2: vod.endpoint must begin with https://: http:// is for loopback hosts only, because it shows \
         every event to the network",
    ),
    (
        "[vod]\nendpoint = \"ftp://127.0.0.1\"",
        "config.toml:2: vod.endpoint must begin with https://, not ftp://",
    ),
    (
        "[vod]\nendpoint = \"https://a:b@host\"",
        "config.toml:2: vod.endpoint must not hold a user or a password; credentials have sources of their own, see \
         vod.credentials",
    ),
    (
        "[vod]\nendpoint = \"https://host/v3?x\"",
        "config.toml:2: vod.endpoint must end with the host or its port: the API has no path and no query",
    ),
    (
        "[vod]\nsub_app_ids = [1, 2, 1]",
        "config.toml:2: vod.sub_app_ids names 1 twice; name every sub-application once",
    ),
    (
        "[vod]\nsub_app_ids = [1, \"2\"]",
        "config.toml:2: vod.sub_app_ids id 2 must be a whole number, not a string",
    ),
    ("[vod]\nsub_app_ids = 7", "config.toml:2: vod.sub_app_ids must be a list in brackets, not an integer"),
    (
        "[vod]\nsub_app_ids = [-1]",
        "config.toml:2: vod.sub_app_ids id 1 must be a whole number from 0 to 18446744073709551615, not -1",
    ),
    ("[vod]\nrequests_per_second = 0", "config.toml:2: vod.requests_per_second is 0, and must be 1 or more"),
    (
        "[vod]\nrequests_per_second = 5000000000",
        "config.toml:2: vod.requests_per_second is 5000000000, which is too large",
    ),
    ("[relay]\nmax_in_flight = 15", "config.toml:2: relay.max_in_flight is 15, and must be 16 or more"),
    ("[relay]\npublish_attempts = 0", "config.toml:2: relay.publish_attempts is 0, and must be 1 or more"),
    (
        "[relay]\nmax_in_flight = \"many\"",
        "config.toml:2: relay.max_in_flight must be a whole number, not a string",
    ),
    (
        "[relay]\nlease_margin = \"30s\"",
        "config.toml:2: relay.lease_margin (30s) leaves nothing of vod.window (30s); make the margin smaller",
    ),
    (
        "[vod]\nwindow = \"2s\"",
        "config.toml:2: relay.lease_margin (3s) leaves nothing of vod.window (2s); make the margin smaller",
    ),
    (
        "[relay]\nidle_backoff_min = \"6s\"",
        "config.toml:2: relay.idle_backoff_min (6s) is more than relay.idle_backoff_max (5s); make it smaller",
    ),
    (
        "[relay]\nidle_backoff_min = \"0s\"",
        "config.toml:2: relay.idle_backoff_min is 0s, and must be 10ms or more",
    ),
    ("[journal]\nretention = \"3d\"", "config.toml:2: journal.retention is 3d, and must be 4d or more"),
    ("[journal]\npath = \"\"", "config.toml:2: journal.path must not be empty"),
    (
        "[relay]\nconfirm_after = \"jornal\"",
        "config.toml:2: relay.confirm_after cannot be \"jornal\"; did you mean \"journal\"?",
    ),
    (
        "[output]\nkind = \"kafka\"",
        "config.toml:2: output.kind cannot be \"kafka\"; it is one of \"amqp\", \"stdout\"",
    ),
    ("[output]\nkind = true", "config.toml:2: output.kind must be text in quotes, not a boolean"),
    ("[amqp]\nurls = []", "config.toml:2: amqp.urls must name at least one broker"),
    (
        "[amqp]\nurls = [\"amqp://a\", \"amqp://\"]",
        "config.toml:2: amqp.urls URL 2 has no host; write it like \"amqp://127.0.0.1:5672/%2f\"",
    ),
    ("[amqp]\nurls = [\"rabbit://a\"]", "config.toml:2: amqp.urls URL 1 must begin with amqp:// or amqps://"),
    (
        "[amqp]\nurls = [\"amqp://a/%2f?heartbeat=5\"]",
        "config.toml:2: amqp.urls URL 1 has parameters after a question mark, which are not supported; remove them, and write ? in a password as %3f",
    ),
    (
        "[amqp]\nurls = [\"amqp://a/b/c\"]",
        "config.toml:2: amqp.urls URL 1 has a path of several parts; write / in a virtual host's name as %2f",
    ),
    (
        "[amqp]\nurls = [\"amqp://a/vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\
         vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\
         vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\
         vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\"]",
        "config.toml:2: amqp.urls URL 1 has a virtual host of 256 bytes; AMQP allows 255",
    ),
    (
        "[amqp]\nurls = [\"amqp://us%00er:x@a/\"]",
        "config.toml:2: amqp.urls URL 1 has a zero byte (%00) in its user; remove it",
    ),
    (
        "[amqp]\nurls = [\"amqp://user:s%E9same@a/\"]",
        "config.toml:2: amqp.urls URL 1 has a password that is not UTF-8; write its bytes in UTF-8",
    ),
    (
        "[amqp]\nrouting_key = \"vod.{event_typ}\"",
        "config.toml:2: amqp.routing_key has the unknown placeholder {event_typ}; did you mean {event_type}?",
    ),
    (
        "[amqp]\nrouting_key = \"vod.{event_type\"",
        "config.toml:2: amqp.routing_key has a brace without its partner; placeholders look like {event_type}",
    ),
    (
        "[amqp]\npassword = \"hunter2\"",
        "config.toml:2: amqp.password must not be in the file; set VODRELAY_AMQP__PASSWORD, or give the service \
         manager's credential amqp_password",
    ),
    (
        "[amqp]\nusername = \"relay\"",
        "config.toml:2: amqp.username has no password; set VODRELAY_AMQP__PASSWORD, or give the service manager's \
         credential amqp_password",
    ),
    (
        "[amqp]\nurls = [\"amqps://a\"]\nclient_cert_file = \"a.pem\"",
        "config.toml:3: amqp.client_cert_file and amqp.client_key_file belong together; set both, or neither",
    ),
    (
        "[amqp]\nca_file = \"ca.pem\"",
        "config.toml:2: amqp.ca_file and amqp.client_cert_file protect nothing: no URL in amqp.urls begins with \
         amqps://; write amqps://",
    ),
    (
        "[maintenance]\nprune = \"17 * * * *\"",
        "config.toml:2: maintenance.prune must have six fields, not 5; it reads like \"0 17 * * * *\" (second, minute, hour, \
         day, month, weekday; UTC), and \"\" turns the job off",
    ),
    (
        "[maintenance]\n\nbackup = \"0 0 0 30 2 *\"",
        "config.toml:3: maintenance.backup names no future time; it reads like \"0 30 3 * * *\" (second, minute, hour, day, \
         month, weekday; UTC), and \"\" turns the job off",
    ),
    (
        "[maintenance]\nbackups_kept = \"all\"",
        "config.toml:2: maintenance.backups_kept must be a whole number, not a string",
    ),
    (
        "[log]\nlevel = \"debg\"",
        "config.toml:2: log.level has the unknown level \"debg\"; did you mean \"debug\"?",
    ),
    (
        "[vod]\nsub_app_ids = [0, 1]",
        "config.toml:2: vod.sub_app_ids names 0 beside others; 0 is the account's default application: write the id that it \
         has in the console",
    ),
    (
        "[vod]\nregion = \"ap\\u0000\"",
        "config.toml:2: vod.region has a character that no region has; a region looks like \"ap-guangzhou\"",
    ),
    (
        "[journal]\npath = \"file:journal.db\"",
        "config.toml:2: journal.path is a URI; write the path alone, like \"/var/lib/vodrelay/journal.db\"",
    ),
    (
        "[journal]\npath = \":memory:\"",
        "config.toml:2: journal.path names no file; write a path on a local disk",
    ),
    (
        "[status]\nsocket = \"~/vodrelay.sock\"",
        "config.toml:2: status.socket begins with ~, which only a shell understands; write the whole path",
    ),
    (
        "[amqp]\nexchange = \"amq.vod\"",
        "config.toml:2: amqp.exchange \"amq.vod\" cannot be declared: RabbitMQ keeps names that begin with \"amq.\" for \
         itself; choose another name, or set amqp.topology = \"verify\" for one that exists",
    ),
    (
        "[amqp]\nqueue = \"amq.vod\"",
        "config.toml:2: amqp.queue \"amq.vod\" cannot be declared: RabbitMQ keeps names that begin with \"amq.\" for \
         itself; choose another name, or set amqp.topology = \"verify\" for one that exists",
    ),
    ("[amqp]\nqueue = \"vod\\n\"", "config.toml:2: amqp.queue has a control character; remove it"),
    (
        "[amqp]\nrouting_key = \"media.{event_type}\"",
        "config.toml:2: amqp.binding_key \"vod.#\" does not match every routing key of amqp.routing_key \
         \"media.{event_type}\", and the declared queue would miss events; change one of the two, or bind a queue of your own and set amqp.queue = \"\"",
    ),
    (
        "[amqp]\nbinding_key = \"vod.*\"",
        "config.toml:2: amqp.binding_key \"vod.*\" does not match every routing key of amqp.routing_key \
         \"vod.{sub_app_id}.{event_type}\", and the declared queue would miss events; change one of the two, or bind a queue of your own and set amqp.queue = \"\"",
    ),
    (
        "[amqp]\nbinding_key = \"vod.{event_type}\"",
        "config.toml:2: amqp.binding_key has a placeholder; a binding key matches with * for one word and # for any number \
         of them, like \"media.*\"",
    ),
    (
        "[amqp]\nauth = \"external\"",
        "config.toml:2: amqp.auth = \"external\" logs in by a client certificate; set amqp.client_cert_file and \
         amqp.client_key_file, and begin every URL in amqp.urls with amqps://",
    ),
    (
        "[amqp]\nauth = \"external\"\nurls = [\"amqps://a@b\"]\nclient_cert_file = \"c\"\nclient_key_file = \"k\"",
        "config.toml:2: amqp.auth = \"external\" takes the user from the certificate; remove user and password from \
         amqp.urls, amqp.username and VODRELAY_AMQP__PASSWORD",
    ),
    ("[log]\nlevel = info", "config.toml:2: not TOML: text and durations need quotes"),
    ("[vod]\nwindow = 30s # why", "config.toml:2: not TOML: text and durations need quotes"),
    ("[log]\nlevel = \"info", "config.toml:2: not TOML: invalid basic string, expected `\"`"),
    ("[vod]\nwindow", "config.toml:2: not TOML: key with no value, expected `=`"),
    ("[vod]\nregion = \"a\"\nregion = \"b\"", "config.toml:3: not TOML: duplicate key \"region\""),
];

/// Variables that are refused: name, value, and what is said of it.
pub(crate) const REFUSED_VARIABLES: &[(&str, &str, &str)] = &[
    (
        "VODRELAY_RELAY__LEASE_MARGIN",
        "3",
        "VODRELAY_RELAY__LEASE_MARGIN: relay.lease_margin has no unit; a duration needs a unit, for example \"30s\"",
    ),
    (
        "VODRELAY_RELAY__LEASE_MARGIN",
        "1h",
        "VODRELAY_RELAY__LEASE_MARGIN: relay.lease_margin (1h) leaves nothing of vod.window (30s); make the margin smaller",
    ),
    (
        "VODRELAY_JOURNAL__RETENTON",
        "30d",
        "VODRELAY_JOURNAL__RETENTON: unknown variable; did you mean VODRELAY_JOURNAL__RETENTION?",
    ),
    ("VODRELAY_X__Y", "", "VODRELAY_X__Y: unknown variable; a key is overridden by VODRELAY_SECTION__KEY"),
    (
        "VODRELAY_AMQP__URLS",
        "amqp://a,",
        "VODRELAY_AMQP__URLS: amqp.urls has a comma with nothing before or behind it; remove the comma",
    ),
    (
        "VODRELAY_AMQP__PASSWORD",
        "secret\n",
        "VODRELAY_AMQP__PASSWORD: amqp.password ends with a line break, which would be part of the value; remove it \
         (`printf %s` writes none)",
    ),
    (
        "VODRELAY_VOD__SUB_APP_IDS",
        "1,x",
        "VODRELAY_VOD__SUB_APP_IDS: vod.sub_app_ids id 2 must be a whole number from 0 to 18446744073709551615, not x",
    ),
];

#[test]
fn every_mistake_in_the_file_is_told_with_its_line_and_the_next_step() {
    for (text, expected) in REFUSED {
        assert_eq!(errors(text), [*expected], "{text}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "[log]\nlevle = \"info\"\n[vod]\nwindow = 30\n\n[relay]\nlease_margin = \"1h\"\n[amqp]\nexchange = \"\"\n";
    let told = load(text, &[("VODRELAY_LOG__FORMAT", "xml")]).unwrap_err();
    let places: Vec<&str> = told.lines().map(|line| line.split(": ").next().unwrap()).collect();
    // The margin is not weighed against a window that nobody could read.
    assert_eq!(places, ["config.toml:2", "config.toml:4", "config.toml:9", "VODRELAY_LOG__FORMAT"], "{told}");
}

#[test]
fn a_line_that_is_not_toml_hides_no_other_mistake() {
    let told = errors("[vod]\nregion = here\nwindw = \"30s\"\n[relay\nmax_in_flight = 1\n");
    let places: Vec<&str> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["config.toml:2", "config.toml:3", "config.toml:4"], "{told:?}");
    // One line, one error, however many the parser finds in it.
    let told = errors("[amqp]\nurls = [\n\"amqp://a\"\nqueue = \"vod\"\n[log]\n");
    assert!(told.len() == 2 && told[0].starts_with("config.toml:4: not TOML: "), "{told:?}");
    assert_eq!(load("", &[]), Ok(Config::default()));
}

#[test]
fn the_environment_overrides_the_file_and_is_read_as_strictly() {
    let text = "[vod]\nsub_app_ids = [1]\nwindow = 30\n[relay]\nlease_margin = \"2s\"";
    let env = [
        ("VODRELAY_VOD__SUB_APP_IDS", "7, 8,18446744073709551615"),
        ("VODRELAY_VOD__ENDPOINT", "http://127.0.0.1:8900"),
        ("VODRELAY_VOD__CREDENTIALS", "cvm-role"),
        ("VODRELAY_RELAY__CONFIRM_AFTER", "journal"),
        ("VODRELAY_RELAY__MAX_IN_FLIGHT", "64"),
        ("VODRELAY_OUTPUT__KIND", "stdout"),
        ("VODRELAY_AMQP__URLS", "[\"amqp://a:b,c@one\", \"amqps://two\"]"),
        ("VODRELAY_CONFIG", "ignored here: the command line reads it"),
        ("PATH", "/bin"),
    ];
    // A value that the environment replaces is read all the same: it would be wrong again on the day that it counts.
    assert_eq!(
        load(text, &env).unwrap_err(),
        "config.toml:3: vod.window has no unit; a duration needs a unit, for example \"30s\""
    );
    let config = load(&text.replace("30\n", "\"30s\"\n"), &env).unwrap();
    assert_eq!(config.vod.sub_apps(), [SubAppId(7), SubAppId(8), SubAppId(u64::MAX)]);
    assert_eq!(config.vod.endpoint.as_str(), "http://127.0.0.1:8900/");
    assert_eq!(config.vod.credentials, CredentialSource::CvmRole);
    assert_eq!(config.relay.confirm_after, ConfirmAfter::Journal);
    assert_eq!((config.relay.max_in_flight, config.relay.lease_margin), (64, Duration::from_secs(2)));
    assert_eq!(config.output.kind, OutputKind::Stdout);
    assert_eq!(config.amqp.urls.len(), 2);
    assert!(config.amqp.urls[1].tls && !config.amqp.urls[0].tls);

    for (name, value, expected) in REFUSED_VARIABLES {
        assert_eq!(load("", &[(name, value)]).unwrap_err(), *expected);
    }
}

#[test]
fn variables_that_are_no_keys_are_tolerated_and_those_that_look_like_one_are_warned_of() {
    let warnings = |env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let loaded = Config::load_with_warnings(Some(Path::new("/dev/null")), env).unwrap();
        assert_eq!(loaded.config, Config::default());
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // What Kubernetes tells every container of the services `vodrelay` and `vodrelay-metrics`.
    let kubernetes = [
        ("VODRELAY_PORT", "tcp://10.0.0.7:9464"),
        ("VODRELAY_PORT_9464_TCP", "tcp://10.0.0.7:9464"),
        ("VODRELAY_PORT_9464_TCP_ADDR", "10.0.0.7"),
        ("VODRELAY_PORT_9464_TCP_PORT", "9464"),
        ("VODRELAY_PORT_9464_TCP_PROTO", "tcp"),
        ("VODRELAY_SERVICE_HOST", "10.0.0.7"),
        ("VODRELAY_SERVICE_PORT", "9464"),
        ("VODRELAY_SERVICE_PORT_HTTP", "9464"),
        ("VODRELAY_METRICS_PORT", "tcp://10.0.0.8:9464"),
        ("VODRELAY_METRICS_PORT_53_UDP_ADDR", "10.0.0.8"),
        ("VODRELAY_METRICS_SERVICE_HOST", "10.0.0.8"),
    ];
    assert_eq!(warnings(&kubernetes), [""; 0]);
    let others = [
        ("VODRELAY_AMQP_URLS", "amqp://a"),
        ("VODRELAY_PORT", "9464"),
        ("VODRELAY_TEAM", "media"),
        ("VODRELAYED__X", ""),
    ];
    assert_eq!(
        warnings(&others),
        [
            "VODRELAY_AMQP_URLS: unknown variable; did you mean VODRELAY_AMQP__URLS? It has no effect",
            "VODRELAY_PORT: unknown variable; a key is overridden by VODRELAY_SECTION__KEY. It has no effect",
            "VODRELAY_TEAM: unknown variable; a key is overridden by VODRELAY_SECTION__KEY. It has no effect",
        ]
    );
}

#[test]
fn a_file_with_a_secret_that_everybody_may_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let warnings = |text: &str, mode: u32| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Config::load_with_warnings(Some(&path), std::iter::empty()).unwrap().warnings.len()
    };
    let password = "[amqp]\nurls = [\"amqp://relay:hunter2@b\"]";
    assert_eq!(warnings(password, 0o644), 1);
    assert_eq!(warnings("[health]\ndead_mans_switch_url = \"https://a/token\"", 0o604), 1);
    assert_eq!(warnings(password, 0o640), 0);
    assert_eq!(warnings("[amqp]\nurls = [\"amqp://guest:guest@b\"]", 0o644), 0);
    assert_eq!(warnings("[amqp]\nurls = [\"amqp://relay@b\"]", 0o644), 0);
}

#[test]
fn no_sub_application_means_the_default_one() {
    let config = load("[vod]\nsub_app_ids = []", &[("VODRELAY_VOD__SUB_APP_IDS", "")]).unwrap();
    assert!(config.vod.sub_app_ids.is_empty());
    assert_eq!(config.vod.sub_apps(), [SubAppId(0)]);
}

#[test]
fn loopback_hosts_may_be_spoken_to_without_tls() {
    for host in ["127.0.0.1:1", "127.9.9.9", "[::1]:80", "localhost"] {
        assert!(load(&format!("[vod]\nendpoint = \"http://{host}\""), &[]).is_ok(), "{host}");
    }
    for host in ["128.0.0.1", "[::2]", "localhost.example.com", "0.0.0.0"] {
        assert!(load(&format!("[vod]\nendpoint = \"http://{host}\""), &[]).is_err(), "{host}");
    }
}

#[test]
fn no_secret_is_printed() {
    let config = load(
        "[amqp]\nurls = [\"amqp://relay:hunter2@broker:5672/prod\"]\nusername = \"relay\"",
        &[("VODRELAY_AMQP__PASSWORD", "hunter3")],
    )
    .unwrap();
    assert_eq!(config.amqp.urls[0].to_string(), "amqp://broker:5672 (virtual host prod)");
    assert_eq!(config.amqp.urls[0].password.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(config.amqp.password.as_ref().unwrap().expose(), "hunter3");
    let shown = format!("{config:?} {:#?}", config);
    assert!(!shown.contains("hunter"), "{shown}");
    // Nor in an error, whichever part of the URL is wrong.
    for url in [
        "amqp:relay:hunter2@b",
        "http://relay:hunter2@b",
        "amqp://relay:hunter2@b:port",
        "relay:hunter2@b",
        "amqp://r:hunter2@b/?x",
        "amqp://r:12?hunter2@b",
    ] {
        let told = load(&format!("[amqp]\nurls = [\"{url}\"]"), &[]).unwrap_err();
        assert!(!told.contains("hunter"), "{told}");
        let told = load("", &[("VODRELAY_AMQP__URLS", url)]).unwrap_err();
        assert!(!told.contains("hunter"), "{told}");
    }
    // What follows a comma is another URL in a variable, and begins with what looks like a scheme.
    let told = load("", &[("VODRELAY_AMQP__URLS", "amqp://r:12,hunter2:x@b")]).unwrap_err();
    assert!(!told.contains("hunter"), "{told}");
    // The parser quotes no line of a file either.
    assert!(!errors("[amqp]\nurls = [\"amqp://r:hunter2@b\"\nx").concat().contains("hunter"));
}

#[test]
fn the_broker_s_password_comes_from_the_environment_or_else_from_the_service_manager() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let password = |env: &[(&str, &str)]| load("", env).unwrap().amqp.password.map(|p| p.expose().to_owned());
    assert_eq!(password(&[("CREDENTIALS_DIRECTORY", directory)]), None);
    std::fs::write(folder.path().join("amqp_password"), "from-a-file\n").unwrap();
    assert_eq!(password(&[("CREDENTIALS_DIRECTORY", directory)]).as_deref(), Some("from-a-file"));
    // What editors on Windows put around it is no part of it.
    std::fs::write(folder.path().join("amqp_password"), "\u{feff}from-a-file\r\n").unwrap();
    assert_eq!(password(&[("CREDENTIALS_DIRECTORY", directory)]).as_deref(), Some("from-a-file"));
    let both = [("CREDENTIALS_DIRECTORY", directory), ("VODRELAY_AMQP__PASSWORD", "from-a-variable")];
    assert_eq!(password(&both).as_deref(), Some("from-a-variable"));
    for (bytes, words) in [
        (&b"\n"[..], "is empty; write the broker's password into it"),
        (b"\xef\xbb\xbf", "is empty; write the broker's password into it"),
        (b"one\ntwo\n", "has several lines; write the password alone on one line"),
        (b"\xff\xfep\0w\0", "is not UTF-8; save the file as UTF-8"),
    ] {
        std::fs::write(folder.path().join("amqp_password"), bytes).unwrap();
        let told = load("", &[("CREDENTIALS_DIRECTORY", directory)]).unwrap_err();
        assert!(told.starts_with(&format!("{directory}/amqp_password: {words}")), "{told}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_says_why() {
    let told = Config::load(Some(Path::new("/nowhere/config.toml")), std::iter::empty()).unwrap_err();
    assert_eq!(
        told.to_string(),
        "/nowhere/config.toml: cannot be read: No such file or directory (os error 2); check its path and permissions, or name another file with --config or VODRELAY_CONFIG"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, b"[log]\nlevel = \"inf\xff\"").unwrap();
    let told = Config::load(Some(&path), std::iter::empty()).unwrap_err();
    assert!(told.to_string().ends_with("config.toml:2: is not UTF-8; save the file as UTF-8"), "{told}");
}

/// Whoever reads a device without an end takes all memory, and whoever reads a FIFO without a writer waits for ever.
#[test]
fn a_configuration_or_a_password_that_is_no_regular_file_or_too_large_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (fifo, large) = (folder.path().join("fifo"), folder.path().join("large"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    std::fs::write(&large, "#".repeat((1 << 20) + 1)).unwrap();
    for (path, words) in [
        (fifo.as_path(), "it is a FIFO, and must be a regular file"),
        (Path::new("/dev/zero"), "it is a device, and must be a regular file"),
        (folder.path(), "it is a folder, and must be a regular file"),
        (&large, "it is larger than 1048576 bytes"),
    ] {
        let credentials = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(path, credentials.path().join("amqp_password")).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = path.to_owned();
        std::thread::spawn(move || {
            let directory = credentials.path().to_str().unwrap().to_owned();
            let password = [("CREDENTIALS_DIRECTORY".to_owned(), directory)].into_iter();
            let empty = credentials.path().join("config.toml");
            std::fs::write(&empty, "").unwrap();
            sender.send(Config::load(Some(&path), std::iter::empty()).unwrap_err().to_string()).unwrap();
            sender.send(Config::load(Some(&empty), password).unwrap_err().to_string()).unwrap();
        });
        for what in ["the configuration", "the password"] {
            let told = receiver.recv_timeout(std::time::Duration::from_secs(30)).expect(what);
            assert!(told.contains(&format!("cannot be read: {words}; ")), "{what}: {told}");
        }
    }
}

#[test]
fn the_example_says_what_holds_without_it() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml");
    assert_eq!(Config::load(Some(&example), std::iter::empty()), Ok(Config::default()));
}

/// Runs the program with an environment of its own.
fn vodrelay(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vodrelay"));
    command.args(args).env_clear().envs(env.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_exit_code_tells_what_kind_of_ending_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.toml");
    std::fs::write(&good, "[log]\nlevel = \"warn\"\n").unwrap();
    let bad = folder.path().join("bad.toml");
    std::fs::write(&bad, "[log]\nlevle = \"warn\"\nformat = 1\n").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());

    let table: [(&[&str], i32); 9] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["completions", "bash"], 0),
        (&["check", "--offline", "--config", good], 0),
        (&["check", "--offline", "--config", bad], 78),
        (&["check", "--offline", "--config", "/nowhere/config.toml"], 78),
        (&[], 2),
        (&["frobnicate"], 2),
        (&["completions", "tcsh"], 2),
    ];
    for (args, code) in table {
        let output = vodrelay(args, &[]);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    assert_eq!(vodrelay(&["check", "--offline"], &[("VODRELAY_CONFIG", bad)]).status.code(), Some(78));
    assert_eq!(vodrelay(&["check", "--offline"], &[("VODRELAY_LOG__LEVEL", "loud")]).status.code(), Some(78));
}

#[test]
fn help_documents_the_exit_codes() {
    let output = vodrelay(&["--help"], &[]);
    let help = text(&output.stdout);
    for line in [
        "   0  done",
        "   1  failure",
        "   2  usage",
        "  70  bug",
        "  75  temporary failure",
        "  78  configuration",
    ] {
        assert!(help.contains(line), "{help}");
    }
}

#[test]
fn check_prints_a_line_for_each_error_or_that_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let path = path.to_str().unwrap();
    std::fs::write(path, "[log]\nlevle = \"warn\"\nformat = 1\n").unwrap();
    let told = vodrelay(&["check", "--offline", "--config", path], &[]);
    assert_eq!(
        text(&told.stdout),
        format!(
            "fail  config       {path}:2: unknown key \"levle\" in [log]; did you mean \"level\"? [VR-101]\n\
             fail  config       {path}:3: log.format must be text in quotes, not an integer [VR-101]\n"
        )
    );
    std::fs::write(path, "").unwrap();
    let told = vodrelay(&["check", "--offline", "--config", path], &[]);
    assert_eq!(text(&told.stdout), format!("ok    config       {path}\n"));
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = vodrelay(&["completions", shell], &[]);
        assert!(text(&output.stdout).contains("completions"), "{shell}");
        assert!(output.stderr.is_empty(), "{shell}");
    }
}
