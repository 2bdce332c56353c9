//! The percent-encoding of the cloud's signatures.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Encodes every byte except `A-Z a-z 0-9 - _ . ~`, in upper-case hex. A space becomes `%20`.
pub fn encode(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, RESERVED).into()
}

/// Decodes one value of a query string: `+` is a space. `None` when the bytes are not UTF-8.
pub(crate) fn decode_form(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("aZ09-_.~"), "aZ09-_.~");
        assert_eq!(encode(" +/%&=*!'()"), "%20%2B%2F%25%26%3D%2A%21%27%28%29");
        assert_eq!(encode("测\0"), "%E6%B5%8B%00");
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded_to_the_same(text: String) {
            assert_eq!(decode_form(&encode(&text)), Some(text));
        }
    }
}
