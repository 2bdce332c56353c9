//! The readers of answers, apart from the requests: what the methods of [`super::Client`] make of a body with
//! status 200. Pure, so tests can run them on millions of inputs.

use bytes::Bytes;
use tencent_vod_event::SubAppId;

use crate::classify::{Action, RequestError};
use crate::wire::{ApiAnswer, EventConfig, Pull};

/// What [`super::Client::pull_events`] makes of an answer.
///
/// # Errors
///
/// [`RequestError`]: the cloud's own, or that `body` is no answer.
pub fn pull(sub_app: SubAppId, body: Bytes) -> Result<Pull, RequestError> {
    read(Action::PullEvents, sub_app, body)?.into_pull()
}

/// What [`super::Client::confirm_events`] makes of an answer.
///
/// # Errors
///
/// [`RequestError`]: the cloud's own, or that `body` is no answer.
pub fn confirmed(body: Bytes) -> Result<(), RequestError> {
    read(Action::ConfirmEvents, SubAppId(0), body)?.into_confirmed()
}

/// What [`super::Client::describe_events_state`] makes of an answer.
///
/// # Errors
///
/// [`RequestError`]: the cloud's own, or that `body` is no answer.
pub fn count(body: Bytes) -> Result<u64, RequestError> {
    read(Action::DescribeEventsState, SubAppId(0), body)?.into_count()
}

/// What [`super::Client::describe_event_config`] makes of an answer.
///
/// # Errors
///
/// [`RequestError`]: the cloud's own, or that `body` is no answer.
pub fn event_config(body: Bytes) -> Result<EventConfig, RequestError> {
    read(Action::DescribeEventConfig, SubAppId(0), body)?.into_event_config()
}

fn read(action: Action, sub_app: SubAppId, body: Bytes) -> Result<ApiAnswer, RequestError> {
    let answer = ApiAnswer::read(action, sub_app, body)?;
    match answer.error() {
        Some(error) if !answer.is_idle() => Err(error),
        _ => Ok(answer),
    }
}
