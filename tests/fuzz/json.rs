//! JSON as a model: written in any spelling, and told apart by an encoding of its own.

use proptest::prelude::*;

/// A value. Numbers are their literal text; members keep their order, and a name may come twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Names that mean something to somebody, and names that nearly do.
const NAMES: &[&str] = &[
    "EventHandle",
    "EventType",
    "FileId",
    "FileIdSet",
    "TaskId",
    "EventSet",
    "Response",
    "RequestId",
    "Error",
    "PullCompleteEvent",
    "a",
    "b",
    "ab",
    "",
    " ",
    "a\"",
    "\\",
    "\u{0}",
    "é",
    "e\u{301}",
    "句柄",
    "\u{1f600}",
    "a.b",
];

pub(crate) fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?",
        Just("1e999999".to_owned()),
        Just("-0".to_owned()),
        Just("9".repeat(400)),
        Just("5285485487985271490".to_owned()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![3 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => any::<String>()]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[a-z0-9\"\\\\{}\\[\\]:, .]{0,8}", 1 => any::<String>(), 1 => name()]
}

/// Any value.
pub(crate) fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        number().prop_map(Json::Number),
        text().prop_map(Json::Text),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::Array),
            prop::collection::vec((name(), inner), 0..6).prop_map(Json::Object),
        ]
    })
}

/// An object, most likely with what an event has.
pub(crate) fn event() -> impl Strategy<Value = Json> {
    let usual =
        (text(), text(), prop::collection::vec((name(), json()), 0..5)).prop_map(|(handle, kind, more)| {
            let mut members = vec![
                ("EventHandle".to_owned(), Json::Text(handle)),
                ("EventType".to_owned(), Json::Text(kind)),
            ];
            members.extend(more);
            Json::Object(members)
        });
    prop_oneof![3 => usual, 1 => json()]
}

impl Json {
    /// The value in a spelling of its own: members in another order (but for those of one name), members more that are null,
    /// white space, escapes.
    pub(crate) fn spelled(&self, rng: &mut fastrand::Rng) -> String {
        let mut out = String::new();
        self.spell(&mut out, rng);
        out
    }

    fn spell(&self, out: &mut String, rng: &mut fastrand::Rng) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(literal) => out.push_str(literal),
            Self::Text(text) => spell_text(text, out, rng),
            Self::Array(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    space(out, rng);
                    item.spell(out, rng);
                    space(out, rng);
                }
                out.push(']');
            }
            Self::Object(members) => {
                let mut members: Vec<(&str, &Json)> = members.iter().map(|(k, v)| (k.as_str(), v)).collect();
                shuffle_but_for_equal_names(&mut members, rng);
                for _ in 0..rng.usize(..2) {
                    members
                        .insert(rng.usize(..=members.len()), (NAMES[rng.usize(..NAMES.len())], &Json::Null));
                }
                out.push('{');
                for (at, (name, value)) in members.into_iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    space(out, rng);
                    spell_text(name, out, rng);
                    space(out, rng);
                    out.push(':');
                    space(out, rng);
                    value.spell(out, rng);
                    space(out, rng);
                }
                out.push('}');
            }
        }
    }

    /// The value in its plainest spelling.
    pub(crate) fn plain(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(literal) => literal.clone(),
            Self::Text(text) => serde_json::to_string(text).unwrap(),
            Self::Array(items) => {
                format!("[{}]", items.iter().map(Self::plain).collect::<Vec<_>>().join(","))
            }
            Self::Object(members) => {
                let member = |(name, value): &(String, Json)| {
                    format!("{}:{}", serde_json::to_string(name).unwrap(), value.plain())
                };
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    /// What the value says, in a form that nothing here shares with the program: every part is preceded by its kind and
    /// its length, so that two values have one form only if they say the same. Members without a value are left out, and
    /// so are those of the outermost object that are called `without`.
    pub(crate) fn meaning(&self, without: Option<&str>) -> Vec<u8> {
        let tagged = |kind: char, count: usize, content: Vec<u8>| {
            let mut form = format!("{kind}{count}:").into_bytes();
            form.extend(content);
            form
        };
        match self {
            Self::Null => tagged('z', 0, Vec::new()),
            Self::Bool(value) => tagged('b', usize::from(*value), Vec::new()),
            Self::Number(literal) => tagged('n', literal.len(), literal.clone().into_bytes()),
            Self::Text(text) => tagged('s', text.len(), text.clone().into_bytes()),
            Self::Array(items) => {
                tagged('a', items.len(), items.iter().flat_map(|item| item.meaning(None)).collect())
            }
            Self::Object(members) => {
                let mut by_name = std::collections::BTreeMap::<&str, Vec<&Json>>::new();
                for (name, value) in members {
                    if *value != Self::Null && Some(name.as_str()) != without {
                        by_name.entry(name).or_default().push(value);
                    }
                }
                let mut form = Vec::new();
                for (name, values) in &by_name {
                    form.extend(tagged('k', name.len(), name.as_bytes().to_vec()));
                    let values_form = values.iter().flat_map(|value| value.meaning(None)).collect();
                    form.extend(tagged('v', values.len(), values_form));
                }
                tagged('o', by_name.len(), form)
            }
        }
    }
}

fn shuffle_but_for_equal_names(members: &mut [(&str, &Json)], rng: &mut fastrand::Rng) {
    let before = members.to_vec();
    let mut order: Vec<usize> = (0..members.len()).collect();
    rng.shuffle(&mut order);
    for at in 0..members.len() {
        // The places that this name got, in their order, take its members in theirs.
        let name = before[order[at]].0;
        let nth = (0..at).filter(|other| before[order[*other]].0 == name).count();
        members[at] = *before.iter().filter(|member| member.0 == name).nth(nth).unwrap();
    }
}

fn space(out: &mut String, rng: &mut fastrand::Rng) {
    if rng.u8(..4) == 0 {
        out.push_str([" ", "\n", "\t", "\r\n", "   "][rng.usize(..5)]);
    }
}

fn spell_text(text: &str, out: &mut String, rng: &mut fastrand::Rng) {
    out.push('"');
    for c in text.chars() {
        let short = match c {
            '"' => Some('"'),
            '\\' => Some('\\'),
            '/' => Some('/'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            _ => None,
        };
        match (rng.u8(..4), short) {
            (0, _) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let digits = if rng.bool() { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") };
                    out.push_str(&digits);
                }
            }
            (1, Some(short)) => out.extend(['\\', short]),
            _ if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            (_, Some('"' | '\\')) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out.push('"');
}
