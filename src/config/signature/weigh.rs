//! Weighs the values of the signature server's file against each other.

use super::SignatureConfig;
use crate::config::value::shown;
use crate::serve::signature::{Allowed, CallerOptions, Choice};

/// Something about the values together.
pub(super) struct Weighed {
    /// Which caller it is about.
    pub(super) caller: Option<usize>,
    pub(super) message: String,
    /// Whether the server cannot work so. Otherwise it is doubtful.
    pub(super) wrong: bool,
}

/// As many as a rotation needs.
const MOST_TOKENS: usize = 2;

/// What single values cannot show.
pub(super) fn weigh(config: &SignatureConfig) -> Vec<Weighed> {
    let mut found = Vec::new();
    let wrong = |message: String| Weighed { caller: None, message, wrong: true };
    let SignatureConfig { server, callers, .. } = config;
    if callers.is_empty() {
        found.push(wrong(
            "there are no callers, so that nobody could ask; write [[callers]] with a name and a token"
                .to_owned(),
        ));
    }
    for (number, caller) in callers.iter().enumerate() {
        let of_caller = |(wrong, message)| Weighed { caller: Some(number), message, wrong };
        found.extend(weigh_caller(caller, &callers[..number]).into_iter().map(of_caller));
        if caller.tokens.is_empty() && !server.listen.ip().is_loopback() {
            found.push(of_caller((
                true,
                format!(
                    "the caller {:?} has no tokens, and server.listen is {}: everybody who reaches it could have files uploaded at your cost; give the caller tokens, or listen on 127.0.0.1",
                    caller.name, server.listen
                ),
            )));
        }
    }
    if let Some(listen) = server.metrics_listen {
        if !listen.ip().is_loopback() {
            found.push(wrong(format!(
                "server.metrics_listen is {listen}, and has no authentication; write a loopback address, like \"127.0.0.1:9467\""
            )));
        }
        if listen == server.listen && listen.port() != 0 {
            found.push(wrong(format!(
                "server.metrics_listen and server.listen are both {listen}; give each a port of its own"
            )));
        }
    }
    if !server.listen.ip().is_loopback() {
        let message = format!(
            "server.listen is {}, and the server speaks plain HTTP: tokens and signatures can be read on the way; listen on 127.0.0.1 behind a proxy with TLS",
            server.listen
        );
        found.push(Weighed { caller: None, message, wrong: false });
    }
    found
}

/// What is wrong (true) or doubtful (false) about one caller. `before` are those that stand before it.
fn weigh_caller(caller: &CallerOptions, before: &[CallerOptions]) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let name = &caller.name;
    if name.is_empty() {
        found.push((true, "the caller has no name; write name = \"web\"".to_owned()));
    } else if before.iter().any(|other| other.name == *name) {
        found.push((true, format!("there are two callers {name:?}; give each a name of its own")));
    }
    if caller.tokens.len() > MOST_TOKENS {
        let tokens = caller.tokens.len();
        found.push((true, format!("the caller {name:?} has {tokens} tokens; two are enough for a rotation")));
    }
    if caller.tokens.is_empty() && before.iter().any(|other| other.tokens.is_empty()) {
        found.push((
            true,
            format!("the caller {name:?} is a second one without tokens; nothing would tell them apart"),
        ));
    }
    let policy = &caller.policy;
    for (fixed, list, both) in [
        ("sub_app_id", "sub_app_ids", has_both(&policy.sub_app_id)),
        ("procedure", "procedures", has_both(&policy.procedure)),
        ("class_id", "class_ids", has_both(&policy.class_id)),
        ("storage_region", "storage_regions", has_both(&policy.storage_region)),
        ("task_priority", "task_priorities", has_both(&policy.task_priority)),
        ("task_notify_mode", "task_notify_modes", has_both(&policy.task_notify_mode)),
    ] {
        if both {
            let message = format!(
                "the caller {name:?} has both {fixed} and {list}; the first is what it always gets, the second what it may choose from: write one"
            );
            found.push((true, message));
        }
    }
    if policy.expiry > policy.expiry_max {
        found.push((
            true,
            format!(
                "the caller {name:?} has expiry {} and expiry_max {}; the first is what it gets without asking: make it smaller, or the second larger",
                shown(policy.expiry),
                shown(policy.expiry_max)
            ),
        ));
    }
    if caller.tokens.is_empty() {
        let message =
            format!("the caller {name:?} has no tokens: every program on this host can ask in its name");
        found.push((false, message));
    }
    found
}

fn has_both<T>(choice: &Choice<T>) -> bool {
    let none = matches!(&choice.allowed, Allowed::These(values) if values.is_empty());
    choice.fixed.is_some() && !none
}
