//! `demo`: the whole relay in one process with an emulated cloud. Nothing needs to be installed.

use std::fs::DirBuilder;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tencent_vod::{CredentialSource, Environment, Places};
use tencent_vod_emulator::events::{EVENT_TYPES, sample, upload_story};
use tencent_vod_emulator::{Emulator, Fault, FaultKind, Options};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{OutputState, Problem};

use super::exit::{Exit, Failure};
use super::screen::Screen;
use crate::app::daemon::drain_on_signal;
use crate::app::{AppError, Running, Watch};
use crate::config::Config;
use crate::output::amqp::NOT_CONNECTED_YET;
use crate::relay::Snapshot;

/// The emulated cloud's window. The real one is 30 s, which is too long to wait for a redelivery in a
/// demonstration.
const WINDOW: Duration = Duration::from_secs(4);
const MARGIN: Duration = Duration::from_secs(1);

/// The longest duration of a step of the demonstration.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// Show the relay at work: an emulated cloud, the real relay, the real journal, events on standard output
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Publish to this RabbitMQ (exchange and queue vodrelay.demo) in place of standard output
    #[arg(long, value_name = "URL")]
    amqp: Option<String>,
    /// Keep the journal here, in place of a temporary folder that is removed at the end
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Keep the temporary folder with the journal
    #[arg(long, conflicts_with = "journal")]
    keep: bool,
    /// Print events as JSON at a terminal too, and the summary as JSON on standard error
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
    let folder = match &args.journal {
        Some(_) => None,
        None => Some(Folder::new(args.keep)?),
    };
    let config = config(args, &emulator, folder.as_ref())?;
    let credential = emulator.credential();
    let environment = Environment::fixed([
        ("TENCENTCLOUD_SECRET_ID", credential.secret_id.as_str()),
        ("TENCENTCLOUD_SECRET_KEY", credential.secret_key.expose()),
    ]);
    let places = Places { environment, ..Places::new(CredentialSource::Env) };
    let talk = Talk::new(args);
    talk.say("an emulated VOD, the relay, and its journal run in this process");
    // A person reads along at a terminal. A program wants whole events.
    let brief = io::stdout().is_terminal() && !args.json;
    let lines = Brief::default();
    let running = if brief {
        Running::start_writing(&config, places, lines.writer(talk.clone())).await?
    } else {
        Running::start(&config, places).await?
    };
    let drain = running.drain();
    drain_on_signal(drain.clone())?;
    let looking_on = tokio::spawn(talk.progress(running.watch(), drain.clone()));
    let output = running.watch().output_state();
    let mut ended = pin!(running.wait());
    let (told, ended) = tokio::select! {
        told = tell(DemoStage { emulator: &emulator, talk: &talk, lines: &lines, drain: &drain, output }) => {
            drain.cancel();
            (told, ended.await)
        }
        // Standard output is closed, or a part has failed: the demonstration ends here.
        ended = &mut ended => (Ok(()), ended),
    };
    drain.cancel();
    // A progress line that was cut short can be dropped.
    let _ = looking_on.await;
    // The first cause of the end says more than its consequences.
    told?;
    let snapshot = match ended {
        // A reader that has enough, such as `head`, is not a failure.
        Err(AppError::Output(_)) if args.amqp.is_none() => return Ok(Exit::Done),
        ended => ended?,
    };
    let events = emulator.stats().events();
    emulator.shutdown().await;
    talk.summary(&snapshot, events.put, &config, folder.is_some() && !args.keep).map_err(Failure::stdout)?;
    Ok(Exit::Done)
}

/// The parts of the demonstration.
struct DemoStage<'a> {
    emulator: &'a Emulator,
    talk: &'a Talk,
    lines: &'a Brief,
    drain: &'a CancellationToken,
    output: watch::Receiver<OutputState>,
}

/// The events of the vendor's tutorial: uploads are relayed; then a confirm is lost and the redelivery is
/// recognised; then a mix.
async fn tell(stage: DemoStage<'_>) -> Result<(), Failure> {
    let DemoStage { emulator, talk, lines, .. } = stage;
    let put = |events: Vec<String>| {
        for event in events {
            emulator.put(0, event);
        }
    };
    let confirmed = || stage.wait(|stats| stats.events().unconfirmed() == 0);
    stage.broker_takes_events().await?;

    talk.say("two videos are uploaded and transcoded; what is published:");
    put((1..=2).flat_map(upload_story).collect());
    if !confirmed().await? {
        return Ok(());
    }

    talk.say("one more upload, whose ConfirmEvents is lost; it is handed over again:");
    emulator.faults().add(Fault::always(FaultKind::FirstConfirmLost));
    put(upload_story(3).into_iter().take(1).collect());
    if !stage.wait(|stats| stats.events().redeliveries >= 1).await? {
        return Ok(());
    }
    emulator.faults().clear();
    if !confirmed().await? {
        return Ok(());
    }
    talk.say("==> the redelivery was recognised: confirmed, and NOT published again");

    talk.say("one event of every type:");
    lines.count_only();
    put((100..).zip(EVENT_TYPES).filter_map(|(index, event_type)| sample(event_type, index)).collect());
    if confirmed().await? {
        lines.tell_count(talk);
    }
    Ok(())
}

impl DemoStage<'_> {
    /// Waits until a condition holds at the emulator. Returns `false` when the demonstration ends before
    /// that.
    async fn wait(&self, holds: impl Fn(&tencent_vod_emulator::Stats) -> bool) -> Result<bool, Failure> {
        let mut output = self.output.clone();
        let down = async {
            loop {
                if let OutputState::Down(problem) = &*output.borrow_and_update() {
                    return problem.clone();
                }
                if output.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.drain.cancelled() => Ok(false),
            held = self.emulator.wait_until(|state| holds(&state.stats()), STEP_LIMIT) => match held {
                Ok(()) => Ok(true),
                Err(_) => {
                    let why = format!("the events were not all confirmed within {} s", STEP_LIMIT.as_secs());
                    Err(Failure::new(Exit::Temporary, why)
                        .next("try again on a machine with less to do; with --amqp, see that the broker lets the user publish"))
                }
            },
            problem = down => Err(no_output(&problem)),
        }
    }

    /// Waits until the broker is connected. Returns the cause at once when it cannot be.
    async fn broker_takes_events(&self) -> Result<(), Failure> {
        let mut output = self.output.clone();
        loop {
            match &*output.borrow_and_update() {
                OutputState::Down(problem) if &*problem.message == NOT_CONNECTED_YET => {}
                OutputState::Down(problem) | OutputState::Blocked(problem) => return Err(no_output(problem)),
                OutputState::Up => return Ok(()),
            }
            if output.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

fn no_output(problem: &Problem) -> Failure {
    let exit = match problem.error_code {
        ErrorCode::BrokerLogin | ErrorCode::BrokerTopology | ErrorCode::BrokerTls => Exit::Configuration,
        _ => Exit::Temporary,
    };
    Failure::new(exit, problem.message.to_string()).error_code(problem.error_code)
}

/// The temporary folder of the journal.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn new(keep: bool) -> Result<Self, Failure> {
        let name = format!("vodrelay-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // A new folder, so that removing it at the end removes nothing else.
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure::new(Exit::Failure, format!("{} cannot be made: {error}", path.display()))
                .next("name a file that can be written with --journal, or another folder with TMPDIR")
        })?;
        Ok(Self { path, keep })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // The host cleans up its temporary folders.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Events for people: one line each, or their number.
#[derive(Clone, Debug, Default)]
struct Brief(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    only: AtomicBool,
    events: AtomicU64,
}

impl Brief {
    /// Takes the lines of the output, and prints short ones.
    fn writer(&self, talk: Talk) -> impl Write + Send + use<> {
        BriefWriter { lines: self.clone(), talk, screen: Screen::of_stdout(), rest: Vec::new() }
    }

    fn count_only(&self) {
        self.0.only.store(true, Ordering::Relaxed);
    }

    fn tell_count(&self, talk: &Talk) {
        let events = self.0.events.load(Ordering::Relaxed);
        if events > 0 {
            talk.print(&format!("  {events} events published and confirmed; --json prints each of them"));
        }
    }
}

struct BriefWriter {
    lines: Brief,
    talk: Talk,
    screen: Screen,
    rest: Vec<u8>,
}

impl Write for BriefWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if self.lines.0.only.load(Ordering::Relaxed) {
                self.lines.0.events.fetch_add(1, Ordering::Relaxed);
            } else {
                self.talk.print(&self.screen.line(&brief(&line)));
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line of the output in a few words.
fn brief(line: &[u8]) -> String {
    let line: Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let now = jiff::Zoned::now().strftime("%H:%M:%S.%3f");
    let id: String = text(&line["message_id"]).chars().take(8).collect();
    format!(
        "  {now}  {:<21}  file {:<19}  id {id}",
        text(&line["event"]["EventType"]),
        text(&line["headers"]["x-vod-file-id"]),
    )
}

fn config(args: &Args, emulator: &Emulator, folder: Option<&Folder>) -> Result<Config, Failure> {
    let journal = match (&args.journal, folder) {
        (Some(path), _) => path.clone(),
        (None, Some(folder)) => folder.path.join("journal.db"),
        (None, None) => PathBuf::from("journal.db"),
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
    // Nothing from the host's configuration: a demonstration must not touch a real queue.
    Ok(Config::from_variables(variables.into_iter())?)
}

/// The text on standard error.
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

    /// A line of standard output, beside the live one.
    fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
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

    fn summary(&self, snapshot: &Snapshot, put: u64, config: &Config, removed: bool) -> io::Result<()> {
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
                    "journal": (!removed).then_some(&config.journal.path),
                })
            );
        }
        write!(
            err,
            "\n\
             happened {put}, delivered {deliveries}, published {published}, confirmed {confirmed}, \
             redelivered {redelivered}\n\
             pull to confirm {} (p50), {} (p99); least lease left {} of {} ms\n",
            ms(snapshot.pull_to_confirm_p50),
            ms(snapshot.pull_to_confirm_p99),
            ms(snapshot.smallest_lease_left),
            WINDOW.as_millis(),
        )?;
        if removed {
            writeln!(err, "the journal is removed; --keep keeps it for `vodrelay events list` and sqlite3")?;
        } else {
            let journal = config.journal.path.display();
            writeln!(err, "the journal is kept: VODRELAY_JOURNAL__PATH={journal} vodrelay events list")?;
        }
        writeln!(err, "next: `vodrelay emulate`, a local VOD; then `vodrelay trigger upload`")?;
        writeln!(err, "      config.example.toml, a real configuration; then `vodrelay check`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen;

    #[test]
    fn an_event_is_a_short_line_whatever_it_says() {
        let line = br#"{"message_id":"9f8e7d6c9f8e7d6c","headers":{"x-vod-file-id":"5285890784246869930"},"event":{"EventType":"ProcedureStateChanged"}}"#;
        let text = brief(line);
        assert!(text.ends_with("  ProcedureStateChanged  file 5285890784246869930  id 9f8e7d6c"), "{text}");
        assert!(screen::width(&text) <= 80, "{text}");
        assert!(brief(b"{}").contains("file -"));
    }

    #[test]
    fn the_folder_is_removed_unless_it_is_to_be_kept() {
        let folder = Folder::new(false).unwrap();
        let path = folder.path.clone();
        std::fs::write(path.join("journal.db"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
        let kept = Folder::new(true).unwrap();
        let path = kept.path.clone();
        drop(kept);
        std::fs::remove_dir(&path).unwrap();
    }
}
