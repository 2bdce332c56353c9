//! `emulate`: a local VOD that runs until a signal.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tencent_vod_emulator::{
    Credential, Emulator, EmulatorSettings, IdleShape, Options, QueueSettings, StartError,
};
use tencentcloud_signing::Secret;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{Exit, Failure};

const CONTROLS: &str = "\
Controls, from this machine only, in JSON (curl wants -H 'content-type: application/json'):
  POST   /_emulator/faults   {\"fault\":\"throttle\",\"count\":3}
                             {\"fault\":{\"delay\":{\"ms\":500}},\"action\":\"ConfirmEvents\",\"probability\":0.1}
  GET    /_emulator/faults   those that are on
  DELETE /_emulator/faults   switches all off
  POST   /_emulator/config   {\"window_ms\":5000,\"idle\":\"null\"}; GET shows all keys
  POST   /_emulator/events   {\"sub_app_id\":0,\"events\":[{\"EventType\":\"FileDeleted\"}]}
  GET    /_emulator/stats, /_emulator/ledger?sub_app_id=0, /_emulator/uploads

Faults: delay {ms}, slow_answer {ms}, throttle, error {code}, html {status}, rubbish, reset, answer_lost, truncated,
  idle {shape: error|null|empty|absent}, redelivered {under: new_handle|same_handle}, bad_handle {handle: text|null},
  first_confirm_lost, one_handle, no_handle, numeric_handle, clock_skew {ms}
Faults of the object storage: error_in_ok {code}, spaces {ms}, reset_in_body {bytes}, slow_read {bytes_per_second}, bit_flip,
  bare_etag, wrong_crc64, no_crc64, no_request_id, one_item_a_page
Members beside fault: action, count, probability, every (3: each third time), after_ms

Uploads: ApplyUpload, CommitUpload, ProcessMedia, ParseStreamingManifest, DescribeStorageRegions; the object storage by
  Host: BUCKET.cos.REGION.myqcloud.com or by path /BUCKET/KEY; the web SDK's calls at /v3/index.php.
  {\"uploads\":{\"repeated_commit\":\"accept\"}} for /_emulator/config is one of the settings in docs/emulator.md.";

/// Run a local VOD that SDKs and vodrelay can talk to.
///
/// It accepts the key pair of TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY (and the token of TENCENTCLOUD_TOKEN, if
/// there is one), or makes a throw-away pair and prints it as lines for a shell. Put events with `vodrelay trigger`, or upload:
/// a committed upload has its events. Switch faults below /_emulator/faults.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = CONTROLS)]
pub(super) struct EmulateArgs {
    /// The address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8900")]
    pub listen: SocketAddr,
    /// Allow an address that other machines can reach; the controls stay on loopback
    #[arg(long)]
    pub allow_remote: bool,
    /// How long a pull is held while there is nothing
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// How long a handle can be confirmed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// How "nothing to pull" is answered
    #[arg(long, value_name = "SHAPE", value_enum, default_value = "error")]
    pub idle: IdleArg,
    /// Requests a second that each API takes; 0 is no limit
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub requests_per_second: u32,
    /// A sub-application that exists, besides the default one; any does when none is named
    #[arg(long = "sub-app", value_name = "ID")]
    pub sub_apps: Vec<u64>,
    /// Make the same handles and the same chances again
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print the address and the key pair as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write the address to this file once connections are accepted
    #[arg(long, value_name = "FILE")]
    pub address_file: Option<PathBuf>,
}

/// The shapes of an idle answer.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum IdleArg {
    /// The error ResourceNotFound
    Error,
    /// "EventSet": null
    Null,
    /// "EventSet": []
    Empty,
    /// No EventSet
    Absent,
}

/// Why the emulator did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmulateError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Only one half of a key pair is there.
    #[error("{set} is set and {missing} is not; set both, or neither for a throw-away pair")]
    HalfAPair {
        /// The variable that is set.
        set: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// Its address or key pair could not be printed, or signals not be received.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl From<EmulateError> for Failure {
    fn from(error: EmulateError) -> Self {
        let exit = match &error {
            EmulateError::Start(StartError::NotLoopback(_)) => Exit::Usage,
            EmulateError::HalfAPair { .. } => Exit::Configuration,
            // A port that is taken may be free later, and an address may appear with its network.
            EmulateError::Start(StartError::Listen { source, .. })
                if matches!(source.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) =>
            {
                Exit::Temporary
            }
            EmulateError::Start(StartError::Listen { .. }) | EmulateError::Io { .. } => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

/// Runs the emulator until SIGINT or SIGTERM.
///
/// # Errors
///
/// When it cannot start, or cannot say where it listens.
pub(super) async fn run(args: EmulateArgs) -> Result<(), EmulateError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| EmulateError::Io { what, source }
    };
    // Before the address is printed: its reader may send a signal at once.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("cannot listen for SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("cannot listen for SIGTERM"))?;
    let given = credential_from_env(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?;
    let made = given.is_none();
    let emulator = Emulator::start(options(&args, given)).await?;
    announce(&emulator, made, args.json).map_err(io("cannot print the emulator's address"))?;
    if let Some(file) = &args.address_file {
        let what = format!("cannot write {}", file.display());
        std::fs::write(file, format!("{}\n", emulator.addr())).map_err(io(&what))?;
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let events = emulator.stats().events();
    eprintln!(
        "stopped; {} events were put, {} confirmed, {} redelivered, {} are left and lost",
        events.put,
        events.confirmed,
        events.redeliveries,
        events.unconfirmed()
    );
    emulator.shutdown().await;
    Ok(())
}

fn options(args: &EmulateArgs, credential: Option<Credential>) -> Options {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let queue = QueueSettings { window_ms: ms(args.window), ..QueueSettings::default() };
    let idle = match args.idle {
        IdleArg::Error => IdleShape::Error,
        IdleArg::Null => IdleShape::Null,
        IdleArg::Empty => IdleShape::Empty,
        IdleArg::Absent => IdleShape::Absent,
    };
    Options {
        listen: args.listen,
        allow_remote: args.allow_remote,
        credentials: credential.into_iter().collect(),
        // Handles of an earlier run must not come again by default: no cloud would do that.
        seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
        settings: EmulatorSettings {
            hold_ms: ms(args.hold),
            idle,
            requests_per_second: args.requests_per_second,
            sub_app_ids: args.sub_apps.clone(),
            queue,
            ..EmulatorSettings::default()
        },
    }
}

fn credential_from_env(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Credential>, EmulateError> {
    const ID: &str = "TENCENTCLOUD_SECRET_ID";
    const KEY: &str = "TENCENTCLOUD_SECRET_KEY";
    let tokens = ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];
    match (variable(ID), variable(KEY)) {
        (Some(id), Some(key)) => {
            let token = tokens.iter().find_map(|name| variable(name)).map(Secret::new);
            Ok(Some(Credential { token, ..Credential::new(id, key) }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(EmulateError::HalfAPair { set: ID, missing: KEY }),
        (None, Some(_)) => Err(EmulateError::HalfAPair { set: KEY, missing: ID }),
    }
}

/// Says where it listens. A pair that was given is not printed back: it may be a real one.
fn announce(emulator: &Emulator, made: bool, json: bool) -> std::io::Result<()> {
    use std::io::Write as _;

    #[derive(Serialize)]
    struct Announcement<'a> {
        endpoint: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        secret_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        secret_key: Option<&'a str>,
    }

    let endpoint = emulator.endpoint();
    let credential = emulator.credential();
    let pair = made.then(|| (credential.secret_id.as_str(), credential.secret_key.expose()));
    let mut out = std::io::stdout().lock();
    if json {
        let announcement = Announcement {
            endpoint: &endpoint,
            secret_id: pair.map(|(id, _)| id),
            secret_key: pair.map(|(_, key)| key),
        };
        writeln!(out, "{}", serde_json::to_string(&announcement)?)?;
    } else {
        if let Some((id, key)) = pair {
            writeln!(out, "export TENCENTCLOUD_SECRET_ID={id}")?;
            writeln!(out, "export TENCENTCLOUD_SECRET_KEY={key}")?;
        }
        writeln!(out, "export VODRELAY_VOD__ENDPOINT={endpoint}")?;
    }
    out.flush()?;
    let pair = if made { "the throw-away key pair above" } else { "the key pair of its environment" };
    eprintln!("a local VOD listens on {endpoint} and accepts {pair}");
    eprintln!("  put events:    vodrelay trigger upload --to {endpoint}");
    eprintln!("  all types:     vodrelay trigger --list");
    eprintln!("  what it has:   curl {endpoint}/_emulator/stats");
    eprintln!("  stop it:       Ctrl-C");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: EmulateArgs,
    }

    #[test]
    fn the_defaults_are_the_documented_figures() {
        Wrapped::command().debug_assert();
        let args = Wrapped::try_parse_from(["emulate", "--idle", "null", "--sub-app", "5"]).unwrap().args;
        let settings = options(&args, None).settings;
        assert_eq!(
            (settings.hold_ms, settings.queue.window_ms, settings.requests_per_second),
            (5_000, 30_000, 100)
        );
        assert_eq!((settings.idle, settings.sub_app_ids), (IdleShape::Null, vec![5]));
    }

    fn from(variables: &[(&str, &str)]) -> Result<Option<Credential>, EmulateError> {
        credential_from_env(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_s_pair_is_taken_whole_or_not_at_all() {
        let pair = [("TENCENTCLOUD_SECRET_ID", "id"), ("TENCENTCLOUD_SECRET_KEY", "key")];
        assert_eq!(from(&pair).unwrap(), Some(Credential::new("id", "key")));
        assert_eq!(from(&[]).unwrap(), None);
        let half = from(&pair[..1]).unwrap_err();
        assert!(half.to_string().contains("TENCENTCLOUD_SECRET_KEY is not"));
        assert_eq!(Failure::from(half).exit(), Exit::Configuration);
        let temporary = [pair[0], pair[1], ("TENCENTCLOUD_SESSION_TOKEN", "t")];
        assert_eq!(from(&temporary).unwrap().unwrap().token, Some(Secret::new("t")));
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_refused_with_the_documented_code() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for (address, exit, words) in [
            (taken.local_addr().unwrap().to_string(), Exit::Temporary, "port 0"),
            ("0.0.0.0:0".to_owned(), Exit::Usage, "--allow-remote"),
        ] {
            let args = Wrapped::try_parse_from(["emulate", "--listen", &address]).unwrap().args;
            let failure =
                Failure::from(EmulateError::from(Emulator::start(options(&args, None)).await.unwrap_err()));
            let mut told = Vec::new();
            failure.report(&mut told).unwrap();
            let told = String::from_utf8(told).unwrap();
            assert_eq!(failure.exit(), exit, "{told}");
            assert!(told.contains(words), "{told}");
        }
    }
}
