//! The form of the API's requests about events: parameters, errors. Written from the documents alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, Serialize};

use super::action::Action;
use super::queue::MAX_BATCH;

/// The only version that has events.
pub(super) const VERSION: &str = "2018-07-17";

/// An error as the envelope carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: Cow<'static, str>,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// The envelope's `Error` member.
    pub(super) fn to_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct ErrorBody<'a> {
            code: &'a str,
            message: &'a str,
        }
        serde_json::to_string(&ErrorBody { code: &self.code, message: &self.message }).unwrap_or_default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ParameterName {
    SubAppId,
    ExtInfo,
    EventHandles,
    Mode,
    NotificationUrl,
    Upload,
    Delete,
    Persistence,
    Signing,
}

impl ParameterName {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "SubAppId" => Self::SubAppId,
            "ExtInfo" => Self::ExtInfo,
            "EventHandles" => Self::EventHandles,
            "Mode" => Self::Mode,
            "NotificationUrl" => Self::NotificationUrl,
            "UploadMediaCompleteEventSwitch" => Self::Upload,
            "DeleteMediaCompleteEventSwitch" => Self::Delete,
            "PersistenceCompleteEventSwitch" => Self::Persistence,
            "SignKey" => Self::Signing,
            _ => return None,
        })
    }
}

/// Whether an action takes a parameter.
fn takes(action: Action, key: ParameterName) -> bool {
    match key {
        ParameterName::SubAppId => true,
        ParameterName::ExtInfo => matches!(action, Action::PullEvents | Action::ConfirmEvents),
        ParameterName::EventHandles => action == Action::ConfirmEvents,
        ParameterName::Mode
        | ParameterName::NotificationUrl
        | ParameterName::Upload
        | ParameterName::Delete
        | ParameterName::Persistence
        | ParameterName::Signing => action == Action::ModifyEventConfig,
    }
}

/// The parameters of a request about events, of any action.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    /// 0 when it was left out: the default application.
    pub(super) sub_app_id: u64,
    pub(super) event_handles: Option<Vec<String>>,
    pub(super) mode: Option<String>,
    pub(super) notification_url: Option<String>,
    pub(super) upload: Option<String>,
    pub(super) delete: Option<String>,
    pub(super) persistence: Option<String>,
    /// What PUSH messages are signed with: nothing to an emulator of PULL, but for its form.
    pub(super) sign_key: Option<String>,
    /// The first key that the action does not have.
    unknown: Option<String>,
}

impl Params {
    /// Reads the body of a POST.
    pub(super) fn from_body(action: Action, body: &[u8]) -> Result<Self, ApiError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let params = ParamsSeed(action).deserialize(&mut json).and_then(|params| json.end().map(|()| params));
        let params = params.map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                ApiError::new("InvalidParameter", format!("wrong parameter: {error}"))
            }
            _ => ApiError::new("InvalidRequest", format!("the body is not JSON: {error}")),
        })?;
        params.checked(action)
    }

    /// Reads the decoded pairs of a query or of a form, where lists are numbered: `EventHandles.0=…`.
    pub(super) fn from_pairs<'a>(
        action: Action,
        pairs: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<Self, ApiError> {
        let mut params = Self::default();
        for (name, value) in pairs {
            let key =
                name.split('.').next().and_then(ParameterName::from_name).filter(|key| takes(action, *key));
            let value = value.into_owned();
            match key {
                None => params.unknown = Some(name.into_owned()),
                Some(ParameterName::SubAppId) => {
                    params.sub_app_id = value.parse().map_err(|_| {
                        ApiError::new("InvalidParameter", "SubAppId is not an unsigned number")
                    })?;
                }
                Some(ParameterName::EventHandles) => params.event_handles.get_or_insert_default().push(value),
                Some(key) => params.set(key, value),
            }
        }
        params.checked(action)
    }

    fn set(&mut self, key: ParameterName, value: String) {
        match key {
            ParameterName::Mode => self.mode = Some(value),
            ParameterName::NotificationUrl => self.notification_url = Some(value),
            ParameterName::Upload => self.upload = Some(value),
            ParameterName::Delete => self.delete = Some(value),
            ParameterName::Persistence => self.persistence = Some(value),
            ParameterName::Signing => self.sign_key = Some(value),
            // ExtInfo is reserved.
            ParameterName::ExtInfo | ParameterName::SubAppId | ParameterName::EventHandles => {}
        }
    }

    fn checked(self, action: Action) -> Result<Self, ApiError> {
        if let Some(key) = &self.unknown {
            return Err(ApiError::new(
                "UnknownParameter",
                format!("{} takes no parameter {key}", action.name()),
            ));
        }
        if action == Action::ConfirmEvents {
            match self.event_handles.as_deref() {
                None => return Err(ApiError::new("MissingParameter", "EventHandles is missing")),
                Some([]) => return Err(ApiError::new("InvalidParameterValue", "EventHandles is empty")),
                Some(handles) if handles.len() > MAX_BATCH => {
                    let message =
                        format!("EventHandles has {} members; {MAX_BATCH} are allowed", handles.len());
                    return Err(ApiError::new("InvalidParameterValue", message));
                }
                Some(_) => {}
            }
        }
        let choices = [
            ("Mode", &self.mode, ["PULL", "PUSH"]),
            ("UploadMediaCompleteEventSwitch", &self.upload, ["ON", "OFF"]),
            ("DeleteMediaCompleteEventSwitch", &self.delete, ["ON", "OFF"]),
            ("PersistenceCompleteEventSwitch", &self.persistence, ["ON", "OFF"]),
        ];
        for (name, value, [one, other]) in choices {
            if value.as_deref().is_some_and(|value| value != one && value != other) {
                return Err(ApiError::new(
                    "InvalidParameterValue",
                    format!("{name} is neither {one} nor {other}"),
                ));
            }
        }
        Ok(self)
    }
}

struct ParamsSeed(Action);

impl<'de> DeserializeSeed<'de> for ParamsSeed {
    type Value = Params;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Params, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ParamsSeed {
    type Value = Params;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Params, A::Error> {
        let mut params = Params::default();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            match ParameterName::from_name(&name).filter(|key| takes(self.0, *key)) {
                None => {
                    params.unknown.get_or_insert(name.into_owned());
                    map.next_value::<IgnoredAny>()?;
                }
                Some(ParameterName::SubAppId) => {
                    params.sub_app_id = map.next_value::<Option<u64>>()?.unwrap_or(0)
                }
                Some(ParameterName::EventHandles) => {
                    params.event_handles = map.next_value()?;
                }
                Some(key) => {
                    if let Some(value) = map.next_value::<Option<String>>()? {
                        params.set(key, value);
                    }
                }
            }
        }
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_body(action: Action, body: &str, expected: Result<Params, &str>) {
        let got = Params::from_body(action, body.as_bytes()).map_err(|error| error.code.into_owned());
        assert_eq!(got, expected.map_err(str::to_owned), "{body}");
    }

    #[test]
    fn parameters_are_read_as_the_documents_name_them() {
        let handles = |list: &[&str]| Some(list.iter().map(|h| (*h).to_owned()).collect());
        check_body(Action::PullEvents, "{}", Ok(Params::default()));
        check_body(Action::PullEvents, r#"{"SubAppId": 1500000001, "ExtInfo": ""}"#, {
            Ok(Params { sub_app_id: 1_500_000_001, ..Params::default() })
        });
        check_body(Action::PullEvents, r#"{"SubAppId":null}"#, Ok(Params::default()));
        check_body(Action::ConfirmEvents, r#"{"EventHandles": ["\u53e5\u67c4"]}"#, {
            Ok(Params { event_handles: handles(&["句柄"]), ..Params::default() })
        });
        let query = url::form_urlencoded::parse(b"EventHandles.0=a%2Bb&EventHandles.1=c&SubAppId=3");
        let query = Params::from_pairs(Action::ConfirmEvents, query);
        let expected = Params { event_handles: handles(&["a+b", "c"]), sub_app_id: 3, ..Params::default() };
        assert_eq!(query.unwrap(), expected);
    }

    #[test]
    fn each_wrong_body_has_its_code() {
        let many = format!(r#"{{"EventHandles":[{}"h"]}}"#, r#""h","#.repeat(16));
        let cases = [
            (Action::PullEvents, r#"{"Limit":100}"#, "UnknownParameter"),
            (Action::PullEvents, r#"{"EventHandles":["h"]}"#, "UnknownParameter"),
            (Action::DescribeEventsState, r#"{"ExtInfo":""}"#, "UnknownParameter"),
            (Action::PullEvents, r#"{"SubAppId":"1"}"#, "InvalidParameter"),
            (Action::PullEvents, "[]", "InvalidParameter"),
            (Action::PullEvents, "", "InvalidRequest"),
            (Action::PullEvents, "{} {}", "InvalidRequest"),
            (Action::PullEvents, r#"{"SubAppId":"#, "InvalidRequest"),
            (Action::ConfirmEvents, "{}", "MissingParameter"),
            (Action::ConfirmEvents, r#"{"EventHandles":null}"#, "MissingParameter"),
            (Action::ConfirmEvents, r#"{"EventHandles":[]}"#, "InvalidParameterValue"),
            (Action::ConfirmEvents, r#"{"EventHandles":[1]}"#, "InvalidParameter"),
            (Action::ConfirmEvents, &many, "InvalidParameterValue"),
            (Action::ModifyEventConfig, r#"{"Mode":"POLL"}"#, "InvalidParameterValue"),
            (
                Action::ModifyEventConfig,
                r#"{"UploadMediaCompleteEventSwitch":"on"}"#,
                "InvalidParameterValue",
            ),
        ];
        for (action, body, code) in cases {
            check_body(action, body, Err(code));
        }
    }
}
