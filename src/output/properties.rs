//! Finds the properties of an exchange or a queue that another program declared.
//!
//! AMQP 0-9-1 cannot query properties. But declaring an existing thing changes nothing, and RabbitMQ refuses
//! it with the first property that differs and its value. So it is declared repeatedly, each time with the
//! learnt values, until nothing differs. A user without the right to configure learns nothing in this way.
//! The settings of a policy, and the rights to routing keys, never show.

use std::collections::BTreeMap;

use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::message::short;
use super::topology::{self, Thing, TopologyError};

/// RabbitMQ has about twenty arguments of queues.
const MOST_DIFFERENCES: usize = 32;

/// One property that differs from the declared one.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    name: String,
    /// Its value; `None` when it is not set.
    current: Option<String>,
}

/// Parses "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
/// and RabbitMQ's texts about arguments: "... but current is the value '5' of type 'signedint'", or "... but
/// current is none".
fn difference(text: &str) -> Option<Difference> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, current) = rest.rsplit_once("but current is ")?;
    let current = match current.strip_prefix("the value ").unwrap_or(current) {
        none if none.starts_with("none") => None,
        quoted => Some(quoted.strip_prefix('\'')?.split_once('\'')?.0.to_owned()),
    };
    Some(Difference { name: name.to_owned(), current })
}

/// The properties of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExchangeProperties {
    pub(super) kind: String,
    pub(super) durable: bool,
    pub(super) internal: bool,
}

impl ExchangeProperties {
    /// For people: `a durable topic exchange`.
    pub(super) fn shown(&self) -> String {
        let durable = if self.durable { "a durable" } else { "a non-durable" };
        format!("{durable} {} exchange", self.kind)
    }

    pub(super) fn is_topic(&self) -> bool {
        self.kind == "topic"
    }
}

/// The properties of an existing exchange. `None` when they cannot be learnt.
pub(super) async fn of_exchange(connection: &Connection, name: &str) -> Option<ExchangeProperties> {
    let mut kind = "topic".to_owned();
    let mut options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    // RabbitMQ compares these four in this order, and the arguments after them.
    for _ in 0..=4 {
        let found =
            |internal| Some(ExchangeProperties { kind: kind.clone(), durable: options.durable, internal });
        let declared = declare_exchange(connection, name, &kind, options).await;
        let Difference { name: property, current } = match declared {
            Ok(()) => return found(options.internal),
            Err(TopologyError::Internal { .. }) => return found(true),
            Err(TopologyError::Different { text, .. }) => difference(&text)?,
            Err(_) => return None,
        };
        let is_set = current.as_deref() == Some("true");
        match property.as_str() {
            "type" => kind = current?,
            "durable" => options.durable = is_set,
            "auto_delete" => options.auto_delete = is_set,
            _ => return found(options.internal),
        }
    }
    None
}

async fn declare_exchange(
    connection: &Connection,
    name: &str,
    kind: &str,
    options: ExchangeDeclareOptions,
) -> Result<(), TopologyError> {
    let channel = topology::channel(connection).await?;
    let kind = ExchangeKind::Custom(kind.to_owned());
    let declared = channel.exchange_declare(short(name), kind, options, FieldTable::default()).await;
    declared.map_err(topology::refused(Thing::Exchange(name.to_owned())))
}

/// The properties of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueProperties {
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: BTreeMap<String, String>,
}

impl QueueProperties {
    fn kind(&self) -> &str {
        self.arguments.get("x-queue-type").map_or("classic", String::as_str)
    }

    /// Whether it keeps acked messages as the relay's own queue does.
    pub(super) fn is_safe(&self) -> bool {
        self.kind() == "quorum" && self.durable && !self.auto_delete
    }

    /// For people: `a durable classic queue with x-max-length = 5`.
    pub(super) fn shown(&self) -> String {
        let durable = if self.durable { "a durable" } else { "a non-durable" };
        let mut text = format!("{durable} {} queue", self.kind());
        if self.auto_delete {
            text.push_str(" that is deleted with its last consumer");
        }
        let others = self.arguments.iter().filter(|(name, _)| *name != "x-queue-type");
        let others: Vec<_> = others.map(|(name, value)| format!("{name} = {value}")).collect();
        if !others.is_empty() {
            text.push_str(" with ");
            text.push_str(&others.join(", "));
        }
        text
    }

    /// What RabbitMQ does with messages that are acked and not consumed.
    pub(super) fn drops(&self) -> Vec<&'static str> {
        let has = |name: &str| self.arguments.contains_key(name);
        let overflow = self.arguments.get("x-overflow").map(String::as_str);
        let mut drops = Vec::new();
        if has("x-message-ttl") {
            drops.push("RabbitMQ deletes events from it that wait longer than x-message-ttl milliseconds");
        }
        if has("x-expires") {
            drops.push("RabbitMQ deletes it with its events when it is unused for x-expires milliseconds");
        }
        if (has("x-max-length") || has("x-max-length-bytes"))
            && !overflow.is_some_and(|overflow| overflow.starts_with("reject-publish"))
        {
            drops.push("RabbitMQ deletes the oldest events from it when it is full: x-overflow = reject-publish keeps them");
        }
        drops
    }
}

/// The properties of an existing queue. `None` when they cannot be learnt.
pub(super) async fn of_queue(connection: &Connection, name: &str) -> Option<QueueProperties> {
    let mut found = QueueProperties { durable: true, ..QueueProperties::default() };
    found.arguments.insert("x-queue-type".to_owned(), "quorum".to_owned());
    for _ in 0..MOST_DIFFERENCES {
        let channel = topology::channel(connection).await.ok()?;
        let Difference { name: property, current } = match declare_queue(&channel, name, &found).await {
            Ok(()) => return Some(found),
            Err(TopologyError::Different { text, .. }) => difference(&text)?,
            Err(_) => return None,
        };
        let is_set = current.as_deref() == Some("true");
        match (property.as_str(), current) {
            ("durable", _) => found.durable = is_set,
            ("auto_delete", _) => found.auto_delete = is_set,
            (_, Some(value)) => {
                // A learnt value that is misunderstood would be learnt again for ever.
                if found.arguments.insert(property, value.clone()).is_some_and(|known| known == value) {
                    return None;
                }
            }
            (_, None) => {
                found.arguments.remove(&property)?;
            }
        }
    }
    None
}

async fn declare_queue(
    channel: &Channel,
    name: &str,
    properties: &QueueProperties,
) -> Result<(), TopologyError> {
    let QueueProperties { durable, auto_delete, arguments } = properties;
    let options = QueueDeclareOptions {
        durable: *durable,
        auto_delete: *auto_delete,
        ..QueueDeclareOptions::default()
    };
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert(name.as_str().into(), argument(value));
    }
    let declared = channel.queue_declare(short(name), options, table).await;
    declared.map(|_| ()).map_err(topology::refused(Thing::Queue(name.to_owned())))
}

/// RabbitMQ distinguishes numbers from texts, but not the kinds of numbers.
fn argument(value: &str) -> AMQPValue {
    match (value.parse(), value) {
        (Ok(number), _) => AMQPValue::LongLongInt(number),
        (Err(_), "true") => AMQPValue::Boolean(true),
        (Err(_), "false") => AMQPValue::Boolean(false),
        (Err(_), text) => AMQPValue::LongString(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_read_from_the_refusal() {
        let read = |end: &str| {
            let text =
                format!("PRECONDITION_FAILED - inequivalent arg 'x' for queue 'q' in vhost '/': {end}");
            difference(&text).map(|found| (found.name, found.current))
        };
        let some = |value: &str| Some(("x".to_owned(), Some(value.to_owned())));
        assert_eq!(read("received 'true' but current is 'false'"), some("false"));
        assert_eq!(read("received none but current is the value '5' of type 'signedint'"), some("5"));
        let none = Some(("x".to_owned(), None));
        assert_eq!(read("received the value '5' of type 'signedint' but current is none"), none);
        assert_eq!(read("received 'a"), None, "RabbitMQ cuts what is longer than 255 bytes");
        assert_eq!(difference("unknown delivery tag 7"), None);
    }

    #[test]
    fn a_queue_that_drops_what_it_acked_is_told_apart_from_one_that_refuses() {
        let queue = |arguments: &[(&str, &str)]| QueueProperties {
            durable: true,
            auto_delete: false,
            arguments: arguments.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let drops = |arguments: &[(&str, &str)]| queue(arguments).drops().len();
        assert_eq!(drops(&[("x-queue-type", "quorum")]), 0);
        assert_eq!(drops(&[("x-max-length", "5"), ("x-overflow", "reject-publish")]), 0);
        assert_eq!(drops(&[("x-max-length", "5"), ("x-overflow", "reject-publish-dlx")]), 0);
        assert_eq!(drops(&[("x-max-length", "5")]), 1);
        assert_eq!(drops(&[("x-max-length-bytes", "5"), ("x-overflow", "drop-head")]), 1);
        assert_eq!(drops(&[("x-message-ttl", "5"), ("x-expires", "5"), ("x-max-length", "5")]), 3);
        assert!(queue(&[("x-queue-type", "quorum")]).is_safe() && !queue(&[]).is_safe());
        assert_eq!(queue(&[("x-expires", "5")]).shown(), "a durable classic queue with x-expires = 5");
    }
}
