//! The world around the core: virtual time, the cloud, the broker, the journal's lane, and everything that goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use vodrelay::clock::{Moment, WallTime};
use vodrelay::emulator::queue::{Delivered, EventNo, HandleStyle, Queue, QueueSettings, Redelivery};
use vodrelay::event::{Event, EventHandle, SubAppId};
use vodrelay::identity::{EventId, Recorded};
use vodrelay::outcome::{CallFailure, JournalState, OutputState, PublishOutcome};
use vodrelay::relay::core::{Answer, CallId, Core, Effect, Input, LetGo, Parcel, PullId};

use super::check::{Checker, Committed, HandedOut, PullEnd, Violation, millis};
use super::journal::{Arrival, Journal};
use super::plan::{Fault, Plan, Theme};
use super::sabotage::Sabotage;

/// When virtual time begins. Not zero, so that moments before the beginning can be told.
const BEGIN: u64 = 1_000_000;
/// After the faults have ended, everything must have come to rest within this.
const REST_MS: u64 = 400_000;
/// A drain must be over within this when nothing fails, and is cut short after it when something does.
const DRAIN_MS: u64 = 60_000;
/// As in the shell and in the journal's writer.
const CONFIRM_TIMEOUT_MS: u64 = 5_000;
const BATCH: usize = 256;
/// More happenings than any seed needs.
const HAPPENINGS_MAX: u64 = 2_000_000;
/// What the broker finds no queue for, and what it refuses, is written in the event.
const UNROUTABLE: &str = "\"no queue\"";
const REFUSED: &str = "\"too large\"";

/// What a run of one seed came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What must not be.
    pub(crate) violation: Option<Violation>,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub(crate) faults: [u32; Fault::ALL.len()],
    /// Events put.
    pub(crate) events: usize,
    /// Processes that died.
    pub(crate) crashes: usize,
    /// Repeats at the broker, each explained.
    pub(crate) repeats: usize,
    /// How long it took from the end of the faults until all was at rest, in virtual milliseconds.
    pub(crate) rest_ms: u64,
    /// A digest of all that happened: equal for equal runs.
    pub(crate) digest: u64,
}

#[derive(Debug)]
enum Happening {
    Put,
    Start {
        relay: usize,
    },
    Clockwork(Fault),
    OutputUp {
        relay: usize,
        life: u64,
    },
    JournalUp {
        relay: usize,
    },
    /// For the rest of the safety phase.
    BrokerAway,
    Calm,
    Look,
    PullAtCloud {
        relay: usize,
        life: u64,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
        until: u64,
    },
    ConfirmAtCloud {
        relay: usize,
        life: u64,
        call: CallId,
        sub_app: SubAppId,
        handles: Vec<EventHandle>,
    },
    Store {
        flight: u64,
        relay: usize,
        event: EventId,
    },
    /// What concerns one process, and dies with it.
    Within {
        relay: usize,
        life: u64,
        what: Within,
    },
}

#[derive(Debug)]
enum Within {
    Step,
    PullLeaves { pull: PullId, sub_app: SubAppId },
    PullBack { pull: PullId, sub_app: SubAppId, sent_at: u64, result: Result<Vec<Bytes>, CallFailure> },
    ConfirmLeaves { call: CallId, sub_app: SubAppId, handles: Vec<EventHandle>, cutoff: Moment },
    ConfirmBack { call: CallId, sub_app: SubAppId, result: Result<(), CallFailure>, left: bool },
    PublishLeaves { event: EventId, parcel: Arc<Parcel>, alone: bool },
    PublishBack { flight: u64, outcome: PublishOutcome },
    Unsent { event: EventId },
    Commit,
    Replies(Vec<Input>),
    DrainEnds,
}

#[derive(Debug)]
struct Due {
    at: u64,
    number: u64,
    /// In a box: the heap moves it about.
    what: Box<Happening>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A publish under way.
#[derive(Debug)]
struct Flight {
    event: EventId,
    parcel: Arc<Parcel>,
    alone: bool,
}

/// What dies in a crash.
#[derive(Debug)]
struct Process {
    core: Core,
    inbox: Vec<Input>,
    step_due: bool,
    wake: Option<u64>,
    lane: VecDeque<Effect>,
    committing: Vec<Effect>,
    replied_at: u64,
    pulls: BTreeSet<PullId>,
    confirms: BTreeSet<CallId>,
    flights: BTreeMap<u64, Flight>,
    /// Calls whose end the core has not looked at yet.
    ended: Vec<Ended>,
    draining: bool,
}

/// How a call ended, for the pace of those that follow.
#[derive(Debug)]
enum Ended {
    Pull(SubAppId, u64, PullEnd),
    Confirm(SubAppId),
}

/// A host with a journal on its disk.
#[derive(Debug)]
struct Relay {
    journal: Journal,
    /// What is on the disk, while a bug has the memory run ahead of it.
    durable: Option<Journal>,
    process: Option<Process>,
    life: u64,
    linked: bool,
    blocked_until: u64,
    journal_up: bool,
    asleep_until: u64,
    wall_offset: i64,
}

impl Relay {
    fn on_disk(&self) -> &Journal {
        self.durable.as_ref().unwrap_or(&self.journal)
    }
}

/// One event that can be put.
#[derive(Clone, Debug)]
struct Text {
    sub_app: SubAppId,
    json: Arc<str>,
    content: usize,
}

/// Everything.
pub(crate) struct World {
    plan: Plan,
    sabotage: Option<Sabotage>,
    rng: fastrand::Rng,
    now: u64,
    number: u64,
    due: BinaryHeap<Reverse<Due>>,
    stormy: bool,
    stopping: bool,
    calm_since: u64,
    texts: Vec<Text>,
    queues: BTreeMap<SubAppId, Queue>,
    /// The content of each event of a queue, by its number.
    contents: HashMap<(SubAppId, EventNo), usize>,
    /// Events that the cloud forgot to have forgotten, or handed out too early under another handle: from then on they are
    /// others to the relay.
    surprising: BTreeSet<(SubAppId, EventNo)>,
    poisoned: BTreeSet<EventHandle>,
    relays: Vec<Relay>,
    next_flight: u64,
    cancelled: BTreeSet<u64>,
    checker: Checker,
    faults: [u32; Fault::ALL.len()],
    crashes: usize,
    put: usize,
    happened: u64,
    digest: u64,
    trace: bool,
    done: bool,
}

macro_rules! say {
    ($world:expr, $($words:tt)*) => {
        if $world.trace {
            eprintln!("{:>8} {}", $world.now - BEGIN, format_args!($($words)*));
        }
    };
}

/// Runs a plan to its end.
pub(crate) fn run(plan: &Plan, sabotage: Option<Sabotage>, trace: bool) -> Outcome {
    let mut world = World::new(plan.clone(), sabotage, trace);
    world.run();
    let checker = &world.checker;
    Outcome {
        violation: checker.violation.clone(),
        faults: world.faults,
        events: world.put,
        crashes: world.crashes,
        repeats: checker.repeats,
        rest_ms: if world.stormy { 0 } else { world.now - world.calm_since },
        digest: world.digest,
    }
}

impl World {
    fn new(plan: Plan, sabotage: Option<Sabotage>, trace: bool) -> Self {
        let settings = QueueSettings {
            window_ms: millis(plan.window.length),
            mixed: plan.mixed,
            refuse_repeats: plan.refuse_repeats,
            redelivery: plan.redelivery,
            ..QueueSettings::default()
        };
        let queue = |id: &SubAppId| (*id, Queue::new(id.0, plan.seed, settings.clone()));
        let relay = |_| Relay {
            journal: Journal::new(sabotage),
            durable: None,
            process: None,
            life: 0,
            linked: true,
            blocked_until: 0,
            journal_up: true,
            asleep_until: 0,
            wall_offset: plan.wall_offset_ms,
        };
        Self {
            sabotage,
            rng: fastrand::Rng::with_seed(plan.seed),
            now: BEGIN,
            number: 0,
            due: BinaryHeap::new(),
            stormy: true,
            stopping: false,
            calm_since: 0,
            texts: Vec::new(),
            queues: plan.sub_apps.iter().map(queue).collect(),
            contents: HashMap::new(),
            surprising: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            relays: (0..plan.relays).map(relay).collect(),
            next_flight: 0,
            cancelled: BTreeSet::new(),
            checker: Checker::new(plan.clone()),
            faults: [0; Fault::ALL.len()],
            crashes: 0,
            put: 0,
            happened: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace,
            done: false,
            plan,
        }
    }

    fn run(&mut self) {
        for relay in 0..self.relays.len() {
            let after = self.rng.u64(0..500);
            self.after(after, Happening::Start { relay });
        }
        for _ in 0..self.plan.events {
            let after = self.rng.u64(0..self.plan.safety_ms * 3 / 4);
            // Half of them come in bursts.
            let after = if self.rng.bool() { after } else { after / 10_000 * 10_000 };
            self.after(after, Happening::Put);
        }
        for fault in Fault::ALL.into_iter().filter(|fault| fault.comes_by_the_clock()) {
            let strikes = self.plan.safety_ms * u64::from(self.plan.rate(fault));
            let strikes = strikes / 1_000_000 + u64::from(self.rng.u64(0..1_000_000) < strikes % 1_000_000);
            for _ in 0..strikes {
                let after = self.rng.u64(0..self.plan.safety_ms);
                self.after(after, Happening::Clockwork(fault));
            }
        }
        if self.plan.theme == Theme::BrokerAway {
            // Soon after a burst, so that the relay has its hands full.
            let from = self.rng.u64(0..self.plan.safety_ms / 20_000) * 10_000 + self.rng.u64(0..3_000);
            self.after(from, Happening::BrokerAway);
        }
        self.after(self.plan.safety_ms, Happening::Calm);
        while !self.done && self.checker.violation.is_none() {
            let Some(Reverse(due)) = self.due.pop() else { break };
            self.now = self.now.max(due.at);
            self.checker.at(self.now);
            self.happened += 1;
            if self.happened > HAPPENINGS_MAX {
                self.checker.never_ended("more happened than ever should".into());
            }
            self.happen(*due.what);
        }
    }

    fn after(&mut self, ms: u64, what: Happening) {
        self.number += 1;
        self.due.push(Reverse(Due { at: self.now + ms, number: self.number, what: Box::new(what) }));
    }

    fn within(&mut self, relay: usize, ms: u64, what: Within) {
        let life = self.relays[relay].life;
        self.after(ms, Happening::Within { relay, life, what });
    }

    /// Whether a fault strikes here and now.
    fn strikes(&mut self, fault: Fault) -> bool {
        let rate = self.plan.rate(fault);
        let strikes = self.stormy && rate > 0 && self.rng.u16(0..1_000) < rate;
        if strikes {
            self.struck(fault);
        }
        strikes
    }

    fn struck(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
        say!(self, "! {fault:?}");
    }

    /// How long something takes that takes its usual time.
    fn trip(&mut self) -> u64 {
        if self.rng.u8(0..40) == 0 { self.rng.u64(20..300) } else { self.rng.u64(1..20) }
    }

    fn slow(&mut self, fault: Fault) -> u64 {
        let trip = self.trip();
        if self.strikes(fault) { trip + self.rng.u64(0..=self.plan.slow_ms) } else { trip }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Put => self.put(),
            Happening::Start { relay } => self.start(relay),
            Happening::Clockwork(fault) => self.clockwork(fault),
            Happening::OutputUp { relay, life } => {
                if self.relays[relay].life == life || self.relays[relay].process.is_none() {
                    self.relays[relay].linked = true;
                }
                self.tell_output(relay);
            }
            Happening::JournalUp { relay } => {
                self.relays[relay].journal_up = true;
                self.give(relay, Input::Journal(JournalState::Up));
            }
            Happening::BrokerAway => (0..self.relays.len()).for_each(|relay| self.disconnect(relay)),
            Happening::Calm => self.calm(),
            Happening::Look => self.look(),
            Happening::PullAtCloud { relay, life, pull, sub_app, sent_at, until } => {
                self.pull_at_cloud(relay, life, pull, sub_app, sent_at, until);
            }
            Happening::ConfirmAtCloud { relay, life, call, sub_app, handles } => {
                self.confirm_at_cloud(relay, life, call, sub_app, &handles);
            }
            Happening::Store { flight, relay, event } => self.store(flight, relay, event),
            Happening::Within { relay, life, what } => {
                if self.relays[relay].life != life || self.relays[relay].process.is_none() {
                    return;
                }
                let asleep_until = self.relays[relay].asleep_until;
                if self.now < asleep_until {
                    self.within(relay, asleep_until - self.now, what);
                    return;
                }
                self.in_process(relay, what);
            }
        }
    }

    fn in_process(&mut self, relay: usize, what: Within) {
        match what {
            Within::Step => self.step(relay),
            Within::PullLeaves { pull, sub_app } => self.pull_leaves(relay, pull, sub_app),
            Within::PullBack { pull, sub_app, sent_at, result } => {
                self.pull_back(relay, pull, sub_app, sent_at, result);
            }
            Within::ConfirmLeaves { call, sub_app, handles, cutoff } => {
                self.confirm_leaves(relay, call, sub_app, handles, cutoff);
            }
            Within::ConfirmBack { call, sub_app, result, left } => {
                if self.process(relay).confirms.remove(&call) {
                    say!(self, "relay {relay}: {call:?} {result:?}");
                    if left && result.is_err_and(|failure| failure != CallFailure::Refused) {
                        self.process(relay).ended.push(Ended::Confirm(sub_app));
                    }
                    let result = self.sabotage.map_or(result, |bug| bug.confirmed(result));
                    self.give(relay, Input::Confirmed { call, result });
                }
            }
            Within::PublishLeaves { event, parcel, alone } => {
                self.publish_leaves(relay, event, parcel, alone)
            }
            Within::PublishBack { flight, outcome } => self.publish_back(relay, flight, outcome),
            Within::Unsent { event } => {
                self.checker.publish_answered(relay, event, &PublishOutcome::Unsent, false);
                self.give(relay, Input::Published { event, outcome: PublishOutcome::Unsent });
            }
            Within::Commit => self.commit(relay),
            Within::Replies(inputs) => {
                for input in inputs {
                    self.give(relay, input);
                }
            }
            Within::DrainEnds => self.crash(relay),
        }
    }

    // --- processes ---

    fn process(&mut self, relay: usize) -> &mut Process {
        self.relays[relay].process.as_mut().expect("what is within a process comes while it lives")
    }

    fn start(&mut self, relay: usize) {
        if self.relays[relay].process.is_some() || self.stopping {
            return;
        }
        say!(self, "relay {relay} starts");
        let mut settings = self.plan.settings(self.rng.u64(..));
        if let Some(bug) = self.sabotage {
            bug.settings(&mut settings);
        }
        let now = self.now;
        let host = &mut self.relays[relay];
        host.journal.reopen();
        host.process = Some(Process {
            core: Core::new(settings, Moment(now)),
            inbox: Vec::new(),
            step_due: false,
            wake: None,
            lane: VecDeque::new(),
            committing: Vec::new(),
            replied_at: 0,
            pulls: BTreeSet::new(),
            confirms: BTreeSet::new(),
            flights: BTreeMap::new(),
            ended: Vec::new(),
            draining: false,
        });
        let journal_up = host.journal_up;
        let state = if journal_up { JournalState::Up } else { JournalState::Down("full".into()) };
        self.give(relay, Input::Journal(state));
        self.tell_output(relay);
    }

    fn tell_output(&mut self, relay: usize) {
        let host = &self.relays[relay];
        let state = match (host.linked, self.now < host.blocked_until) {
            (false, _) => OutputState::Down("gone".into()),
            (true, true) => OutputState::Blocked("alarm".into()),
            (true, false) => OutputState::Up,
        };
        self.give(relay, Input::Output(state));
    }

    fn crash(&mut self, relay: usize) {
        if self.relays[relay].process.is_none() {
            return;
        }
        say!(self, "relay {relay} dies");
        self.crashes += 1;
        self.end(relay);
        let host = &mut self.relays[relay];
        if let Some(durable) = host.durable.take() {
            host.journal = durable;
        }
    }

    fn end(&mut self, relay: usize) {
        let host = &mut self.relays[relay];
        host.life += 1;
        host.linked = true;
        host.blocked_until = 0;
        let flights = host.process.take().map(|process| process.flights).unwrap_or_default();
        for flight in flights.into_keys() {
            // What was in the socket may arrive or not.
            if self.rng.bool() {
                self.cancelled.insert(flight);
            }
        }
        self.checker.ended(relay);
        let after = self.rng.u64(100..if self.stormy { 15_000 } else { 1_000 });
        self.after(after, Happening::Start { relay });
    }

    /// Hands an input to a core, which looks at it a little later.
    fn give(&mut self, relay: usize, input: Input) {
        let Some(process) = &mut self.relays[relay].process else { return };
        process.inbox.push(input);
        if !process.step_due {
            process.step_due = true;
            let after = if self.strikes(Fault::Stall) { self.rng.u64(0..3_000) } else { self.rng.u64(0..2) };
            self.within(relay, after, Within::Step);
        }
    }

    fn step(&mut self, relay: usize) {
        let (now, trace) = (self.now, self.trace);
        let process = self.process(relay);
        let woken = process.wake.is_some_and(|at| at <= now);
        if !process.step_due && !woken {
            return;
        }
        process.step_due = false;
        process.wake = None;
        let mut inputs = std::mem::take(&mut process.inbox);
        if woken {
            inputs.push(Input::Tick);
        }
        for ended in std::mem::take(&mut process.ended) {
            match ended {
                Ended::Pull(sub_app, sent_at, end) => self.checker.pull_ended(relay, sub_app, sent_at, end),
                Ended::Confirm(sub_app) => self.checker.confirm_failed(relay, sub_app),
            }
        }
        let process = self.process(relay);
        let only_a_tick = inputs.iter().all(|input| matches!(input, Input::Tick));
        let told: Vec<String> = inputs.iter().filter(|_| trace).map(brief).collect();
        let effects = process.core.step(Moment(now), inputs);
        let (load, wake) = (process.core.load(), process.core.next_wake());
        for told in told {
            say!(self, "relay {relay} <- {told}");
        }
        self.checker.stepped(relay, &load, only_a_tick && effects.is_empty(), wake);
        self.mix(effects.len() as u64 ^ (load.events as u64) << 8 ^ (load.handles as u64) << 24);
        let dies_after = (!effects.is_empty() && self.strikes(Fault::CrashInStep))
            .then(|| self.rng.usize(0..=effects.len()));
        for (count, effect) in effects.into_iter().enumerate() {
            if dies_after == Some(count) {
                break;
            }
            self.carry_out(relay, effect);
            if self.relays[relay].process.is_none() {
                return;
            }
        }
        if dies_after.is_some() {
            self.crash(relay);
            return;
        }
        if let Some(wake) = wake {
            // A tick that is late by a moment, as timers are.
            let at = wake.0.max(now + 1);
            let process = self.process(relay);
            if process.wake.is_none_or(|earlier| at < earlier) {
                process.wake = Some(at);
                self.within(relay, at - now, Within::Step);
            }
        }
    }

    fn mix(&mut self, value: u64) {
        for part in [self.now, value] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn carry_out(&mut self, relay: usize, mut effect: Effect) {
        if let Some(bug) = self.sabotage {
            bug.effect(&mut effect);
        }
        let soon = self.rng.u64(0..4);
        match effect {
            Effect::Pull { pull, sub_app } => {
                self.checker.pull_asked(relay, sub_app);
                self.process(relay).pulls.insert(pull);
                self.within(relay, soon, Within::PullLeaves { pull, sub_app });
            }
            Effect::Publish { event, parcel, alone } => {
                self.within(relay, soon, Within::PublishLeaves { event, parcel, alone });
            }
            Effect::Confirm { call, sub_app, handles, cutoff } => {
                self.checker.confirm_asked(relay, sub_app);
                self.process(relay).confirms.insert(call);
                self.within(relay, soon, Within::ConfirmLeaves { call, sub_app, handles, cutoff });
            }
            Effect::Finished => {
                say!(self, "relay {relay} has drained");
                let process = self.process(relay);
                let unanswered = process.pulls.len()
                    + process.confirms.len()
                    + process.flights.len()
                    + process.lane.len()
                    + process.committing.len();
                self.checker.drained(relay, unanswered);
                self.end(relay);
            }
            effect => {
                self.run_ahead(relay, &effect);
                let process = self.process(relay);
                process.lane.push_back(effect);
                self.begin_commit(relay);
            }
        }
    }

    // --- the journal's lane ---

    /// Bugs that tell the core of a commit before there is one.
    fn run_ahead(&mut self, relay: usize, effect: &Effect) {
        match (self.sabotage, effect) {
            (Some(Sabotage::ConfirmedBeforeCommit), Effect::RecordPublished(events)) => {
                self.give(relay, Input::PublishRecorded(events.clone()));
            }
            (Some(Sabotage::PublishedBeforeCommit), Effect::Record { .. }) => {
                let host = &mut self.relays[relay];
                host.durable.get_or_insert_with(|| host.journal.clone());
                let (input, _) = self.apply(relay, effect);
                self.give(relay, input);
            }
            _ => {}
        }
    }

    fn begin_commit(&mut self, relay: usize) {
        let process = self.process(relay);
        if !process.committing.is_empty() || process.lane.is_empty() {
            return;
        }
        let count = process.lane.len().min(BATCH);
        process.committing = process.lane.drain(..count).collect();
        let takes = self.slow(Fault::CommitSlow);
        self.within(relay, takes, Within::Commit);
    }

    fn commit(&mut self, relay: usize) {
        if !self.relays[relay].journal_up {
            self.within(relay, 200, Within::Commit);
            return;
        }
        let batch = std::mem::take(&mut self.process(relay).committing);
        let mut replies = Vec::new();
        for effect in batch {
            match (self.sabotage, &effect) {
                (Some(Sabotage::PublishedBeforeCommit), Effect::Record { .. }) => {
                    self.relays[relay].durable = None;
                    continue;
                }
                (Some(Sabotage::ConfirmedBeforeCommit), Effect::RecordPublished(_)) => {
                    self.apply(relay, &effect);
                    continue;
                }
                _ => {}
            }
            let (input, what) = self.apply(relay, &effect);
            say!(self, "relay {relay} committed {what}");
            replies.push(input);
        }
        if self.strikes(Fault::CrashAfterCommit) {
            self.crash(relay);
            return;
        }
        // Replies keep the order of the commits.
        let now = self.now;
        let trip = self.rng.u64(0..3);
        let process = self.process(relay);
        process.replied_at = process.replied_at.max(now + trip);
        let after = process.replied_at - now;
        self.within(relay, after, Within::Replies(replies));
        self.begin_commit(relay);
    }

    /// Commits one piece of work, and says what the core is told of it.
    fn apply(&mut self, relay: usize, effect: &Effect) -> (Input, String) {
        let host = &mut self.relays[relay];
        let journal = &mut host.journal;
        let what = if self.trace { brief(effect) } else { String::new() };
        let input = match effect.clone() {
            Effect::Record { pull, answer, lease, received_at, pulled_at, publish_now, .. } => {
                let arrival = Arrival { answer, lease, received_at, pulled_at, publish_now };
                let mut recorded = journal.record(&arrival);
                let ids: Vec<EventId> = recorded.iter().map(|r| r.event).collect();
                self.checker.committed(relay, journal, Committed::Recorded(&ids));
                if self.trace {
                    for (event, recorded) in arrival.answer.events.iter().zip(&recorded) {
                        say_recorded(self.now, relay, event, recorded);
                    }
                }
                if let Some(bug) = self.sabotage {
                    bug.recorded(&mut recorded);
                }
                Input::Recorded { pull, recorded }
            }
            Effect::RecordPublished(events) => {
                journal.published(&events);
                self.checker.committed(relay, journal, Committed::Published(&events));
                Input::PublishRecorded(events)
            }
            Effect::RecordAttempts(failed) => {
                journal.attempts(&failed);
                Input::AttemptRecorded(failed.into_iter().map(|f| f.event).collect())
            }
            Effect::RecordParked(events) => {
                journal.parked(&events);
                let ids: Vec<EventId> = events.into_iter().map(|(event, _)| event).collect();
                self.checker.committed(relay, journal, Committed::Parked(&ids));
                Input::ParkRecorded(ids)
            }
            Effect::RecordConfirmed(confirmed) => {
                let ids: Vec<_> = confirmed.into_iter().map(|c| c.delivery).collect();
                journal.confirmed(&ids);
                self.checker.committed(relay, journal, Committed::Confirmed(&ids));
                Input::OutcomeRecorded
            }
            Effect::RecordLetGo(deliveries, why) => {
                journal.let_go(&deliveries, why == LetGo::Lost);
                Input::OutcomeRecorded
            }
            Effect::Settle { sub_app, received_before } => {
                journal.settle(sub_app, received_before);
                Input::SettleRecorded
            }
            Effect::Load { after, limit } => Input::Loaded(journal.load(after, limit)),
            Effect::Pull { .. } | Effect::Publish { .. } | Effect::Confirm { .. } | Effect::Finished => {
                unreachable!("not the journal's")
            }
        };
        (input, what)
    }

    // --- the cloud ---

    fn put(&mut self) {
        let equal = !self.texts.is_empty() && self.rng.u16(0..1_000) < self.plan.equal_per_mille;
        let recent = self.texts.len().saturating_sub(4)..self.texts.len();
        let earlier = equal.then(|| self.texts[self.rng.usize(recent)].clone());
        // Of equal events without handles the later ones cannot be told from the first one coming again.
        let text = match earlier.filter(|text| !text.json.starts_with('[')) {
            Some(text) => text,
            None => self.write(),
        };
        self.put += 1;
        self.checker.put(text.content);
        let queue = self.queues.get_mut(&text.sub_app).expect("made for each sub-application");
        let number = queue.put(self.now, text.json.clone());
        self.contents.insert((text.sub_app, number), text.content);
        say!(self, "put {} {:?} content {}: {}", text.sub_app, number, text.content, text.json);
    }

    /// Makes an event that nothing equals.
    fn write(&mut self) -> Text {
        let sub_app = self.plan.sub_apps[self.rng.usize(0..self.plan.sub_apps.len())];
        let n = self.texts.len();
        let per_mille = |rng: &mut fastrand::Rng, rate: u16| rng.u16(0..1_000) < rate;
        let bare = per_mille(&mut self.rng, self.plan.bare_per_mille);
        let unroutable = !bare && per_mille(&mut self.rng, self.plan.unroutable_per_mille);
        let refused = !bare && per_mille(&mut self.rng, self.plan.refused_per_mille);
        let fate = match (unroutable, refused) {
            (true, _) => UNROUTABLE,
            (_, true) => REFUSED,
            _ => "\"fine\"",
        };
        let json: Arc<str> = match self.rng.u8(0..4) {
            _ if bare => format!("[{n}, \"bare\"]"),
            0 => format!("{{\"n\":{n}, \"fate\":{fate}, \"EventType\":null}}"),
            1 => format!(
                "{{ \"fate\" :{fate},\"EventType\":\"T\",\"X\":{{\"id\":52854854879852{n:05}, \"z\":null}}}}"
            ),
            _ => format!("{{\"EventType\":\"Y\", \"n\":{n},\"fate\":{fate}}}"),
        }
        .into();
        let content = self.checker.content(bare, unroutable || refused);
        let text = Text { sub_app, json, content };
        self.texts.push(text.clone());
        text
    }

    fn pull_leaves(&mut self, relay: usize, pull: PullId, sub_app: SubAppId) {
        let sent_at = self.now;
        let give_up = Within::PullBack { pull, sub_app, sent_at, result: Err(CallFailure::Transient) };
        self.within(relay, self.plan.pull_timeout_ms, give_up);
        if self.strikes(Fault::PullRequestLost) {
            return;
        }
        let trip = self.trip();
        let life = self.relays[relay].life;
        let until = self.now + trip + self.plan.hold_ms;
        self.after(trip, Happening::PullAtCloud { relay, life, pull, sub_app, sent_at, until });
    }

    fn pull_at_cloud(
        &mut self,
        relay: usize,
        life: u64,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
        until: u64,
    ) {
        let now = self.now;
        let refusal = if self.strikes(Fault::PullThrottled) {
            Some(CallFailure::Throttled)
        } else if self.strikes(Fault::PullRefused) {
            let kinds = [
                CallFailure::Credentials,
                CallFailure::Clock,
                CallFailure::Configuration,
                CallFailure::Refused,
            ];
            Some(kinds[self.rng.usize(0..4)])
        } else {
            None
        };
        let mut answer_takes = self.trip();
        if let Some(failure) = refusal {
            let back = Within::PullBack { pull, sub_app, sent_at, result: Err(failure) };
            self.after(answer_takes, Happening::Within { relay, life, what: back });
            return;
        }
        let queue = self.queues.get_mut(&sub_app).expect("made for each sub-application");
        queue.advance(now);
        if queue.counts().visible == 0 && now < until {
            let next = queue.next_visible_at().unwrap_or(u64::MAX).min(until).min(now + 500);
            self.after(next - now, Happening::PullAtCloud { relay, life, pull, sub_app, sent_at, until });
            return;
        }
        let style = if self.strikes(Fault::HandleShared) {
            HandleStyle::OneForAll
        } else if self.strikes(Fault::HandleMissing) {
            HandleStyle::Missing
        } else if self.strikes(Fault::HandleNumber) {
            HandleStyle::Number
        } else {
            HandleStyle::Each
        };
        let queue = self.queues.get_mut(&sub_app).expect("made for each sub-application");
        let taken = queue.pull(now, 16, style);
        say!(self, "cloud hands {:?} out to relay {relay}", handed(&taken));
        let bodies: Vec<Bytes> = taken.iter().map(|delivered| Bytes::from(delivered.to_json())).collect();
        for (delivered, body) in taken.iter().zip(&bodies) {
            self.handed_out(sub_app, delivered, body);
        }
        if !taken.is_empty() {
            if self.strikes(Fault::PullAnswerLost) {
                return;
            }
            if self.relays[relay].life == life && self.strikes(Fault::CrashAfterHandOut) {
                self.crash(relay);
                return;
            }
        }
        if self.strikes(Fault::PullAnswerSlow) {
            answer_takes += self.rng.u64(0..45_000);
        }
        let back = Within::PullBack { pull, sub_app, sent_at, result: Ok(bodies) };
        self.after(answer_takes, Happening::Within { relay, life, what: back });
    }

    fn handed_out(&mut self, sub_app: SubAppId, delivered: &Delivered, body: &Bytes) {
        let content = self.contents[&(sub_app, delivered.number)];
        let key = (sub_app, delivered.number);
        let queue = &self.queues[&sub_app];
        let deliveries = &queue.event(delivered.number).expect("the ledger forgets nothing").deliveries;
        let (newest, earlier) = deliveries.split_last().expect("it was just delivered");
        let bare = delivered.body.starts_with('[');
        let known =
            !bare && newest.handle.is_some() && earlier.last().is_some_and(|d| d.handle == newest.handle);
        let early = earlier.last().is_some_and(|d| d.until > self.now);
        let how = if known {
            HandedOut::SameHandle
        } else if early || self.surprising.contains(&key) {
            self.surprising.insert(key);
            HandedOut::Surprise
        } else {
            HandedOut::Usual
        };
        self.checker.handed_out(sub_app, content, body, how);
        if let Some(handle) = &delivered.handle
            && self.strikes(Fault::HandlePoisoned)
        {
            say!(self, "handle {handle} is poisoned");
            self.queues.get_mut(&sub_app).expect("made for each").poison(handle);
            self.poisoned.insert(EventHandle(handle.clone()));
        }
    }

    fn pull_back(
        &mut self,
        relay: usize,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
        result: Result<Vec<Bytes>, CallFailure>,
    ) {
        let now = self.now;
        let dropped = self.sabotage == Some(Sabotage::DrainDropsPull) && self.process(relay).draining;
        if dropped || !self.process(relay).pulls.remove(&pull) {
            return;
        }
        let end = match &result {
            Err(_) => PullEnd::Failed,
            Ok(bodies) if bodies.is_empty() => PullEnd::Idle,
            Ok(_) => PullEnd::Brought,
        };
        say!(self, "relay {relay}: {pull:?} {end:?}");
        self.process(relay).ended.push(Ended::Pull(sub_app, sent_at, end));
        let request_id: Arc<str> = format!("r{}", self.number).into();
        let result = result.map(|bodies| {
            let parse = |body| Arc::new(Event::parse(sub_app, body).expect("the emulator writes JSON"));
            let mut answer = Answer { request_id, events: bodies.into_iter().map(parse).collect() };
            self.checker.answer_received(relay, sub_app, sent_at, &answer);
            if let Some(bug) = self.sabotage {
                bug.answer(&mut answer);
            }
            answer
        });
        let mut told_sent_at = Moment(sent_at);
        match self.sabotage {
            Some(Sabotage::LeaseFromAnswer) => told_sent_at = Moment(now),
            Some(Sabotage::SettledAtOnce) if end == PullEnd::Idle => {
                self.relays[relay].journal.settle(sub_app, Moment(u64::MAX));
            }
            _ => {}
        }
        let wall = now.cast_signed() + self.relays[relay].wall_offset;
        self.give(
            relay,
            Input::Pulled {
                pull,
                sent_at: told_sent_at,
                received_at: Moment(now),
                pulled_at: WallTime(wall),
                result,
            },
        );
    }

    fn confirm_leaves(
        &mut self,
        relay: usize,
        call: CallId,
        sub_app: SubAppId,
        handles: Vec<EventHandle>,
        cutoff: Moment,
    ) {
        let give_up = |left| Within::ConfirmBack { call, sub_app, result: Err(CallFailure::Transient), left };
        if Moment(self.now) >= cutoff {
            // The client sends nothing when no time is left.
            self.within(relay, 0, give_up(false));
            return;
        }
        say!(self, "relay {relay} confirms {handles:?} by {call:?}");
        self.checker.confirm_left(relay, sub_app, &handles, self.relays[relay].on_disk());
        let patience = CONFIRM_TIMEOUT_MS.min(cutoff.0 - self.now);
        self.within(relay, patience, give_up(true));
        if self.strikes(Fault::ConfirmRequestLost) {
            return;
        }
        let trip = self.slow(Fault::ConfirmSlow);
        let life = self.relays[relay].life;
        self.after(trip, Happening::ConfirmAtCloud { relay, life, call, sub_app, handles });
    }

    fn confirm_at_cloud(
        &mut self,
        relay: usize,
        life: u64,
        call: CallId,
        sub_app: SubAppId,
        handles: &[EventHandle],
    ) {
        let answer_takes = self.slow(Fault::ConfirmSlow);
        let result = if self.strikes(Fault::ConfirmThrottled) {
            Err(CallFailure::Throttled)
        } else if self.strikes(Fault::ConfirmDenied) {
            let kinds = [CallFailure::Credentials, CallFailure::Clock, CallFailure::Configuration];
            Err(kinds[self.rng.usize(0..3)])
        } else if self.strikes(Fault::ConfirmForgotten) {
            self.confirm_forgotten(sub_app, handles);
            Ok(())
        } else {
            let queue = self.queues.get_mut(&sub_app).expect("made for each sub-application");
            let texts: Vec<&str> = handles.iter().map(|handle| &*handle.0).collect();
            let before: Vec<Vec<EventNo>> = texts.iter().map(|text| behind(queue, text)).collect();
            let result = queue.confirm(self.now, &texts);
            let gone = |number: &EventNo| queue.event(*number).is_some_and(|e| e.confirmed_at.is_some());
            let mut deleted = Vec::new();
            for (handle, numbers) in handles.iter().zip(&before) {
                for number in numbers.iter().filter(|number| gone(number)) {
                    deleted.push((handle.clone(), self.contents[&(sub_app, *number)]));
                }
            }
            say!(self, "cloud: {call:?} {:?}", result.verdicts);
            self.checker.confirm_arrived(relay, sub_app, handles, &deleted);
            if result.is_ok() { Ok(()) } else { Err(CallFailure::Refused) }
        };
        if self.relays[relay].life == life && self.strikes(Fault::CrashAfterConfirm) {
            self.crash(relay);
            return;
        }
        if self.strikes(Fault::ConfirmAnswerLost) {
            return;
        }
        let back = Within::ConfirmBack { call, sub_app, result, left: true };
        self.after(answer_takes, Happening::Within { relay, life, what: back });
    }

    /// The cloud says yes and keeps the events.
    fn confirm_forgotten(&mut self, sub_app: SubAppId, handles: &[EventHandle]) {
        let queue = &self.queues[&sub_app];
        for handle in handles {
            for number in behind(queue, &handle.0) {
                self.surprising.insert((sub_app, number));
            }
        }
    }

    // --- the broker ---

    fn publish_leaves(&mut self, relay: usize, event: EventId, parcel: Arc<Parcel>, alone: bool) {
        let host = &self.relays[relay];
        if !host.linked {
            let trip = self.rng.u64(0..5);
            self.within(relay, trip, Within::Unsent { event });
            return;
        }
        if self.now < host.blocked_until {
            let wait = host.blocked_until - self.now;
            self.within(relay, wait, Within::PublishLeaves { event, parcel, alone });
            return;
        }
        self.checker.publish_left(relay, event, &parcel, host.on_disk());
        say!(self, "relay {relay} publishes event {} occurrence {}", event.0, parcel.occurrence);
        self.next_flight += 1;
        let flight = self.next_flight;
        let body = String::from_utf8_lossy(&parcel.event.body);
        let (unroutable, refused) = (body.contains(UNROUTABLE), body.contains(REFUSED));
        self.process(relay).flights.insert(flight, Flight { event, parcel, alone });
        let there = self.slow(Fault::PublishSlow);
        let back = there + self.trip();
        if self.sabotage == Some(Sabotage::AckedWhenSent) {
            self.give(relay, Input::Published { event, outcome: PublishOutcome::Acked });
        }
        let lost = || PublishOutcome::Unknown { reason: "no answer".into(), suspect: false };
        let returned = || PublishOutcome::Returned { code: 312, text: "NO_ROUTE".into() };
        let mut stores = None;
        let (outcome, takes) = if refused {
            (PublishOutcome::ChannelError { code: 406, text: "PRECONDITION_FAILED".into() }, back)
        } else if unroutable || self.strikes(Fault::Return) {
            (returned(), back)
        } else if self.strikes(Fault::Nack) {
            (PublishOutcome::Nacked, back)
        } else if self.strikes(Fault::UnknownLost) {
            (lost(), back + 1_000)
        } else if self.strikes(Fault::UnknownStored) {
            stores = Some(there);
            (lost(), back + 1_000)
        } else if self.strikes(Fault::UnknownThenStored) {
            let later = self.rng.u64(1_000..20_000);
            stores = Some(back + later);
            (lost(), back)
        } else {
            stores = Some(there);
            (PublishOutcome::Acked, back)
        };
        if let Some(after) = stores {
            self.after(after, Happening::Store { flight, relay, event });
        }
        self.within(relay, takes, Within::PublishBack { flight, outcome });
    }

    fn store(&mut self, flight: u64, relay: usize, event: EventId) {
        if self.cancelled.remove(&flight) {
            return;
        }
        say!(self, "broker stores event {} of relay {relay}", event.0);
        self.checker.stored(relay, event, self.relays[relay].on_disk());
        let under_way = self.relays[relay].process.as_ref().is_some_and(|p| p.flights.contains_key(&flight));
        if under_way && self.strikes(Fault::CrashAfterStore) {
            self.crash(relay);
        }
    }

    fn publish_back(&mut self, relay: usize, flight: u64, outcome: PublishOutcome) {
        let Some(Flight { event, parcel, alone }) = self.process(relay).flights.remove(&flight) else {
            return;
        };
        say!(self, "broker on event {} of relay {relay}: {outcome:?}", event.0);
        self.checker.publish_answered(relay, event, &outcome, true);
        if matches!(outcome, PublishOutcome::ChannelError { .. }) && !alone {
            // The channel is closed: its other publishes have no answer, and one of them may be the next culprit.
            let siblings: Vec<u64> =
                self.process(relay).flights.iter().filter(|(_, f)| !f.alone).map(|(id, _)| *id).collect();
            for sibling in siblings {
                if self.rng.bool() {
                    self.lose(relay, sibling, true);
                }
            }
        }
        match self.sabotage {
            Some(Sabotage::AckedWhenSent) => return,
            Some(Sabotage::NoPublishWait) if outcome == PublishOutcome::Nacked => {
                self.within(relay, 1, Within::PublishLeaves { event, parcel, alone });
                return;
            }
            _ => {}
        }
        let outcome = self.sabotage.map_or(outcome.clone(), |bug| bug.outcome(outcome));
        self.give(relay, Input::Published { event, outcome });
    }

    /// A publish loses its answer; what has not arrived yet may arrive all the same, or never.
    fn lose(&mut self, relay: usize, flight: u64, suspect: bool) {
        if self.rng.bool() {
            self.cancelled.insert(flight);
        }
        let reason: Arc<str> = "the channel was closed".into();
        self.publish_back(relay, flight, PublishOutcome::Unknown { reason, suspect });
    }

    // --- faults that come by the clock ---

    fn clockwork(&mut self, fault: Fault) {
        if !self.stormy {
            return;
        }
        let relay = self.rng.usize(0..self.relays.len());
        let lasts = self.rng.u64(200..20_000);
        self.struck(fault);
        match fault {
            Fault::Crash => self.crash(relay),
            Fault::ConnectionLost => {
                if !self.relays[relay].linked {
                    return;
                }
                self.disconnect(relay);
                let life = self.relays[relay].life;
                self.after(lasts, Happening::OutputUp { relay, life });
            }
            Fault::Blocked => {
                self.relays[relay].blocked_until = self.now + lasts;
                self.tell_output(relay);
                let life = self.relays[relay].life;
                self.after(lasts, Happening::OutputUp { relay, life });
            }
            Fault::JournalDown => {
                self.relays[relay].journal_up = false;
                self.give(relay, Input::Journal(JournalState::Down("full".into())));
                self.after(lasts, Happening::JournalUp { relay });
            }
            Fault::Suspend => {
                let longer = lasts * 3;
                let asleep_until = &mut self.relays[relay].asleep_until;
                *asleep_until = (*asleep_until).max(self.now + longer);
            }
            Fault::WallJump => self.relays[relay].wall_offset = self.rng.i64(-4_000_000..4_000_000),
            Fault::Drain => self.drain(relay),
            Fault::EarlySameHandle => self.early(Redelivery::SameHandle),
            Fault::EarlyNewHandle => self.early(Redelivery::NewHandle),
            _ => unreachable!("it comes by the occasion"),
        }
    }

    fn disconnect(&mut self, relay: usize) {
        if self.relays[relay].process.is_none() {
            return;
        }
        self.relays[relay].linked = false;
        let flights: Vec<u64> = self.process(relay).flights.keys().copied().collect();
        for flight in flights {
            self.lose(relay, flight, false);
        }
        self.tell_output(relay);
    }

    fn early(&mut self, under: Redelivery) {
        let now = self.now;
        for queue in self.queues.values_mut() {
            queue.advance(now);
            let hidden: Vec<EventNo> = queue.hidden().map(|(_, number)| number).collect();
            for number in hidden {
                // Part of the events of one handle under that handle again: its confirm would delete the others as well,
                // which the relay may never have met. No relay could know.
                let shared = last_handle(queue, number).is_some_and(|handle| {
                    let mut all = (1..=queue.counts().put).map(EventNo);
                    all.any(|other| other != number && last_handle(queue, other) == Some(handle))
                });
                if self.rng.bool() {
                    queue.force_redeliver(number, if shared { Redelivery::NewHandle } else { under });
                }
            }
        }
    }

    fn drain(&mut self, relay: usize) {
        let Some(process) = &mut self.relays[relay].process else { return };
        if process.draining {
            return;
        }
        say!(self, "relay {relay} is to drain");
        process.draining = true;
        let pulls: Vec<PullId> = process.pulls.iter().copied().collect();
        if self.sabotage == Some(Sabotage::DrainDropsPull) {
            for pull in pulls {
                let (sent_at, received_at) = (Moment(self.now), Moment(self.now));
                let result = Err(CallFailure::Transient);
                self.give(
                    relay,
                    Input::Pulled { pull, sent_at, received_at, pulled_at: WallTime(0), result },
                );
            }
        }
        self.give(relay, Input::Drain);
        if self.stormy {
            self.within(relay, DRAIN_MS, Within::DrainEnds);
        }
    }

    // --- the end ---

    /// No fault strikes from now on, and what is broken is mended.
    fn calm(&mut self) {
        say!(self, "all is well from now on");
        self.stormy = false;
        self.calm_since = self.now;
        for queue in self.queues.values_mut() {
            queue.heal();
        }
        for relay in 0..self.relays.len() {
            self.relays[relay].blocked_until = self.relays[relay].blocked_until.min(self.now);
            self.relays[relay].linked = true;
            self.relays[relay].journal_up = true;
            self.give(relay, Input::Journal(JournalState::Up));
            self.tell_output(relay);
        }
        self.after(500, Happening::Look);
    }

    fn look(&mut self) {
        let waited = self.now - self.calm_since;
        if self.stopping {
            if self.relays.iter().all(|host| host.process.is_none()) {
                self.finish();
                return;
            }
        } else if let Some(why) = self.not_at_rest() {
            if waited > REST_MS {
                self.checker.never_ended(format!("{waited} ms after the last fault {why}"));
                return;
            }
        } else {
            self.stopping = true;
            for relay in 0..self.relays.len() {
                self.drain(relay);
            }
        }
        if waited > REST_MS + DRAIN_MS {
            self.checker.never_ended("a drain without any fault is not over".into());
            return;
        }
        self.after(500, Happening::Look);
    }

    /// What is still under way, if anything is.
    fn not_at_rest(&self) -> Option<String> {
        if self.now < self.calm_since + self.plan.pull_timeout_ms {
            return Some("a slow answer may be on its way".into());
        }
        for (sub_app, queue) in &self.queues {
            let left = (1..=queue.counts().put).filter_map(|number| queue.event(EventNo(number)));
            let left =
                left.filter(|event| event.confirmed_at.is_none() && !event.json.starts_with('[')).count();
            if left > 0 {
                return Some(format!("the cloud has {left} events of {sub_app}"));
            }
        }
        if let Some(content) = self.checker.nowhere() {
            return Some(format!("content {content} is nowhere"));
        }
        for (at, host) in self.relays.iter().enumerate() {
            if self.now < host.asleep_until + 1_000 {
                return Some(format!("relay {at} is hardly awake"));
            }
            let Some(process) = &host.process else { return Some(format!("relay {at} is not running")) };
            let load = process.core.load();
            if load.events + load.publishing + load.handles > 0 || load.backlog {
                return Some(format!("relay {at} holds {load:?}"));
            }
            if process.draining || !process.lane.is_empty() || !process.committing.is_empty() {
                return Some(format!("relay {at} is busy"));
            }
            for (id, row) in host.journal.rows.iter().enumerate() {
                let bare = row.event.body.starts_with(b"[");
                if !(row.published || row.parked) || !(row.confirmed || bare) {
                    return Some(format!("relay {at} has event {} under way: {row:?}", id + 1));
                }
            }
        }
        None
    }

    fn finish(&mut self) {
        self.done = true;
        let journals: Vec<&Journal> = self.relays.iter().map(|host| &host.journal).collect();
        self.checker.at_the_end(&journals);
        for (sub_app, queue) in &self.queues {
            for event in queue.ledger().events {
                let content = self.contents[&(*sub_app, event.number)];
                let poisoned = |handle: &Arc<str>| self.poisoned.contains(&EventHandle(handle.clone()));
                let bad = event.deliveries.iter().any(|d| d.handle.as_ref().is_some_and(poisoned));
                let first = event.deliveries.first().map(|d| d.at);
                let waited = event.confirmed_at.zip(first).map(|(end, begin)| end - begin);
                self.checker.neighbour(content, bad, event.deliveries.len(), waited);
            }
        }
        let confirms: usize = self.queues.values().map(|queue| queue.ledger().confirms.len()).sum();
        self.mix(confirms as u64);
    }
}

/// The events that a confirm of this handle may delete.
fn behind(queue: &Queue, handle: &str) -> Vec<EventNo> {
    let latest = |number: &EventNo| {
        queue.event(*number).is_some_and(|event| {
            event.confirmed_at.is_none()
                && event.deliveries.last().is_some_and(|d| d.handle.as_deref() == Some(handle))
        })
    };
    (1..=queue.counts().put).map(EventNo).filter(latest).collect()
}

/// The handle that an event would keep.
fn last_handle(queue: &Queue, number: EventNo) -> Option<&str> {
    queue.event(number)?.deliveries.iter().rev().find_map(|delivery| delivery.handle.as_deref())
}

fn handed(taken: &[Delivered]) -> Vec<(u64, Option<&str>)> {
    taken.iter().map(|d| (d.number.0, d.handle.as_deref())).collect()
}

fn say_recorded(now: u64, relay: usize, event: &Event, recorded: &Recorded) {
    let Recorded { event: id, delivery, occurrence, redelivered, progress, .. } = recorded;
    let body = String::from_utf8_lossy(&event.body);
    let again = if *redelivered { "again" } else { "new" };
    eprintln!(
        "{:>8} relay {relay} recorded {again} event {} occurrence {occurrence} delivery {} {progress:?}: {body}",
        now - BEGIN,
        id.0,
        delivery.0
    );
}

fn brief(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.chars().take(200).collect()
}
