//! A strict reader of small XML documents: elements and their text, without attributes, document types or own entities.

use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};
use quick_xml::{Reader, XmlVersion};

/// No document of the service is deeper: a list has its root, its parts, and their owner's members.
const DEEPEST: usize = 8;

/// Why a body is not a document that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is not text.
    #[error("the answer is not UTF-8")]
    Encoding,
    /// There is nothing but white space.
    #[error("the answer is empty")]
    Empty,
    /// The syntax is broken.
    #[error("the answer is not well-formed XML: {0}")]
    Malformed(String),
    /// An element is open at the end.
    #[error("the answer ends within its document")]
    Cut,
    /// Something follows the root.
    #[error("the answer has more than one document")]
    More,
    /// It declares something, or refers to it.
    #[error("the answer has a document type or an entity of its own")]
    Foreign,
    /// No document of the service has so many levels.
    #[error("the answer is nested too deeply")]
    Deep,
    /// It is another document.
    #[error("the answer is the document {found:?} and not {expected}")]
    Root {
        /// The name of its root.
        found: String,
        /// The name that was expected.
        expected: &'static str,
    },
    /// A member is missing or empty.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// A member has a value that it cannot have.
    #[error("the answer has the {what} {text:?}")]
    Value {
        /// The member.
        what: &'static str,
        /// Its text, or the head of it.
        text: String,
    },
}

/// Reads a document, and calls `ended` for each element at its end: with the names from the root down to it, and with its own
/// text without the white space around it. Prefixes of names do not matter.
pub(crate) fn read(
    body: &[u8],
    mut ended: impl FnMut(&[&str], &str) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| DocumentError::Encoding)?.trim_ascii();
    if text.is_empty() {
        return Err(DocumentError::Empty);
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    // The name and the text of every element that is open.
    let mut path: Vec<String> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut done = false;
    loop {
        let event = reader.read_event().map_err(|error| DocumentError::Malformed(error.to_string()))?;
        match event {
            Event::Eof if done => return Ok(()),
            Event::Eof => {
                return Err(if path.is_empty() { DocumentError::Empty } else { DocumentError::Cut });
            }
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::DocType(_) => return Err(DocumentError::Foreign),
            Event::Text(piece) if path.is_empty() && piece.trim_ascii().is_empty() => {}
            _ if done => return Err(DocumentError::More),
            Event::Start(start) => {
                if path.len() == DEEPEST {
                    return Err(DocumentError::Deep);
                }
                path.push(start.local_name().as_ref().to_owned());
                texts.push(String::new());
            }
            Event::End(_) => {
                let text = texts.pop().unwrap_or_default();
                let mut names = [""; DEEPEST];
                names.iter_mut().zip(&path).for_each(|(name, open)| *name = open);
                ended(&names[..path.len()], text.trim_ascii())?;
                path.pop();
                done = path.is_empty();
            }
            Event::Text(piece) => add(&mut texts, &piece.xml_content(XmlVersion::Implicit1_0))?,
            Event::CData(piece) => add(&mut texts, &piece.xml_content(XmlVersion::Implicit1_0))?,
            Event::GeneralRef(reference) => add(&mut texts, &resolved(&reference)?)?,
            Event::Empty(_) => {
                return Err(DocumentError::Malformed("an empty element was not expanded".to_owned()));
            }
        }
    }
}

fn add(texts: &mut [String], piece: &str) -> Result<(), DocumentError> {
    let text = texts
        .last_mut()
        .ok_or_else(|| DocumentError::Malformed("text outside of the document".to_owned()))?;
    text.push_str(piece);
    Ok(())
}

/// What a reference stands for: a character, or one of the five entities that XML itself knows.
fn resolved(reference: &BytesRef<'_>) -> Result<String, DocumentError> {
    let character =
        reference.resolve_char_ref().map_err(|error| DocumentError::Malformed(error.to_string()))?;
    match (character, resolve_predefined_entity(reference)) {
        (Some(character), _) => Ok(character.to_string()),
        (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => Err(DocumentError::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(body: &str) -> Result<Vec<(String, String)>, DocumentError> {
        let mut found = Vec::new();
        read(body.as_bytes(), |path, text| {
            found.push((path.join("/"), text.to_owned()));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn elements_are_told_by_their_path_and_text() {
        let body = "\u{feff}  \n<?xml version='1.0' encoding='utf-8' ?>\n<!-- x --><n:A xmlns:n=\"u\"><B> 1 &lt;&#x41;&quot;\n</B>\
                    <C/><![CDATA[<&]]></n:A>\n";
        let pair = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        assert_eq!(leaves(body), Ok(vec![pair("A/B", "1 <A\""), pair("A/C", ""), pair("A", "<&")]));
    }

    #[test]
    fn what_is_not_one_whole_document_is_told_by_its_fault() {
        let deep = format!("{}{}", "<a>".repeat(9), "</a>".repeat(9));
        let bombs = "<!DOCTYPE a [<!ENTITY e \"xx\">]><a>&e;</a>";
        for (body, expected) in [
            ("", "is empty"),
            ("  \n ", "is empty"),
            ("<a><b>1</b>", "ends within"),
            ("<a><b>1</b></a", "not well-formed"),
            ("<a><b>1</a>", "not well-formed"),
            ("text", "not well-formed"),
            ("<a/>text", "more than one"),
            ("<a/><b/>", "more than one"),
            ("<a>&e;</a>", "entity of its own"),
            ("<a>&#0;</a>", "not well-formed"),
            (bombs, "document type"),
            (&deep, "too deeply"),
            ("{\"a\":1}", "not well-formed"),
        ] {
            let error = leaves(body).unwrap_err().to_string();
            assert!(error.contains(expected), "{body:?}: {error}");
        }
        assert_eq!(read(b"<a>\xff</a>", |_, _| Ok(())), Err(DocumentError::Encoding));
    }
}
