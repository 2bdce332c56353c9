//! A look at the brokers that changes nothing, for `vodrelay check`.

use lapin::{Channel, Connection};

use super::amqp::{Address, Options, Topology};
use super::link::{self, Link, LinkError};
use super::topology::{self, TopologyError};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at, with its name: `login at ...`, `exchange "..."`.
    pub name: String,
    /// Whether the output can work with it.
    pub ok: bool,
    /// What was found; when it is not ok, with the next step.
    pub text: String,
}

impl Step {
    fn new(name: String, result: Result<String, String>) -> Self {
        match result {
            Ok(text) => Self { name, ok: true, text },
            Err(text) => Self { name, ok: false, text },
        }
    }
}

/// Logs in at every broker; where that works, looks at the exchange, the queue, its type and its binding.
///
/// Nothing is created: what is missing is only declared by [`super::amqp::spawn`]. Bounded by the limits in `options`.
pub async fn probe(options: &Options) -> Vec<Step> {
    let mut steps = Vec::new();
    if options.topology == Topology::Declare
        && !options.queue.is_empty()
        && !options.routing_key.reaches_the_declared_queue()
    {
        let text = format!(
            "no key of \"{}\" reaches the queue, which is bound with \"vod.#\"; begin it with \"vod.\", or set queue = \"\" and bind your own",
            options.routing_key
        );
        steps.push(Step::new("routing key".to_owned(), Err(text)));
    }
    for address in &options.urls {
        probe_one(address, options, &mut steps).await;
    }
    steps
}

async fn probe_one(address: &Address, options: &Options, steps: &mut Vec<Step>) {
    let limit = options.limits.connect;
    let silent = || LinkError::Silent { address: address.to_string(), limit };
    let login =
        tokio::time::timeout(limit, link::log_in(address, options)).await.unwrap_or_else(|_| Err(silent()));
    let name = format!("login at {address}");
    let link = match login {
        Ok(link) => {
            steps.push(Step::new(name, Ok("connected and logged in".to_owned())));
            link
        }
        Err(error) => return steps.push(Step::new(name, Err(error.to_string()))),
    };
    let mut found = Vec::new();
    if tokio::time::timeout(limit, look(&link, options, &mut found)).await.is_err() {
        found.push(Step::new("topology".to_owned(), Err(silent().to_string())));
    }
    steps.append(&mut found);
    link.close(limit).await;
}

async fn look(link: &Link, options: &Options, steps: &mut Vec<Step>) {
    let declare = options.topology == Topology::Declare;
    let connection = &link.connection;
    let exists = async |channel: Channel| topology::exchange_exists(&channel, options).await;
    let exchange = ask(connection, exists).await;
    let verdict = match exchange {
        Ok(()) if declare => {
            // Declaring what exists changes nothing, and says whether its properties are ours.
            let same = ask(connection, async |channel| topology::declare_exchange(&channel, options).await);
            same.await
                .map(|()| "exists, a durable topic exchange".to_owned())
                .map_err(|error| error.to_string())
        }
        Ok(()) => Ok("exists".to_owned()),
        Err(TopologyError::Missing { .. }) if declare => {
            Ok("missing; it will be declared at the start".to_owned())
        }
        Err(error) => Err(error.to_string()),
    };
    steps.push(Step::new(format!("exchange \"{}\"", options.exchange), verdict));
    if options.queue.is_empty() {
        return;
    }

    let queue = ask(connection, async |channel| topology::queue_exists(&channel, options).await).await;
    let name = format!("queue \"{}\"", options.queue);
    let waiting = match queue {
        Ok(waiting) => waiting,
        Err(TopologyError::Missing { .. }) if declare => {
            return steps.push(Step::new(
                name,
                Ok("missing; it will be declared as a quorum queue at the start".into()),
            ));
        }
        Err(error) => return steps.push(Step::new(name, Err(error.to_string()))),
    };
    let same = ask(connection, async |channel| topology::declare_queue(&channel, options).await).await;
    steps.push(Step::new(
        name,
        match same {
            Ok(()) => Ok(format!("exists, a durable quorum queue with {waiting} messages")),
            Err(TopologyError::Different { text, .. }) if !declare => {
                Ok(format!("exists with {waiting} messages; it is not a plain quorum queue ({text})"))
            }
            Err(TopologyError::Forbidden { .. }) if !declare => Ok(format!("exists with {waiting} messages")),
            Err(error) => Err(error.to_string()),
        },
    ));
    let binding = if declare {
        "it is bound with \"vod.#\" at the start"
    } else {
        "cannot be seen over AMQP; an event that no queue is bound for comes back and is parked"
    };
    steps.push(Step::new(format!("binding of \"{}\"", options.queue), Ok(binding.to_owned())));
}

/// Asks on a channel of its own, because a refusal closes the channel.
async fn ask<T>(
    connection: &Connection,
    question: impl AsyncFnOnce(Channel) -> Result<T, TopologyError>,
) -> Result<T, TopologyError> {
    let channel = topology::channel(connection).await?;
    question(channel).await
}
