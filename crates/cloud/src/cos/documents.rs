//! The documents of the object storage: those that come in, and the one that goes out.

use std::fmt::Write as _;

use super::xml::{DocumentError, read};

/// The service's limit of parts, and so of a page of them.
pub(crate) const MOST_PARTS: u32 = 10_000;

/// A part as the service lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPart {
    /// From 1 to 10,000.
    pub number: u32,
    /// Its MD5 in hex, without quotes.
    pub etag: String,
    /// In bytes.
    pub size: u64,
}

/// One page of a list of parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsPage {
    /// In the order of their numbers.
    pub parts: Vec<ListedPart>,
    /// The number after which the next page starts, if there is one.
    pub next: Option<u32>,
}

/// An error as the service spells it out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorDocument {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) request_id: Option<Box<str>>,
    pub(crate) trace_id: Option<Box<str>>,
    pub(crate) string_to_sign: String,
    pub(crate) format_string: String,
}

/// What the answer to `Complete` turned out to be, under its 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CompleteAnswer {
    Completed { etag: String },
    Error(ErrorDocument),
}

/// An `ETag` without the quotes around it, which the service may leave out.
pub(crate) fn unquoted(etag: &str) -> &str {
    etag.trim().trim_matches('"')
}

fn rooted(path: &[&str], expected: &'static str) -> Result<(), DocumentError> {
    match path.first() {
        Some(root) if *root == expected => Ok(()),
        root => Err(DocumentError::Root {
            found: root.copied().unwrap_or_default().chars().take(60).collect(),
            expected,
        }),
    }
}

fn number<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, DocumentError> {
    text.parse().map_err(|_| DocumentError::Value { what, text: text.chars().take(40).collect() })
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Reads the id of a multipart upload that has begun.
pub(crate) fn initiated(body: &[u8]) -> Result<String, DocumentError> {
    let mut upload_id = None;
    read(body, |path, text| {
        rooted(path, "InitiateMultipartUploadResult")?;
        if path[1..] == ["UploadId"] {
            upload_id = filled(text);
        }
        Ok(())
    })?;
    upload_id.ok_or(DocumentError::Missing("UploadId"))
}

/// Reads one page of a list of parts: those with a number above `after`. `IsTruncated` counts in any case of its letters, because
/// the documents show several.
pub(crate) fn parts_page(body: &[u8], after: u32) -> Result<PartsPage, DocumentError> {
    let mut parts = Vec::new();
    let (mut part_number, mut etag, mut size) = (None, None, None);
    let (mut truncated, mut next) = (None, None);
    read(body, |path, text| {
        rooted(path, "ListPartsResult")?;
        match &path[1..] {
            ["IsTruncated"] if text.eq_ignore_ascii_case("true") => truncated = Some(true),
            ["IsTruncated"] if text.eq_ignore_ascii_case("false") => truncated = Some(false),
            ["IsTruncated"] => {
                let text = text.chars().take(40).collect();
                return Err(DocumentError::Value { what: "IsTruncated", text });
            }
            // Empty or 0 where there is no next page.
            ["NextPartNumberMarker"] => next = filled(text),
            ["Part", "PartNumber"] => part_number = Some(number::<u32>("PartNumber", text)?),
            ["Part", "ETag"] => etag = filled(unquoted(text)),
            ["Part", "Size"] => size = Some(number::<u64>("Size", text)?),
            ["Part"] => {
                let missing = DocumentError::Missing;
                let part = ListedPart {
                    number: part_number.take().ok_or(missing("PartNumber of a part"))?,
                    etag: etag.take().ok_or(missing("ETag of a part"))?,
                    size: size.take().ok_or(missing("Size of a part"))?,
                };
                if !(1..=MOST_PARTS).contains(&part.number) {
                    return Err(DocumentError::Value { what: "PartNumber", text: part.number.to_string() });
                }
                let last = parts.last().map_or(after, |last: &ListedPart| last.number);
                if last >= part.number {
                    return Err(DocumentError::Value {
                        what: "order of parts at",
                        text: part.number.to_string(),
                    });
                }
                parts.push(part);
            }
            _ => {}
        }
        Ok(())
    })?;
    let next = match truncated.ok_or(DocumentError::Missing("IsTruncated"))? {
        false => None,
        true => {
            let text = next.ok_or(DocumentError::Missing("NextPartNumberMarker"))?;
            let next = number("NextPartNumberMarker", &text)?;
            // A list that does not go on would be asked for without end.
            if next <= after {
                return Err(DocumentError::Value { what: "NextPartNumberMarker", text });
            }
            Some(next)
        }
    };
    Ok(PartsPage { parts, next })
}

/// Reads the answer to `Complete`, which is a result or an error, whatever its status says. A result without an `ETag` is none.
pub(crate) fn complete_answer(body: &[u8]) -> Result<CompleteAnswer, DocumentError> {
    match error(body) {
        Ok(error) => return Ok(CompleteAnswer::Error(error)),
        Err(DocumentError::Root { .. }) => {}
        Err(other) => return Err(other),
    }
    let mut etag = None;
    read(body, |path, text| {
        rooted(path, "CompleteMultipartUploadResult")?;
        if path[1..] == ["ETag"] {
            etag = filled(unquoted(text));
        }
        Ok(())
    })?;
    let etag = etag.ok_or(DocumentError::Missing("ETag"))?;
    Ok(CompleteAnswer::Completed { etag })
}

/// Reads an error.
pub(crate) fn error(body: &[u8]) -> Result<ErrorDocument, DocumentError> {
    let mut found = ErrorDocument::default();
    read(body, |path, text| {
        rooted(path, "Error")?;
        match &path[1..] {
            ["Code"] => text.clone_into(&mut found.code),
            ["Message"] => text.clone_into(&mut found.message),
            ["RequestId"] => found.request_id = filled(text).map(Into::into),
            ["TraceId"] => found.trace_id = filled(text).map(Into::into),
            ["StringToSign"] => text.clone_into(&mut found.string_to_sign),
            ["FormatString"] => text.clone_into(&mut found.format_string),
            _ => {}
        }
        Ok(())
    })?;
    if found.code.is_empty() { Err(DocumentError::Missing("Code")) } else { Ok(found) }
}

/// The body of `Complete`: the parts in the order of their numbers, with the `ETag` of each.
pub(crate) fn complete_request<'a>(parts: impl IntoIterator<Item = (u32, &'a str)>) -> String {
    let mut body = String::from("<CompleteMultipartUpload>");
    for (number, etag) in parts {
        let etag = quick_xml::escape::escape(unquoted(etag));
        // Into a string it cannot fail.
        let _infallible =
            write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>");
    }
    body.push_str("</CompleteMultipartUpload>");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32, etag: &str, size: u64) -> ListedPart {
        ListedPart { number, etag: etag.to_owned(), size }
    }

    #[test]
    fn an_upload_id_is_read_from_its_document_only() {
        let body = "<InitiateMultipartUploadResult xmlns=\"u\"><Bucket>b</Bucket><Key>k</Key>\
                    <UploadId>1585130821cb</UploadId></InitiateMultipartUploadResult>";
        assert_eq!(initiated(body.as_bytes()).as_deref(), Ok("1585130821cb"));
        let empty = body.replace("1585130821cb", "");
        assert_eq!(initiated(empty.as_bytes()), Err(DocumentError::Missing("UploadId")));
        let other = "<Error><UploadId>1</UploadId></Error>";
        assert!(matches!(initiated(other.as_bytes()), Err(DocumentError::Root { .. })));
        let nested =
            "<InitiateMultipartUploadResult><X><UploadId>1</UploadId></X></InitiateMultipartUploadResult>";
        assert_eq!(initiated(nested.as_bytes()), Err(DocumentError::Missing("UploadId")));
    }

    #[test]
    fn a_page_of_parts_is_read_in_every_form() {
        let body = "<ListPartsResult><Encoding-type>url</Encoding-type><Key>d/f%20.mp4</Key>\
            <Owner><ID>1</ID><DisplayName>n</DisplayName></Owner><PartNumberMarker>0</PartNumberMarker>\
            <Part><PartNumber>1</PartNumber><LastModified>2026</LastModified><ETag>\"aa\"</ETag><Size>5</Size></Part>\
            <Part><Size>7</Size><ETag>&quot;bb&quot;</ETag><PartNumber>3</PartNumber></Part>\
            <NextPartNumberMarker>3</NextPartNumberMarker><IsTruncated>TRUE</IsTruncated></ListPartsResult>";
        let page = parts_page(body.as_bytes(), 0).expect("a page");
        assert_eq!(page, PartsPage { parts: vec![part(1, "aa", 5), part(3, "bb", 7)], next: Some(3) });
        for (truncated, next) in [("true", Some(3)), ("True", Some(3)), ("false", None), ("FALSE", None)] {
            let body = body.replace("TRUE", truncated);
            assert_eq!(parts_page(body.as_bytes(), 0).map(|page| page.next), Ok(next), "{truncated}");
        }
        let none =
            "<ListPartsResult><NextPartNumberMarker/><IsTruncated>false</IsTruncated></ListPartsResult>";
        assert_eq!(parts_page(none.as_bytes(), 0), Ok(PartsPage::default()));
        let stuck = parts_page(body.replace(">1<", ">4<").as_bytes(), 3).unwrap_err().to_string();
        assert!(stuck.contains("order"), "{stuck}");
        let stuck = parts_page(
            none.replace("false", "true").replace("Marker/>", "Marker>3</NextPartNumberMarker>").as_bytes(),
            3,
        );
        assert!(matches!(stuck, Err(DocumentError::Value { what: "NextPartNumberMarker", .. })), "{stuck:?}");
        for (from, to, words) in [
            ("TRUE", "maybe", "IsTruncated"),
            ("<IsTruncated>TRUE</IsTruncated>", "", "no IsTruncated"),
            ("<NextPartNumberMarker>3</NextPartNumberMarker>", "", "no NextPartNumberMarker"),
            (">1</PartNumber>", ">0</PartNumber>", "PartNumber"),
            (">1</PartNumber>", ">10001</PartNumber>", "PartNumber"),
            (">1</PartNumber>", ">3</PartNumber>", "order"),
            ("<PartNumber>1</PartNumber>", "", "no PartNumber"),
            ("<Size>5</Size>", "", "no Size"),
            ("<Size>5</Size>", "<Size>-5</Size>", "Size"),
            ("\"aa\"", "", "no ETag"),
            ("ListPartsResult", "ListPartResult", "is the document"),
        ] {
            let error = parts_page(body.replace(from, to).as_bytes(), 0).unwrap_err().to_string();
            assert!(error.contains(words), "{to}: {error}");
        }
    }

    #[test]
    fn a_complete_is_a_result_with_an_etag_or_an_error_and_nothing_else() {
        let result = "   \n  <CompleteMultipartUploadResult xmlns=\"http://www.qcloud.com/document/product/436/7751\">\
            <Location>http://b/k</Location><Bucket>b</Bucket><Key>k</Key><ETag>&quot;ab-2&quot;</ETag>\
            </CompleteMultipartUploadResult>";
        let completed = CompleteAnswer::Completed { etag: "ab-2".into() };
        for body in [
            result.to_owned(),
            result.replace("<CompleteM", "<?xml version='1.0'?>\n<CompleteM"),
            result.replace("&quot;", ""),
        ] {
            assert_eq!(complete_answer(body.as_bytes()), Ok(completed.clone()), "{body}");
        }
        let error = "  <Error><Code>InternalError</Code><Message>m</Message><Resource>/k</Resource>\
            <RequestId>R</RequestId><TraceId>T</TraceId></Error>";
        let expected = ErrorDocument {
            code: "InternalError".into(),
            message: "m".into(),
            request_id: Some("R".into()),
            trace_id: Some("T".into()),
            ..ErrorDocument::default()
        };
        assert_eq!(complete_answer(error.as_bytes()), Ok(CompleteAnswer::Error(expected)));
        for body in [
            "",
            "        ",
            "<html></html>",
            "<Error/>",
            "<Error><Message>m</Message></Error>",
            &result.replace("&quot;ab-2&quot;", "&quot;&quot;"),
            &result.replace("<ETag>&quot;ab-2&quot;</ETag>", ""),
            &result[..result.len() - 1],
            &result[..result.len() / 2],
        ] {
            assert!(complete_answer(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_complete_request_has_its_parts_with_quoted_etags() {
        assert_eq!(
            complete_request([(1, "aa"), (2, "\"b&b\"")]),
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;aa&quot;</ETag></Part>\
             <Part><PartNumber>2</PartNumber><ETag>&quot;b&amp;b&quot;</ETag></Part></CompleteMultipartUpload>"
        );
        let all = complete_request((1..=10_000).map(|number| (number, "0123456789abcdef0123456789abcdef")));
        assert!(all.len() < 1_000_000, "the service takes a megabyte: {}", all.len());
    }
}
