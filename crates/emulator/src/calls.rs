//! The requests about events: their effect on a queue, and their answers.

use super::action::Action;
use super::api::{ApiError, Params};
use super::faults::{AnswerFaults, IdleShape};
use super::http::{HttpAnswer, fail};
use super::queue::{Delivered, MAX_BATCH};
use super::state::{Cloud, State, now_ms, sleep_until_ms};
use super::uploads::settings::Policy;

/// Carries out a request.
pub(super) async fn act(cloud: &Cloud, action: Action, params: Params) -> Result<HttpAnswer, ApiError> {
    match action {
        Action::PullEvents => Ok(pull(cloud, params.sub_app_id).await),
        other => describe_or_change(cloud, other, params),
    }
}

fn describe_or_change(cloud: &Cloud, action: Action, params: Params) -> Result<HttpAnswer, ApiError> {
    match action {
        Action::ConfirmEvents => confirm(cloud, &params),
        Action::DescribeEventsState => {
            let mut state = cloud.lock();
            let queue = &mut state.app(params.sub_app_id).queue;
            queue.advance(now_ms());
            Ok(HttpAnswer::new(format!("\"CountOfEventsToPull\":{},", queue.counts().visible)))
        }
        Action::DescribeEventConfig => {
            let mut state = cloud.lock();
            let config = &state.app(params.sub_app_id).config;
            Ok(HttpAnswer::new(format!(
                "\"Mode\":\"{}\",\"NotificationUrl\":{},\"UploadMediaCompleteEventSwitch\":\"{}\",\
                 \"DeleteMediaCompleteEventSwitch\":\"{}\",\"PersistenceCompleteEventSwitch\":\"{}\",",
                config.mode,
                serde_json::Value::from(config.notification_url.as_str()),
                config.upload_switch,
                config.delete_switch,
                config.persistence_switch,
            )))
        }
        Action::ModifyEventConfig => {
            let mut state = cloud.lock();
            if params.sign_key.is_some_and(|key| !is_sign_key(&key, state.settings.uploads.empty_sign_key)) {
                let message = "SignKey is not made of 1 to 32 letters and digits";
                return Err(ApiError::new("InvalidParameterValue", message));
            }
            let app = state.app(params.sub_app_id);
            // A pull that is held may find something under the new mode.
            app.wake.notify_waiters();
            let config = &mut app.config;
            let changes = [
                (&mut config.mode, params.mode),
                (&mut config.notification_url, params.notification_url),
                (&mut config.upload_switch, params.upload),
                (&mut config.delete_switch, params.delete),
                (&mut config.persistence_switch, params.persistence),
            ];
            for (value, new) in changes {
                if let Some(new) = new {
                    *value = new;
                }
            }
            Ok(HttpAnswer::new(""))
        }
        // Other modules answer these.
        _ => Ok(HttpAnswer::new("")),
    }
}

fn is_sign_key(key: &str, empty: Policy) -> bool {
    let good = key.len() <= 32 && key.bytes().all(|b| b.is_ascii_alphanumeric());
    good && (!key.is_empty() || empty.accepts())
}

/// Takes what there is, or holds on until there is something. A client that goes away while it is held takes nothing:
/// this future is dropped at one of its waits, and taking and answering have none between them.
async fn pull(cloud: &Cloud, sub_app_id: u64) -> HttpAnswer {
    let (wake, deadline_ms) = {
        let mut state = cloud.lock();
        let deadline_ms = now_ms().saturating_add(state.settings.hold_ms);
        (state.app(sub_app_id).wake.clone(), deadline_ms)
    };
    loop {
        let woken = wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let next_visible_at = {
            let mut state = cloud.lock();
            let taken = take(&mut state, sub_app_id);
            if !taken.is_empty() {
                return HttpAnswer::new(event_set(&taken));
            }
            state.app(sub_app_id).queue.next_visible_at()
        };
        if now_ms() >= deadline_ms {
            let shape = cloud.lock().settings.idle;
            return idle(cloud, shape);
        }
        let until = next_visible_at.map_or(deadline_ms, |next| next.min(deadline_ms));
        tokio::select! {
            () = woken => {}
            () = sleep_until_ms(Some(until)) => {}
        }
    }
}

fn take(state: &mut State, sub_app_id: u64) -> Vec<Delivered> {
    let now = now_ms();
    let app = state.app(sub_app_id);
    app.queue.advance(now);
    if app.config.mode == "PUSH" || app.queue.counts().visible == 0 {
        return Vec::new();
    }
    let faults = state.faults.delivery(&mut state.rng);
    let app = state.app(sub_app_id);
    let taken = app.queue.pull(now, MAX_BATCH, faults.style);
    if let Some(under) = faults.redelivered {
        for delivered in &taken {
            app.queue.force_redeliver(delivered.number, under);
        }
        app.wake.notify_waiters();
    }
    taken
}

fn event_set(taken: &[Delivered]) -> Vec<u8> {
    let bytes: usize = taken.iter().map(|d| d.body.len() + 64).sum();
    let mut members = Vec::with_capacity(bytes + 128);
    members.extend_from_slice(b"\"EventSet\":[");
    for (at, delivered) in taken.iter().enumerate() {
        if at > 0 {
            members.push(b',');
        }
        delivered.write_to(&mut members);
    }
    members.extend_from_slice(b"],");
    members
}

pub(super) fn idle(cloud: &Cloud, shape: IdleShape) -> HttpAnswer {
    cloud.lock().idle += 1;
    let answer = match shape {
        IdleShape::Error => fail(cloud, ApiError::new("ResourceNotFound", "no event")),
        IdleShape::Null => HttpAnswer::new("\"EventSet\":null,"),
        IdleShape::Empty => HttpAnswer::new("\"EventSet\":[],"),
        IdleShape::Absent => HttpAnswer::new(""),
    };
    HttpAnswer { idle: true, ..answer }
}

fn confirm(cloud: &Cloud, params: &Params) -> Result<HttpAnswer, ApiError> {
    let handles = params.event_handles.as_deref().unwrap_or_default();
    let mut guard = cloud.lock();
    let state = &mut *guard;
    let apps = &state.apps;
    let is_first = || {
        let app = apps.get(&params.sub_app_id);
        app.is_some_and(|app| handles.iter().any(|handle| app.queue.is_first(handle)))
    };
    if state.faults.loses_confirm(is_first, &mut state.rng) {
        let faults = AnswerFaults { lost: true, ..AnswerFaults::default() };
        return Ok(HttpAnswer { faults, ..HttpAnswer::new("") });
    }
    let bad = state.faults.bad_handles(handles, &mut state.rng);
    let queue = &mut state.app(params.sub_app_id).queue;
    for handle in bad {
        queue.poison(&handle);
    }
    let result = queue.confirm(now_ms(), handles);
    match result.first_bad() {
        None => Ok(HttpAnswer::new("")),
        Some((at, verdict)) => {
            let message = format!("EventHandles.{at} cannot be confirmed: {}", verdict.reason());
            Err(ApiError::new("InvalidParameterValue", message))
        }
    }
}
