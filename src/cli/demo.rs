//! `demo`: the whole relay in one process, with an emulated cloud, so that it can be seen at work without anything installed.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure};
use crate::app::{AppError, Running, Watch};
use crate::config::Config;
use crate::emulator::events::{EVENT_TYPES, sample, upload_story};
use crate::emulator::{Emulator, Fault, FaultKind, Options};
use crate::relay::Snapshot;
use crate::vod::{CredentialSource, Environment, Places};

/// The emulated cloud's window. The real one is 30 s; nobody wants to wait that long for a redelivery.
const WINDOW: Duration = Duration::from_secs(4);
const MARGIN: Duration = Duration::from_secs(1);

/// How long any step of the story may take.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Show the relay at work: an emulated cloud, the real relay, the real journal, events on standard output
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Publish to this RabbitMQ (exchange and queue vodrelay.demo) in place of standard output
    #[arg(long, value_name = "URL")]
    amqp: Option<String>,
    /// Keep the journal here, in place of a new temporary folder
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Print the summary as JSON on standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    super::runtime()?.block_on(demo(args))
}

async fn demo(args: &Args) -> Result<Exit, Failure> {
    let mut options = Options::default();
    options.settings.hold_ms = 500;
    options.settings.queue.window_ms = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
    let emulator = Emulator::start(options).await.map_err(|error| Failure::new(Exit::Failure, error))?;
    let config = config(args, &emulator)?;
    let credential = emulator.credential();
    let environment = Environment::fixed([
        ("TENCENTCLOUD_SECRET_ID", credential.secret_id.as_str()),
        ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose()),
    ]);
    let places = Places { environment, ..Places::new(CredentialSource::Env) };
    let talk = Talk::new(args);
    talk.say("an emulated VOD, the relay, and its journal run in this process");
    let running = Running::start(&config, places).await?;
    let drain = running.drain();
    super::run::drain_on_signal(drain.clone())?;
    let looking_on = tokio::spawn(talk.progress(running.watch(), drain.clone()));
    let mut ended = pin!(running.wait());
    let (told, ended) = tokio::select! {
        told = tell(&emulator, &talk, &drain) => {
            drain.cancel();
            (told, ended.await)
        }
        // The output is gone, or a part has failed: the story ends here.
        ended = &mut ended => (Ok(()), ended),
    };
    drain.cancel();
    // A progress line that was cut short is no loss.
    let _ = looking_on.await;
    let snapshot = match ended {
        // A reader that has seen enough, such as `head`, is no failure of a demonstration.
        Err(AppError::Output(_)) if args.amqp.is_none() => return Ok(Exit::Done),
        ended => ended?,
    };
    told?;
    let events = emulator.stats().events();
    emulator.shutdown().await;
    talk.summary(&snapshot, events.put, &config).map_err(Failure::stdout)?;
    Ok(Exit::Done)
}

/// The tutorial's story: uploads go through; then a confirm is lost, and the redelivery is recognised; then a bit of all.
async fn tell(emulator: &Emulator, talk: &Talk, drain: &CancellationToken) -> Result<(), Failure> {
    let put = |events: Vec<String>| {
        for event in events {
            emulator.put(0, event);
        }
    };
    let confirmed = || wait(emulator, drain, |stats| stats.events().unconfirmed() == 0);

    talk.say("two videos are uploaded and transcoded: NewFileUpload, then ProcedureStateChanged");
    put((1..=2).flat_map(upload_story).collect());
    if !confirmed().await? {
        return Ok(());
    }

    talk.say("one more upload, and every ConfirmEvents is lost on its way, until the cloud hands the events over again");
    emulator.faults().add(Fault::always(FaultKind::FirstConfirmLost));
    put(upload_story(3).into());
    if !wait(emulator, drain, |stats| stats.events().redeliveries >= 2).await? {
        return Ok(());
    }
    emulator.faults().clear();
    talk.say("the redelivery is recognised: it is confirmed, and not published again");
    if !confirmed().await? {
        return Ok(());
    }

    talk.say("one event of every type");
    put((100..).zip(EVENT_TYPES).filter_map(|(index, event_type)| sample(event_type, index)).collect());
    confirmed().await?;
    Ok(())
}

/// Waits until something holds at the emulator; `false` when the demonstration is being ended before that.
async fn wait(
    emulator: &Emulator,
    drain: &CancellationToken,
    holds: impl Fn(&crate::emulator::Stats) -> bool,
) -> Result<bool, Failure> {
    tokio::select! {
        held = emulator.wait_until(|state| holds(&state.stats()), STEP_LIMIT) => match held {
            Ok(()) => Ok(true),
            Err(error) => Err(Failure::new(Exit::Temporary, error).next(
                "look at what the output says: with --amqp, see that the broker is up and lets the user publish",
            )),
        },
        () = drain.cancelled() => Ok(false),
    }
}

fn config(args: &Args, emulator: &Emulator) -> Result<Config, Failure> {
    let journal = match &args.journal {
        Some(path) => path.clone(),
        None => std::env::temp_dir().join(format!("vodrelay-demo-{}", std::process::id())).join("journal.db"),
    };
    let mut variables = vec![
        ("VODRELAY_VOD__ENDPOINT".to_owned(), emulator.endpoint()),
        ("VODRELAY_VOD__WINDOW".to_owned(), humantime::format_duration(WINDOW).to_string()),
        ("VODRELAY_RELAY__LEASE_MARGIN".to_owned(), humantime::format_duration(MARGIN).to_string()),
        ("VODRELAY_JOURNAL__PATH".to_owned(), journal.display().to_string()),
    ];
    match &args.amqp {
        None => variables.push(("VODRELAY_OUTPUT__KIND".to_owned(), "stdout".to_owned())),
        Some(url) => variables.extend([
            ("VODRELAY_AMQP__URLS".to_owned(), url.clone()),
            ("VODRELAY_AMQP__EXCHANGE".to_owned(), "vodrelay.demo".to_owned()),
            ("VODRELAY_AMQP__QUEUE".to_owned(), "vodrelay.demo".to_owned()),
        ]),
    }
    // Nothing of the host's configuration: a demonstration must not touch a real queue.
    Ok(Config::from_variables(variables.into_iter())?)
}

/// What is said on standard error.
#[derive(Clone)]
struct Talk {
    bar: ProgressBar,
    json: bool,
}

impl Talk {
    fn new(args: &Args) -> Self {
        let bar = if io::stderr().is_terminal() && !args.json {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, json: args.json }
    }

    fn say(&self, line: &str) {
        if !self.json {
            self.bar.suspend(|| eprintln!("# {line}"));
        }
    }

    /// A live line, while somebody looks.
    fn progress(&self, watch: Watch, drain: CancellationToken) -> impl Future<Output = ()> + use<> {
        let bar = self.bar.clone();
        async move {
            let mut period = tokio::time::interval(Duration::from_millis(100));
            while !drain.is_cancelled() {
                period.tick().await;
                bar.set_message(watch.status());
                bar.tick();
            }
            bar.finish_and_clear();
        }
    }

    fn summary(&self, snapshot: &Snapshot, put: u64, config: &Config) -> io::Result<()> {
        let published = snapshot.published();
        let Snapshot { deliveries, redelivered, confirmed, parked, .. } = *snapshot;
        let ms = |time: Option<Duration>| {
            time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()))
        };
        let mut err = io::stderr().lock();
        if self.json {
            let millis = |time: Option<Duration>| time.map(|time| time.as_millis());
            return writeln!(
                err,
                "{}",
                json!({
                    "events": put,
                    "pulled": deliveries,
                    "published": published,
                    "confirmed": confirmed,
                    "redelivered": redelivered,
                    "parked": parked,
                    "smallest_lease_left_ms": millis(snapshot.smallest_lease_left),
                    "pull_to_confirm_p50_ms": millis(snapshot.pull_to_confirm_p50),
                    "pull_to_confirm_p99_ms": millis(snapshot.pull_to_confirm_p99),
                    "journal": config.journal.path,
                })
            );
        }
        let journal = config.journal.path.display();
        write!(
            err,
            "\n\
             events that happened      {put}\n\
             deliveries pulled         {deliveries}\n\
             published                 {published}\n\
             confirmed                 {confirmed}\n\
             redelivered, recognised   {redelivered}\n\
             smallest lease left       {} of {} ms\n\
             from pull to confirm      p50 {}, p99 {}\n\
             \n\
             The journal is at {journal}:\n  \
               sqlite3 {journal} \"SELECT message_id, event_type, state, redeliveries FROM event_log LIMIT 5\"\n  \
               VODRELAY_JOURNAL__PATH={journal} vodrelay events list\n\
             Next: a local VOD for your own code    vodrelay emulate    (then: vodrelay trigger upload)\n      \
                   a real configuration              config.example.toml, then: vodrelay check\n",
            ms(snapshot.smallest_lease_left),
            WINDOW.as_millis(),
            ms(snapshot.pull_to_confirm_p50),
            ms(snapshot.pull_to_confirm_p99),
        )
    }
}
