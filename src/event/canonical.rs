//! The canonical form of JSON: keys sorted, no white space, null members dropped, numbers by their literal text.
//!
//! serde_json's own tree would round numbers, drop repeated keys and recurse; an identity may do none of these, so the
//! text is cut into nodes here. No recursion: nesting costs memory in proportion to the text, and no stack.

use std::borrow::Cow;

use memchr::memchr2;

/// The text is not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {offset}")]
pub struct Malformed {
    /// Where the text stops to make sense.
    pub offset: usize,
}

/// No node, or no key; ends a list of siblings.
const NONE: u32 = u32::MAX;

/// Set in the place where a string ends, if the string has escapes: one without them means what stands there.
const ESCAPED: u32 = 1 << 31;

/// The events of the documents nest no deeper; others do, and cost a list that grows.
const USUAL_DEPTH: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
    String,
    Number,
    Null,
    /// `true` or `false`.
    Bool,
}

/// A value, as places in the text: an answer may hold a node in every other byte, so that a node has to be small.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Where the value begins; its first byte tells its kind.
    start: u32,
    /// Where a scalar ends, and whether it is [`ESCAPED`].
    end: u32,
    /// Where the member's key begins, without its quotes; [`NONE`] outside objects.
    key_start: u32,
    /// Where it ends, and whether it is [`ESCAPED`].
    key_end: u32,
    first_child: u32,
    next_sibling: u32,
}

/// A JSON text cut into nodes.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a [u8],
    nodes: Vec<Node>,
}

/// A container whose end has not been read yet.
struct Open {
    node: u32,
    last_child: u32,
    sorted: bool,
}

impl<'a> Document<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { text, at: 0 };
        if text.len() >= ESCAPED as usize {
            return Err(reader.malformed());
        }
        // All at once: a list that grows holds its old half too while it moves.
        let mut document = Self { text, nodes: Vec::with_capacity(most_nodes(text)) };
        let mut open: Vec<Open> = Vec::with_capacity(USUAL_DEPTH);
        let mut members = Vec::new();
        loop {
            // At the start of a value, or of a member inside an object, or at the end of a container.
            reader.skip_white_space();
            let first_in_container = open.last().is_some_and(|o| o.last_child == NONE);
            let in_object = open.last().is_some_and(|o| document.kind(o.node) == Kind::Object);
            let closes = first_in_container && reader.peek() == Some(if in_object { b'}' } else { b']' });
            if !closes {
                let (key_start, key_end) = if in_object { reader.key()? } else { (NONE, NONE) };
                let start = place(reader.at);
                let (kind, escaped) = reader.value()?;
                let end = end(reader.at, escaped);
                let index = u32::try_from(document.nodes.len()).map_err(|_| reader.malformed())?;
                document.nodes.push(Node {
                    start,
                    end,
                    key_start,
                    key_end,
                    first_child: NONE,
                    next_sibling: NONE,
                });
                if let Some(parent) = open.last_mut() {
                    if parent.last_child == NONE {
                        document.nodes[parent.node as usize].first_child = index;
                    } else {
                        document.nodes[parent.last_child as usize].next_sibling = index;
                        parent.sorted =
                            parent.sorted && document.key(parent.last_child) <= document.key(index);
                    }
                    parent.last_child = index;
                }
                if matches!(kind, Kind::Object | Kind::Array) {
                    open.push(Open { node: index, last_child: NONE, sorted: true });
                    continue;
                }
            }
            // After a value: close every container that ends here.
            loop {
                reader.skip_white_space();
                let Some(container) = open.last() else {
                    return if reader.at == text.len() { Ok(document) } else { Err(reader.malformed()) };
                };
                let is_object = document.kind(container.node) == Kind::Object;
                match reader.next() {
                    Some(b',') if container.last_child != NONE => break,
                    Some(b'}') if is_object => {}
                    Some(b']') if !is_object => {}
                    _ => return Err(reader.malformed()),
                }
                if is_object && !container.sorted {
                    document.sort_members(container.node, &mut members);
                }
                open.pop();
            }
            reader.skip_white_space();
            if matches!(reader.peek(), Some(b'}' | b']')) {
                return Err(reader.malformed());
            }
        }
    }

    fn kind(&self, node: u32) -> Kind {
        match self.text[self.nodes[node as usize].start as usize] {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Bool,
            _ => Kind::Number,
        }
    }

    /// The literal text of a scalar; a string's without its quotes.
    fn literal(&self, node: u32) -> Literal<'a> {
        let Node { start, end, .. } = self.nodes[node as usize];
        let quote = usize::from(self.kind(node) == Kind::String);
        let text = &self.text[start as usize + quote..(end & !ESCAPED) as usize - quote];
        Literal { text, escaped: end & ESCAPED != 0 }
    }

    /// The member's key, unescaped where that is possible; `None` outside objects.
    fn key(&self, node: u32) -> Option<Cow<'a, [u8]>> {
        self.key_literal(node).map(Literal::meaning)
    }

    fn key_literal(&self, node: u32) -> Option<Literal<'a>> {
        let Node { key_start, key_end, .. } = self.nodes[node as usize];
        if key_start == NONE {
            return None;
        }
        let text = &self.text[key_start as usize..(key_end & !ESCAPED) as usize];
        Some(Literal { text, escaped: key_end & ESCAPED != 0 })
    }

    /// Sorts an object's members by key. Members of one name keep their order: dropping one would merge different events.
    fn sort_members(&mut self, object: u32, members: &mut Vec<(u64, u32)>) {
        members.clear();
        let mut next = self.nodes[object as usize].first_child;
        while next != NONE {
            members.push((self.key(next).as_deref().map_or(0, beginning), next));
            next = self.nodes[next as usize].next_sibling;
        }
        // Most keys differ in their beginnings.
        members.sort_by(|(a, first), (b, second)| {
            a.cmp(b).then_with(|| self.key(*first).cmp(&self.key(*second)))
        });
        let mut after = NONE;
        for (_, member) in members.drain(..).rev() {
            self.nodes[member as usize].next_sibling = after;
            after = member;
        }
        self.nodes[object as usize].first_child = after;
    }

    pub(super) fn root(&self) -> Value<'_> {
        Value { document: self, node: 0 }
    }

    /// `prefix` and the canonical form, without the root's members called `without`.
    pub(super) fn canonical(&self, prefix: &str, without: &str) -> Vec<u8> {
        let mut form = Vec::with_capacity(prefix.len() + self.text.len());
        form.extend_from_slice(prefix.as_bytes());
        self.write_canonical(&mut form, without.as_bytes());
        form
    }

    fn write_canonical(&self, out: &mut Vec<u8>, without: &[u8]) {
        /// A container under way: the child to write next, what closes it, whether a child was written.
        struct Frame {
            next: u32,
            close: u8,
            root: bool,
            begun: bool,
        }
        let mut stack: Vec<Frame> = Vec::with_capacity(USUAL_DEPTH);
        let mut current = 0;
        loop {
            let kind = self.kind(current);
            match kind {
                Kind::Object | Kind::Array => {
                    let (begin, close) = if kind == Kind::Object { (b'{', b'}') } else { (b'[', b']') };
                    out.push(begin);
                    let next = self.nodes[current as usize].first_child;
                    stack.push(Frame { next, close, root: stack.is_empty(), begun: false });
                }
                Kind::String => write_string(out, self.literal(current)),
                Kind::Number | Kind::Null | Kind::Bool => out.extend_from_slice(self.literal(current).text),
            }
            loop {
                let Some(frame) = stack.last_mut() else { return };
                if frame.next == NONE {
                    out.push(frame.close);
                    stack.pop();
                    continue;
                }
                current = frame.next;
                frame.next = self.nodes[current as usize].next_sibling;
                let key = self.key_literal(current);
                if let Some(key) = key
                    && (self.kind(current) == Kind::Null || (frame.root && key.meaning().as_ref() == without))
                {
                    continue;
                }
                if frame.begun {
                    out.push(b',');
                }
                frame.begun = true;
                if let Some(key) = key {
                    write_string(out, key);
                    out.push(b':');
                }
                break;
            }
        }
    }
}

/// What stands in the text for a scalar, or for a key; of strings without their quotes.
#[derive(Clone, Copy)]
struct Literal<'a> {
    text: &'a [u8],
    escaped: bool,
}

impl<'a> Literal<'a> {
    /// What a string stands for.
    fn meaning(self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(unescape(self.text)) } else { Cow::Borrowed(self.text) }
    }
}

/// The first bytes of a key, in the order of keys where they differ.
fn beginning(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(bytes.len());
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// A place in a text that is known to be no longer than places can tell.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

/// The end of a scalar.
fn end(at: usize, escaped: bool) -> u32 {
    place(at) | if escaped { ESCAPED } else { 0 }
}

/// As many nodes as the text can have, by what parts them: a value follows the start, a comma, or the start of a container.
fn most_nodes(text: &[u8]) -> usize {
    let mut most = 1;
    let mut bytes = text.iter();
    'values: while let Some(byte) = bytes.next() {
        match byte {
            b',' | b'[' | b'{' => most += 1,
            b'"' => {
                while let Some(at) = memchr2(b'"', b'\\', bytes.as_slice()) {
                    let escape = bytes.as_slice()[at] == b'\\';
                    bytes.nth(at + usize::from(escape));
                    if !escape {
                        continue 'values;
                    }
                }
                // A string without an end: nothing of the rest is a value.
                return most;
            }
            _ => {}
        }
    }
    most
}

/// One value inside a document.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    document: &'a Document<'a>,
    node: u32,
}

impl<'a> Value<'a> {
    fn kind(self) -> Kind {
        self.document.kind(self.node)
    }

    pub(super) fn is_object(self) -> bool {
        self.kind() == Kind::Object
    }

    fn children(self) -> impl Iterator<Item = Value<'a>> {
        let document = self.document;
        let first = Some(document.nodes[self.node as usize].first_child).filter(|n| *n != NONE);
        std::iter::successors(first, move |n| {
            Some(document.nodes[*n as usize].next_sibling).filter(|n| *n != NONE)
        })
        .map(move |node| Value { document, node })
    }

    /// The members of an object, sorted by key; nothing for other values.
    pub(super) fn members(self) -> impl Iterator<Item = (Cow<'a, [u8]>, Value<'a>)> {
        self.children().filter_map(move |child| Some((self.document.key(child.node)?, child)))
    }

    /// The elements of an array, or the values of an object.
    pub(super) fn elements(self) -> impl Iterator<Item = Value<'a>> {
        self.children()
    }

    /// The last member of this name that is not null.
    pub(super) fn member(self, name: &str) -> Option<Value<'a>> {
        self.members()
            .filter(|(key, value)| key.as_ref() == name.as_bytes() && value.kind() != Kind::Null)
            .last()
            .map(|(_, value)| value)
    }

    /// What a string stands for.
    pub(super) fn string(self) -> Option<Cow<'a, [u8]>> {
        (self.kind() == Kind::String).then(|| self.document.literal(self.node).meaning())
    }

    /// A string's text; what is no text in it is replaced.
    pub(super) fn text(self) -> Option<String> {
        self.string().map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// A number's literal text.
    pub(super) fn number(self) -> Option<String> {
        let literal = || String::from_utf8_lossy(self.document.literal(self.node).text).into_owned();
        (self.kind() == Kind::Number).then(literal)
    }
}

/// The characters that a string stands for, in UTF-8. A lone surrogate, which is no character, becomes the three bytes that
/// UTF-8 would have for it (WTF-8): strings that differ stay different.
fn unescape(literal: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(literal.len());
    let mut at = 0;
    while let Some(&byte) = literal.get(at) {
        at += 1;
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        let escape = literal.get(at).copied().unwrap_or(b'\\');
        at += 1;
        match escape {
            b'b' => text.push(0x08),
            b'f' => text.push(0x0c),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let unit = hex4(literal, at);
                at += 4;
                let low = if literal.get(at..at + 2) == Some(b"\\u") { hex4(literal, at + 2) } else { 0 };
                let point = if (0xd800..0xdc00).contains(&unit) && (0xdc00..0xe000).contains(&low) {
                    at += 6;
                    0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    unit
                };
                match char::from_u32(point) {
                    Some(c) => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => text.extend(
                        [0xe0 | point >> 12, 0x80 | point >> 6 & 0x3f, 0x80 | point & 0x3f].map(low_byte),
                    ),
                }
            }
            other => text.push(other),
        }
    }
    text
}

fn hex4(literal: &[u8], at: usize) -> u32 {
    let digits = literal.get(at..at + 4).and_then(|d| std::str::from_utf8(d).ok());
    digits.and_then(|d| u32::from_str_radix(d, 16).ok()).unwrap_or(0xfffd)
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

fn write_string(out: &mut Vec<u8>, literal: Literal<'_>) {
    out.push(b'"');
    if !literal.escaped {
        // Whatever has to be escaped was, or the text would not be JSON.
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

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn malformed(&self) -> Malformed {
        Malformed { offset: self.at.min(self.text.len()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Reads a key up to the member's value; where its literal text begins and ends, and whether it is [`ESCAPED`].
    fn key(&mut self) -> Result<(u32, u32), Malformed> {
        let start = self.at + 1;
        let escaped = self.string()?;
        let end = end(self.at - 1, escaped);
        self.skip_white_space();
        if self.next() != Some(b':') {
            return Err(self.malformed());
        }
        self.skip_white_space();
        Ok((place(start), end))
    }

    /// Reads a scalar, or the first byte of a container; and whether it is a string with escapes.
    fn value(&mut self) -> Result<(Kind, bool), Malformed> {
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                Ok((Kind::Object, false))
            }
            Some(b'[') => {
                self.at += 1;
                Ok((Kind::Array, false))
            }
            Some(b'"') => Ok((Kind::String, self.string()?)),
            Some(b'n') => self.word(Kind::Null, b"null"),
            Some(b't') => self.word(Kind::Bool, b"true"),
            Some(b'f') => self.word(Kind::Bool, b"false"),
            Some(b'-' | b'0'..=b'9') => {
                while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
                    self.at += 1;
                }
                Ok((Kind::Number, false))
            }
            _ => Err(self.malformed()),
        }
    }

    fn word(&mut self, kind: Kind, word: &[u8]) -> Result<(Kind, bool), Malformed> {
        let end = self.at + word.len();
        if self.text.get(self.at..end) != Some(word) {
            return Err(self.malformed());
        }
        self.at = end;
        Ok((kind, false))
    }

    /// Reads a string with its quotes; whether it has escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        if self.next() != Some(b'"') {
            return Err(self.malformed());
        }
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at.min(self.text.len())..];
            let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            // Without a way out of the loop the compiler looks at many bytes at once.
            if rest[..plain].iter().fold(false, |control, byte| control | (*byte < 0x20)) {
                return Err(self.malformed());
            }
            self.at += plain;
            match self.next() {
                Some(b'"') => return Ok(escaped),
                Some(_) => {
                    escaped = true;
                    self.at += 1;
                }
                None => return Err(self.malformed()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> Result<String, Malformed> {
        let document = Document::parse(text.as_bytes())?;
        let mut out = Vec::new();
        document.write_canonical(&mut out, b"EventHandle");
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
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "{",
            "}",
            "[",
            "]",
            "{]",
            "[}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "tru",
            "1 2",
            "\"",
            "\"\\",
            "[1 2]",
            "{,}",
            "[,]",
            "{\"a\":1 \"b\":2}",
            "nul",
            "{1:2}",
            "\"\n\"",
        ] {
            assert!(canonical(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_that_differ_stay_different_even_where_they_are_no_text() {
        let strings =
            [r"\ud800", r"\\ud800", r"\ud801", r"\udc00\ud800", r"\ud83d\ude00", r"\ufffd", "?", ""];
        let forms: std::collections::BTreeSet<Vec<u8>> =
            strings.iter().map(|s| unescape(s.as_bytes())).collect();
        assert_eq!(forms.len(), strings.len());
        assert_eq!(unescape(br"\ud83d\ude00"), "\u{1f600}".as_bytes());
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

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Document::parse(&bytes);
        }

        #[test]
        fn what_serde_json_reads_is_read(text in "[\\[\\]{}:,\"a1 .\\-nulltrue\\\\]{0,24}") {
            if serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok() {
                prop_assert!(Document::parse(text.as_bytes()).is_ok(), "{}", text);
            }
        }
    }
}
