//! What is different between two configurations, and what of it a running relay can take over.

use super::Config;

/// A key whose value changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, with its section.
    pub key: &'static str,
    /// Whether it can be taken over at work. The others need a restart.
    pub live: bool,
}

/// The keys whose values differ, in the order of `config.example.toml`.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    macro_rules! compared {
        ($($section:ident.$name:ident $live:literal,)*) => {
            vec![$((concat!(stringify!($section), ".", stringify!($name)), $live, old.$section.$name != new.$section.$name)),*]
        };
    }
    let all = compared! {
        vod.endpoint false,
        vod.region false,
        vod.sub_app_ids true,
        vod.credentials false,
        vod.window false,
        vod.requests_per_second true,
        relay.confirm_after false,
        relay.lease_margin false,
        relay.max_in_flight true,
        relay.idle_backoff_min true,
        relay.idle_backoff_max true,
        relay.publish_attempts true,
        output.kind false,
        amqp.urls false,
        amqp.auth false,
        amqp.username false,
        amqp.password false,
        amqp.exchange false,
        amqp.queue false,
        amqp.routing_key false,
        amqp.binding_key false,
        amqp.topology false,
        amqp.format false,
        amqp.ca_file false,
        amqp.client_cert_file false,
        amqp.client_key_file false,
        journal.path false,
        journal.retention false,
        http.listen false,
        health.ready_limit false,
        health.exit_after false,
        health.dead_mans_switch_url false,
        status.socket false,
        maintenance.prune false,
        maintenance.vacuum false,
        maintenance.backup false,
        maintenance.summary false,
        maintenance.backlog false,
        maintenance.backups_kept false,
        maintenance.backup_dir false,
        log.format false,
        log.level true,
    };
    all.into_iter().filter(|(_, _, differs)| *differs).map(|(key, live, _)| Change { key, live }).collect()
}

/// Every key that is compared.
#[cfg(test)]
fn compared() -> Vec<&'static str> {
    let text = include_str!("changes.rs");
    let list = text.split("compared! {").nth(1).and_then(|rest| rest.split("};").next()).unwrap_or_default();
    list.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::keys::KEYS;
    use tencent_vod_event::SubAppId;

    #[test]
    fn every_key_is_compared() {
        let keys: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.section, key.name)).collect();
        assert_eq!(compared(), keys);
    }

    #[test]
    fn what_differs_is_named_with_whether_it_can_be_taken_over() {
        let old = Config::default();
        assert_eq!(changes(&old, &old), []);
        let mut new = old.clone();
        new.vod.sub_app_ids = vec![SubAppId(7)];
        new.journal.retention = Duration::from_secs(864_000);
        let expected =
            [Change { key: "vod.sub_app_ids", live: true }, Change { key: "journal.retention", live: false }];
        assert_eq!(changes(&old, &new), expected);
    }
}
