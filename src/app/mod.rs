//! Builds the parts from the configuration, owns their tasks, and turns signals into a drain.

mod document;
pub mod reload;
pub mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use tencent_vod_event::SubAppId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::lease::Window;
use vodrelay_core::machine::Settings;
use vodrelay_core::outcome::{JournalState, OutputState, Problem};
use vodrelay_core::write::{Summary, Write, Written};

use crate::clock::Now as _;
use crate::config::{self, Config};
use crate::heartbeat::Heartbeat;
use crate::journal::query::JournalReader;
use crate::journal::{self, Closed, Journal};
use crate::latency::{Latency, Quantiles};
use crate::ops::maintenance::{self, JobState, Jobs};
use crate::output;
use crate::relay::{self, RelayError, RelayParts, RelayStats, Snapshot};
use crate::vod;
pub use reload::{Reload, warn_of};

/// How long a drain may take: a poll that is under way (5 s, or its time-out), a publish, a confirm.
const DRAIN_LIMIT: Duration = Duration::from_secs(35);

/// How long the output may take to close after the drain.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Why the relay cannot start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There are no usable credentials.
    #[error(transparent)]
    Credentials(vod::CredentialsError),
    /// The client cannot work with its settings.
    #[error(transparent)]
    Client(vod::SetupError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(journal::OpenError),
    /// The journal failed for good, or its last work could not be committed.
    #[error(transparent)]
    Writer(journal::WriteError),
    /// The output ended.
    #[error(transparent)]
    Output(output::Error),
    /// Maintenance cannot be scheduled.
    #[error("maintenance cannot be scheduled")]
    Maintenance(#[source] tokio_cron_scheduler::JobSchedulerError),
    /// The relay itself ended.
    #[error("the relay ended before it was asked to")]
    Relay(#[source] RelayError),
    /// Work waits, and nothing moves.
    #[error("{0}; the next start goes on from the journal")]
    Stuck(Problem),
}

/// A relay at work.
#[derive(Debug)]
pub struct Running {
    drain: CancellationToken,
    stop: CancellationToken,
    relay: JoinHandle<Result<(), RelayError>>,
    output: JoinHandle<Result<(), output::Error>>,
    maintenance: JoinHandle<()>,
    /// Whether it was told to end or not: there is nothing to say of it.
    figures: JoinHandle<Option<()>>,
    writer: journal::Writer,
    changes: mpsc::UnboundedSender<Settings>,
    sub_apps: watch::Sender<Vec<SubAppId>>,
    watch: Watch,
}

/// What the journal says of itself.
#[derive(Clone, Debug)]
struct JournalFigures {
    summary: Summary,
    /// Its size with its WAL.
    bytes: u64,
    /// Events that earlier processes received on the day on which this one started.
    received_before_today: u64,
}

/// How often the journal is asked for its figures.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);

/// An event that made a step so lately means that the relay is at work, though nothing is in flight at this moment.
const LATELY: Duration = Duration::from_secs(10);
/// How often it is looked whether something is over by the calendar.
const SETTLE_PERIOD: Duration = Duration::from_secs(3_600);
/// How long the cloud keeps an event at the most.
const CLOUD_KEEPS: Duration = Duration::from_secs(4 * 86_400);
/// No commit of the relay waits long behind so many.
const SETTLED_AT_ONCE: u32 = 250;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// What can be seen of a relay at work.
#[derive(Clone, Debug)]
pub struct Watch {
    stats: Arc<RelayStats>,
    // The states only: a way to the journal would keep its writer waiting for whoever looks on.
    journal: watch::Receiver<JournalState>,
    output: watch::Receiver<OutputState>,
    broker: watch::Receiver<Option<Arc<str>>>,
    waiting: maintenance::Waiting,
    commit_times: Arc<Latency>,
    publish_times: Arc<Latency>,
    client: vod::Client,
    heartbeats: Arc<[Heartbeat]>,
    figures: watch::Receiver<Option<JournalFigures>>,
    jobs: Jobs,
}

impl Watch {
    /// The figures of this run.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// How long the journal takes for a transaction.
    pub fn commit_times(&self) -> Quantiles {
        self.commit_times.quantiles()
    }

    /// How long the broker takes for a publish.
    pub fn publish_times(&self) -> Quantiles {
        self.publish_times.quantiles()
    }

    /// When each job of maintenance ran, how that ended, and when it runs next.
    pub fn maintenance(&self) -> Vec<JobState> {
        self.jobs.snapshot()
    }

    /// Whether the output takes events.
    pub fn output_state(&self) -> watch::Receiver<OutputState> {
        self.output.clone()
    }

    /// The relay's state in some words: what is wrong, or what is done.
    fn state(&self, snapshot: &Snapshot) -> String {
        match (&*self.journal.borrow(), &*self.output.borrow()) {
            (JournalState::Down(problem), _) => format!("journal down: {problem}"),
            (_, OutputState::Down(problem)) => format!("output down: {problem}"),
            (_, OutputState::Blocked(problem)) => format!("output blocked: {problem}"),
            _ if snapshot.load.unroutable_since.is_some() => format!(
                "nothing is routable; {} events in flight; see that the exchange has its bindings [{}]",
                snapshot.load.events,
                ErrorCode::PublishReturned
            ),
            _ => match (snapshot.problem(), snapshot.load.events) {
                (Some(problem), events) => format!("in trouble; {events} events in flight; {problem}"),
                (None, 0) if snapshot.moved_at.is_some_and(|at| Moment::now().since(at) < LATELY) => {
                    "relaying".to_owned()
                }
                (None, 0) => "idle".to_owned(),
                (None, events) => format!("relaying; {events} events in flight"),
            },
        }
    }

    /// The relay's state in one line.
    pub fn status(&self) -> String {
        let snapshot = self.snapshot();
        let published = snapshot.published();
        let Snapshot { deliveries, confirmed, parked, .. } = snapshot;
        let state = self.state(&snapshot);
        format!(
            "{state}; {deliveries} deliveries, {published} published, {confirmed} confirmed, {parked} parked"
        )
    }
}

impl Running {
    /// Starts a relay. The credentials' places are given apart, because a demonstration brings its own.
    ///
    /// # Errors
    ///
    /// [`AppError`]; then nothing runs. A cloud or a broker that is away is no error: the relay waits for it.
    pub async fn start(config: &Config, places: vod::Places) -> Result<Self, AppError> {
        Self::start_writing(config, places, std::io::stdout()).await
    }

    /// The same, with a writer of its own for the output that is standard output otherwise.
    ///
    /// # Errors
    ///
    /// [`AppError`].
    pub async fn start_writing(
        config: &Config,
        places: vod::Places,
        standard_output: impl std::io::Write + Send + 'static,
    ) -> Result<Self, AppError> {
        let mut options = vod::Options::new(config.vod.endpoint.clone(), places.source);
        options.region.clone_from(&config.vod.region);
        options.credentials = places;
        let client = vod::Client::new(options).map_err(AppError::Client)?;
        // Without credentials nothing can be done: better said at once than with the first call.
        client.refresh_credentials().await.map_err(AppError::Credentials)?;
        let output_options = output_options(config);
        let journal_options = journal::Options { path: config.journal.path.clone() };
        let opened = tokio::task::spawn_blocking(move || Journal::open(&journal_options)).await;
        let (journal, writer) = unwound(opened).map_err(AppError::Journal)?;
        let (drain, stop) = (CancellationToken::new(), CancellationToken::new());
        let (output, output_task) = match output_options {
            OutputOptions::Amqp(options) => output::amqp::spawn(*options, stop.clone()),
            OutputOptions::Stdout(options) => {
                output::stdout::spawn_to(options, standard_output, stop.clone())
            }
        };
        let stats = Arc::new(RelayStats::new());
        let heartbeat = Heartbeat::new("relay");
        let (found, figures) = watch::channel(None);
        let waiting = maintenance::Waiting::default();
        let (sub_apps, sub_apps_now) = watch::channel(config.vod.sub_apps());
        let look = look_at_figures(journal.clone(), sub_apps_now.clone(), found);
        let figures_task = tokio::spawn(stop.clone().run_until_cancelled_owned(look));
        let parts = maintenance::MaintenanceParts {
            journal: journal.clone(),
            client: client.clone(),
            sub_apps: sub_apps_now,
            waiting: waiting.clone(),
            figures: figures_of(Arc::clone(&stats)),
        };
        let maintenance = maintenance::spawn(maintenance_options(config), parts, stop.clone());
        let (maintenance, jobs) = maintenance.await.map_err(AppError::Maintenance)?;
        let watch = Watch {
            stats: Arc::clone(&stats),
            journal: journal.state(),
            output: output.state(),
            broker: output.broker(),
            waiting,
            commit_times: journal.commit_times(),
            publish_times: output.publish_times(),
            client: client.clone(),
            heartbeats: [heartbeat.clone(), journal.heartbeat(), output.heartbeat()].into(),
            figures,
            jobs,
        };
        let (changes, changed) = mpsc::unbounded_channel();
        let parts = RelayParts {
            settings: settings(config),
            client,
            journal,
            output,
            stats,
            changes: changed,
            heartbeat,
        };
        let relay = tokio::spawn(relay::run(parts, drain.clone()));
        Ok(Self {
            drain,
            stop,
            relay,
            output: output_task,
            maintenance,
            figures: figures_task,
            writer,
            changes,
            sub_apps,
            watch,
        })
    }

    /// The way to change what can be changed at work.
    pub fn reload(&self, config: Config) -> Reload {
        Reload::new(config, self.watch.client.clone(), self.changes.clone(), self.sub_apps.clone())
    }

    /// For whoever looks on.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Cancelling it begins the drain: nothing more is pulled, what is in flight is finished.
    pub fn drain(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Waits until the relay has drained, or had to end, and closes its parts. A drain that takes too long is cut off;
    /// nothing is lost by that, and the next start goes on from the journal.
    ///
    /// # Errors
    ///
    /// [`AppError`] when a part ended that the relay cannot do without.
    pub async fn wait(mut self) -> Result<Snapshot, AppError> {
        let drain = self.drain.clone();
        let too_long = async {
            drain.cancelled().await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        };
        let ended = tokio::select! {
            ended = &mut self.relay => flatten(ended).map_err(AppError::Relay),
            ended = &mut self.output => {
                let ended = unwound(ended);
                // What is acked is still confirmed: the relay drains, and does not wait for an output that is gone.
                self.drain.cancel();
                // How it ends says nothing more than why the output ended.
                let _ = tokio::time::timeout(DRAIN_LIMIT, &mut self.relay).await;
                return self.close(ended.map_err(AppError::Output)).await;
            }
            () = too_long => {
                warn!(error_code = %ErrorCode::DrainCutOff, limit_s = DRAIN_LIMIT.as_secs(), "drain cut off; the next start goes on from the journal");
                self.relay.abort();
                Ok(())
            }
        };
        self.stop.cancel();
        let closed = tokio::time::timeout(CLOSE_LIMIT, &mut self.output).await;
        // An output that takes too long to close is left behind.
        let closed = closed.map_or(Ok(()), unwound).map_err(AppError::Output);
        self.close(ended.and(closed)).await
    }

    async fn close(self, ended: Result<(), AppError>) -> Result<Snapshot, AppError> {
        let Self { relay, watch, writer, maintenance, figures, stop, .. } = self;
        // The writer ends when the last way to it is gone: the relay's and the maintenance's.
        relay.abort();
        stop.cancel();
        unwound(maintenance.await);
        unwound(figures.await);
        let snapshot = watch.snapshot();
        let written = unwound(tokio::task::spawn_blocking(move || writer.join()).await);
        match (ended, written) {
            // The writer's own words say more than that it is gone.
            (Ok(()) | Err(AppError::Relay(RelayError::Journal)), Err(error)) => Err(AppError::Writer(error)),
            (Ok(()), Ok(())) => Ok(snapshot),
            (Err(error), _) => Err(error),
        }
    }
}

/// Settles what is over by the calendar: events of sub-applications that are not polled any more, so that no idle answer
/// ever proves that the cloud has forgotten them.
async fn settle_unpolled(journal: &Journal, polled: &Arc<[SubAppId]>) -> Result<(), Closed> {
    let now = WallTime::now();
    loop {
        let (polled, limit) = (Arc::clone(polled), SETTLED_AT_ONCE);
        let settle = Write::SettleUnpolled { polled, received_before: now - CLOUD_KEEPS, limit };
        let Written::Settled(settled) = journal.ask(settle).await? else {
            unreachable!("what is settled is answered by its count")
        };
        if settled > 0 {
            info!(
                events = settled,
                "events of sub-applications that are not polled count as confirmed: the cloud deletes them after four days"
            );
        }
        if settled < u64::from(SETTLED_AT_ONCE) {
            return Ok(());
        }
    }
}

/// Asks the journal for its figures now and then.
async fn look_at_figures(
    journal: Journal,
    sub_apps: watch::Receiver<Vec<SubAppId>>,
    found: watch::Sender<Option<JournalFigures>>,
) {
    let mut settle_from = Moment(0);
    let midnight = WallTime(WallTime::now().0 / DAY_MS * DAY_MS);
    let path = journal.path().to_owned();
    let received = tokio::task::spawn_blocking(move || JournalReader::open(&path)?.received_since(midnight));
    // It only completes a line for people.
    let received_before_today = unwound(received.await).unwrap_or(0);
    loop {
        let polled: Arc<[SubAppId]> = sub_apps.borrow().as_slice().into();
        if Moment::now() >= settle_from {
            let Ok(()) = settle_unpolled(&journal, &polled).await else { return };
            settle_from = Moment::now() + SETTLE_PERIOD;
        }
        let Ok(summary) = journal.summary(Some(polled)).await else { return };
        let bytes = journal.bytes();
        found.send_replace(Some(JournalFigures { summary, bytes, received_before_today }));
        tokio::time::sleep(FIGURES_PERIOD).await;
    }
}

/// What a task that nobody aborts returned. Its panic goes on here: a dead task is a dead process.
fn unwound<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn flatten(ended: Result<Result<(), RelayError>, tokio::task::JoinError>) -> Result<(), RelayError> {
    ended.unwrap_or_else(|died| Err(RelayError::Task(died)))
}

/// What the core must know.
pub fn settings(config: &Config) -> Settings {
    Settings {
        sub_apps: config.vod.sub_apps(),
        confirm_after: config.relay.confirm_after,
        window: Window { length: config.vod.window, margin: config.relay.lease_margin },
        max_in_flight: config.relay.max_in_flight,
        idle_backoff_min: config.relay.idle_backoff_min,
        idle_backoff_max: config.relay.idle_backoff_max,
        publish_attempts: config.relay.publish_attempts,
        requests_per_second: config.vod.requests_per_second,
        seed: fastrand::u64(..),
    }
}

/// What maintenance must know.
fn maintenance_options(config: &Config) -> maintenance::Options {
    let config::MaintenanceConfig { prune, vacuum, backup, summary, backlog, backups_kept, backup_dir } =
        config.maintenance.clone();
    maintenance::Options {
        prune,
        vacuum,
        backup,
        summary,
        backlog,
        retention: config.journal.retention,
        backups_kept,
        backup_dir,
    }
}

/// What the daily summary is made of.
fn figures_of(stats: Arc<RelayStats>) -> Box<dyn Fn() -> maintenance::Figures + Send> {
    Box::new(move || {
        let snapshot = stats.snapshot();
        maintenance::Figures {
            received: snapshot.received(),
            redelivered: snapshot.redelivered,
            published: snapshot.published(),
            confirmed: snapshot.confirmed,
            parked: snapshot.parked,
        }
    })
}

/// Where the configuration says that credentials are.
pub fn places(config: &Config) -> vod::Places {
    vod::Places::new(config.vod.credentials)
}

/// The output that the configuration asks for.
#[derive(Clone, Debug)]
pub enum OutputOptions {
    /// RabbitMQ.
    Amqp(Box<output::amqp::Options>),
    /// Standard output.
    Stdout(output::stdout::Options),
}

/// The output that the configuration asks for.
pub fn output_options(config: &Config) -> OutputOptions {
    let routing_key = config.amqp.routing_key.clone();
    let format = config.amqp.format;
    if config.output.kind == config::OutputKind::Stdout {
        return OutputOptions::Stdout(output::stdout::Options { routing_key, format });
    }
    let amqp = &config.amqp;
    OutputOptions::Amqp(Box::new(output::amqp::Options {
        username: amqp.username.clone(),
        password: amqp.password.clone(),
        exchange: amqp.exchange.clone(),
        queue: amqp.queue.clone(),
        routing_key,
        binding_key: amqp.binding_key.clone(),
        external: amqp.auth == config::Auth::External,
        topology: amqp.topology,
        format,
        // The journal hands a backlog out in the order in which it was received, and that is kept.
        in_order: config.relay.confirm_after == config::ConfirmAfter::Journal,
        tls: output::amqp::TlsFiles {
            ca_file: amqp.ca_file.clone(),
            certificate_file: amqp.client_cert_file.clone(),
            key_file: amqp.client_key_file.clone(),
        },
        ..output::amqp::Options::new(amqp.urls.iter().map(address).collect())
    }))
}

fn address(url: &config::AmqpUrl) -> output::amqp::Address {
    let url = url.expose();
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let tls = url.scheme() == "amqps";
    let host = url.host_str().unwrap_or_default();
    let path = url.path().strip_prefix('/').unwrap_or_default();
    output::amqp::Address {
        tls,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
        // No path at all means RabbitMQ's default virtual host (the AMQP URI specification leaves it to the client).
        vhost: if path.is_empty() { "/".to_owned() } else { decoded(path) },
        username: (!url.username().is_empty()).then(|| decoded(url.username())),
        password: url.password().map(|password| tencentcloud_signing::Secret::new(decoded(password))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn addressed(url: &str) -> output::amqp::Address {
        let config =
            Config::from_variables(std::iter::once(("VODRELAY_AMQP__URLS".to_owned(), url.to_owned())))
                .unwrap();
        address(&config.amqp.urls[0])
    }

    #[test]
    fn a_brokers_url_is_taken_apart_and_decoded() {
        let address = addressed("amqps://us%65r:p%40ss@mq.example:5999/a%2fb");
        assert_eq!((address.tls, address.host.as_str(), address.port), (true, "mq.example", 5999));
        assert_eq!((address.vhost.as_str(), address.username.as_deref()), ("a/b", Some("user")));
        assert_eq!(address.password.unwrap().expose(), "p@ss");
    }

    #[test]
    fn a_brokers_url_has_the_usual_defaults() {
        let address = addressed("amqp://[::1]");
        assert_eq!((address.host.as_str(), address.port, address.vhost.as_str()), ("::1", 5672, "/"));
        assert_eq!((address.username, address.password), (None, None));
        assert_eq!(addressed("amqps://h/%2f").vhost, "/");
        assert_eq!(addressed("amqps://h/%2f").port, 5671);
    }
}
