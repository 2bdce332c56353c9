//! The relay's log: a line of progress at intervals at info, one for each batch and each event at debug.
//! Failing requests and publishes are logged when they begin to fail, change their cause, and work again.
//! Never a body, never a secret.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tencent_vod::{Action, FailureKind, RequestError};
use tencent_vod_event::SubAppId;
use tracing::{debug, info, warn};
use vodrelay_core::clock::Moment;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{EventId, Recorded};
use vodrelay_core::lease::Window;
use vodrelay_core::machine::{Answer, Input, Load};
use vodrelay_core::outcome::{Problem, PublishOutcome, RequestFailure};
use vodrelay_core::stages::Stages;
use vodrelay_core::write::{ConfirmedDelivery, LetGo, Pulled, Written};

use super::meters::{self, Meters};
use super::stats::RelayStats;
use crate::cloud;

/// How a request to the cloud ended, with details that the core does not need.
#[derive(Debug)]
pub(super) struct RequestEnded {
    pub(super) sub_app: SubAppId,
    pub(super) action: Action,
    pub(super) error: Option<RequestError>,
}

/// What the log has reported.
pub(super) struct Observer {
    stats: Arc<RelayStats>,
    meters: Meters,
    window: Window,
    /// Why requests fail now, by sub-application and action.
    failing: BTreeMap<(SubAppId, &'static str), Failing>,
    refused: Refused,
    /// Whether the log says that nothing is routable.
    told_unroutable: bool,
    since: LoggedProgress,
    /// The time of the last progress line.
    told_at: Option<Moment>,
    parked: Parked,
}

/// Requests that fail in a row.
#[derive(Debug)]
struct Failing {
    code: String,
    problem: Problem,
    since: Moment,
    /// Whether the log has reported it.
    told: bool,
}

/// Throttled requests are how the rate is found. They are reported only after this time without any other
/// result.
const THROTTLED_MAX: Duration = Duration::from_secs(10);

/// The work since the last progress line.
#[derive(Debug, Default, PartialEq, Eq)]
struct LoggedProgress {
    pulled: usize,
    redelivered: usize,
    confirmed: usize,
    let_go: usize,
}

/// The interval of progress lines: a backlog is hundreds of batches a second.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Parked events that were not reported yet.
#[derive(Debug, Default)]
struct Parked {
    events: usize,
    newest: Option<(EventId, Problem)>,
    told_at: Option<Moment>,
}

impl Parked {
    /// The first one is reported at once; of a burst, only the number that followed.
    fn tell(&mut self, now: Moment) {
        if self.told_at.is_none_or(|at| now.since(at) >= PROGRESS_EVERY) {
            self.tell_now();
            self.told_at = Some(now);
        }
    }

    fn tell_now(&mut self) {
        let Some((event, problem)) = self.newest.take() else { return };
        let events = std::mem::take(&mut self.events);
        warn!(error_code = %ErrorCode::Parked, events, event = event.0, error = %problem, "events parked; `vodrelay events list --state parked` has them");
    }
}

/// Events whose last publish failed.
#[derive(Debug, Default)]
struct Refused {
    events: HashSet<EventId>,
    /// The messages that were reported since the first failure.
    told: BTreeSet<Arc<str>>,
    /// The newest problem, and the time of the first.
    newest: Option<(Problem, Moment)>,
    /// Whether it concerns single events and not the others.
    of_one_event: bool,
    /// The number of them that were parked since the first failure.
    parked: usize,
}

/// The number of different causes from the broker that are reported before a publish must succeed.
const REASONS_TOLD: usize = 8;

impl Observer {
    pub(super) fn new(stats: Arc<RelayStats>, window: Window) -> Self {
        Self {
            stats,
            meters: Meters::new(),
            window,
            failing: BTreeMap::new(),
            refused: Refused::default(),
            told_unroutable: false,
            since: LoggedProgress::default(),
            told_at: None,
            parked: Parked::default(),
        }
    }

    /// A request ended. Transitions are reported, not attempts.
    pub(super) fn request_ended(&mut self, now: Moment, ended: &RequestEnded) {
        let RequestEnded { sub_app, action, error } = ended;
        let (key, action) = ((*sub_app, action.name()), action.name());
        let Some(error) = error else {
            if self.failing.remove(&key).is_some_and(|was| was.told) {
                info!(%sub_app, action, "requests succeed again");
            }
            return;
        };
        let before = self.failing.remove(&key);
        let since = before.as_ref().map_or(now, |was| was.since);
        let was_told = before.as_ref().is_some_and(|was| was.told);
        let is_known = was_told && before.is_some_and(|was| was.code == error.code);
        let is_pace = error.failure == FailureKind::Throttled && now.since(since) < THROTTLED_MAX;
        if !is_known && !is_pace {
            // The error's text ends with the next step.
            let error_code = cloud::error_code(error.failure);
            warn!(%error_code, %sub_app, action, failure = %error.failure, %error, "requests fail, and are repeated");
        }
        let problem =
            Problem::new(cloud::error_code(error.failure), format!("sub-application {sub_app}: {error}"));
        let told = was_told || !is_pace;
        self.failing.insert(key, Failing { code: error.code.clone(), problem, since, told });
    }

    pub(super) fn input(&mut self, now: Moment, input: &Input) {
        match input {
            Input::ConfirmProof { result: Ok(()) | Err(RequestFailure::Refused), .. } => {
                self.stats.update(|s| s.stages.confirm.succeeded(now));
            }
            Input::Pulled { result: Ok(answer), .. } => {
                warn_not_utf8(answer);
                self.stats.update(|s| s.stages.pull.succeeded(now));
            }
            Input::Confirmed { result: Ok(()), .. } => {
                self.stats.update(|s| s.stages.confirm.succeeded(now));
            }
            Input::Written(written) => self.written(now, written),
            Input::Published { event, outcome } => {
                if outcome.is_answer() {
                    self.stats.update(|s| s.stages.publish.answered(now));
                }
                if *outcome == PublishOutcome::Acked {
                    // The broker's proof has arrived. The event counts as published after the journal's
                    // commit.
                    self.stats.update(|s| s.stages.publish.succeeded(now));
                } else {
                    self.stats.failed(outcome);
                    self.meters.published(outcome.name(), 1);
                }
                debug!(event = event.0, outcome = outcome.name(), "publish ended");
                self.publish(now, *event, outcome);
            }
            _ => {}
        }
    }

    /// The journal has committed a write. Nothing is counted before that.
    fn written(&mut self, now: Moment, written: &Written) {
        self.stats.update(|s| s.stages.journal.succeeded(now));
        match written {
            Written::Recorded(pulled, recorded) => self.recorded(now, pulled, recorded),
            Written::Published(events) => {
                self.stats.published(now, events.len());
                self.meters.published(PublishOutcome::Acked.name(), events.len());
            }
            Written::Parked(events) => self.parked(now, events),
            Written::Confirmed(deliveries) => self.confirmed(now, deliveries),
            Written::LetGo(deliveries, why) => {
                self.since.let_go += deliveries.len();
                self.stats.update(|s| s.let_go += deliveries.len() as u64);
                meters::let_go(deliveries.len() as u64, *why);
                let why = match why {
                    LetGo::Refused => "the cloud rejects the handle",
                    LetGo::Lost => "no answer before the lease lapsed",
                };
                debug!(handles = deliveries.len(), why, "handles let go; their events come again");
            }
            _ => {}
        }
    }

    fn recorded(&mut self, now: Moment, pulled: &Pulled, recorded: &[Recorded]) {
        let redelivered = recorded.iter().filter(|r| r.redelivered).count();
        let new = recorded.len() - redelivered;
        self.stats.update(|s| {
            s.deliveries += recorded.len() as u64;
            s.redelivered += redelivered as u64;
            if new > 0 {
                s.moved_at = Some(now);
            }
        });
        self.meters.recorded(new as u64, redelivered as u64);
        self.since.pulled += recorded.len();
        self.since.redelivered += redelivered;
        let Pulled { sub_app, request_id, .. } = pulled;
        debug!(%sub_app, events = recorded.len(), redelivered, %request_id, "pulled and journalled");
        for record in recorded {
            debug!(
                event = record.event.0,
                occurrence = record.occurrence,
                redelivered = record.redelivered,
                "event journalled"
            );
        }
    }

    fn confirmed(&mut self, now: Moment, deliveries: &[ConfirmedDelivery]) {
        for delivery in deliveries {
            let ConfirmedDelivery { lease, received_at, confirmed_at, .. } = delivery;
            let took = confirmed_at.since(*received_at);
            let lease_left = (lease.sent_at + self.window.length).since(*confirmed_at);
            self.stats.confirmed(took, lease_left);
            self.meters.confirmed(took, lease_left);
            debug!(event = delivery.event.0, "event confirmed");
        }
        self.stats.update(|s| s.moved_at = Some(now));
        self.since.confirmed += deliveries.len();
        debug!(events = deliveries.len(), "confirmed");
    }

    fn parked(&mut self, now: Moment, events: &[(EventId, Problem)]) {
        self.stats.update(|s| s.parked += events.len() as u64);
        self.parked.events += events.len();
        for (event, problem) in events {
            self.given_up(*event);
            meters::parked(problem.error_code);
            debug!(event = event.0, error = %problem, "event parked");
            self.parked.newest = Some((*event, problem.clone()));
        }
        self.parked.tell(now);
    }

    /// A publish ended. A fact that the output's state already reports is not reported again.
    fn publish(&mut self, now: Moment, event: EventId, outcome: &PublishOutcome) {
        let message: Arc<str> = match outcome {
            PublishOutcome::Acked => return self.acked(now, event),
            PublishOutcome::Unknown { .. } | PublishOutcome::Unsent => return,
            PublishOutcome::Nacked => {
                "RabbitMQ nacks publishes: see whether a queue is full, and its log; each attempt may be stored in another queue"
                    .into()
            }
            PublishOutcome::Returned { code, text } => format!(
                "RabbitMQ returns publishes ({code} {text}): bind a queue for their routing keys"
            )
            .into(),
            PublishOutcome::ChannelError { code, text } => {
                format!("RabbitMQ refuses publishes ({code}): {text}").into()
            }
        };
        let Some(error_code) = outcome.error_code() else { return };
        self.refused.events.insert(event);
        if self.refused.told.len() < REASONS_TOLD && self.refused.told.insert(Arc::clone(&message)) {
            warn!(%error_code, error = %message, "publishes fail, and are repeated");
        }
        let since = self.refused.newest.as_ref().map_or(now, |(_, since)| *since);
        self.refused.newest = Some((Problem { error_code, message }, since));
        // A missing exchange or permission affects all events.
        self.refused.of_one_event = matches!(outcome, PublishOutcome::Returned { .. })
            || matches!(outcome, PublishOutcome::ChannelError { code, .. } if !matches!(code, 403 | 404));
    }

    /// The broker has the event.
    fn acked(&mut self, now: Moment, event: EventId) {
        if !self.refused.events.remove(&event) {
            return;
        }
        // The rest have been failing since now at the earliest, because one has just succeeded.
        if let Some((_, since)) = &mut self.refused.newest {
            *since = now;
        }
        if self.refused.events.is_empty() {
            let Refused { parked, .. } = std::mem::take(&mut self.refused);
            if parked == 0 {
                info!("publishing recovered");
            } else {
                info!(parked, "no publish is repeated any more; some of the failed events were parked");
            }
        }
    }

    /// The event was parked; no publish succeeded.
    fn given_up(&mut self, event: EventId) {
        if self.refused.events.remove(&event) {
            self.refused.parked += 1;
            if self.refused.events.is_empty() {
                self.refused = Refused::default();
            }
        }
    }

    /// No publish is routable, or one is again.
    fn unroutable(&mut self, is_so: bool) {
        if is_so && !self.told_unroutable {
            let error_code = ErrorCode::PublishReturned;
            warn!(%error_code, "RabbitMQ returns every publish and acks none: check the bindings of the exchange; until an ack, each sub-application is polled only once in 30 s");
        } else if !is_so && self.told_unroutable {
            info!("a publish was acked: pulling continues");
        }
        self.told_unroutable = is_so;
    }

    /// Logs the work since the last progress line, if there was any.
    pub(super) fn progress(&mut self) {
        self.parked.tell_now();
        let LoggedProgress { pulled, redelivered, confirmed, let_go } = std::mem::take(&mut self.since);
        if pulled + confirmed + let_go > 0 {
            info!(pulled, redelivered, confirmed, let_go, "relayed");
        }
    }

    pub(super) fn load(&mut self, now: Moment, load: Load) {
        if self.since != LoggedProgress::default()
            && self.told_at.is_none_or(|at| now.since(at) >= PROGRESS_EVERY)
        {
            self.told_at = Some(now);
            self.progress();
        }
        self.parked.tell(now);
        let pulling = self.failing(Action::PullEvents);
        // When no handle is left to confirm, an earlier failed confirm is no longer a problem, unless the
        // next one would fail as well.
        let confirming = self.failing(Action::ConfirmEvents);
        let confirming = confirming.filter(|(problem, _)| load.handles > 0 || is_denial(problem.error_code));
        self.unroutable(load.unroutable_since.is_some());
        let publishing = self.refused.newest.clone();
        // The broker's answer to one event is not a problem of the others, unless it concerns all.
        let of_one = self.refused.of_one_event && load.unroutable_since.is_none();
        let publishing = publishing.map(|(problem, since)| (problem, if of_one { now } else { since }));
        self.stats.update(|s| {
            s.load = load;
            let Stages { pull, publish, confirm, .. } = &mut s.stages;
            pull.waits(now, load.polls > 0);
            publish.waits(now, load.publishing > 0 || (publishing.is_some() && !of_one));
            publish.asks(now, load.publishing > 0);
            let unconfirmed = load.confirms > 0 || (confirming.is_some() && load.handles > 0);
            confirm.waits(now, unconfirmed);
            let answered = confirming
                .as_ref()
                .is_some_and(|(problem, _)| problem.error_code != ErrorCode::CloudUnreachable);
            confirm.asks(now, unconfirmed && !answered);
            pull.problem = pulling;
            publish.problem = publishing;
            confirm.problem = confirming;
        });
    }

    /// The reported request that has failed longest.
    fn failing(&self, wanted: Action) -> Option<(Problem, Moment)> {
        let told =
            self.failing.iter().filter(|((_, action), failing)| *action == wanted.name() && failing.told);
        told.map(|(_, failing)| failing).min_by_key(|f| f.since).map(|f| (f.problem.clone(), f.since))
    }
}

/// Whether the cloud refused the key, so that it needs an operator.
fn is_denial(error_code: ErrorCode) -> bool {
    matches!(error_code, ErrorCode::AccountWrong | ErrorCode::CredentialsRejected)
}

/// In JSON such bytes are only in strings, where they separate nothing.
fn warn_not_utf8(answer: &Answer) {
    for (index, event) in answer.events.iter().enumerate() {
        if std::str::from_utf8(&event.body).is_err() {
            let (error_code, request_id) = (ErrorCode::NotUtf8, &answer.request_id);
            warn!(%error_code, index, %request_id, "an event is not UTF-8; it is carried byte for byte");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vodrelay_core::identity::DeliveryId;

    fn ended(failure: Option<(FailureKind, &str)>) -> RequestEnded {
        let action = Action::PullEvents;
        let error = failure.map(|(failure, code)| RequestError {
            failure,
            code: code.to_owned(),
            message: "words".to_owned(),
            request_id: None,
            action,
            may_have_acted: false,
        });
        RequestEnded { sub_app: SubAppId(0), action, error }
    }

    #[test]
    fn nothing_counts_before_the_journal_has_committed_it() {
        let window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
        let stats = Arc::new(RelayStats::new());
        let mut report = Observer::new(Arc::clone(&stats), window);
        let counts = || {
            let s = stats.snapshot();
            (s.published(), s.confirmed, s.let_go, s.parked)
        };
        let problem = Problem::new(ErrorCode::PublishReturned, "words");
        let (now, later) = (Moment(1_000), Moment(2_000));
        report.input(now, &Input::Published { event: EventId(1), outcome: PublishOutcome::Acked });
        assert_eq!((counts(), stats.snapshot().moved_at), ((0, 0, 0, 0), None));
        assert!(stats.snapshot().stages.publish.last_success.is_some(), "the broker is heard of at once");
        let delivery = ConfirmedDelivery {
            delivery: DeliveryId(1),
            event: EventId(1),
            lease: window.lease(Moment(0)),
            received_at: Moment(100),
            confirmed_at: now,
        };
        for (written, counted) in [
            (Written::Published([EventId(1)].into()), (1, 0, 0, 0)),
            (Written::Confirmed([delivery].into()), (1, 1, 0, 0)),
            (Written::LetGo([DeliveryId(2), DeliveryId(3)].into(), LetGo::Lost), (1, 1, 2, 0)),
            (Written::Parked([(EventId(4), problem)].into()), (1, 1, 2, 1)),
        ] {
            report.input(later, &Input::Written(written));
            assert_eq!(counts(), counted);
        }
        let confirmed_in = stats.snapshot().pull_to_confirm_p50;
        assert_eq!(confirmed_in, Some(Duration::from_millis(900)), "not to the commit");
        assert_eq!(stats.snapshot().moved_at, Some(later));
    }

    #[test]
    fn throttled_requests_are_no_trouble_until_nothing_else_has_happened_for_a_while() {
        let window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
        let mut report = Observer::new(Arc::new(RelayStats::new()), window);
        let throttled = ended(Some((FailureKind::Throttled, "RequestLimitExceeded")));
        for second in 0..9 {
            report.request_ended(Moment(second * 1_000), &throttled);
            assert_eq!(report.failing(Action::PullEvents), None);
        }
        report.request_ended(Moment(9_500), &ended(None));
        report.request_ended(Moment(12_000), &throttled);
        report.request_ended(Moment(21_900), &throttled);
        assert_eq!(report.failing(Action::PullEvents), None, "one has succeeded in between");
        report.request_ended(Moment(22_000), &throttled);
        assert!(report.failing(Action::PullEvents).is_some());
        report.request_ended(Moment(23_000), &ended(None));
        assert_eq!(report.failing(Action::PullEvents), None);
        report.request_ended(Moment(24_000), &ended(Some((FailureKind::Transient, "timeout"))));
        assert!(report.failing(Action::PullEvents).is_some(), "other failures are told at once");
    }

    /// The lines of a subscriber.
    #[derive(Clone, Default)]
    struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The log's lines at info and above.
    fn logged(of: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(log, of);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_failure_says_the_next_step_once() {
        let window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
        let mut report = Observer::new(Arc::new(RelayStats::new()), window);
        let failed = ended(Some((FailureKind::Credentials, "AuthFailure.SignatureFailure")));
        let text = logged(|| report.request_ended(Moment(0), &failed));
        assert_eq!(text.matches("belong together").count(), 1, "{text}");
    }

    #[test]
    fn a_burst_of_parked_events_is_told_in_a_line_or_two() {
        let window = Window { length: Duration::from_secs(30), margin: Duration::from_secs(3) };
        let stats = Arc::new(RelayStats::new());
        let mut report = Observer::new(Arc::clone(&stats), window);
        let text = logged(|| {
            for n in 1..=1_000 {
                let problem = Problem::new(ErrorCode::PublishReturned, "unroutable: routing key k");
                let parked = Written::Parked([(EventId(n), problem)].into());
                report.input(Moment(n as u64), &Input::Written(parked));
            }
            report.load(Moment(5_000), Load::default());
            report.load(Moment(11_000), Load::default());
            report.load(Moment(30_000), Load::default());
            report.progress();
        });
        let told: Vec<&str> = text.lines().filter(|line| line.contains("events parked")).collect();
        assert_eq!(told.len(), 2, "{text}");
        assert!(
            told[0].contains("events=1 event=1 ") && told[1].contains("events=999 event=1000 "),
            "{text}"
        );
        assert!(told[1].contains("VR-406") && told[1].contains("routing key k"), "{text}");
        assert_eq!(stats.snapshot().parked, 1_000);
    }
}
