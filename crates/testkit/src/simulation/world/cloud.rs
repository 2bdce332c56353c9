//! The cloud: the emulator's own queue, and what goes wrong on the way there and back.

use super::super::check::Nature;
use super::*;

impl World {
    pub(super) fn put(&mut self) {
        let equal = !self.texts.is_empty() && self.rng.u16(0..1_000) < self.plan.equal_per_mille;
        let recent = self.texts.len().saturating_sub(4)..self.texts.len();
        let earlier = equal.then(|| self.texts[self.rng.usize(recent)].clone());
        // Of equal events without handles the later ones cannot be told from the first one coming again.
        let text = match earlier.filter(|text| !text.json.starts_with('[')) {
            Some(text) => text,
            None => self.write(),
        };
        self.put_text(text);
    }

    /// An event in the calm, so that others get through beside one that breaks the connection.
    pub(super) fn put_beside(&mut self) {
        let sub_app = self.plan.sub_apps[0];
        let json: Arc<str> = format!("{{\"EventType\":\"C\", \"n\":{}}}", self.texts.len()).into();
        let content = self.checker.content(Nature::default());
        let text = Text { sub_app, json, content };
        self.texts.push(text.clone());
        self.put_text(text);
    }

    fn put_text(&mut self, text: Text) {
        self.put += 1;
        self.breaking += usize::from(text.json.contains(BREAKS));
        self.checker.put(text.content);
        let queue = self.queues.get_mut(&text.sub_app).expect("made for each sub-application");
        let number = queue.put(self.now, text.json.clone());
        self.contents.insert((text.sub_app, number), text.content);
        say!(self, "put {} {:?} content {}: {}", text.sub_app, number, text.content, text.json);
    }

    /// Makes an event that nothing equals.
    pub(super) fn write(&mut self) -> Text {
        let sub_app = self.plan.sub_apps[self.rng.usize(0..self.plan.sub_apps.len())];
        let n = self.texts.len();
        let per_mille = |rng: &mut fastrand::Rng, rate: u16| rng.u16(0..1_000) < rate;
        let bare = per_mille(&mut self.rng, self.plan.bare_per_mille);
        let unroutable = !bare && per_mille(&mut self.rng, self.plan.unroutable_per_mille);
        let refused = !bare && per_mille(&mut self.rng, self.plan.refused_per_mille);
        let breaks = !bare && self.strikes(Fault::EventBreaks) && self.breaking < BREAKING_MAX;
        let fate = match (breaks, unroutable, refused) {
            (true, ..) => BREAKS,
            (_, true, _) => UNROUTABLE,
            (.., true) => REFUSED,
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
        let nature = Nature { bare, bad: unroutable || refused || breaks, refused, breaks };
        let content = self.checker.content(nature);
        let text = Text { sub_app, json, content };
        self.texts.push(text.clone());
        text
    }

    pub(super) fn pull_leaves(&mut self, relay: usize, pull: PullId, sub_app: SubAppId) {
        let sent_at = self.now;
        let give_up = Within::PullBack { pull, sub_app, sent_at, result: Err(RequestFailure::Transient) };
        self.within(relay, self.plan.pull_timeout_ms, give_up);
        if self.strikes(Fault::PullRequestLost) {
            return;
        }
        let trip = self.trip();
        let life = self.relays[relay].life;
        self.after(trip, Happening::PullArrives { relay, life, pull, sub_app, sent_at });
    }

    pub(super) fn pull_arrives(
        &mut self,
        relay: usize,
        life: u64,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
    ) {
        if self.throttles(Api::Pull) {
            let result = Err(RequestFailure::Throttled);
            let back = Within::PullBack { pull, sub_app, sent_at, result };
            let answer_takes = self.trip();
            self.after(answer_takes, Happening::Within { relay, life, what: back });
            return;
        }
        self.checker.request_accepted(relay, Api::Pull);
        let until = self.now + self.plan.hold_ms;
        self.pull_at_cloud(relay, life, pull, sub_app, sent_at, until);
    }

    /// Whether a request is too much, for whatever reason.
    fn throttles(&mut self, api: Api) -> bool {
        let (fault, limiter) = match api {
            Api::Pull => (Fault::PullThrottled, &mut self.pull_limit),
            Api::Confirm => (Fault::ConfirmThrottled, &mut self.confirm_limit),
        };
        let accepted = self.now >= self.others_take_all_until && limiter.accepts(self.now);
        if !accepted {
            say!(self, "cloud: {api:?} is over the limit");
        }
        !accepted || self.strikes(fault)
    }

    pub(super) fn pull_at_cloud(
        &mut self,
        relay: usize,
        life: u64,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
        until: u64,
    ) {
        let now = self.now;
        let refusal = if self.strikes(Fault::PullRefused) {
            let kinds = [
                RequestFailure::Credentials,
                RequestFailure::Clock,
                RequestFailure::Configuration,
                RequestFailure::Refused,
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

    pub(super) fn handed_out(&mut self, sub_app: SubAppId, delivered: &Delivered, body: &Bytes) {
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

    pub(super) fn pull_back(
        &mut self,
        relay: usize,
        pull: PullId,
        sub_app: SubAppId,
        sent_at: u64,
        result: Result<Vec<Bytes>, RequestFailure>,
    ) {
        let now = self.now;
        let dropped = self.sabotage == Some(Sabotage::DrainDropsPull) && self.process(relay).draining;
        if dropped || !self.process(relay).pulls.remove(&pull) {
            return;
        }
        let end = match &result {
            Err(RequestFailure::Throttled) => PullEnd::Throttled,
            Err(_) => PullEnd::Failed,
            Ok(bodies) if bodies.is_empty() => PullEnd::Idle,
            Ok(_) => PullEnd::Brought,
        };
        say!(self, "relay {relay}: {pull:?} {end:?}");
        self.process(relay).ended.push(Ended::Pull(sub_app, sent_at, end));
        let request_id: Arc<str> = format!("r{}", self.happened).into();
        let result = result.map(|bodies| {
            let parse = |body| Arc::new(Event::parse(sub_app, body).expect("the emulator writes JSON"));
            let mut answer = Answer { request_id, events: bodies.into_iter().map(parse).collect() };
            let wall = WallTime(now.cast_signed() + self.relays[relay].wall_offset);
            self.checker.answer_received(relay, sub_app, sent_at, wall, &answer);
            let handles = answer.events.iter().filter_map(|event| event.handle.clone()).collect();
            self.process(relay).arrived.insert(pull, (sub_app, sent_at, handles));
            if let Some(bug) = self.sabotage {
                bug.answer(&mut answer);
            }
            answer
        });
        let mut told_sent_at = Moment(sent_at);
        match self.sabotage {
            Some(Sabotage::LeaseFromAnswer) => told_sent_at = Moment(now),
            Some(Sabotage::SettledAtOnce) if end == PullEnd::Idle => {
                self.relays[relay].journal.settle(sub_app, Moment(u64::MAX), WallTime(0));
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

    pub(super) fn confirm_leaves(
        &mut self,
        relay: usize,
        request: ConfirmId,
        sub_app: SubAppId,
        handles: Vec<EventHandle>,
        cutoff: Moment,
    ) {
        let give_up =
            |left| Within::ConfirmBack { request, sub_app, result: Err(RequestFailure::Transient), left };
        if Moment(self.now) >= cutoff {
            // The client sends nothing when no time is left.
            self.within(relay, 0, give_up(false));
            return;
        }
        say!(self, "relay {relay} confirms {handles:?} by {request:?}");
        self.checker.confirm_left(relay, sub_app, &handles, self.relays[relay].on_disk());
        let limit = CONFIRM_TIMEOUT_MS.min(cutoff.0 - self.now);
        self.within(relay, limit, give_up(true));
        if self.strikes(Fault::ConfirmRequestLost) {
            return;
        }
        let trip = self.slow(Fault::ConfirmSlow);
        let life = self.relays[relay].life;
        self.after(trip, Happening::ConfirmAtCloud { relay, life, request, sub_app, handles });
    }

    pub(super) fn confirm_at_cloud(
        &mut self,
        relay: usize,
        life: u64,
        request: ConfirmId,
        sub_app: SubAppId,
        handles: &[EventHandle],
    ) {
        let answer_takes = self.slow(Fault::ConfirmSlow);
        let throttled = self.throttles(Api::Confirm);
        if !throttled {
            self.checker.request_accepted(relay, Api::Confirm);
        }
        let result = if throttled {
            Err(RequestFailure::Throttled)
        } else if self.strikes(Fault::ConfirmDenied) {
            let kinds = [RequestFailure::Credentials, RequestFailure::Clock, RequestFailure::Configuration];
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
            say!(self, "cloud: {request:?} {:?}", result.verdicts);
            self.checker.confirm_arrived(relay, sub_app, handles, &deleted);
            if result.is_ok() { Ok(()) } else { Err(RequestFailure::Refused) }
        };
        if self.relays[relay].life == life && self.strikes(Fault::CrashAfterConfirm) {
            self.crash(relay);
            return;
        }
        if self.strikes(Fault::ConfirmAnswerLost) {
            return;
        }
        let back = Within::ConfirmBack { request, sub_app, result, left: true };
        self.after(answer_takes, Happening::Within { relay, life, what: back });
    }

    pub(super) fn proof_leaves(&mut self, relay: usize, request: ConfirmId, sub_app: SubAppId) {
        say!(self, "relay {relay} asks whether it may confirm by {request:?}");
        let result = Err(RequestFailure::Transient);
        self.within(relay, CONFIRM_TIMEOUT_MS, Within::ProofBack { request, sub_app, result });
        if self.strikes(Fault::ConfirmRequestLost) {
            return;
        }
        let trip = self.slow(Fault::ConfirmSlow);
        let life = self.relays[relay].life;
        self.after(trip, Happening::ProofAtCloud { relay, life, request, sub_app });
    }

    pub(super) fn proof_at_cloud(&mut self, relay: usize, life: u64, request: ConfirmId, sub_app: SubAppId) {
        let answer_takes = self.slow(Fault::ConfirmSlow);
        let result = if self.throttles(Api::Confirm) {
            Err(RequestFailure::Throttled)
        } else {
            self.checker.request_accepted(relay, Api::Confirm);
            Err(if self.strikes(Fault::ConfirmDenied) {
                RequestFailure::Configuration
            } else {
                RequestFailure::Refused
            })
        };
        if !self.strikes(Fault::ConfirmAnswerLost) {
            let back = Within::ProofBack { request, sub_app, result };
            self.after(answer_takes, Happening::Within { relay, life, what: back });
        }
    }

    pub(super) fn proof_back(
        &mut self,
        relay: usize,
        request: ConfirmId,
        sub_app: SubAppId,
        result: Result<(), RequestFailure>,
    ) {
        if !self.process(relay).proofs.remove(&request) {
            return;
        }
        if result == Err(RequestFailure::Throttled) {
            self.process(relay).ended.push(Ended::ConfirmThrottled);
        }
        self.checker.proof_ended(relay, sub_app, result);
        self.give(relay, Input::ConfirmProof { request, result });
    }

    /// The cloud says yes and keeps the events.
    pub(super) fn confirm_forgotten(&mut self, sub_app: SubAppId, handles: &[EventHandle]) {
        let queue = &self.queues[&sub_app];
        for handle in handles {
            for number in behind(queue, &handle.0) {
                self.surprising.insert((sub_app, number));
            }
        }
    }
}
