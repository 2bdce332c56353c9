//! The client of the cloud ([`tencent_vod`]) as the relay uses it. It translates failures into the core's
//! types, and puts the client's observations into the log and the metrics.

mod codes;

use tencent_vod::{ClientObserver, FailureKind, Observation};
use tracing::{debug, info, warn};
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::RequestFailure;
use vodrelay_host::BootTime;

use codes::Codes;

/// `User-Agent` of every request to the API.
pub const USER_AGENT: reqwest::header::HeaderValue =
    reqwest::header::HeaderValue::from_static(concat!("vodrelay/", env!("CARGO_PKG_VERSION")));

/// The client's form of the core's moment.
pub fn deadline(moment: vodrelay_core::clock::Moment) -> BootTime {
    BootTime { ms: moment.0 }
}

/// The core's form of a failure.
pub fn request_failure(kind: FailureKind) -> RequestFailure {
    match kind {
        FailureKind::Throttled => RequestFailure::Throttled,
        FailureKind::Credentials => RequestFailure::Credentials,
        FailureKind::Clock => RequestFailure::Clock,
        FailureKind::Transient => RequestFailure::Transient,
        FailureKind::Refused => RequestFailure::Refused,
        FailureKind::Configuration => RequestFailure::Configuration,
    }
}

/// The problem of a lasting failure.
pub fn error_code(kind: FailureKind) -> ErrorCode {
    request_failure(kind).error_code()
}

/// Logs and counts the client's observations.
pub fn observer() -> ClientObserver {
    let codes = Codes::default();
    ClientObserver::new(move |observation| observe(&codes, observation))
}

fn observe(codes: &Codes, observation: &Observation<'_>) {
    match observation {
        Observation::RequestEnded { action, sub_app, result, request_id, elapsed } => {
            let (action, code) = (
                action.name(),
                match result {
                    Ok(true) => "idle",
                    Ok(false) => "ok",
                    Err(error) => &error.code,
                },
            );
            metrics::counter!("vodrelay_api_requests_total", "action" => action, "code" => codes.label(code))
                .increment(1);
            let elapsed_ms = elapsed.as_millis();
            debug!(action, sub_app = sub_app.0, code, request_id, elapsed_ms, "request");
        }
        Observation::ClockCorrected { by_ms } => warn!(
            error_code = %ErrorCode::ClockWrong,
            skew_seconds = by_ms / 1_000,
            "the host's clock is wrong, and the cloud refuses its time stamps; requests are now signed with the cloud's time; set the host's clock, and keep it set with NTP"
        ),
        Observation::ClockFits => {
            info!("the host's clock is right again; requests are signed with its time");
        }
        Observation::CredentialsRead(credentials) => info!(
            origin = credentials.origin,
            id = credentials.masked_id(),
            temporary = credentials.token.is_some(),
            "credentials read"
        ),
        Observation::CredentialsNotRefreshed(error) => warn!(
            error_code = %ErrorCode::NoCredentials,
            %error,
            "temporary credentials cannot be refreshed; those in use are valid for some more minutes"
        ),
        Observation::CredentialsNotReplaced(error) => warn!(
            error_code = %ErrorCode::CredentialsRejected,
            %error,
            "the cloud refuses the credentials, and they cannot be read again"
        ),
    }
}
