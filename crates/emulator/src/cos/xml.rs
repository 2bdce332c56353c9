//! The XML documents of answers, and the one of requests.

use std::fmt::Write as _;

use quick_xml::escape::{escape, unescape};
use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};
use tencentcloud_signing::encode;

use super::CosError;
use crate::uploads::store::MAX_PART;

pub(super) const DECLARATION: &str = "<?xml version='1.0' encoding='utf-8' ?>\n";

const NAMESPACE: &str = "http://www.qcloud.com/document/product/436/7751";

/// An element with text.
pub(super) fn element(out: &mut String, name: &str, text: &str) {
    let _ = write!(out, "<{name}>{}</{name}>", escape(text));
}

/// A document with this root and content.
pub(super) fn document(root: &str, content: &str) -> String {
    format!("<{root} xmlns=\"{NAMESPACE}\">{content}</{root}>")
}

/// The body of an error.
pub(super) fn error(error: &CosError, resource: &str, request_id: &str, trace_id: &str) -> String {
    let mut content = String::new();
    element(&mut content, "Code", &error.code);
    element(&mut content, "Message", &error.message);
    if let Some((string_to_sign, format_string)) = &error.computed {
        element(&mut content, "StringToSign", string_to_sign);
        element(&mut content, "FormatString", format_string);
    }
    element(&mut content, "Resource", resource);
    element(&mut content, "RequestId", request_id);
    element(&mut content, "TraceId", trace_id);
    format!("<Error>{content}</Error>")
}

/// A key in a list; encoded, if the request asks for it.
pub(super) fn listed(key: &str, encoded: bool) -> String {
    match encoded {
        // Slashes stay.
        true => key.split('/').map(encode).collect::<Vec<_>>().join("/"),
        false => key.to_owned(),
    }
}

/// The parts in a `CompleteMultipartUpload`, in the order of the document.
pub(super) fn complete_parts(body: &[u8]) -> Result<Vec<(u16, String)>, CosError> {
    let malformed = || CosError::new("MalformedXML");
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let mut reader = Reader::from_str(text.trim());
    let mut path: Vec<String> = Vec::new();
    let (mut number, mut etag) = (None, None);
    let mut value = String::new();
    let mut parts = Vec::new();
    let mut ended = false;
    loop {
        match reader.read_event().map_err(|_| malformed())? {
            Event::Eof => break,
            Event::Decl(_) | Event::Comment(_) => {}
            _ if ended => return Err(malformed()),
            Event::Start(start) => {
                path.push(start.local_name().as_ref().to_owned());
                value.clear();
                if !is_known(&path) {
                    return Err(malformed());
                }
            }
            Event::Text(piece) => {
                value.push_str(&piece.xml_content(XmlVersion::Implicit1_0));
            }
            Event::CData(piece) => {
                value.push_str(&piece.xml_content(XmlVersion::Implicit1_0));
            }
            Event::GeneralRef(reference) => {
                let reference = format!("&{};", &*reference);
                value.push_str(&unescape(&reference).map_err(|_| malformed())?);
            }
            Event::End(_) => {
                match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                    [_, _, "PartNumber"] => {
                        let read = value.trim().parse::<u16>().ok().filter(|n| (1..=MAX_PART).contains(n));
                        number = Some(read.ok_or_else(malformed)?);
                    }
                    [_, _, "ETag"] => etag = Some(value.trim().trim_matches('"').to_owned()),
                    [_, _] => match (number.take(), etag.take()) {
                        (Some(number), Some(etag)) if parts.len() < usize::from(MAX_PART) => {
                            parts.push((number, etag));
                        }
                        _ => return Err(malformed()),
                    },
                    [_] => ended = true,
                    _ => return Err(malformed()),
                }
                path.pop();
            }
            _ => return Err(malformed()),
        }
    }
    if !ended || parts.is_empty() {
        return Err(malformed());
    }
    Ok(parts)
}

fn is_known(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        names[..],
        ["CompleteMultipartUpload"]
            | ["CompleteMultipartUpload", "Part"]
            | ["CompleteMultipartUpload", "Part", "PartNumber" | "ETag"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_the_sdks_write_them() {
        let expected = Ok(vec![(1, "ab".to_owned()), (2, "cd".to_owned())]);
        for body in [
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"ab\"</ETag></Part>\
             <Part><ETag>&quot;cd&quot;</ETag><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CompleteMultipartUpload xmlns=\"x\">\n <Part>\n  \
             <PartNumber> 1 </PartNumber><ETag>ab</ETag></Part><Part><PartNumber>2</PartNumber>\
             <ETag><![CDATA[\"cd\"]]></ETag></Part>\n</CompleteMultipartUpload>\n",
        ] {
            assert_eq!(complete_parts(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_is_not_the_document_is_malformed() {
        let part = "<Part><PartNumber>1</PartNumber><ETag>a</ETag></Part>";
        let root = |content: &str| format!("<CompleteMultipartUpload>{content}</CompleteMultipartUpload>");
        let cases = [
            String::new(),
            "text".to_owned(),
            root(""),
            format!("<CompleteMultipartUpload>{part}"),
            format!("<Other>{part}</Other>"),
            root("<Part><PartNumber>1</PartNumber></Part>"),
            root("<Part><PartNumber>0</PartNumber><ETag>a</ETag></Part>"),
            root("<Part><PartNumber>10001</PartNumber><ETag>a</ETag></Part>"),
            root("<Part><PartNumber>one</PartNumber><ETag>a</ETag></Part>"),
            root("<Part><Other>1</Other></Part>"),
            root(&part.repeat(10_001)),
            format!("{}{}", root(part), root(part)),
            format!("<!DOCTYPE x [<!ENTITY e \"1\">]>{}", root(&part.replace('1', "&e;"))),
            root(&part.replace(">a<", ">&unknown;<")),
        ];
        for body in cases {
            let error = complete_parts(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, "MalformedXML", "{}", &body[..body.len().min(200)]);
        }
        assert!(complete_parts(b"\xff").is_err());
    }

    #[test]
    fn keys_are_escaped_and_encoded_where_that_is_asked_for() {
        let mut out = String::new();
        element(&mut out, "Key", "a<&\"b");
        assert_eq!(out, "<Key>a&lt;&amp;&quot;b</Key>");
        assert_eq!(listed("d/测 +", true), "d/%E6%B5%8B%20%2B");
        assert_eq!(listed("d/测 +", false), "d/测 +");
    }
}
