//! JSON as a tree of places in its text.
//!
//! serde_json's own tree would round numbers, drop repeated keys and recurse; an identity may do none of these. Nothing is
//! copied and nothing recurses here: nesting costs memory in proportion to the text, and no stack.

use std::borrow::Cow;

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
pub(super) const USUAL_DEPTH: usize = 16;

/// The events of the documents spend more bytes on a value and its key.
const USUAL_NODE_BYTES: usize = 16;

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
        // Nearly always there are eight bytes, which take no copy of a length that is known only then.
        match self.text.get(key_start as usize..).and_then(<[u8]>::first_chunk) {
            Some(text) if key_end & ESCAPED == 0 => beginning_within(text, (key_end - key_start) as usize),
            _ => self.key(node).as_deref().map_or(0, beginning),
        }
    }

    /// The member that this value is, from its key's first quote to its own last byte, if it stands there just as the
    /// canonical form writes it: a scalar without escapes, right after its key's colon.
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

/// What stands in the text for a scalar, or for a key; of strings without their quotes.
#[derive(Clone, Copy)]
pub(super) struct Literal<'a> {
    pub(super) text: &'a [u8],
    pub(super) escaped: bool,
}

impl<'a> Literal<'a> {
    /// What stands between two places, the second of which tells whether it is [`ESCAPED`].
    fn at(text: &'a [u8], start: u32, end: u32) -> Self {
        Self { text: &text[start as usize..(end & !ESCAPED) as usize], escaped: end & ESCAPED != 0 }
    }

    /// What a string stands for.
    pub(super) fn meaning(self) -> Cow<'a, [u8]> {
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

/// The same for a key that is `length` bytes long, by what stands where it begins.
fn beginning_within(text: &[u8; 8], length: usize) -> u64 {
    let beyond = 64 - 8 * u32::try_from(length.min(text.len())).unwrap_or(0);
    u64::from_be_bytes(*text) & u64::MAX.checked_shl(beyond).unwrap_or(0)
}

/// Makes room for one more, and for twice as many if there can be `most` more. A list that grows holds its old half, too.
fn make_room<T>(list: &mut Vec<T>, most: usize) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().min(most).max(1));
    }
}

/// A place in a text that is known to be no longer than places can tell.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

/// The end of a scalar.
fn end(at: usize, escaped: bool) -> u32 {
    place(at) | if escaped { ESCAPED } else { 0 }
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

    /// What stands for it as a member's key; `None` outside objects.
    pub(super) fn key(self) -> Option<Literal<'a>> {
        self.document.key_literal(self.node)
    }

    /// What stands for it if it is a scalar.
    pub(super) fn literal(self) -> Literal<'a> {
        self.document.literal(self.node)
    }

    /// The whole member as it stands in the text, if the canonical form writes it so.
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

    /// What a string stands for.
    pub fn string(self) -> Option<Cow<'a, [u8]>> {
        (self.kind() == ValueKind::String).then(|| self.literal().meaning())
    }

    /// A string's text; what is no text in it is replaced.
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

/// The characters that a string stands for, in UTF-8. A lone surrogate, which is no character, becomes the three bytes that
/// UTF-8 would have for it (WTF-8): strings that differ stay different.
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

/// Reads a text from its beginning to its end, value by value.
pub struct DocumentReader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> DocumentReader<'a> {
    /// Begins to read a text.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it is too long to be read.
    pub fn new(text: &'a [u8]) -> Result<Self, Malformed> {
        let reader = Self { text, at: 0 };
        if text.len() < ESCAPED as usize { Ok(reader) } else { Err(reader.malformed()) }
    }

    /// How far it has read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Passes white space; the byte after it, which begins a value or ends something.
    pub fn coming(&mut self) -> Option<u8> {
        self.skip_white_space();
        self.peek()
    }

    /// Makes sure that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.coming().is_none() { Ok(()) } else { Err(self.malformed()) }
    }

    /// Reads an object, and lets `member` read the value of each of its members, which is what comes then.
    pub fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.container(b'{', b'}', |reader| {
            let (start, end) = reader.key()?;
            member(reader, &Literal::at(reader.text, start, end).meaning())
        })
    }

    /// Reads an array, and lets `element` read each of its elements, which is what comes then.
    pub fn elements(
        &mut self,
        element: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.container(b'[', b']', element)
    }

    fn container(
        &mut self,
        open: u8,
        close: u8,
        mut child: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.skip_white_space();
        self.expect(open)?;
        if self.coming() == Some(close) {
            return self.expect(close);
        }
        loop {
            self.skip_white_space();
            child(self)?;
            if self.coming() == Some(close) {
                return self.expect(close);
            }
            self.expect(b',')?;
        }
    }

    /// Reads one value.
    pub fn value(&mut self) -> Result<Document<'a>, Malformed> {
        self.skip_white_space();
        let text = &self.text[self.at..];
        let mut reader = DocumentReader { text, at: 0 };
        let read = reader.tree();
        self.at += reader.at;
        read.map_err(|_| self.malformed())
    }

    fn tree(&mut self) -> Result<Document<'a>, Malformed> {
        // A guess: how long a value is, is known at its end.
        let nodes = Vec::with_capacity(self.text.len().min(4_096) / USUAL_NODE_BYTES);
        let mut document = Document { text: self.text, nodes };
        let mut open: Vec<Open> = Vec::with_capacity(USUAL_DEPTH);
        let mut members = Vec::new();
        loop {
            // What is open must be closed, and a value takes two bytes, with what parts it from the next.
            let rest = (self.text.len() - self.at).checked_sub(open.len()).ok_or(self.malformed())?;
            make_room(&mut document.nodes, 1 + rest / 2);
            make_room(&mut open, 1 + rest / 2);
            // At a value, or at the key of a member inside an object.
            let parent = open.last_mut();
            let (key_start, key_end) = if parent.as_ref().is_some_and(|parent| parent.is_object) {
                self.key()?
            } else {
                (NONE, NONE)
            };
            let start = place(self.at);
            let node = |end| Node { start, end, key_start, key_end, first_child: NONE, next_sibling: NONE };
            match self.peek() {
                Some(first @ (b'{' | b'[')) => {
                    self.at += 1;
                    let is_object = first == b'{';
                    let index = document.add(parent, node(0));
                    if self.coming() == Some(if is_object { b'}' } else { b']' }) {
                        self.at += 1;
                    } else {
                        open.push(Open { node: index, last_child: NONE, is_object, sorted: true });
                        continue;
                    }
                }
                _ => {
                    let escaped = self.scalar()?;
                    document.add(parent, node(end(self.at, escaped)));
                }
            }
            // After a value: close every container that ends here.
            loop {
                let Some(container) = open.last() else { return Ok(document) };
                let coming = self.coming();
                self.at += 1;
                match coming {
                    Some(b',') => break,
                    Some(b'}') if container.is_object => {}
                    Some(b']') if !container.is_object => {}
                    _ => {
                        self.at -= 1;
                        return Err(self.malformed());
                    }
                }
                if !container.sorted {
                    document.sort_members(container.node, &mut members);
                }
                open.pop();
            }
            self.skip_white_space();
        }
    }

    fn malformed(&self) -> Malformed {
        Malformed { offset: self.at.min(self.text.len()) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        if self.peek() != Some(byte) {
            return Err(self.malformed());
        }
        self.at += 1;
        Ok(())
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
        self.expect(b':')?;
        self.skip_white_space();
        Ok((place(start), end))
    }

    /// Reads what is no container; whether it is a string with escapes.
    fn scalar(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'n') => self.word(b"null")?,
            Some(b't') => self.word(b"true")?,
            Some(b'f') => self.word(b"false")?,
            _ => self.number()?,
        }
        Ok(false)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Malformed> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.malformed());
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.malformed()) } else { Ok(()) }
    }

    /// Reads a string with its quotes; whether it has escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += plain_length(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<(), Malformed> {
        let digits = match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 0,
            Some(b'u') => 4,
            _ => return Err(self.malformed()),
        };
        self.at += 1;
        for _ in 0..digits {
            if !self.peek().is_some_and(|digit| digit.is_ascii_hexdigit()) {
                return Err(self.malformed());
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// How many bytes come before the first that is a quote, a backslash or a control character.
///
/// Eight at a time: most strings of an event are short, and would be over before a search of the library has begun.
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    /// The high bit of each byte below `limit`, which is 0x80 at the most; above the first of them others may be set, too.
    fn below(bytes: u64, limit: u64) -> u64 {
        bytes.wrapping_sub(ONES * limit) & !bytes & HIGHS
    }
    let mut length = 0;
    while let Some(chunk) = text[length..].first_chunk() {
        let bytes = u64::from_le_bytes(*chunk);
        let quote = below(bytes ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(bytes ^ (ONES * u64::from(b'\\')), 1);
        let ends = quote | backslash | below(bytes, 0x20);
        if ends != 0 {
            return length + ends.trailing_zeros() as usize / 8;
        }
        length += chunk.len();
    }
    let rest = &text[length..];
    length + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(rest.len())
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
