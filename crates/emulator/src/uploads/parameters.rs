//! The parameters of a request about media, from JSON or from a form. In a form, numbers mark list items and dots mark
//! members.

use serde_json::{Map, Value};

use crate::action::Action;
use crate::api::ApiError;

/// The largest depth of a name in a form.
const MAX_DEPTH: usize = 8;

/// The longest list in a form.
const MAX_ITEMS: usize = 1_000;

/// Parameters by name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct MediaParameters {
    values: Map<String, Value>,
    /// All values of a form are text.
    form: bool,
}

impl MediaParameters {
    /// Reads the body of a POST.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::new("InvalidRequest", format!("the body is not JSON: {error}")))?;
        match value {
            Value::Object(values) => Ok(Self { values, form: false }),
            _ => Err(ApiError::new("InvalidParameter", "the body is not an object of parameters")),
        }
    }

    /// Reads the pairs of a form or of a query.
    pub(crate) fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ApiError> {
        let mut values = Value::Object(Map::new());
        for (name, value) in pairs {
            let path: Vec<&str> = name.split('.').collect();
            let good = path.len() <= MAX_DEPTH && path.iter().all(|part| !part.is_empty());
            if !good || !put(&mut values, &path, value) {
                let name: String = name.chars().take(100).collect();
                return Err(ApiError::new(
                    "InvalidParameter",
                    format!("the parameter {name} does not fit the others"),
                ));
            }
        }
        match values {
            Value::Object(values) => Ok(Self { values, form: true }),
            _ => Ok(Self::default()),
        }
    }

    /// Refuses parameters that the action does not have.
    pub(crate) fn only(&self, action: Action, known: &[&str]) -> Result<(), ApiError> {
        match self.values.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => {
                let name: String = name.chars().take(100).collect();
                Err(ApiError::new("UnknownParameter", format!("{} takes no parameter {name}", action.name())))
            }
            None => Ok(()),
        }
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// The JSON of a parameter.
    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        self.value(name)
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::new("InvalidParameter", format!("{name} is not a text"))),
        }
    }

    /// A required text that is not empty.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(ApiError::new("MissingParameter", format!("{name} is missing"))),
        }
    }

    /// A text with a length limit in characters.
    pub(crate) fn at_most(&self, name: &str, most: usize) -> Result<String, ApiError> {
        let text = self.text(name)?.unwrap_or_default();
        let characters = text.chars().count();
        if characters > most {
            let message = format!("{name} has {characters} characters; {most} are allowed");
            return Err(ApiError::new("InvalidParameterValue", message));
        }
        Ok(text.to_owned())
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let number = match self.value(name) {
            None => return Ok(None),
            Some(Value::String(text)) if self.form => text.parse().ok(),
            Some(value) => value.as_i64(),
        };
        let wrong = || ApiError::new("InvalidParameter", format!("{name} is not a whole number"));
        number.map(Some).ok_or_else(wrong)
    }

    /// The sub-application; 0 by default.
    pub(crate) fn sub_app_id(&self) -> Result<u64, ApiError> {
        let number = self.number("SubAppId")?.unwrap_or(0);
        u64::try_from(number)
            .map_err(|_| ApiError::new("InvalidParameter", "SubAppId is not an unsigned number"))
    }
}

/// Puts a value at its path. `false` if another value is there.
fn put(at: &mut Value, path: &[&str], value: &str) -> bool {
    let Some((first, rest)) = path.split_first() else {
        if !at.is_null() {
            return false;
        }
        *at = Value::from(value);
        return true;
    };
    if let Ok(index) = first.parse::<usize>() {
        if at.is_null() {
            *at = Value::Array(Vec::new());
        }
        let Value::Array(items) = at else { return false };
        if index >= MAX_ITEMS {
            return false;
        }
        if items.len() <= index {
            items.resize(index + 1, Value::Null);
        }
        return put(&mut items[index], rest, value);
    }
    if at.is_null() {
        *at = Value::Object(Map::new());
    }
    match at {
        Value::Object(members) => put(members.entry(*first).or_insert(Value::Null), rest, value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_the_json_that_it_stands_for() {
        let form = MediaParameters::from_pairs([
            ("FileId", "1"),
            ("MediaProcessTask.TranscodeTaskSet.1.Definition", "20"),
            ("MediaProcessTask.TranscodeTaskSet.0.Definition", "10"),
            ("TasksPriority", "-3"),
            ("SubAppId", "7"),
        ])
        .unwrap();
        let task = form.raw("MediaProcessTask").unwrap();
        assert_eq!(task["TranscodeTaskSet"][1]["Definition"], "20");
        assert_eq!((form.number("TasksPriority").unwrap(), form.sub_app_id().unwrap()), (Some(-3), 7));
        let json = MediaParameters::from_json(br#"{"SubAppId":"7"}"#).unwrap();
        assert_eq!(json.sub_app_id().unwrap_err().code, "InvalidParameter");
    }

    #[test]
    fn names_that_contradict_each_other_or_go_too_deep_are_refused() {
        for pairs in [
            &[("A", "1"), ("A.B", "2")][..],
            &[("A.0", "1"), ("A.B", "2")],
            &[("A", "1"), ("A", "2")],
            &[("A.B.C.D.E.F.G.H.I", "1")],
            &[("A.1000", "1")],
            &[("A..B", "1")],
            &[("0", "1")],
        ] {
            assert!(MediaParameters::from_pairs(pairs.iter().copied()).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn each_wrong_value_has_its_code() {
        let read = |json: &str| MediaParameters::from_json(json.as_bytes());
        assert_eq!(read("[]").unwrap_err().code, "InvalidParameter");
        assert_eq!(read("{").unwrap_err().code, "InvalidRequest");
        let some = read(r#"{"A":1,"B":"","C":"测测测","D":-1}"#).unwrap();
        assert_eq!(some.only(Action::CommitUpload, &["A", "B", "C"]).unwrap_err().code, "UnknownParameter");
        assert_eq!(some.text("A").unwrap_err().code, "InvalidParameter");
        assert_eq!(some.required("B").unwrap_err().code, "MissingParameter");
        assert_eq!(some.required("E").unwrap_err().code, "MissingParameter");
        assert_eq!(some.at_most("C", 2).unwrap_err().code, "InvalidParameterValue");
        assert_eq!(some.at_most("C", 3).unwrap(), "测测测");
        assert_eq!(some.number("C").unwrap_err().code, "InvalidParameter");
    }
}
