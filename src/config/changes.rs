//! The difference between two configurations, and which part of it a running relay can take over.

use super::Config;
use super::keys::KEYS;

/// A key whose value changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's section, and its name there.
    pub key: (&'static str, &'static str),
    /// Whether a reload takes it over. The others need a restart.
    pub live: bool,
}

/// The keys whose values differ, in the order of `config.example.toml`.
pub fn changes(old: &Config, new: &Config) -> Vec<Change> {
    let different = KEYS.iter().filter(|key| (key.differs)(old, new));
    different.map(|key| Change { key: (key.section, key.name), live: key.live }).collect()
}

/// Takes over from `new` the keys that need no restart.
pub fn take_live(config: &mut Config, new: &Config) {
    KEYS.iter().filter(|key| key.live).for_each(|key| (key.take)(config, new));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tencent_vod_event::SubAppId;

    #[test]
    fn what_differs_is_named_with_whether_it_can_be_taken_over() {
        let old = Config::default();
        assert_eq!(changes(&old, &old), []);
        let mut new = old.clone();
        new.vod.sub_app_ids = vec![SubAppId(7)];
        new.journal.retention = Duration::from_secs(864_000);
        let expected = [
            Change { key: ("vod", "sub_app_ids"), live: true },
            Change { key: ("journal", "retention"), live: false },
        ];
        assert_eq!(changes(&old, &new), expected);
        let mut running = old;
        take_live(&mut running, &new);
        assert_eq!(changes(&running, &new), expected[1..]);
    }
}
