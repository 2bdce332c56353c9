//! The lists of the object storage: parts of an upload, and uploads in progress.

use std::fmt::Write as _;

use super::http::{Exchange, Outcome};
use super::{CosError, xml};
use crate::uploads::store::Part;

/// The largest page.
const PAGE: usize = 1_000;

impl Exchange {
    fn page(&self, name: &str) -> Result<usize, CosError> {
        if self.faults.one_item_a_page {
            return Ok(1);
        }
        let Some(most) = self.target.parameter(name).filter(|most| !most.is_empty()) else { return Ok(PAGE) };
        let wrong = || CosError::with_message("InvalidArgument", format!("{name} is not from 1 to 1000"));
        most.parse().ok().filter(|most| (1..=PAGE).contains(most)).ok_or_else(wrong)
    }

    fn encoded(&self) -> Result<bool, CosError> {
        match self.target.parameter("encoding-type").filter(|text| !text.is_empty()) {
            None => Ok(false),
            Some("url") => Ok(true),
            Some(_) => Err(CosError::with_message("InvalidArgument", "encoding-type is not url")),
        }
    }

    pub(super) fn list_parts(&self) -> Result<Outcome, CosError> {
        let (place, id) = (self.target.place(), self.upload_id()?);
        let (most, encoded) = (self.page("max-parts")?, self.encoded()?);
        let after = self.target.parameter("part-number-marker").filter(|marker| !marker.is_empty());
        let after: u16 = after
            .map_or(Ok(0), str::parse)
            .map_err(|_| CosError::with_message("InvalidArgument", "part-number-marker is not a number"))?;
        let state = self.cloud.lock();
        let upload = state.uploads.store.upload(&place, &id)?;
        let from = after.saturating_add(1);
        let page: Vec<(&u16, &Part)> = upload.parts.range(from..).take(most).collect();
        let last = page.last().map_or(after, |(number, _)| **number);
        let truncated = upload.parts.range(last.saturating_add(1)..).next().is_some();
        let mut content = String::new();
        xml::element(&mut content, "Bucket", &place.bucket);
        if encoded {
            xml::element(&mut content, "Encoding-type", "url");
        }
        xml::element(&mut content, "Key", &xml::listed(&place.key, encoded));
        xml::element(&mut content, "UploadId", &id);
        content.push_str(&owners());
        xml::element(&mut content, "PartNumberMarker", &after.to_string());
        if truncated {
            xml::element(&mut content, "NextPartNumberMarker", &last.to_string());
        }
        for (number, part) in page {
            let etag = if self.faults.bare_etag { part.etag() } else { format!("\"{}\"", part.etag()) };
            let mut item = String::new();
            xml::element(&mut item, "PartNumber", &number.to_string());
            xml::element(&mut item, "LastModified", &iso_time(part.modified_ms));
            xml::element(&mut item, "ETag", &etag);
            xml::element(&mut item, "Size", &part.digests.size.to_string());
            let _ = write!(content, "<Part>{item}</Part>");
        }
        xml::element(&mut content, "StorageClass", "STANDARD");
        xml::element(&mut content, "MaxParts", &most.to_string());
        xml::element(&mut content, "IsTruncated", if truncated { "true" } else { "false" });
        Ok(Outcome::Document(xml::document("ListPartsResult", &content)))
    }

    pub(super) fn list_uploads(&self) -> Result<Outcome, CosError> {
        let (most, encoded) = (self.page("max-uploads")?, self.encoded()?);
        let parameter = |name: &str| self.target.parameter(name).unwrap_or_default();
        let (prefix, delimiter) = (parameter("prefix"), parameter("delimiter"));
        let marker = (parameter("key-marker"), parameter("upload-id-marker"));
        let state = self.cloud.lock();
        let uploads = state.uploads.store.uploads(&self.target.bucket);
        let is_after = |key: &str, id: &str| match marker {
            ("", _) => true,
            (after, "") => key > after,
            (after, after_id) => (key, id) > (after, after_id),
        };
        let mut listed = uploads
            .into_iter()
            .filter(|(key, id, _)| key.starts_with(prefix) && is_after(key, id))
            .peekable();
        let mut folders = std::collections::BTreeSet::new();
        let (mut items, mut count, mut last) = (String::new(), 0, marker);
        while count < most {
            let Some((key, id, upload)) = listed.next() else { break };
            last = (key, id);
            let rest = &key[prefix.len()..];
            if let Some(end) = rest.find(delimiter).filter(|_| !delimiter.is_empty()) {
                count += usize::from(folders.insert(&key[..prefix.len() + end + delimiter.len()]));
                continue;
            }
            count += 1;
            let mut item = String::new();
            xml::element(&mut item, "Key", &xml::listed(key, encoded));
            xml::element(&mut item, "UploadId", id);
            xml::element(&mut item, "StorageClass", "Standard");
            item.push_str(&owners());
            xml::element(&mut item, "Initiated", &iso_time(upload.initiated_ms));
            let _ = write!(items, "<Upload>{item}</Upload>");
        }
        let truncated = listed.peek().is_some();
        let mut content = String::new();
        xml::element(&mut content, "Bucket", &self.target.bucket);
        if encoded {
            xml::element(&mut content, "Encoding-Type", "url");
        }
        xml::element(&mut content, "KeyMarker", &xml::listed(marker.0, encoded));
        xml::element(&mut content, "UploadIdMarker", marker.1);
        if truncated {
            xml::element(&mut content, "NextKeyMarker", &xml::listed(last.0, encoded));
            xml::element(&mut content, "NextUploadIdMarker", last.1);
        }
        xml::element(&mut content, "MaxUploads", &most.to_string());
        xml::element(&mut content, "IsTruncated", if truncated { "true" } else { "false" });
        xml::element(&mut content, "Prefix", &xml::listed(prefix, encoded));
        xml::element(&mut content, "Delimiter", delimiter);
        content.push_str(&items);
        for folder in folders {
            let mut item = String::new();
            xml::element(&mut item, "Prefix", &xml::listed(folder, encoded));
            let _ = write!(content, "<CommonPrefixes>{item}</CommonPrefixes>");
        }
        Ok(Outcome::Document(xml::document("ListMultipartUploadsResult", &content)))
    }
}

fn owners() -> String {
    let owner = "<ID>qcs::cam::uin/100000000001:uin/100000000001</ID><DisplayName>100000000001</DisplayName>";
    format!("<Initiator>{owner}</Initiator><Owner>{owner}</Owner>")
}

fn iso_time(epoch_ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(epoch_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    moment.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}
