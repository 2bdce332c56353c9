//! The state of the emulator, behind one lock: queues, settings, faults, figures.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::action::Action;
use super::auth::Credential;
use super::faults::{Faults, IdleShape};
use super::handles::HandleForm;
use super::ledger::Ledger;
use super::queue::{Counts, EventNo, MixedConfirm, Queue, QueueSettings, Redelivery};
use super::uploads::Uploads;
use super::uploads::report::UploadReport;
use super::uploads::settings::UploadSettings;

/// The settings of the emulator. They can be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatorSettings {
    /// How long a pull is held without an event. Five seconds, as documented (266/33433).
    pub hold_ms: u64,
    /// The form of an idle answer.
    pub idle: IdleShape,
    /// The limit of requests a second of each API; 0 is none. The documents say 100.
    pub requests_per_second: u32,
    /// Added to every request before it has an effect.
    pub latency_ms: u64,
    /// The sub-applications that exist; any when it is empty. The default application always exists.
    pub sub_app_ids: Vec<u64>,
    /// The settings of every queue.
    pub queue: QueueSettings,
    /// How uploads behave.
    pub uploads: UploadSettings,
}

impl Default for EmulatorSettings {
    fn default() -> Self {
        Self {
            hold_ms: 5_000,
            idle: IdleShape::default(),
            requests_per_second: 100,
            latency_ms: 0,
            sub_app_ids: Vec::new(),
            queue: QueueSettings::default(),
            uploads: UploadSettings::default(),
        }
    }
}

/// The settings to change; the rest stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SettingsPatch {
    hold_ms: Option<u64>,
    idle: Option<IdleShape>,
    requests_per_second: Option<u32>,
    latency_ms: Option<u64>,
    sub_app_ids: Option<Vec<u64>>,
    window_ms: Option<u64>,
    retention_ms: Option<u64>,
    handle_form: Option<HandleForm>,
    mixed_confirm: Option<MixedConfirm>,
    refuse_repeats: Option<bool>,
    redelivery: Option<Redelivery>,
    uploads: Option<serde_json::Map<String, serde_json::Value>>,
}

impl SettingsPatch {
    /// Changes the settings. An error changes nothing.
    pub(super) fn apply(self, settings: &mut EmulatorSettings) -> Result<(), serde_json::Error> {
        fn set<T>(value: &mut T, new: Option<T>) {
            if let Some(new) = new {
                *value = new;
            }
        }
        set(&mut settings.hold_ms, self.hold_ms);
        set(&mut settings.idle, self.idle);
        set(&mut settings.requests_per_second, self.requests_per_second);
        set(&mut settings.latency_ms, self.latency_ms);
        set(&mut settings.sub_app_ids, self.sub_app_ids);
        set(&mut settings.queue.window_ms, self.window_ms);
        set(&mut settings.queue.retention_ms, self.retention_ms);
        set(&mut settings.queue.form, self.handle_form);
        set(&mut settings.queue.mixed, self.mixed_confirm);
        set(&mut settings.queue.refuse_repeats, self.refuse_repeats);
        set(&mut settings.queue.redelivery, self.redelivery);
        if let Some(changes) = self.uploads {
            // By name, through JSON, because there are many.
            let mut uploads = serde_json::to_value(&settings.uploads)?;
            for (name, value) in changes {
                uploads[name] = value;
            }
            settings.uploads = serde_json::from_value(uploads)?;
        }
        Ok(())
    }
}

/// The settings as the control endpoint shows them: the same keys as it takes.
#[derive(Serialize)]
pub(super) struct SettingsShown<'a> {
    hold_ms: u64,
    idle: IdleShape,
    requests_per_second: u32,
    latency_ms: u64,
    sub_app_ids: &'a [u64],
    window_ms: u64,
    retention_ms: u64,
    handle_form: HandleForm,
    mixed_confirm: MixedConfirm,
    refuse_repeats: bool,
    redelivery: Redelivery,
    uploads: &'a UploadSettings,
}

impl<'a> From<&'a EmulatorSettings> for SettingsShown<'a> {
    fn from(settings: &'a EmulatorSettings) -> Self {
        let queue = &settings.queue;
        Self {
            hold_ms: settings.hold_ms,
            idle: settings.idle,
            requests_per_second: settings.requests_per_second,
            latency_ms: settings.latency_ms,
            sub_app_ids: &settings.sub_app_ids,
            window_ms: queue.window_ms,
            retention_ms: queue.retention_ms,
            handle_form: queue.form,
            mixed_confirm: queue.mixed,
            refuse_repeats: queue.refuse_repeats,
            redelivery: queue.redelivery,
            uploads: &settings.uploads,
        }
    }
}

/// How one sub-application is notified (`DescribeEventConfig`, document 266/55244).
///
/// The cloud has the switches off by default. Here the first two are on, so that a `check` against a fresh emulator is
/// content. The first one decides whether an upload has its event; events that somebody puts come in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventConfig {
    /// `PULL` or `PUSH`; under `PUSH` a pull finds nothing.
    pub mode: String,
    /// Where PUSH would go.
    pub notification_url: String,
    /// `ON` or `OFF`.
    pub upload_switch: String,
    /// `ON` or `OFF`.
    pub delete_switch: String,
    /// `ON` or `OFF`.
    pub persistence_switch: String,
}

impl Default for EventConfig {
    fn default() -> Self {
        Self {
            mode: "PULL".to_owned(),
            notification_url: String::new(),
            upload_switch: "ON".to_owned(),
            delete_switch: "ON".to_owned(),
            persistence_switch: "OFF".to_owned(),
        }
    }
}

/// The counts of the emulator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Calls by action, throttled and refused ones included. Actions that do not exist are `other`.
    pub calls: BTreeMap<String, u64>,
    /// Errors answered, by code.
    pub errors: BTreeMap<String, u64>,
    /// Calls answered with `RequestLimitExceeded`.
    pub throttled: u64,
    /// Idle answers to pulls.
    pub idle: u64,
    /// Pulls that are being served or held now.
    pub pulls_now: u64,
    /// The most pulls that were under way at one time.
    pub max_concurrent_pulls: u64,
    /// The events of every queue, by sub-application.
    pub queues: BTreeMap<u64, Counts>,
}

impl Stats {
    /// How often an action was called.
    pub fn calls(&self, action: Action) -> u64 {
        self.calls.get(action.name()).copied().unwrap_or(0)
    }

    /// How often an error was answered.
    pub fn errors(&self, code: &str) -> u64 {
        self.errors.get(code).copied().unwrap_or(0)
    }

    /// The events of all queues together.
    pub fn events(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in self.queues.values() {
            sum.put += counts.put;
            sum.visible += counts.visible;
            sum.hidden += counts.hidden;
            sum.confirmed += counts.confirmed;
            sum.expired += counts.expired;
            sum.deliveries += counts.deliveries;
            sum.redeliveries += counts.redeliveries;
        }
        sum
    }
}

/// One sub-application.
#[derive(Debug)]
pub(super) struct App {
    pub(super) queue: Queue,
    pub(super) config: EventConfig,
    /// Notified when an event becomes visible other than by the end of its window.
    pub(super) wake: Arc<Notify>,
}

/// A bucket of requests that fills at the limit's rate, and holds a second's worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths of a request.
    level: u64,
    at_ms: u64,
}

impl Bucket {
    fn take(&mut self, now_ms: u64, per_second: u32) -> bool {
        let full = u64::from(per_second) * 1_000;
        let filled = now_ms.saturating_sub(self.at_ms).saturating_mul(u64::from(per_second));
        self.level = self.level.saturating_add(filled).min(full);
        self.at_ms = now_ms;
        let granted = self.level >= 1_000;
        if granted {
            self.level -= 1_000;
        }
        granted
    }
}

/// The facts for a condition of [`super::Emulator::wait_until`].
#[derive(Debug)]
pub struct State {
    pub(super) apps: BTreeMap<u64, App>,
    pub(super) settings: EmulatorSettings,
    pub(super) credentials: Arc<[Credential]>,
    pub(super) faults: Faults,
    pub(super) rng: fastrand::Rng,
    pub(super) idle: u64,
    pub(super) pulls_now: u64,
    max_concurrent_pulls: u64,
    seed: u64,
    buckets: BTreeMap<Action, Bucket>,
    pub(super) uploads: Uploads,
    /// One place for each action, and one for those that do not exist.
    calls: [u64; Action::ALL.len() + 1],
    errors: BTreeMap<String, u64>,
}

impl State {
    pub(super) fn new(seed: u64, settings: EmulatorSettings, credentials: Vec<Credential>) -> Self {
        Self {
            apps: BTreeMap::new(),
            settings,
            credentials: credentials.into(),
            faults: Faults::default(),
            rng: fastrand::Rng::with_seed(seed),
            idle: 0,
            pulls_now: 0,
            max_concurrent_pulls: 0,
            seed,
            buckets: BTreeMap::new(),
            uploads: Uploads::new(seed),
            calls: Default::default(),
            errors: BTreeMap::new(),
        }
    }

    /// The sub-application, made on its first use.
    pub(super) fn app(&mut self, sub_app_id: u64) -> &mut App {
        self.apps.entry(sub_app_id).or_insert_with(|| App {
            queue: Queue::new(sub_app_id, self.seed, self.settings.queue.clone()),
            config: EventConfig::default(),
            wake: Arc::default(),
        })
    }

    pub(super) fn knows_app(&self, sub_app_id: u64) -> bool {
        let known = &self.settings.sub_app_ids;
        sub_app_id == 0 || known.is_empty() || known.contains(&sub_app_id)
    }

    pub(super) fn set_settings(&mut self, settings: EmulatorSettings) {
        self.settings = settings;
        for app in self.apps.values_mut() {
            *app.queue.settings_mut() = self.settings.queue.clone();
        }
    }

    pub(super) fn put(&mut self, now_ms: u64, sub_app_id: u64, json: impl Into<Arc<str>>) -> EventNo {
        let app = self.app(sub_app_id);
        let number = app.queue.put(now_ms, json);
        app.wake.notify_waiters();
        number
    }

    pub(super) fn count_call(&mut self, action: Option<Action>) {
        let place = action.and_then(|action| Action::ALL.iter().position(|a| *a == action));
        self.calls[place.unwrap_or(Action::ALL.len())] += 1;
    }

    pub(super) fn count_error(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(code.to_owned(), 1);
            }
        }
    }

    pub(super) fn begin_pull(&mut self) {
        self.pulls_now += 1;
        self.max_concurrent_pulls = self.max_concurrent_pulls.max(self.pulls_now);
    }

    /// Whether the call is within its API's limit.
    pub(super) fn within_limit(&mut self, now_ms: u64, action: Action) -> bool {
        let per_second = self.settings.requests_per_second;
        if per_second == 0 {
            return true;
        }
        let full = Bucket { level: u64::from(per_second) * 1_000, at_ms: now_ms };
        self.buckets.entry(action).or_insert(full).take(now_ms, per_second)
    }

    fn advance(&mut self, now_ms: u64) {
        for app in self.apps.values_mut() {
            app.queue.advance(now_ms);
        }
    }

    fn next_visible_at(&self) -> Option<u64> {
        self.apps.values().filter_map(|app| app.queue.next_visible_at()).min()
    }

    /// The figures so far.
    pub fn stats(&self) -> Stats {
        let names = Action::ALL.iter().map(|action| action.name()).chain(["other"]);
        let calls =
            names.zip(self.calls).filter(|(_, count)| *count > 0).map(|(n, c)| (n.to_owned(), c)).collect();
        Stats {
            calls,
            errors: self.errors.clone(),
            throttled: self.errors.get("RequestLimitExceeded").copied().unwrap_or(0),
            idle: self.idle,
            pulls_now: self.pulls_now,
            max_concurrent_pulls: self.max_concurrent_pulls,
            queues: self.apps.iter().map(|(id, app)| (*id, app.queue.counts())).collect(),
        }
    }

    /// The events of one queue.
    pub fn counts(&self, sub_app_id: u64) -> Counts {
        self.apps.get(&sub_app_id).map(|app| app.queue.counts()).unwrap_or_default()
    }

    /// Events that nobody has confirmed yet, in all queues.
    pub fn unconfirmed(&self) -> u64 {
        self.apps.values().map(|app| app.queue.counts().unconfirmed()).sum()
    }

    /// How often an action was called.
    pub fn calls(&self, action: Action) -> u64 {
        let place = Action::ALL.iter().position(|a| *a == action);
        place.map_or(0, |place| self.calls[place])
    }

    /// The state of uploads.
    pub fn uploads(&self) -> UploadReport {
        UploadReport::of(&self.uploads)
    }

    /// What is remembered of one queue, or of all.
    pub fn ledger(&self, sub_app_id: Option<u64>) -> Ledger {
        let mut all = Ledger::default();
        for (_, app) in self.apps.iter().filter(|(id, _)| sub_app_id.is_none_or(|only| only == **id)) {
            let ledger = app.queue.ledger();
            all.events.extend(ledger.events);
            all.confirms.extend(ledger.confirms);
        }
        all
    }
}

/// The state, and who is told when it changes.
#[derive(Debug)]
pub(super) struct Cloud {
    state: Mutex<State>,
    pub(super) changed: Notify,
    pub(super) gone: CancellationToken,
}

impl Cloud {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), changed: Notify::new(), gone: CancellationToken::new() }
    }

    /// The state as it is, to be looked at and changed.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held has failed the test that caused it; the state is as good as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Switches all faults off, and heals the handles that one has made bad.
    pub(super) fn clear_faults(&self) {
        let mut state = self.lock();
        state.faults.clear();
        for app in state.apps.values_mut() {
            app.queue.heal();
        }
    }

    /// Waits until the condition holds, at most until the time-out; says whether it did.
    pub(super) async fn wait_until(&self, timeout: Duration, condition: impl Fn(&State) -> bool) -> bool {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let next_visible_at = {
                let mut state = self.lock();
                state.advance(now_ms());
                if condition(&state) {
                    return true;
                }
                state.next_visible_at()
            };
            let by_itself = sleep_until_ms(next_visible_at);
            tokio::select! {
                () = changed => {}
                () = by_itself => {}
                () = tokio::time::sleep_until(deadline) => return false,
            }
        }
    }
}

/// Milliseconds on the boot clock, which goes on while the host sleeps: the clock of every queue here.
pub(super) fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000 + now.tv_nsec / 1_000_000).unwrap_or(0)
}

/// Milliseconds since the Unix epoch.
pub(super) fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since the Unix epoch, for signatures, keys and media.
pub(super) fn wall_seconds() -> i64 {
    wall_ms().div_euclid(1_000)
}

/// Sleeps until a moment of [`now_ms`]; for ever when there is none.
pub(super) async fn sleep_until_ms(moment: Option<u64>) {
    match moment {
        Some(moment) => tokio::time::sleep(Duration::from_millis(moment.saturating_sub(now_ms()))).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grants_a_second_s_worth_and_then_its_rate() {
        let mut state = State::new(
            1,
            EmulatorSettings { requests_per_second: 10, ..EmulatorSettings::default() },
            Vec::new(),
        );
        let granted =
            |state: &mut State, now: u64, action| (0..50).filter(|_| state.within_limit(now, action)).count();
        assert_eq!(granted(&mut state, 1_000, Action::PullEvents), 10);
        assert_eq!(granted(&mut state, 1_000, Action::ConfirmEvents), 10, "each API has its own");
        assert_eq!(granted(&mut state, 1_099, Action::PullEvents), 0);
        assert_eq!(granted(&mut state, 1_300, Action::PullEvents), 3);
        assert_eq!(granted(&mut state, 90_000, Action::PullEvents), 10);
        state.settings.requests_per_second = 0;
        assert_eq!(granted(&mut state, 90_000, Action::PullEvents), 50);
    }

    #[test]
    fn settings_reach_queues_that_exist() {
        let mut state = State::new(1, EmulatorSettings::default(), Vec::new());
        state.put(0, 5, "{}");
        let patch: SettingsPatch = serde_json::from_str(r#"{"window_ms":7,"idle":"null"}"#).unwrap();
        let mut settings = state.settings.clone();
        patch.apply(&mut settings).unwrap();
        state.set_settings(settings);
        assert_eq!(state.app(5).queue.settings().window_ms, 7);
        assert_eq!(state.app(6).queue.settings().window_ms, 7);
        assert_eq!((state.settings.idle, state.settings.hold_ms), (IdleShape::Null, 5_000));
        assert!(serde_json::from_str::<SettingsPatch>(r#"{"window":7}"#).is_err());
        let apply = |json: &str, settings: &mut EmulatorSettings| {
            serde_json::from_str::<SettingsPatch>(json).unwrap().apply(settings)
        };
        let mut settings = state.settings.clone();
        apply(r#"{"uploads":{"repeated_commit":"accept","min_part_bytes":1}}"#, &mut settings).unwrap();
        assert!(settings.uploads.repeated_commit.accepts());
        assert_eq!((settings.uploads.min_part_bytes, settings.uploads.session_seconds), (1, 86_400));
        assert!(apply(r#"{"uploads":{"repeated_comit":"accept"}}"#, &mut settings).is_err());
        assert!(apply(r#"{"uploads":{"repeated_commit":true}}"#, &mut settings).is_err());
    }
}
