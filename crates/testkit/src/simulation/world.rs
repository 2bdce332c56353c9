//! The world around the core: virtual time, the cloud, the broker, the journal's lane, and everything that goes wrong.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tencent_vod_emulator::ledger::EventRecord;
use tencent_vod_emulator::queue::{Delivered, EventNo, HandleStyle, Queue, QueueSettings, Redelivery};
use tencent_vod_event::{Event, EventHandle, SubAppId};
use vodrelay_core::clock::{Moment, WallTime};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::identity::{EventId, Recorded};
use vodrelay_core::machine::{Answer, ConfirmAfter, ConfirmId, Core, Effect, Input};
use vodrelay_core::outcome::{JournalState, OutputState, Problem, PublishOutcome, RequestFailure};
use vodrelay_core::outgoing::Outgoing;
use vodrelay_core::write::{LetGo, PullId, Write, Written};

use super::check::{Api, Checker, Committed, HandedOut, PullEnd, Violation, millis};
use super::journal::{Boot, Journal, Row};
use super::plan::{Fault, Plan, Theme};
use super::sabotage::Sabotage;

/// When virtual time begins. Not zero, so that moments before the beginning can be told.
pub const BEGIN: u64 = 1_000_000;
/// After the faults have ended, everything must have come to rest within this, and a wait for each roomful of events without a
/// queue: while nothing is routable, each of them stays in hand until it may be parked.
const REST_MS: u64 = 1_500_000;
const UNROUTABLE_WAIT_MS: u64 = 640_000;
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
/// And what breaks the connection.
const BREAKS: &str = "\"breaks\"";
/// Fewer of these than have room with the smallest `max_in_flight`: a relay whose hands are full of them waits.
const BREAKING_MAX: usize = 6;
/// While an event that breaks the connection waits for others to get through, an event is put this often.
const BESIDE_MS: u64 = 10_000;

/// What a run of one seed came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What must not be.
    pub violation: Option<Violation>,
    /// How often each fault struck, in the order of [`Fault::ALL`].
    pub faults: [u32; Fault::ALL.len()],
    /// Events put.
    pub events: usize,
    /// Processes that died.
    pub crashes: usize,
    /// Repeats at the broker, each explained.
    pub repeats: usize,
    /// How long it took from the end of the faults until all was at rest, in virtual milliseconds.
    pub rest_ms: u64,
    /// A digest of all that happened: equal for equal runs.
    pub digest: u64,
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
    /// At the cloud's door.
    PullArrives {
        relay: usize,
        life: u64,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
    },
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
        request: ConfirmId,
        sub_app: SubAppId,
        handles: Vec<EventHandle>,
    },
    ProofAtCloud {
        relay: usize,
        life: u64,
        request: ConfirmId,
        sub_app: SubAppId,
    },
    Store {
        flight: u64,
        relay: usize,
        event: EventId,
    },
    /// The connection breaks under a publish.
    Break {
        flight: u64,
        relay: usize,
        life: u64,
    },
    /// The exchange loses its queue, for so long.
    Unbind {
        lasts: u64,
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
    PullRested { pull: PullId, sub_app: SubAppId },
    PullBack { pull: PullId, sub_app: SubAppId, sent_at: u64, result: Result<Vec<Bytes>, RequestFailure> },
    ConfirmLeaves { request: ConfirmId, sub_app: SubAppId, handles: Vec<EventHandle>, cutoff: Moment },
    ConfirmBack { request: ConfirmId, sub_app: SubAppId, result: Result<(), RequestFailure>, left: bool },
    ProofLeaves { request: ConfirmId, sub_app: SubAppId },
    ProofBack { request: ConfirmId, sub_app: SubAppId, result: Result<(), RequestFailure> },
    PublishLeaves { event: EventId, outgoing: Arc<Outgoing>, alone: bool },
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
    outgoing: Arc<Outgoing>,
    alone: bool,
}

/// What dies in a crash.
#[derive(Debug)]
struct Process {
    core: Core,
    inbox: Vec<Input>,
    step_due: bool,
    wake: Option<u64>,
    lane: VecDeque<Write>,
    committing: Vec<Write>,
    replied_at: u64,
    pulls: BTreeSet<PullId>,
    confirms: BTreeSet<ConfirmId>,
    proofs: BTreeSet<ConfirmId>,
    flights: BTreeMap<u64, Flight>,
    /// Requests whose end the core has not looked at yet.
    ended: Vec<Ended>,
    /// The handles of answers that are not recorded yet, and when their pulls left.
    arrived: BTreeMap<PullId, (SubAppId, u64, Vec<EventHandle>)>,
    /// Whether the core waits for unpublished events of the journal.
    loading: bool,
    draining: bool,
    /// Which polls rest, for a deliberate bug.
    rests: routing::Rests,
}

/// How a request ended, for the pace of those that follow.
#[derive(Debug)]
enum Ended {
    Pull(SubAppId, u64, PullEnd),
    Confirm(SubAppId),
    ConfirmThrottled,
    Publish(EventId, PublishOutcome),
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
    boot: Boot,
    /// Whether the host booted since the last process ended.
    rebooted: bool,
    /// Whether the journal was copied since it was closed.
    copied: bool,
    /// A copy of the journal as it was once.
    kept: Option<Box<Journal>>,
    /// The configuration: which queues, and the proof that a confirm needs.
    wanted: Vec<SubAppId>,
    confirm_after: ConfirmAfter,
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
pub struct World {
    plan: Plan,
    sabotage: Option<Sabotage>,
    rng: fastrand::Rng,
    now: u64,
    number: u64,
    due: BinaryHeap<Reverse<Due>>,
    stormy: bool,
    stopping: bool,
    /// Events that break the connection.
    breaking: usize,
    calm_since: u64,
    /// How long after that everything must have come to rest.
    rest_within_ms: u64,
    texts: Vec<Text>,
    queues: BTreeMap<SubAppId, Queue>,
    /// The content of each event of a queue, by its number.
    contents: HashMap<(SubAppId, EventNo), usize>,
    /// Events that the cloud forgot to have forgotten, or handed out too early under another handle: from then on they are
    /// others to the relay.
    surprising: BTreeSet<(SubAppId, EventNo)>,
    poisoned: BTreeSet<EventHandle>,
    pull_limit: Limiter,
    confirm_limit: Limiter,
    others_take_all_until: u64,
    /// Until then the exchange has no queue.
    unbound_until: u64,
    /// Whether an operator bound a queue for what had none.
    mended: bool,
    /// Whether everything that was parked is or was released at the end, and where it still is to be.
    released: bool,
    to_release: BTreeSet<usize>,
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

mod broker;
mod change;
mod cloud;
mod lane;
mod limit;
mod process;
mod routing;

use limit::Limiter;

fn problem(words: &str) -> Problem {
    Problem::new(ErrorCode::BrokerUnreachable, words)
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, sabotage: Option<Sabotage>, trace: bool) -> Outcome {
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
            boot: Boot::default(),
            rebooted: false,
            copied: false,
            kept: None,
            wanted: plan.sub_apps.clone(),
            confirm_after: plan.confirm_after,
        };
        Self {
            sabotage,
            rng: fastrand::Rng::with_seed(plan.seed),
            now: BEGIN,
            number: 0,
            due: BinaryHeap::new(),
            stormy: true,
            stopping: false,
            breaking: 0,
            calm_since: 0,
            rest_within_ms: REST_MS,
            texts: Vec::new(),
            queues: plan.sub_apps.iter().map(queue).collect(),
            contents: HashMap::new(),
            surprising: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            pull_limit: Limiter::new(&plan),
            confirm_limit: Limiter::new(&plan),
            others_take_all_until: 0,
            unbound_until: 0,
            mended: false,
            released: false,
            to_release: BTreeSet::new(),
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
            // What came later draws nothing where it never strikes, so that the seeds keep their meaning.
            if matches!(fault, Fault::Reload | Fault::Unbound) && self.plan.rate(fault) == 0 {
                continue;
            }
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
        if self.plan.theme == Theme::Unbound {
            let (from, lasts) = self.plan.unbound_ms;
            self.after(from, Happening::Unbind { lasts });
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
            Happening::PullArrives { relay, life, pull, sub_app, sent_at } => {
                self.pull_arrives(relay, life, pull, sub_app, sent_at);
            }
            Happening::PullAtCloud { relay, life, pull, sub_app, sent_at, until } => {
                self.pull_at_cloud(relay, life, pull, sub_app, sent_at, until);
            }
            Happening::ConfirmAtCloud { relay, life, request, sub_app, handles } => {
                self.confirm_at_cloud(relay, life, request, sub_app, &handles);
            }
            Happening::ProofAtCloud { relay, life, request, sub_app } => {
                self.proof_at_cloud(relay, life, request, sub_app);
            }
            Happening::Store { flight, relay, event } => self.store(flight, relay, event),
            Happening::Break { flight, relay, life } => self.break_under(flight, relay, life),
            Happening::Unbind { lasts } => self.unbind(lasts),
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
            Within::PullRested { pull, sub_app } => {
                self.checker.pull_asked(relay, sub_app);
                self.pull_leaves(relay, pull, sub_app);
            }
            Within::PullBack { pull, sub_app, sent_at, result } => {
                self.pull_back(relay, pull, sub_app, sent_at, result);
            }
            Within::ConfirmLeaves { request, sub_app, handles, cutoff } => {
                self.confirm_leaves(relay, request, sub_app, handles, cutoff);
            }
            Within::ProofLeaves { request, sub_app } => self.proof_leaves(relay, request, sub_app),
            Within::ProofBack { request, sub_app, result } => {
                self.proof_back(relay, request, sub_app, result)
            }
            Within::ConfirmBack { request, sub_app, result, left } => {
                if self.process(relay).confirms.remove(&request) {
                    say!(self, "relay {relay}: {request:?} {result:?}");
                    match result {
                        Err(RequestFailure::Throttled) => {
                            self.process(relay).ended.push(Ended::ConfirmThrottled)
                        }
                        Err(RequestFailure::Refused) | Ok(()) => {}
                        Err(_) if left => self.process(relay).ended.push(Ended::Confirm(sub_app)),
                        Err(_) => {}
                    }
                    let result = self.sabotage.map_or(result, |bug| bug.confirmed(result));
                    self.give(relay, Input::Confirmed { request, result });
                }
            }
            Within::PublishLeaves { event, outgoing, alone } => {
                self.publish_leaves(relay, event, outgoing, alone)
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
                self.give(relay, Input::Journal(JournalState::Down(problem("full"))));
                self.after(lasts, Happening::JournalUp { relay });
            }
            Fault::Suspend => {
                let longer = lasts * 3;
                let asleep_until = &mut self.relays[relay].asleep_until;
                *asleep_until = (*asleep_until).max(self.now + longer);
            }
            Fault::WallJump => {
                self.relays[relay].wall_offset = self.rng.i64(-4_000_000..4_000_000);
                self.checker.wall_is_wrong(relay);
            }
            Fault::Drain => self.drain(relay),
            Fault::Reload => self.reload(relay),
            Fault::OthersTakeAll => {
                self.others_take_all_until = self.others_take_all_until.max(self.now + lasts);
            }
            Fault::Unbound => self.unbind(3_000 + 4 * lasts),
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
                let result = Err(RequestFailure::Transient);
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

    /// No fault strikes from now on, and what is broken is mended.
    fn calm(&mut self) {
        say!(self, "all is well from now on");
        self.stormy = false;
        self.calm_since = self.now;
        let is_bad = |json: &str| json.contains(UNROUTABLE) || json.contains(REFUSED);
        let unroutable = self.unconfirmed().filter(|(_, event)| is_bad(&event.json)).count();
        let roomfuls = unroutable / self.plan.max_in_flight;
        // Two relays hand such an event to and fro, and each begins to count anew.
        let both = if unroutable > 0 { 4 * (self.relays.len() - 1) } else { 0 };
        let roomfuls = u64::try_from(roomfuls + both).unwrap_or(u64::MAX);
        self.rest_within_ms = REST_MS + UNROUTABLE_WAIT_MS * roomfuls;
        self.others_take_all_until = self.now;
        self.unbound_until = self.now;
        for queue in self.queues.values_mut() {
            queue.heal();
        }
        for relay in 0..self.relays.len() {
            self.relays[relay].blocked_until = self.relays[relay].blocked_until.min(self.now);
            self.relays[relay].linked = true;
            self.relays[relay].journal_up = true;
            self.give(relay, Input::Journal(JournalState::Up));
            self.tell_output(relay);
            let all = self.plan.sub_apps.clone();
            self.configure(relay, all);
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
            if waited > self.rest_within_ms {
                for process in self.relays.iter().filter_map(|host| host.process.as_ref()) {
                    say!(self, "{:?}", process.core);
                }
                self.checker.never_ended(format!("{waited} ms after the last fault {why}"));
                return;
            }
            if waited.is_multiple_of(BESIDE_MS) && self.breaks_waiting() {
                self.put_beside();
            }
        } else if !self.release_all() {
            self.stopping = true;
            for relay in 0..self.relays.len() {
                self.drain(relay);
            }
        }
        if waited > self.rest_within_ms + DRAIN_MS {
            self.checker.never_ended("a drain without any fault is not over".into());
            return;
        }
        self.after(500, Happening::Look);
    }

    /// The events that the cloud still has.
    fn unconfirmed(&self) -> impl Iterator<Item = (SubAppId, &EventRecord)> {
        self.queues.iter().flat_map(|(sub_app, queue)| {
            let all = (1..=queue.counts().put).filter_map(|number| queue.event(EventNo(number)));
            all.filter(|event| event.confirmed_at.is_none()).map(|event| (*sub_app, event))
        })
    }

    /// Whether an event that breaks the connection is still to be given up: others must get through meanwhile.
    fn breaks_waiting(&self) -> bool {
        let waits = |row: &Row| {
            let done = row.published || row.parked || row.pruned;
            !done && row.event.body.windows(BREAKS.len()).any(|part| part == BREAKS.as_bytes())
        };
        self.plan.rate(Fault::EventBreaks) > 0
            && (self.checker.breaks_waiting()
                || self.relays.iter().any(|host| host.journal.rows.iter().any(waits)))
    }

    /// What is still under way, if anything is.
    fn not_at_rest(&self) -> Option<String> {
        if self.now < self.calm_since + self.plan.pull_timeout_ms {
            return Some("a slow answer may be on its way".into());
        }
        if !self.to_release.is_empty() {
            return Some(format!("parked events of relays {:?} are to be released", self.to_release));
        }
        for sub_app in self.queues.keys() {
            let left = self.unconfirmed().filter(|(of, event)| of == sub_app && !event.json.starts_with('['));
            let left = left.count();
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
            for (id, row) in host.journal.rows.iter().enumerate().filter(|(_, row)| !row.pruned) {
                let bare = row.event.body.starts_with(b"[");
                if !(row.published || row.parked) || !(row.confirmed || bare || self.plan.bare_per_mille > 0)
                {
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
