//! What the broker's answers to one batch prove.
//!
//! lapin hands a returned message to whichever confirm of the channel resolves next, not to the publish it belongs to:
//! with 16 publishes in flight, 27 of 150 unroutable ones looked like plain acks (measured with lapin 4.12.3 against
//! RabbitMQ 3.10.8). So returned messages are collected from all confirms of the batch and matched by message id.
//!
//! Why that is exact: the broker sends a message's return before its ack, on the same channel. lapin queues returns, and
//! every confirm that resolves takes the oldest one waiting. Before a batch the queue is empty, and it never holds more
//! than there are unresolved messages whose return has come; so when all are resolved, all returns were taken. And when
//! a confirm resolves without taking one, the queue was empty: had its own message been returned, then an earlier confirm
//! of the batch took that return. So a bare ack is proof even if the rest of the batch is never answered.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::MessageId;
use crate::outcome::PublishOutcome;

/// A message that the broker gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) message_id: Option<String>,
    pub(super) code: u16,
    pub(super) text: Arc<str>,
}

/// How one confirm resolved, with whichever return came attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ack(Option<Returned>),
    Nack(Option<Returned>),
}

/// The outcome of each message of a batch. `answers[i]` belongs to `ids[i]`; `None` means that its confirm never resolved,
/// and such a message gets `unresolved`. The ids are distinct.
pub(super) fn settle(
    ids: &[MessageId],
    answers: &[Option<Answer>],
    unresolved: &PublishOutcome,
) -> Vec<PublishOutcome> {
    let complete = answers.iter().all(Option::is_some);
    let mut returned: HashMap<&str, &Returned> = HashMap::new();
    let mut stray = false;
    for answer in answers.iter().flatten() {
        let (Answer::Ack(attached) | Answer::Nack(attached)) = answer;
        if let Some(message) = attached {
            match message.message_id.as_deref().filter(|id| ids.iter().any(|known| known.as_str() == *id)) {
                Some(id) => _ = returned.insert(id, message),
                None => stray = true,
            }
        }
    }
    let one = |(id, answer): (&MessageId, &Option<Answer>)| match (answer, returned.get(id.as_str())) {
        (Some(Answer::Nack(_)), _) => PublishOutcome::Nacked,
        (_, Some(message)) => PublishOutcome::Returned { code: message.code, text: message.text.clone() },
        // A return that cannot be matched may be anybody's.
        (Some(Answer::Ack(_)), None) if stray => {
            super::unknown("the broker returned a message that was not in the batch")
        }
        (Some(Answer::Ack(None)), None) => PublishOutcome::Acked,
        (Some(Answer::Ack(Some(_))), None) if complete => PublishOutcome::Acked,
        (Some(Answer::Ack(Some(_))) | None, None) => unresolved.clone(),
    };
    ids.iter().zip(answers).map(one).collect()
}
