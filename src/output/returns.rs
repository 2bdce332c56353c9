//! What the broker's answers to one batch prove.
//!
//! lapin hands a returned message to whichever confirm of the channel resolves next, not to the publish it belongs to:
//! with 16 publishes in flight, 27 of 150 unroutable ones looked like plain acks (measured with lapin 4.12.3 against
//! RabbitMQ 3.10.8). So returned messages are collected from all confirms of the batch and matched by message id.
//!
//! Why that is exact: the broker sends a message's return before its ack, on the same channel. lapin queues
//! returns, and every confirm that resolves takes the oldest one waiting. Before a batch the queue is empty.
//! It never holds more returns than there are unresolved messages whose return has come. So when all are
//! resolved, all returns were taken. When a confirm resolves without a return, the queue was empty. Had its
//! own message been returned, an earlier confirm of the batch took that return. So a bare ack is proof even
//! if the rest of the batch is never answered.

use std::collections::HashMap;
use std::sync::Arc;

use tencent_vod_event::MessageId;
use vodrelay_core::outcome::PublishOutcome;

/// A message that the broker returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) message_id: Option<String>,
    pub(super) code: u16,
    pub(super) text: Arc<str>,
}

/// How one confirm resolved, with the return that was attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BrokerAnswer {
    Ack(Option<Returned>),
    Nack(Option<Returned>),
}

/// The outcome of each message of a batch. `answers[i]` belongs to `ids[i]`. `None` means that its confirm
/// never resolved, and such a message gets `unresolved`. The ids are distinct.
pub(super) fn settle(
    ids: &[MessageId],
    answers: &[Option<BrokerAnswer>],
    unresolved: &PublishOutcome,
) -> Vec<PublishOutcome> {
    let complete = answers.iter().all(Option::is_some);
    let mut returned: HashMap<&str, &Returned> = HashMap::new();
    let mut stray = false;
    for answer in answers.iter().flatten() {
        let (BrokerAnswer::Ack(attached) | BrokerAnswer::Nack(attached)) = answer;
        if let Some(message) = attached {
            match message.message_id.as_deref().filter(|id| ids.iter().any(|known| known.as_str() == *id)) {
                Some(id) => _ = returned.insert(id, message),
                None => stray = true,
            }
        }
    }
    let one = |(id, answer): (&MessageId, &Option<BrokerAnswer>)| match (answer, returned.get(id.as_str())) {
        (Some(BrokerAnswer::Nack(_)), _) => PublishOutcome::Nacked,
        (_, Some(message)) => PublishOutcome::Returned { code: message.code, text: message.text.clone() },
        // A return without a match may belong to any message.
        (Some(BrokerAnswer::Ack(_)), None) if stray => {
            super::unknown("the broker returned a message that was not in the batch")
        }
        (Some(BrokerAnswer::Ack(None)), None) => PublishOutcome::Acked,
        (Some(BrokerAnswer::Ack(Some(_))), None) if complete => PublishOutcome::Acked,
        (Some(BrokerAnswer::Ack(Some(_))) | None, None) => unresolved.clone(),
    };
    ids.iter().zip(answers).map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use tencent_vod_event::Fingerprint;

    fn id(n: usize) -> MessageId {
        MessageId::new(&Fingerprint([u8::try_from(n).unwrap(); 32]), 1)
    }

    fn returned(n: usize) -> Returned {
        Returned { message_id: Some(id(n).to_string()), code: 312, text: "NO_ROUTE".into() }
    }

    fn given_back() -> PublishOutcome {
        PublishOutcome::Returned { code: 312, text: "NO_ROUTE".into() }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Fate {
        Stored,
        Rejected,
        Unroutable,
    }

    /// lapin's handling of a batch: `acknowledgement.rs` and `returned_messages.rs` of 4.12.3. The broker
    /// returns each unroutable message before it acks it, in order. Acks come one by one or for all up to a
    /// tag, and then resolve in any order.
    fn broker_and_library(
        fates: &[Fate],
        resolved: usize,
        rng: &mut fastrand::Rng,
    ) -> Vec<Option<BrokerAnswer>> {
        let mut waiting = VecDeque::new();
        let mut answers = vec![None; fates.len()];
        let mut handled = 0;
        let mut unanswered: Vec<usize> = Vec::new();
        let mut count = 0;
        while count < resolved {
            while handled < fates.len() && (unanswered.is_empty() || rng.bool()) {
                if fates[handled] == Fate::Unroutable {
                    waiting.push_back(returned(handled));
                }
                unanswered.push(handled);
                handled += 1;
            }
            let rejected = fates[unanswered[0]] == Fate::Rejected;
            let alike = unanswered.iter().take_while(|n| (fates[**n] == Fate::Rejected) == rejected).count();
            let mut now: Vec<usize> = unanswered.drain(..rng.usize(1..=alike)).collect();
            rng.shuffle(&mut now);
            for n in now.into_iter().take(resolved - count) {
                let attached = waiting.pop_front();
                answers[n] =
                    Some(if rejected { BrokerAnswer::Nack(attached) } else { BrokerAnswer::Ack(attached) });
                count += 1;
            }
        }
        answers
    }

    #[test]
    fn every_outcome_is_exact_however_the_library_attaches_returns() {
        let lost = crate::output::unknown("lost");
        let mut misattached = 0;
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let fates: Vec<Fate> = (0..rng.usize(1..=16))
                .map(|_| match rng.u8(0..10) {
                    0..=5 => Fate::Stored,
                    6 => Fate::Rejected,
                    _ => Fate::Unroutable,
                })
                .collect();
            let complete = rng.bool();
            let resolved = if complete { fates.len() } else { rng.usize(0..fates.len()) };
            let answers = broker_and_library(&fates, resolved, &mut rng);
            let ids: Vec<MessageId> = (0..fates.len()).map(id).collect();
            for (n, outcome) in settle(&ids, &answers, &lost).into_iter().enumerate() {
                let truth = match fates[n] {
                    Fate::Stored => PublishOutcome::Acked,
                    Fate::Rejected => PublishOutcome::Nacked,
                    Fate::Unroutable => given_back(),
                };
                if complete || outcome != lost {
                    assert_eq!(outcome, truth, "seed {seed}, message {n} of {fates:?}: {answers:?}");
                }
                if answers[n] == Some(BrokerAnswer::Ack(None)) && fates[n] == Fate::Unroutable {
                    misattached += 1;
                }
            }
        }
        assert!(misattached > 100, "the model is kinder than the library: {misattached}");
    }

    #[test]
    fn a_bare_ack_is_proof_even_if_a_sibling_is_never_answered() {
        let lost = crate::output::unknown("lost");
        let answers = [Some(BrokerAnswer::Ack(None)), None, Some(BrokerAnswer::Nack(None))];
        let outcomes = settle(&[id(1), id(2), id(3)], &answers, &lost);
        assert_eq!(outcomes, [PublishOutcome::Acked, lost, PublishOutcome::Nacked]);
    }

    #[test]
    fn a_return_that_fits_no_message_takes_the_proof_from_every_ack() {
        let stray = Returned { message_id: None, ..returned(9) };
        let answers = [Some(BrokerAnswer::Ack(None)), Some(BrokerAnswer::Ack(Some(stray)))];
        for outcome in settle(&[id(1), id(2)], &answers, &PublishOutcome::Unsent) {
            assert!(matches!(outcome, PublishOutcome::Unknown { .. }), "{outcome:?}");
        }
    }
}
