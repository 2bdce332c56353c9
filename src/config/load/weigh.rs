//! Compares the values of a configuration with each other.

use super::{ConfigPlace, ConfigReader, KeyOrigin};
use crate::config::value::shown;
use crate::config::{Config, OutputKind, binding, paths};
use crate::output::amqp::{self, Address, Auth, Topology};

impl ConfigReader {
    /// Errors that single values do not show.
    pub(super) fn weigh(&mut self) {
        if self.damaged {
            // An unreadable value would be replaced by its default here.
            return;
        }
        let Config { vod, relay, output, amqp, .. } = self.config.clone();
        self.refuse(
            relay.lease_margin >= vod.window,
            &[("relay", "lease_margin"), ("vod", "window")],
            || {
                format!(
                    "relay.lease_margin ({}) leaves nothing of vod.window ({}); make the margin smaller",
                    shown(relay.lease_margin),
                    shown(vod.window)
                )
            },
        );
        self.refuse(
            relay.idle_backoff_min > relay.idle_backoff_max,
            &[("relay", "idle_backoff_min"), ("relay", "idle_backoff_max")],
            || {
                format!(
                    "relay.idle_backoff_min ({}) is more than relay.idle_backoff_max ({}); make it smaller",
                    shown(relay.idle_backoff_min),
                    shown(relay.idle_backoff_max)
                )
            },
        );
        self.refuse(
            amqp.tls.client_cert_file.is_some() != amqp.tls.client_key_file.is_some(),
            &[("amqp", "client_cert_file"), ("amqp", "client_key_file")],
            || {
                "amqp.client_cert_file and amqp.client_key_file belong together; set both, or neither"
                    .to_owned()
            },
        );
        let certificates = amqp.tls.ca_file.is_some() || amqp.tls.client_cert_file.is_some();
        self.refuse(
            certificates && !amqp.urls.iter().any(|url| url.tls),
            &[("amqp", "ca_file"), ("amqp", "client_cert_file"), ("amqp", "urls")],
            || {
                "amqp.ca_file and amqp.client_cert_file protect nothing: no URL in amqp.urls begins with amqps://; write amqps://"
                    .to_owned()
            },
        );
        self.refuse(
            amqp.auth == Auth::Password && amqp.username.is_some() && amqp.password.is_none(),
            &[("amqp", "username"), ("amqp", "password")],
            || {
                "amqp.username has no password; set VODRELAY_AMQP__PASSWORD, or give the service manager's credential amqp_password"
                    .to_owned()
            },
        );
        if let Some((keys, message)) = paths::conflict(&self.config) {
            self.refuse(true, &keys, || message.clone());
        }
        if output.kind == OutputKind::Amqp {
            self.weigh_login(&amqp);
            self.weigh_topology(&amqp);
        }
    }

    fn weigh_login(&mut self, amqp: &amqp::Options) {
        let external = amqp.auth == Auth::External;
        let certified =
            external && amqp.tls.client_cert_file.is_some() && amqp.urls.iter().all(|url| url.tls);
        self.refuse(
            external && !certified,
            &[("amqp", "auth"), ("amqp", "client_cert_file"), ("amqp", "urls")],
            || {
                "amqp.auth = \"external\" logs in by a client certificate; set amqp.client_cert_file and amqp.client_key_file, and begin \
                 every URL in amqp.urls with amqps://"
                    .to_owned()
            },
        );
        let in_url = |url: &Address| url.username.is_some() || url.password.is_some();
        self.refuse(
            certified && (amqp.username.is_some() || amqp.password.is_some() || amqp.urls.iter().any(in_url)),
            &[("amqp", "auth"), ("amqp", "username"), ("amqp", "password"), ("amqp", "urls")],
            || {
                "amqp.auth = \"external\" takes the user from the certificate; remove user and password from amqp.urls, amqp.username and \
                 VODRELAY_AMQP__PASSWORD"
                    .to_owned()
            },
        );
    }

    /// Names that RabbitMQ refuses to declare, or that make no sense.
    fn weigh_topology(&mut self, amqp: &amqp::Options) {
        if amqp.topology != Topology::Declare {
            return;
        }
        // RabbitMQ creates this exchange itself, and the relay would declare it.
        self.refuse(
            amqp.exchange.starts_with("amq.") && amqp.exchange != "amq.topic",
            &[("amqp", "exchange"), ("amqp", "topology")],
            || reserved("exchange", &amqp.exchange),
        );
        self.refuse(amqp.queue.starts_with("amq."), &[("amqp", "queue"), ("amqp", "topology")], || {
            reserved("queue", &amqp.queue)
        });
        self.refuse(
            !amqp.queue.is_empty() && !binding::reaches(&amqp.binding_key, &amqp.routing_key.to_string()),
            &[("amqp", "routing_key"), ("amqp", "binding_key"), ("amqp", "queue"), ("amqp", "topology")],
            || {
                format!(
                    "amqp.binding_key {:?} does not match every routing key of amqp.routing_key \"{}\", and the declared queue would miss events; change one of the two, or bind a queue of your own and set amqp.queue = \"\"",
                    amqp.binding_key, amqp.routing_key
                )
            },
        );
    }

    /// Adds an error at the first of `keys` that was set, unless one of them has an error already.
    fn refuse(&mut self, wrong: bool, keys: &[(&'static str, &'static str)], message: impl Fn() -> String) {
        let origins: Vec<&KeyOrigin> = keys.iter().filter_map(|key| self.origins.get(key)).collect();
        if !wrong || origins.iter().any(|origin| matches!(origin, KeyOrigin::Wrong)) {
            return;
        }
        let set = origins.iter().find_map(|origin| match origin {
            KeyOrigin::Read(place) => Some(place.clone()),
            KeyOrigin::Wrong => None,
        });
        let place = set.unwrap_or_else(|| ConfigPlace::File(self.file.clone()));
        self.error(place, message());
    }
}

fn reserved(key: &str, name: &str) -> String {
    format!(
        "amqp.{key} {name:?} cannot be declared: RabbitMQ keeps names that begin with \"amq.\" for itself; choose another name, or set \
         amqp.topology = \"verify\" for one that exists"
    )
}
