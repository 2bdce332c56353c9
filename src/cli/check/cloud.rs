//! The cloud's end: credentials, a signed call for each sub-application, the clock.

use std::time::Duration;

use futures_util::future::join_all;
use tencent_vod::{Client, Credentials, CredentialsError, EventConfig, FailureKind, RequestError};
use tencent_vod_event::SubAppId;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use vodrelay_core::clock::WallTime;
use vodrelay_core::error_code::ErrorCode;

use super::lines::CheckLine;
use crate::app;
use crate::clock::Now as _;
use crate::cloud;
use crate::config::Config;

const PART: &str = "cloud";
const CREDENTIALS: &str = "credentials";

/// The metadata service is the slowest source.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(5);
/// One request. The calls after the credentials are two in a row.
const CALL_LIMIT: Duration = Duration::from_secs(6);
/// Between two sub-applications: `DescribeEventConfig` may be called 20 times a second (document 266/57589, intl).
const SPACING: Duration = Duration::from_millis(60);

/// A host whose clock is set by NTP is never this far off.
const SKEW_WARN: Duration = Duration::from_secs(60);
/// The cloud's own limit ("Signature v3": `AuthFailure.SignatureExpire`).
const SKEW_REFUSED: Duration = Duration::from_secs(300);

pub(super) async fn check(config: Config, deadline: Instant) -> Vec<CheckLine> {
    let places = app::places(&config);
    let mut options = app::client_options(&config, places);
    options.describe_timeout = CALL_LIMIT;
    let client = match Client::new(options) {
        Ok(client) => client,
        Err(error) => return vec![CheckLine::wrong(PART, error.to_string())],
    };
    let mut lines = Vec::new();
    match timeout(CREDENTIALS_LIMIT, client.refresh_credentials()).await {
        Ok(Ok(credentials)) => lines.push(found(&credentials, WallTime::now())),
        Ok(Err(error)) => return missing(&error),
        Err(_) => {
            let seconds = CREDENTIALS_LIMIT.as_secs();
            let text =
                format!("not read within {seconds} s; set vod.credentials to the source that has them");
            return vec![CheckLine::away(CREDENTIALS, text)];
        }
    }
    let mut turn = Instant::now();
    let questions = config.vod.sub_apps().into_iter().map(|sub_app| {
        let asked = ask(&client, sub_app, turn, deadline);
        turn += SPACING;
        asked
    });
    lines.extend(join_all(questions).await.into_iter().flatten());
    lines.extend(client.clock_skew_ms().map(clock));
    lines
}

/// A line for each source that has none, and the next step in the last one.
fn missing(error: &CredentialsError) -> Vec<CheckLine> {
    let text = error.to_string();
    let lines = text.lines().map(|line| line.trim().trim_end_matches(';'));
    lines.map(|line| CheckLine::wrong(CREDENTIALS, line).error_code(ErrorCode::NoCredentials)).collect()
}

fn found(credentials: &Credentials, now: WallTime) -> CheckLine {
    let Credentials { origin, token, expires_at, .. } = credentials;
    let id = credentials.masked_id();
    let until = expires_at.map(|seconds| WallTime(seconds.saturating_mul(1_000)));
    match (until, token) {
        (Some(until), _) if until <= now => CheckLine::wrong(
            CREDENTIALS,
            format!("{id} from {origin}, expired at {until}; renew them there, or set the host's clock"),
        ),
        (Some(until), _) => {
            CheckLine::ok(CREDENTIALS, format!("{id} from {origin}, temporary, until {until}"))
        }
        (None, Some(_)) => {
            CheckLine::ok(CREDENTIALS, format!("{id} from {origin}, temporary, expiry unknown"))
        }
        (None, None) => CheckLine::ok(CREDENTIALS, format!("{id} from {origin}, permanent")),
    }
}

/// Two signed calls. Without the right to create them nothing is proven and nothing is wrong: relaying needs
/// neither.
async fn ask(client: &Client, sub_app: SubAppId, turn: Instant, deadline: Instant) -> Vec<CheckLine> {
    let mut lines = Vec::new();
    let questions = async {
        sleep_until(turn).await;
        match client.describe_event_config(sub_app).await {
            Ok(config) => lines.push(callbacks(sub_app, &config)),
            Err(error) => {
                let denied = error.is_denial();
                lines.push(failed(sub_app, &error));
                if !denied {
                    // The next call would say the same.
                    return;
                }
            }
        }
        lines.push(match client.describe_events_state(sub_app).await {
            Ok(count) => CheckLine::ok(
                PART,
                format!("sub-application {sub_app}: {count} events wait (a count that is about three minutes late)"),
            ),
            Err(error) => failed(sub_app, &error),
        });
    };
    let in_time = timeout_at(deadline, questions).await.is_ok();
    if !in_time {
        lines.push(CheckLine::away(
            PART,
            format!("sub-application {sub_app}: no answer in time; run this again"),
        ));
    }
    lines
}

fn failed(sub_app: SubAppId, error: &RequestError) -> CheckLine {
    let action = error.action.name();
    if error.is_denial() {
        let code = &error.code;
        return CheckLine::warn(
            PART,
            format!(
                "sub-application {sub_app}: the key may not call {action} ({code}): not checked; relaying needs \
                 vod:PullEvents and vod:ConfirmEvents only; grant vod:{action} for this check"
            ),
        );
    }
    let text = format!("sub-application {sub_app}: {error}");
    let line = match error.failure {
        FailureKind::Throttled | FailureKind::Transient => CheckLine::away(PART, text),
        FailureKind::Credentials | FailureKind::Clock | FailureKind::Refused | FailureKind::Configuration => {
            CheckLine::wrong(PART, text)
        }
    };
    line.error_code(cloud::error_code(error.failure))
}

fn callbacks(sub_app: SubAppId, config: &EventConfig) -> CheckLine {
    let switch = |on: Option<bool>| match on {
        Some(true) => "ON",
        Some(false) => "OFF",
        None => "not said",
    };
    let switches = [config.upload_media_complete, config.delete_media_complete, config.persistence_complete];
    let [upload, delete, persistence] = switches.map(switch);
    let mode = config.mode.as_deref().unwrap_or("not said");
    let mut text = format!(
        "sub-application {sub_app}: mode {mode}, events: upload {upload}, delete {delete}, persistence {persistence}"
    );
    if !config.request_id.is_empty() {
        text += &format!(" [request {}]", config.request_id);
    }
    let all_off = switches.iter().all(|on| *on == Some(false));
    if all_off {
        text += "; no such events arrive: switch the wanted ones on under callback settings in the VOD console, or call \
                 ModifyEventConfig";
    }
    if mode != "PULL" {
        text += "; events can be pulled in mode PULL only: choose it under callback settings in the VOD console, or call \
                 ModifyEventConfig with Mode=PULL";
    }
    match (&config.mode, all_off) {
        (Some(mode), _) if mode != "PULL" => CheckLine::wrong(PART, text).error_code(ErrorCode::AccountWrong),
        (Some(_), false) => CheckLine::ok(PART, text),
        (Some(_), true) | (None, _) => CheckLine::warn(PART, text),
    }
}

/// The difference of the clocks: the cloud's minus the host's. The measure is good to about a second.
fn clock(skew_ms: i64) -> CheckLine {
    const PART: &str = "clock";
    let skew = Duration::from_millis(skew_ms.unsigned_abs());
    // Whole seconds, rounded.
    let seconds = (skew.as_millis() + 500) / 1_000;
    let direction = if skew_ms > 0 { "behind" } else { "ahead of" };
    let off = format!("{seconds} s {direction} the cloud's");
    if seconds <= 1 {
        CheckLine::ok(PART, "within a second of the cloud's")
    } else if skew < SKEW_WARN {
        CheckLine::ok(PART, off)
    } else if skew < SKEW_REFUSED {
        CheckLine::warn(
            PART,
            format!("{off}, which refuses what is 300 s off; set it, and keep it set with NTP"),
        )
    } else {
        CheckLine::warn(
            PART,
            format!(
                "{off}, which refuses what is 300 s off: the relay signs with the cloud's time; set it, and keep it set with NTP"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tencentcloud_signing::Secret;

    #[test]
    fn the_clock_is_warned_of_before_the_cloud_refuses_it() {
        assert_eq!(clock(-900), CheckLine::ok("clock", "within a second of the cloud's"));
        assert_eq!(clock(12_400), CheckLine::ok("clock", "12 s behind the cloud's"));
        assert_eq!(clock(-59_000), CheckLine::ok("clock", "59 s ahead of the cloud's"));
        assert_eq!(
            clock(60_000),
            CheckLine::warn(
                "clock",
                "60 s behind the cloud's, which refuses what is 300 s off; set it, and keep it set with NTP"
            )
        );
        assert_eq!(
            clock(-301_000),
            CheckLine::warn(
                "clock",
                "301 s ahead of the cloud's, which refuses what is 300 s off: the relay signs with the cloud's time; set it, and \
                 keep it set with NTP"
            )
        );
    }

    #[test]
    fn credentials_are_shown_without_the_secret() {
        let mut credentials = Credentials {
            secret_id: "AKIDz8krbsJ5yKBZQpn7".to_owned(),
            secret_key: Secret::new("hunter2"),
            token: None,
            expires_at: None,
            origin: "the environment".to_owned(),
        };
        let now = WallTime(1_551_113_065_000);
        let ok = |text: &str| CheckLine::ok(CREDENTIALS, text);
        assert_eq!(found(&credentials, now), ok("AKIDz8kr*** from the environment, permanent"));
        credentials.token = Some(Secret::new("hunter3"));
        assert_eq!(
            found(&credentials, now),
            ok("AKIDz8kr*** from the environment, temporary, expiry unknown")
        );
        credentials.expires_at = Some(1_551_113_066);
        assert_eq!(
            found(&credentials, now),
            ok("AKIDz8kr*** from the environment, temporary, until 2019-02-25T16:44:26.000Z")
        );
        credentials.expires_at = Some(1_551_113_065);
        assert_eq!(
            found(&credentials, now),
            CheckLine::wrong(
                CREDENTIALS,
                "AKIDz8kr*** from the environment, expired at 2019-02-25T16:44:25.000Z; renew them there, or set the host's clock"
            )
        );
    }

    #[test]
    fn a_mode_that_is_not_said_is_no_proof_of_a_wrong_one() {
        let line = callbacks(SubAppId(7), &EventConfig::default());
        assert_eq!(
            line,
            CheckLine::warn(
                PART,
                "sub-application 7: mode not said, events: upload not said, delete not said, persistence not said; events can be \
                 pulled in mode PULL only: choose it under callback settings in the VOD console, or call ModifyEventConfig with \
                 Mode=PULL"
            )
        );
    }
}
