//! The canonical form of JSON: keys sorted, no white space, null members dropped, numbers by their literal text.

use super::document::{Document, Literal, USUAL_DEPTH, Value, ValueKind, unescape};

impl Document<'_> {
    /// Writes the canonical form, without the root's members named `without`.
    pub(super) fn write_canonical(&self, out: &mut Vec<u8>, without: &str) {
        /// A container in progress: the next child to write, the closing character, and whether a child was
        /// written.
        struct Frame<'a> {
            next: Option<Value<'a>>,
            close: u8,
            root: bool,
            begun: bool,
        }
        let mut stack: Vec<Frame<'_>> = Vec::with_capacity(USUAL_DEPTH);
        let mut current = self.root();
        loop {
            match current.kind() {
                kind @ (ValueKind::Object | ValueKind::Array) => {
                    let (begin, close) = if kind == ValueKind::Object { (b'{', b'}') } else { (b'[', b']') };
                    out.push(begin);
                    let root = stack.is_empty();
                    stack.push(Frame { next: current.first_child(), close, root, begun: false });
                }
                ValueKind::String => write_string(out, current.literal()),
                ValueKind::Number | ValueKind::Null | ValueKind::Bool => {
                    out.extend_from_slice(current.literal().text)
                }
            }
            loop {
                let Some(frame) = stack.last_mut() else { return };
                let Some(next) = frame.next else {
                    out.push(frame.close);
                    stack.pop();
                    continue;
                };
                current = next;
                frame.next = current.next_sibling();
                let key = current.key();
                if let Some(key) = key
                    && (current.kind() == ValueKind::Null
                        || (frame.root && key.meaning() == without.as_bytes()))
                {
                    continue;
                }
                if frame.begun {
                    out.push(b',');
                }
                frame.begun = true;
                // Most members are, and copying one in three pieces costs more than the bytes do.
                if let Some(plain) = current.plain_member() {
                    out.extend_from_slice(plain);
                    continue;
                }
                if let Some(key) = key {
                    write_string(out, key);
                    out.push(b':');
                }
                break;
            }
        }
    }
}

fn write_string(out: &mut Vec<u8>, literal: Literal<'_>) {
    out.push(b'"');
    if !literal.escaped {
        // Everything that needs an escape has one, or the text would not be JSON.
        out.extend_from_slice(literal.text);
        out.push(b'"');
        return;
    }
    for byte in unescape(literal.text) {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x00..0x20 => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Malformed;

    fn canonical(text: &str) -> Result<String, Malformed> {
        let document = Document::parse(text.as_bytes())?;
        let mut out = Vec::new();
        document.write_canonical(&mut out, "EventHandle");
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_canonical_form_by_example() {
        for (text, expected) in [
            ("{}", "{}"),
            (" [ ] ", "[]"),
            (r#"{"b":1,"a":2}"#, r#"{"a":2,"b":1}"#),
            (r#"{"b":null,"a":[null,{"x":null}]}"#, r#"{"a":[null,{}]}"#),
            (r#"{"n":[1.0,1e5,-0,5285485487985271490]}"#, r#"{"n":[1.0,1e5,-0,5285485487985271490]}"#),
            (r#"{"EventHandle":"h","a":{"EventHandle":"h"}}"#, r#"{"a":{"EventHandle":"h"}}"#),
            (r#"{"s":"\u0041\/\n\"\\"}"#, r#"{"s":"A/\u000a\"\\"}"#),
            (r#"{"k":1,"k":2}"#, r#"{"k":1,"k":2}"#),
            (
                r#"{"StorageSize":1,"StorageMode":2,"Storage":3,"Storage\u0000":4,"StorageM":5,"":6}"#,
                r#"{"":6,"Storage":3,"Storage\u0000":4,"StorageM":5,"StorageMode":2,"StorageSize":1}"#,
            ),
            (
                r#"{"z":{"b":[{"d":1,"c":2}],"a":true},"y":false}"#,
                r#"{"y":false,"z":{"a":true,"b":[{"c":2,"d":1}]}}"#,
            ),
            ("\"\u{53e5}\u{67c4}\"", "\"\u{53e5}\u{67c4}\""),
        ] {
            assert_eq!(canonical(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn nesting_costs_no_stack_and_no_more_than_linear_time() {
        let depth = 200_000;
        let text = format!("{}{}", "{\"b\":1,\"a\":".repeat(depth), "0".to_owned() + &"}".repeat(depth));
        let form = canonical(&text).unwrap();
        assert!(form.starts_with("{\"a\":{\"a\":") && form.ends_with(",\"b\":1}"));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// Writes a value with its keys in reverse, white space everywhere, and a null member more in every object.
    fn disguised(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Object(members) => {
                let mut parts: Vec<String> = members
                    .iter()
                    .rev()
                    .map(|(k, v)| format!("\n{} :\t{}", serde_json::to_string(k).unwrap(), disguised(v)))
                    .collect();
                parts.push("\"\\u0000nothing\":null".to_owned());
                format!("{{ {} }}", parts.join(" ,"))
            }
            serde_json::Value::Array(items) => {
                format!("[ {} ]", items.iter().map(disguised).collect::<Vec<_>>().join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn a_disguised_value_has_the_same_form(value in json()) {
            let plain = canonical(&value.to_string()).unwrap();
            prop_assert_eq!(&plain, &canonical(&disguised(&value)).unwrap());
            prop_assert_eq!(&plain, &canonical(&plain).unwrap());
        }
    }
}
