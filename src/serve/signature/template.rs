//! How a context is made of what the caller is called and what its request says.

use std::str::FromStr;

use super::policy::PolicyRefusal;

const CALLER: &str = "{caller}";
const REQUEST: &str = "{request}";

/// A text with the placeholders `{caller}` and `{request}`. An empty one stands for no context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextTemplate(Vec<TemplatePart>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    Caller,
    Request,
}

/// A template with a placeholder that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has a brace that begins or ends no placeholder; the placeholders are {{caller}} and {{request}}")]
pub struct UnknownPlaceholder;

impl FromStr for ContextTemplate {
    type Err = UnknownPlaceholder;

    fn from_str(text: &str) -> Result<Self, UnknownPlaceholder> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find('{').unwrap_or(rest.len());
            let (plain, tail) = rest.split_at(end);
            if plain.contains('}') {
                return Err(UnknownPlaceholder);
            }
            if !plain.is_empty() {
                parts.push(TemplatePart::Text(plain.to_owned()));
            }
            rest = if let Some(after) = tail.strip_prefix(CALLER) {
                parts.push(TemplatePart::Caller);
                after
            } else if let Some(after) = tail.strip_prefix(REQUEST) {
                parts.push(TemplatePart::Request);
                after
            } else if tail.is_empty() {
                tail
            } else {
                return Err(UnknownPlaceholder);
            };
        }
        Ok(Self(parts))
    }
}

impl ContextTemplate {
    /// What the request says, and nothing else.
    pub fn of_the_request() -> Self {
        Self(vec![TemplatePart::Request])
    }

    /// The context for a request.
    ///
    /// # Errors
    ///
    /// When the request says what it may not, or does not say what it has to.
    pub(super) fn fill(
        &self,
        name: &'static str,
        caller: &str,
        wanted: Option<String>,
    ) -> Result<Option<String>, PolicyRefusal> {
        if !self.0.contains(&TemplatePart::Request) {
            // A fixed context wins, and no context has to be left out: its absence would not be noticed.
            return match (self.0.is_empty(), wanted) {
                (true, Some(_)) => Err(PolicyRefusal::NotChosenHere(name)),
                (true, None) => Ok(None),
                (false, _) => Ok(Some(self.text(caller, ""))),
            };
        }
        match wanted.as_deref() {
            None | Some("") if self.0.len() > 1 => Err(PolicyRefusal::Missing(name)),
            None => Ok(None),
            Some(said) => Ok(Some(self.text(caller, said))),
        }
    }

    fn text(&self, caller: &str, said: &str) -> String {
        let part = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.clone(),
            TemplatePart::Caller => caller.to_owned(),
            TemplatePart::Request => said.to_owned(),
        };
        self.0.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_made_of_caller_and_request() {
        for (template, said, expected) in [
            ("{request}", Some("u=1"), Ok(Some("u=1"))),
            ("{request}", None, Ok(None)),
            ("{caller}:{request}", Some("u=1"), Ok(Some("web:u=1"))),
            ("{caller}:{request}", None, Err(PolicyRefusal::Missing("sourceContext"))),
            ("{caller}:{request}", Some(""), Err(PolicyRefusal::Missing("sourceContext"))),
            // What a request says is no template.
            ("{caller}:{request}", Some("{caller}"), Ok(Some("web:{caller}"))),
            ("by {caller}", Some("u=1"), Ok(Some("by web"))),
            ("", None, Ok(None)),
            ("", Some("u=1"), Err(PolicyRefusal::NotChosenHere("sourceContext"))),
        ] {
            let filled = template.parse::<ContextTemplate>().unwrap().fill(
                "sourceContext",
                "web",
                said.map(str::to_owned),
            );
            assert_eq!(filled, expected.map(|text| text.map(str::to_owned)), "{template:?} {said:?}");
        }
    }

    #[test]
    fn a_placeholder_that_there_is_not_is_refused() {
        for wrong in ["{user}", "{caller", "caller}", "{}", "{{caller}}", "{Caller}"] {
            assert_eq!(wrong.parse::<ContextTemplate>(), Err(UnknownPlaceholder), "{wrong}");
        }
    }
}
