//! Reads a JSON text: its values, and the errors in it.

use super::{Document, ESCAPED, Literal, Malformed, NONE, Node, Open, USUAL_DEPTH};

/// The documented events use more bytes for a value with its key.
const USUAL_NODE_BYTES: usize = 16;

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

    /// Skips white space and returns the next byte.
    pub fn coming(&mut self) -> Option<u8> {
        self.skip_white_space();
        self.peek()
    }

    /// Checks that only white space is left.
    pub fn end(&mut self) -> Result<(), Malformed> {
        if self.coming().is_none() { Ok(()) } else { Err(self.malformed()) }
    }

    /// Reads an object. `member` reads the value of each member.
    pub fn members(
        &mut self,
        mut member: impl FnMut(&mut Self, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.container(b'{', b'}', |reader| {
            let (start, end) = reader.key()?;
            member(reader, &Literal::at(reader.text, start, end).meaning())
        })
    }

    /// Reads an array. `element` reads each element.
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
        // A guess: the length of a value is known at its end.
        let nodes = Vec::with_capacity(self.text.len().min(4_096) / USUAL_NODE_BYTES);
        let mut document = Document { text: self.text, nodes };
        let mut open: Vec<Open> = Vec::with_capacity(USUAL_DEPTH);
        let mut members = Vec::new();
        loop {
            // Open containers must be closed, and a value takes two bytes with its separator.
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

    /// Reads a key up to the member's value. Returns where its literal text begins and ends, and whether it
    /// is [`ESCAPED`].
    fn key(&mut self) -> Result<(u32, u32), Malformed> {
        let start = self.at + 1;
        let escaped = self.string()?;
        let end = end(self.at - 1, escaped);
        self.skip_white_space();
        self.expect(b':')?;
        self.skip_white_space();
        Ok((place(start), end))
    }

    /// Reads a scalar. Returns whether it is a string with escapes.
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

    /// Reads a string with its quotes. Returns whether it has escapes.
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

    /// Reads the rest of an escape.
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

/// The number of bytes before the first quote, backslash or control character.
///
/// Eight at a time: most strings of an event are short, and end before a library's search has begun.
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

/// Reserves space for one more, and for twice as many if there can be `most` more. A growing list also holds
/// its old half.
fn make_room<T>(list: &mut Vec<T>, most: usize) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len().min(most).max(1));
    }
}

/// A position in a text that is known to be short enough for positions.
pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

/// The end of a scalar.
fn end(at: usize, escaped: bool) -> u32 {
    place(at) | if escaped { ESCAPED } else { 0 }
}
