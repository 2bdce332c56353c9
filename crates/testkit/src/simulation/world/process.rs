//! Processes with the real core in them: how they start, step, carry effects out, and die.

use super::*;

impl World {
    pub(super) fn process(&mut self, relay: usize) -> &mut Process {
        self.relays[relay].process.as_mut().expect("what is within a process comes while it lives")
    }

    pub(super) fn start(&mut self, relay: usize) {
        if self.relays[relay].process.is_some() || self.stopping {
            return;
        }
        say!(self, "relay {relay} starts");
        let mut settings = self.plan.settings(self.rng.u64(..));
        settings.sub_apps.clone_from(&self.relays[relay].wanted);
        settings.relay.confirm_after = self.relays[relay].confirm_after;
        if let Some(bug) = self.sabotage {
            bug.settings(&mut settings);
        }
        let now = self.now;
        let host = &mut self.relays[relay];
        let boot = Boot { opened: Moment(now), ..host.boot };
        if std::mem::take(&mut host.rebooted) {
            self.checker.rebooted(relay, &host.journal);
        }
        if host.copied {
            self.checker.copied(relay);
        }
        self.checker.configured(relay, &host.wanted, host.confirm_after);
        self.checker.opened(relay, &host.journal);
        host.journal.reopen(boot, std::mem::take(&mut host.copied));
        host.journal.unwanted = self.plan.sub_apps.clone();
        host.journal.unwanted.retain(|id| !host.wanted.contains(id));
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
            proofs: BTreeSet::new(),
            flights: BTreeMap::new(),
            ended: Vec::new(),
            arrived: BTreeMap::new(),
            loading: false,
            draining: false,
            rests: routing::Rests::default(),
        });
        let journal_up = host.journal_up;
        let state = if journal_up { JournalState::Up } else { JournalState::Down(problem("full")) };
        self.give(relay, Input::Journal(state));
        self.tell_output(relay);
    }

    pub(super) fn tell_output(&mut self, relay: usize) {
        let host = &self.relays[relay];
        let state = match (host.linked, self.now < host.blocked_until) {
            (false, _) => OutputState::Down(problem("gone")),
            (true, true) => OutputState::Blocked(problem("alarm")),
            (true, false) => OutputState::Up,
        };
        self.give(relay, Input::Output(state));
    }

    pub(super) fn crash(&mut self, relay: usize) {
        if self.relays[relay].process.is_none() {
            return;
        }
        say!(self, "relay {relay} dies");
        self.crashes += 1;
        let host = &mut self.relays[relay];
        if let Some(durable) = host.durable.take() {
            host.journal = durable;
        }
        self.end(relay);
    }

    pub(super) fn end(&mut self, relay: usize) {
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
        self.between_processes(relay);
        let after = self.rng.u64(100..if self.stormy { 15_000 } else { 1_000 });
        self.after(after, Happening::Start { relay });
    }

    /// What can happen to a host and its journal while no process runs.
    fn between_processes(&mut self, relay: usize) {
        if self.strikes(Fault::Reboot) {
            let host = &mut self.relays[relay];
            host.rebooted = true;
            host.boot.number += 1;
            host.boot.began = Moment(self.now);
            if self.strikes(Fault::WallAfterReboot) {
                let steps = [-86_400_000, -45_000, -45_000, -10_000, 10_000, 86_400_000];
                let step = steps[self.rng.usize(0..steps.len())];
                self.relays[relay].wall_offset += step;
                self.checker.wall_is_wrong(relay);
            }
        }
        if self.strikes(Fault::JournalCopied) {
            self.relays[relay].copied = true;
        }
        if self.strikes(Fault::OtherSettings) {
            self.other_settings(relay);
        }
        self.keep_or_restore(relay);
        if self.to_release.remove(&relay) {
            self.release(relay, true);
        } else if self.strikes(Fault::Released) {
            self.mended |= self.rng.bool();
            self.release(relay, false);
        }
    }

    /// Hands an input to a core, which looks at it a little later.
    pub(super) fn give(&mut self, relay: usize, input: Input) {
        let Some(process) = &mut self.relays[relay].process else { return };
        process.inbox.push(input);
        if !process.step_due {
            process.step_due = true;
            let after = if self.strikes(Fault::Stall) { self.rng.u64(0..3_000) } else { self.rng.u64(0..2) };
            self.within(relay, after, Within::Step);
        }
    }

    pub(super) fn step(&mut self, relay: usize) {
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
                Ended::ConfirmThrottled => self.checker.throttled(relay, Api::Confirm),
                Ended::Publish(event, outcome) => {
                    self.checker.learnt(relay, event, &outcome);
                    self.routed(relay, event, &outcome);
                }
            }
        }
        for input in &inputs {
            self.told(relay, input);
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

    /// What a core is about to learn, for the checkers.
    fn told(&mut self, relay: usize, input: &Input) {
        match input {
            Input::Written(Written::Recorded(pulled, _)) => {
                let Some((sub_app, sent_at, handles)) = self.process(relay).arrived.remove(&pulled.pull)
                else {
                    return;
                };
                for handle in &handles {
                    self.checker.held(relay, sub_app, handle, sent_at);
                }
            }
            Input::Confirmed { request, result } => self.checker.request_ended(relay, *request, *result),
            Input::Reconfigure(_) => {
                let host = &self.relays[relay];
                self.checker.configured(relay, &host.wanted, host.confirm_after);
            }
            Input::Written(Written::Loaded(_)) => self.process(relay).loading = false,
            _ => {}
        }
    }

    pub(super) fn mix(&mut self, value: u64) {
        for part in [self.now, value] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn carry_out(&mut self, relay: usize, mut effect: Effect) {
        if let Some(bug) = self.sabotage {
            let unroutable = self.process(relay).core.load().unroutable_since.is_some();
            bug.effect(&mut effect, unroutable);
        }
        let soon = self.rng.u64(0..4);
        match effect {
            Effect::Pull { pull, sub_app } => {
                self.process(relay).pulls.insert(pull);
                let rest = self.rests_for(relay, sub_app);
                if rest > 0 {
                    self.within(relay, rest, Within::PullRested { pull, sub_app });
                    return;
                }
                self.checker.pull_asked(relay, sub_app);
                self.within(relay, soon, Within::PullLeaves { pull, sub_app });
            }
            Effect::Publish { event, outgoing, alone } => {
                self.within(relay, soon, Within::PublishLeaves { event, outgoing, alone });
            }
            Effect::Confirm { request, sub_app, handles, cutoff } => {
                if self.sabotage == Some(Sabotage::NoTurns) && self.is_behind(sub_app) {
                    self.process(relay).confirms.insert(request);
                    let result = Err(RequestFailure::Configuration);
                    self.within(relay, 1, Within::ConfirmBack { request, sub_app, result, left: true });
                    return;
                }
                let cutoff = match self.sabotage {
                    Some(Sabotage::JoinsLater) => self.checker.latest_joined(relay, sub_app, &handles),
                    Some(Sabotage::LatestDeadline) => self.checker.latest_deadline(relay, sub_app, &handles),
                    _ => cutoff,
                };
                self.checker.confirm_asked(relay, sub_app, request, &handles, cutoff);
                self.process(relay).confirms.insert(request);
                self.within(relay, soon, Within::ConfirmLeaves { request, sub_app, handles, cutoff });
            }
            Effect::ProveConfirm { request, sub_app } => {
                let confirms = self.process(relay).confirms.len();
                self.checker.proof_asked(relay, sub_app, confirms);
                self.process(relay).proofs.insert(request);
                self.within(relay, soon, Within::ProofLeaves { request, sub_app });
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
            Effect::Write(write) => {
                self.process(relay).loading |= matches!(write, Write::Load { .. });
                self.run_ahead(relay, &write);
                let process = self.process(relay);
                process.lane.push_back(write);
                self.begin_commit(relay);
            }
        }
    }

    /// Whether a sub-application comes after the first one, and that one has something to confirm.
    fn is_behind(&self, sub_app: SubAppId) -> bool {
        let first = self.plan.sub_apps[0];
        sub_app != first && self.queues[&first].hidden().next().is_some()
    }
}
