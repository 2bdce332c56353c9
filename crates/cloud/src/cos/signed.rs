//! The head of one request: its URL and its headers, signed.

use reqwest::Method;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
};
use tencentcloud_signing::cos::{self, KeyTime, SECURITY_TOKEN};
use tencentcloud_signing::encode;
use url::Url;

use super::digest::content_md5;
use super::target::Target;

/// A signature holds from this long before it was made, and for this long after: as those of the vendor's Python SDK.
const BEFORE_S: i64 = 60;
const AFTER_S: i64 = 10_000;

const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// A request without its body.
#[derive(Clone, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    pub(crate) target: &'a Target,
    /// Decoded. One without a value, such as `?uploads`, has an empty one.
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// Of the body, where the method has one.
    pub(crate) length: Option<u64>,
    pub(crate) md5: Option<[u8; 16]>,
    /// Not signed.
    pub(crate) content_type: Option<&'static str>,
}

impl Head<'_> {
    /// The URL: at the object's own host, or at `endpoint` with the host as a header.
    pub(crate) fn url(&self, endpoint: Option<&Url>) -> Result<Url, url::ParseError> {
        let origin = match endpoint {
            Some(endpoint) => endpoint.as_str().trim_end_matches('/').to_owned(),
            None => format!("https://{}", self.target.host_name()),
        };
        let pair = |(name, value): &(&str, &str)| match *value {
            "" => encode(name).into_owned(),
            value => format!("{}={}", encode(name), encode(value)),
        };
        let query: Vec<String> = self.query.iter().map(pair).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        Url::parse(&format!("{origin}{}{mark}{}", self.target.encoded_path(), query.join("&")))
    }

    /// The headers, signed at `now` in seconds since the Unix epoch.
    ///
    /// The host, what proves the content, and all headers of the service are signed, the token too: that satisfies buckets
    /// in the strict mode of signatures as well.
    pub(crate) fn headers(&self, now: i64) -> Result<HeaderMap, reqwest::header::InvalidHeaderValue> {
        let credentials = &self.target.credentials;
        let mut signed: Vec<(HeaderName, String)> = vec![(HOST, self.target.host_name())];
        signed.extend(self.length.map(|length| (CONTENT_LENGTH, length.to_string())));
        signed.extend(self.md5.map(|md5| (CONTENT_MD5, content_md5(&md5))));
        let token = credentials.token.as_ref();
        signed
            .extend(token.map(|token| (HeaderName::from_static(SECURITY_TOKEN), token.expose().to_owned())));
        let pairs: Vec<(&str, &str)> =
            signed.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let path = self.target.path();
        let request =
            cos::Request { method: self.method.as_str(), path: &path, query: self.query, headers: &pairs };
        let time = KeyTime { start: now - BEFORE_S, end: now + AFTER_S };
        let authorization =
            cos::authorization(&credentials.secret_id, credentials.secret_key.expose(), &request, time);
        let mut headers = HeaderMap::new();
        for (name, value) in &signed {
            let mut text = HeaderValue::from_str(value)?;
            text.set_sensitive(name.as_str() == SECURITY_TOKEN);
            headers.insert(name, text);
        }
        let mut authorization = HeaderValue::from_str(&authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::credentials;
    use super::*;
    use crate::cos::digest::PartDigests;

    fn signature(head: &Head<'_>) -> (String, String) {
        let headers = head.headers(1_700_000_000).expect("usual values");
        let value = headers[AUTHORIZATION].to_str().expect("ASCII").to_owned();
        let part = |name: &str| {
            let (_, rest) = value.split_once(&format!("{name}=")).expect("all parts");
            rest.split('&').next().unwrap_or_default().to_owned()
        };
        assert_eq!(part("q-key-time"), "1699999940;1700010000");
        (part("q-header-list"), part("q-signature"))
    }

    /// The values are those of the vendor's Python SDK for the same requests at the same time.
    #[test]
    fn requests_are_signed_as_the_vendor_s_sdk_signs_them() {
        let object = |key| {
            Target::new("xadagzp111211-100922", "ap-guangzhou", key, credentials()).expect("a usual object")
        };
        let (film, plain) = (object("dir/测试 a+b(1).mp4"), object("dir/f0.mp4"));
        let put = Head {
            method: Method::PUT,
            target: &film,
            query: &[],
            length: Some(13),
            md5: None,
            content_type: None,
        };
        let length_host_token = "content-length;host;x-cos-security-token";
        let expected = |list: &str, signature: &str| (list.to_owned(), signature.to_owned());
        assert_eq!(signature(&put), expected(length_host_token, "6c73cde5ada01309d5ab2c6896176c0c5c861c7f"));
        assert_eq!(
            put.url(None).expect("a URL").as_str(),
            "https://xadagzp111211-100922.cos.ap-guangzhou.myqcloud.com/dir/%E6%B5%8B%E8%AF%95%20a%2Bb%281%29.mp4"
        );
        let part = Head {
            query: &[("partNumber", "2"), ("uploadId", "U1")],
            md5: Some(PartDigests::of(b"[Object Part]").md5),
            ..put.clone()
        };
        assert_eq!(
            signature(&part),
            expected(
                "content-length;content-md5;host;x-cos-security-token",
                "e4d3700b987c02cca0d48d99ad7f84f2be239f16"
            )
        );
        let initiate = Head {
            method: Method::POST,
            target: &plain,
            query: &[("uploads", "")],
            length: Some(0),
            ..put.clone()
        };
        assert_eq!(
            signature(&initiate),
            expected(length_host_token, "fa666b3f74ce1ea07b8b38b1923c5af18d956d1f")
        );
        let endpoint = Url::parse("http://127.0.0.1:8900").expect("a URL");
        assert_eq!(
            initiate.url(Some(&endpoint)).expect("a URL").as_str(),
            "http://127.0.0.1:8900/dir/f0.mp4?uploads"
        );
    }

    #[test]
    fn an_upload_id_cannot_add_parameters() {
        let target = Target::new("b-1", "r", "k", credentials()).expect("a usual object");
        let query = [("uploadId", "a&x=1#%2f")];
        let head = Head {
            method: Method::DELETE,
            target: &target,
            query: &query,
            length: None,
            md5: None,
            content_type: None,
        };
        let url = head.url(None).expect("a URL");
        assert_eq!(url.query(), Some("uploadId=a%26x%3D1%23%252f"));
        assert_eq!(url.fragment(), None);
    }

    #[test]
    fn secrets_do_not_print_with_the_headers() {
        let target = Target::new("b-1", "r", "k", credentials()).expect("a usual object");
        let head = Head {
            method: Method::GET,
            target: &target,
            query: &[],
            length: None,
            md5: None,
            content_type: None,
        };
        let shown = format!("{:?}", head.headers(1).expect("usual values"));
        assert!(!shown.contains("exampleToken") && !shown.contains("q-signature"), "{shown}");
    }
}
