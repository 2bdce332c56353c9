//! JSON as a tree of positions in its text.
//!
//! serde_json's own tree would round numbers, drop repeated keys and recurse; an identity may do none of
//! these. Nothing is copied and nothing recurses. Nesting costs memory in proportion to the text, and no
//! stack.

mod reader;

use std::borrow::Cow;

pub use reader::DocumentReader;
use reader::place;

/// The text is not one JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {offset}")]
pub struct Malformed {
    /// The position where parsing failed.
    pub offset: usize,
}

/// No node, or no key; ends a list of siblings.
const NONE: u32 = u32::MAX;

/// Set in the position where a string ends, if it has escapes. A string without escapes is its own text.
const ESCAPED: u32 = 1 << 31;

/// The documented events nest no deeper. Deeper ones cost a growing list.
pub(super) const USUAL_DEPTH: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueKind {
    Object,
    Array,
    String,
    Number,
    Null,
    /// `true` or `false`.
    Bool,
}

/// A value as positions in the text. An answer may have a node in every other byte, so a node must be small.
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

/// A JSON text cut into nodes. The members of objects are in the order of their keys.
#[derive(Debug)]
pub struct Document<'a> {
    text: &'a [u8],
    nodes: Vec<Node>,
}

/// A container whose end has not been read yet.
struct Open {
    node: u32,
    last_child: u32,
    is_object: bool,
    sorted: bool,
}

impl<'a> Document<'a> {
    /// Reads a text that is one value.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = DocumentReader::new(text)?;
        let document = reader.value()?;
        reader.end()?;
        Ok(document)
    }

    /// The whole of it.
    pub fn root(&self) -> Value<'_> {
        Value { document: self, node: 0 }
    }

    /// Adds a node after the last one of its container.
    fn add(&mut self, parent: Option<&mut Open>, node: Node) -> u32 {
        let index = place(self.nodes.len());
        self.nodes.push(node);
        if let Some(parent) = parent {
            if parent.last_child == NONE {
                self.nodes[parent.node as usize].first_child = index;
            } else {
                self.nodes[parent.last_child as usize].next_sibling = index;
                parent.sorted = parent.sorted && self.key(parent.last_child) <= self.key(index);
            }
            parent.last_child = index;
        }
        index
    }

    fn kind(&self, node: u32) -> ValueKind {
        match self.text[self.nodes[node as usize].start as usize] {
            b'{' => ValueKind::Object,
            b'[' => ValueKind::Array,
            b'"' => ValueKind::String,
            b'n' => ValueKind::Null,
            b't' | b'f' => ValueKind::Bool,
            _ => ValueKind::Number,
        }
    }

    /// The literal text of a scalar; a string's without its quotes.
    fn literal(&self, node: u32) -> Literal<'a> {
        let Node { start, end, .. } = self.nodes[node as usize];
        let quote = u32::from(self.kind(node) == ValueKind::String);
        Literal::at(self.text, start + quote, end - quote)
    }

    /// The member's key, unescaped where that is possible; `None` outside objects.
    fn key(&self, node: u32) -> Option<Cow<'a, [u8]>> {
        self.key_literal(node).map(Literal::meaning)
    }

    fn key_literal(&self, node: u32) -> Option<Literal<'a>> {
        let Node { key_start, key_end, .. } = self.nodes[node as usize];
        (key_start != NONE).then(|| Literal::at(self.text, key_start, key_end))
    }

    fn beginning_of_key(&self, node: u32) -> u64 {
        let Node { key_start, key_end, .. } = self.nodes[node as usize];
        // Nearly always there are eight bytes, and a copy of fixed length is faster.
        match self.text.get(key_start as usize..).and_then(<[u8]>::first_chunk) {
            Some(text) if key_end & ESCAPED == 0 => beginning_within(text, (key_end - key_start) as usize),
            _ => self.key(node).as_deref().map_or(0, beginning),
        }
    }

    /// The whole member, from its key's first quote to the value's last byte, if it stands there exactly in
    /// canonical form: a scalar without escapes, directly after its key's colon.
    fn plain_member(&self, node: u32) -> Option<&'a [u8]> {
        let Node { start, end, key_start, key_end, .. } = self.nodes[node as usize];
        // A container has no end. An escape in the key puts its end far away.
        let plain =
            end & ESCAPED == 0 && end != 0 && key_start != NONE && key_end.checked_add(2) == Some(start);
        plain.then(|| &self.text[key_start as usize - 1..end as usize])
    }

    /// Sorts an object's members by key. Members of one name keep their order: dropping one would merge different events.
    fn sort_members(&mut self, object: u32, members: &mut Vec<(u64, u32)>) {
        members.clear();
        let mut next = self.nodes[object as usize].first_child;
        while next != NONE {
            members.push((self.beginning_of_key(next), next));
            next = self.nodes[next as usize].next_sibling;
        }
        // Most keys differ in their beginnings, and members are numbered in their order.
        members.sort_unstable();
        for alike in members.chunk_by_mut(|(a, _), (b, _)| a == b) {
            if alike.len() > 1 {
                alike.sort_by(|(_, first), (_, second)| self.key(*first).cmp(&self.key(*second)));
            }
        }
        let mut after = NONE;
        for (_, member) in members.drain(..).rev() {
            self.nodes[member as usize].next_sibling = after;
            after = member;
        }
        self.nodes[object as usize].first_child = after;
    }
}

/// The text of a scalar or of a key; of strings without their quotes.
#[derive(Clone, Copy)]
pub(super) struct Literal<'a> {
    pub(super) text: &'a [u8],
    pub(super) escaped: bool,
}

impl<'a> Literal<'a> {
    /// The text between two positions. The second one says whether it is [`ESCAPED`].
    fn at(text: &'a [u8], start: u32, end: u32) -> Self {
        Self { text: &text[start as usize..(end & !ESCAPED) as usize], escaped: end & ESCAPED != 0 }
    }

    /// The value of a string.
    pub(super) fn meaning(self) -> Cow<'a, [u8]> {
        if self.escaped { Cow::Owned(unescape(self.text)) } else { Cow::Borrowed(self.text) }
    }
}

/// The first bytes of a key, ordered as keys are where they differ.
fn beginning(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = key.len().min(bytes.len());
    bytes[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(bytes)
}

/// The same for a key of `length` bytes, from its position in the text.
fn beginning_within(text: &[u8; 8], length: usize) -> u64 {
    let beyond = 64 - 8 * u32::try_from(length.min(text.len())).unwrap_or(0);
    u64::from_be_bytes(*text) & u64::MAX.checked_shl(beyond).unwrap_or(0)
}

/// One value inside a document.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    document: &'a Document<'a>,
    node: u32,
}

impl<'a> Value<'a> {
    pub(super) fn kind(self) -> ValueKind {
        self.document.kind(self.node)
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.kind() == ValueKind::Object
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == ValueKind::Null
    }

    /// Its value as a member's key; `None` outside objects.
    pub(super) fn key(self) -> Option<Literal<'a>> {
        self.document.key_literal(self.node)
    }

    /// Its value if it is a scalar.
    pub(super) fn literal(self) -> Literal<'a> {
        self.document.literal(self.node)
    }

    /// The whole member as it stands in the text, if that is canonical.
    pub(super) fn plain_member(self) -> Option<&'a [u8]> {
        self.document.plain_member(self.node)
    }

    pub(super) fn first_child(self) -> Option<Self> {
        self.at(self.document.nodes[self.node as usize].first_child)
    }

    pub(super) fn next_sibling(self) -> Option<Self> {
        self.at(self.document.nodes[self.node as usize].next_sibling)
    }

    fn at(self, node: u32) -> Option<Self> {
        (node != NONE).then_some(Self { node, ..self })
    }

    /// The elements of an array, or the values of an object.
    pub fn elements(self) -> impl Iterator<Item = Value<'a>> {
        std::iter::successors(self.first_child(), |value| value.next_sibling())
    }

    /// The last member of this name that is not null.
    pub fn member(self, name: &str) -> Option<Value<'a>> {
        let called = |value: &Value<'a>| {
            value.key().is_some_and(|key| key.meaning() == name.as_bytes()) && value.kind() != ValueKind::Null
        };
        self.elements().filter(called).last()
    }

    /// The value of a string.
    pub fn string(self) -> Option<Cow<'a, [u8]>> {
        (self.kind() == ValueKind::String).then(|| self.literal().meaning())
    }

    /// A string's text, with replacements for invalid bytes.
    pub fn text(self) -> Option<Cow<'a, str>> {
        Some(match self.string()? {
            Cow::Borrowed(text) => String::from_utf8_lossy(text),
            Cow::Owned(text) => String::from_utf8_lossy(&text).into_owned().into(),
        })
    }

    /// A number's literal text.
    pub fn number(self) -> Option<Cow<'a, str>> {
        (self.kind() == ValueKind::Number).then(|| String::from_utf8_lossy(self.literal().text))
    }

    /// `true` or `false`.
    pub fn truth(self) -> Option<Cow<'a, str>> {
        (self.kind() == ValueKind::Bool).then(|| String::from_utf8_lossy(self.literal().text))
    }
}

/// The bytes of a string's value in UTF-8. A lone surrogate, which is not a character, becomes its three
/// bytes in WTF-8, so different strings stay different.
pub(super) fn unescape(literal: &[u8]) -> Vec<u8> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            assert!(Document::parse(text.as_bytes()).is_err(), "{text}");
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

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Document::parse(&bytes);
        }

        #[test]
        fn what_serde_json_reads_is_read_and_nothing_else(text in "[\\[\\]{}:,\"a1 .\\-+0eEnulltrue\\\\/bu\n]{0,24}") {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(Document::parse(text.as_bytes()).is_ok(), theirs, "{}", text);
        }

        #[test]
        fn strings_end_where_serde_json_sees_their_end(inside in "[ -~\u{0}-\u{1f}\u{7f}é句]{0,40}", before in 0_usize..9) {
            let text = format!("{}\"{inside}\"", " ".repeat(before));
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(Document::parse(text.as_bytes()).is_ok(), theirs, "{}", text);
        }
    }
}
