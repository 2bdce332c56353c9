//! What makes two deliveries the same event.
//!
//! The cloud gives no event id. Neither the handle nor the content is one: one handle can cover several
//! events, and equal events can really happen twice. [`classify`] weighs both against the journal.

use tencent_vod_event::EventHandle;

use crate::lease::Standing;

/// The journal's number for an event: one occurrence of one fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub i64);

/// The journal's number for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub i64);

/// The committed state of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The broker acked it.
    pub published: bool,
    /// The relay gave it up; it waits for an operator.
    pub parked: bool,
    /// The cloud accepted a confirm of the event, or is proven to have forgotten it.
    pub confirmed: bool,
}

/// The journal's result for one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event that the delivery brought.
    pub event: EventId,
    /// The delivery itself.
    pub delivery: DeliveryId,
    /// Its number among the events of its fingerprint, from 1.
    pub occurrence: u32,
    /// Whether the journal already had the event.
    pub redelivered: bool,
    /// The state of the event when the delivery was recorded.
    pub progress: Progress,
}

/// The journal's facts about one earlier delivery of an occurrence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLease {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its handle.
    pub handle: Option<EventHandle>,
    /// Whether its lease had lapsed when the answer under judgement arrived, and how certain that is.
    pub standing: Standing,
    /// Whether the cloud accepted this delivery's handle.
    pub confirmed: bool,
}

/// The journal's facts about one occurrence of the fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number, from 1.
    pub occurrence: u32,
    /// Whether the cloud has forgotten it: confirmed, or settled.
    pub confirmed: bool,
    /// Whether another element of the same answer was already taken for it. One answer brings an event once.
    pub taken: bool,
    /// Whether the journal is a copy and nothing of this occurrence was handed over since the copy was
    /// opened. The cloud may have forgotten it long ago.
    pub of_a_copy: bool,
    /// Its deliveries so far, the newest first.
    pub leases: Vec<KnownLease>,
}

impl Known {
    fn has(&self, handle: &EventHandle) -> bool {
        self.leases.iter().any(|lease| lease.handle.as_ref() == Some(handle))
    }

    fn is_live_under_another(&self, handle: &EventHandle) -> bool {
        self.leases
            .iter()
            .any(|lease| lease.standing != Standing::Lapsed && lease.handle.as_ref() != Some(handle))
    }

    /// Whether it may be unconfirmed in the cloud and visible there again, with doubtful leases counted as
    /// lapsed or not.
    fn is_visible(&self, doubtful: Standing) -> bool {
        let lapsed = |lease: &KnownLease| match lease.standing {
            Standing::Doubtful => doubtful == Standing::Lapsed,
            standing => standing == Standing::Lapsed,
        };
        !self.confirmed && !self.of_a_copy && self.leases.iter().all(lapsed)
    }

    /// Whether the cloud can hand it over under this handle only because it forgot the confirm. When another
    /// handle was confirmed, two equal events had been taken for one, and this one still waits.
    fn was_confirmed_by(&self, handle: &EventHandle) -> bool {
        let by = |lease: &&KnownLease| lease.confirmed && lease.handle.as_ref() == Some(handle);
        self.confirmed && (self.leases.iter().any(|lease| by(&lease)) || self.was_settled())
    }

    /// Whether it counts as confirmed although no confirm was answered: an idle queue was the proof.
    pub fn was_settled(&self) -> bool {
        self.leases.iter().all(|lease| !lease.confirmed)
    }
}

/// The judgement of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An event that the journal does not have yet.
    New {
        /// Its occurrence.
        occurrence: u32,
        /// Why the journal may have the event in spite of that.
        doubt: Option<Doubt>,
    },
    /// An occurrence of the journal, handed over again.
    Redelivery {
        /// Its occurrence.
        occurrence: u32,
    },
}

/// Why a new event may have been published before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// An equal one counts as confirmed without the cloud's answer.
    Settled,
    /// An equal one has a lease of another boot, and only the wall clock says that it still lives.
    OtherBoot,
    /// The journal is a copy, and the fate of an equal event after the copy is unknown.
    Copy,
}

impl Doubt {
    /// For people: why the event is listed as a possible duplicate.
    pub fn message(self) -> &'static str {
        match self {
            Self::Settled => "an equal event before it was settled without the cloud's answer",
            Self::OtherBoot => {
                "an equal event before it has a lease of another boot that is live by the wall clock"
            }
            Self::Copy => "the journal is a copy, and an equal event in it may be this one",
        }
    }
}

/// Judges a delivery by the journal's facts about its fingerprint.
///
/// `known` has every unconfirmed occurrence and the newest occurrence, in their order. All unconfirmed ones
/// count, not only the newest. When two equal events are in flight and both come again, each is a redelivery.
///
/// `late` says that the answer arrived after its own lease. It may be older than the journal, so nothing in
/// it is taken for another event. None of its handles can be confirmed, so a new event in it comes again.
pub fn classify(known: &[Known], handle: Option<&EventHandle>, late: bool) -> Verdict {
    let free = || known.iter().filter(|k| !k.taken);
    let again = |known: &Known| Verdict::Redelivery { occurrence: known.occurrence };
    // The very handle of an occurrence: the cloud hands the same delivery over again, or forgot its confirm.
    if let Some(handle) = handle {
        let same = |k: &&Known| !k.confirmed && k.has(handle) && !k.is_live_under_another(handle);
        let newest = |k: &&Known| k.leases.first().is_some_and(|lease| lease.handle.as_ref() == Some(handle));
        let unconfirmed = free().filter(same).find(newest).or_else(|| free().find(same));
        let forgotten = || free().rfind(|k| k.has(handle) && k.was_confirmed_by(handle));
        if let Some(known) = unconfirmed.or_else(forgotten) {
            return again(known);
        }
    }
    // Of several candidates, the one that was handed over longest ago: its window ended first.
    let longest_ago = |k: &&Known| k.leases.first().map(|lease| lease.delivery);
    if late {
        let certain = |k: &&Known| k.confirmed || !k.of_a_copy;
        let open = free().filter(certain).filter(|k| !k.confirmed).min_by_key(longest_ago);
        let all = || known.iter().filter(certain);
        let open = open.or_else(|| all().filter(|k| !k.confirmed).min_by_key(longest_ago));
        if let Some(known) = open.or_else(|| all().next_back()) {
            return again(known);
        }
    }
    // Unconfirmed and visible again in the cloud: this must be the one. Without a handle nothing is proven.
    if let Some(known) = free().filter(|k| k.is_visible(Standing::Live)).min_by_key(longest_ago) {
        return again(known);
    }
    let occurrence = known.iter().map(|k| k.occurrence).max().unwrap_or(0) + 1;
    let doubt = if free().any(|k| !k.confirmed && k.of_a_copy) {
        Some(Doubt::Copy)
    } else if free().any(|k| k.is_visible(Standing::Lapsed)) {
        Some(Doubt::OtherBoot)
    } else {
        // An idle answer is no proof while another relay holds the event: this may be that event again.
        known.iter().any(|k| k.confirmed && k.was_settled()).then_some(Doubt::Settled)
    };
    Verdict::New { occurrence, doubt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(name: &str) -> EventHandle {
        EventHandle(name.into())
    }

    fn occurrence(occurrence: u32, confirmed: bool, leases: &[(&str, Standing)]) -> Known {
        let mut leases: Vec<KnownLease> = leases
            .iter()
            .zip(i64::from(occurrence) * 10..)
            .map(|((h, standing), number)| KnownLease {
                delivery: DeliveryId(number),
                handle: Some(handle(h)),
                standing: *standing,
                confirmed: false,
            })
            .collect();
        leases.reverse();
        Known { occurrence, confirmed, taken: false, of_a_copy: false, leases }
    }

    fn confirmed_by(occurrence_no: u32, leases: &[(&str, Standing)], by: &str) -> Known {
        let mut known = occurrence(occurrence_no, true, leases);
        for lease in &mut known.leases {
            lease.confirmed = lease.handle == Some(handle(by));
        }
        known
    }

    fn taken(mut known: Known) -> Known {
        known.taken = true;
        known
    }

    const LIVE: Standing = Standing::Live;
    const LAPSED: Standing = Standing::Lapsed;
    const DOUBTFUL: Standing = Standing::Doubtful;

    fn new(occurrence: u32) -> Verdict {
        Verdict::New { occurrence, doubt: None }
    }

    fn doubted(occurrence: u32, doubt: Doubt) -> Verdict {
        Verdict::New { occurrence, doubt: Some(doubt) }
    }

    fn of_a_copy(mut known: Known) -> Known {
        known.of_a_copy = true;
        known
    }

    #[track_caller]
    fn check(known: &[Known], name: &str, expected: Verdict) {
        assert_eq!(classify(known, Some(&handle(name)), false), expected);
    }

    #[test]
    fn row_1_nothing_known_is_the_first_occurrence() {
        check(&[], "h", new(1));
        assert_eq!(classify(&[], None, false), new(1));
    }

    #[test]
    fn row_2_unconfirmed_with_this_very_handle_is_a_redelivery() {
        check(&[occurrence(1, false, &[("h", LIVE)])], "h", Verdict::Redelivery { occurrence: 1 });
        check(&[occurrence(1, false, &[("h", LAPSED)])], "h", Verdict::Redelivery { occurrence: 1 });
    }

    #[test]
    fn row_3_unconfirmed_with_every_lease_lapsed_is_a_redelivery() {
        let known = [occurrence(1, false, &[("h1", LAPSED), ("h2", LAPSED)])];
        check(&known, "h3", Verdict::Redelivery { occurrence: 1 });
        assert_eq!(classify(&known, None, false), Verdict::Redelivery { occurrence: 1 });
    }

    #[test]
    fn row_4_unconfirmed_with_a_live_lease_under_another_handle_is_a_second_equal_event() {
        let known = [occurrence(1, false, &[("h1", LAPSED), ("h2", LIVE)])];
        check(&known, "h3", new(2));
        assert_eq!(classify(&known, None, false), new(2));
    }

    #[test]
    fn row_5_confirmed_under_another_handle_happened_again() {
        check(&[confirmed_by(4, &[("h1", LAPSED)], "h1")], "h2", new(5));
    }

    #[test]
    fn row_6_confirmed_with_this_very_handle_was_forgotten_by_the_cloud() {
        let known = confirmed_by(1, &[("h1", LAPSED)], "h1");
        check(&[known], "h1", Verdict::Redelivery { occurrence: 1 });
        // Settled: no handle was seen to be confirmed, and any of them can be the forgotten one.
        check(&[occurrence(1, true, &[("h1", LAPSED)])], "h1", Verdict::Redelivery { occurrence: 1 });
    }

    #[test]
    fn a_handle_that_another_one_was_confirmed_instead_of_is_an_event_that_still_waits() {
        // h2 was taken for the event of h1, whose lease had lapsed; now h1 itself comes again.
        let known = confirmed_by(1, &[("h1", LAPSED), ("h2", LAPSED)], "h2");
        check(&[known], "h1", new(2));
    }

    #[test]
    fn two_handles_of_one_occurrence_are_never_live_together() {
        let known = occurrence(1, false, &[("h1", LAPSED), ("h2", LAPSED), ("h1", LIVE)]);
        check(std::slice::from_ref(&known), "h2", new(2));
        // ... and when both come again, each finds its last occurrence.
        let known = occurrence(1, false, &[("h1", LAPSED), ("h2", LAPSED), ("h1", LAPSED)]);
        let other = occurrence(2, false, &[("h2", LAPSED)]);
        check(&[known, other], "h2", Verdict::Redelivery { occurrence: 2 });
    }

    #[test]
    fn a_late_answer_is_never_another_event() {
        let late = |known: &[Known]| classify(known, Some(&handle("h9")), true);
        assert_eq!(late(&[occurrence(1, false, &[("h1", LIVE)])]), Verdict::Redelivery { occurrence: 1 });
        let confirmed = confirmed_by(1, &[("h1", LIVE)], "h1");
        assert_eq!(late(std::slice::from_ref(&confirmed)), Verdict::Redelivery { occurrence: 1 });
        assert_eq!(late(&[taken(confirmed)]), Verdict::Redelivery { occurrence: 1 });
        assert_eq!(late(&[]), new(1));
    }

    #[test]
    fn row_7_a_lost_confirm_is_a_redelivery_until_it_is_settled() {
        // The journal calls a settled occurrence confirmed, so this row is rows 3 and 5.
        check(&[occurrence(1, false, &[("h1", LAPSED)])], "h2", Verdict::Redelivery { occurrence: 1 });
        check(&[occurrence(1, true, &[("h1", LAPSED)])], "h2", doubted(2, Doubt::Settled));
    }

    #[test]
    fn two_equal_events_that_both_come_again_are_two_redeliveries() {
        let known = [occurrence(1, false, &[("h1", LAPSED)]), occurrence(2, false, &[("h2", LAPSED)])];
        check(&known, "h3", Verdict::Redelivery { occurrence: 1 });
        let known =
            [occurrence(1, false, &[("h1", LAPSED), ("h3", LIVE)]), occurrence(2, false, &[("h2", LAPSED)])];
        check(&known, "h4", Verdict::Redelivery { occurrence: 2 });
    }

    #[test]
    fn of_two_equal_events_the_one_that_was_handed_over_first_comes_again_first() {
        let mut known = [occurrence(1, false, &[("h1", LAPSED)]), occurrence(2, false, &[("h2", LAPSED)])];
        known[0].leases[0].delivery = DeliveryId(77);
        check(&known, "h3", Verdict::Redelivery { occurrence: 2 });
    }

    #[test]
    fn equal_events_under_one_handle_in_one_answer_are_two() {
        let first = taken(occurrence(1, false, &[("h", LIVE)]));
        check(std::slice::from_ref(&first), "h", new(2));
        // ... and when that answer comes again, each is recognised.
        let second = occurrence(2, false, &[("h", LIVE)]);
        check(&[first, second], "h", Verdict::Redelivery { occurrence: 2 });
    }

    #[test]
    fn an_unconfirmed_occurrence_is_preferred_for_a_handle_that_both_have() {
        let known = [occurrence(1, false, &[("h", LAPSED)]), occurrence(2, true, &[("h", LAPSED)])];
        check(&known, "h", Verdict::Redelivery { occurrence: 1 });
    }

    #[test]
    fn a_lease_that_only_the_wall_clock_calls_live_makes_a_new_event_a_possible_duplicate() {
        let known = [occurrence(1, false, &[("h1", LAPSED), ("h2", DOUBTFUL)])];
        check(&known, "h3", doubted(2, Doubt::OtherBoot));
        check(&known, "h2", Verdict::Redelivery { occurrence: 1 });
        // A lease that certainly lives leaves no doubt.
        check(&[occurrence(1, false, &[("h1", DOUBTFUL), ("h2", LIVE)])], "h3", new(2));
        // Another element of the answer was that one.
        check(&[taken(occurrence(1, false, &[("h1", DOUBTFUL)]))], "h3", new(2));
    }

    #[test]
    fn in_a_copy_the_next_equal_event_is_another_one_and_a_possible_duplicate() {
        let known = || of_a_copy(occurrence(1, false, &[("h1", LAPSED)]));
        check(&[known()], "h2", doubted(2, Doubt::Copy));
        assert_eq!(classify(&[known()], None, false), doubted(2, Doubt::Copy));
        assert_eq!(classify(&[known()], Some(&handle("h2")), true), doubted(2, Doubt::Copy));
        // The very handle is proof that the cloud still has it.
        check(&[known()], "h1", Verdict::Redelivery { occurrence: 1 });
        // Later deliveries are judged as always.
        let since = occurrence(2, false, &[("h2", LAPSED)]);
        check(&[known(), since.clone()], "h3", Verdict::Redelivery { occurrence: 2 });
        assert_eq!(
            classify(&[known(), since], Some(&handle("h3")), true),
            Verdict::Redelivery { occurrence: 2 }
        );
        // An event that was confirmed before the copy leaves no doubt.
        check(&[of_a_copy(confirmed_by(1, &[("h1", LAPSED)], "h1"))], "h2", new(2));
    }
}
