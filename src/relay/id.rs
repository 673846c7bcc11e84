//! Ids of any form as ids that rmcp has.
//!
//! A string and an integer of 64 bits stand for themselves; a string by its value, in whatever form
//! it is written. Any other id (`1.0`, an integer of more bits, a string with half a surrogate pair)
//! is passed on as the string `json:` and its text, so that whoever answers gives it back as it is;
//! the answer that is passed back has the original text. A string that begins with `json:` is passed
//! on so too.

use std::borrow::Cow;

use rmcp::model::RequestId;
use serde_json::Value;

use crate::decode::json::Raw;

/// Beginning of the string by which an id is passed on that does not stand for itself.
const MARK: &str = "json:";

/// Returns the id of a request; `None` if it can be none.
pub(super) fn of_request(raw: Raw<'_>) -> Option<RequestId> {
    let text = raw.get();
    if text.starts_with('"') {
        let marked = match string(text) {
            Some(value) if !value.starts_with(MARK) => {
                return Some(RequestId::String(value.into()));
            }
            Some(value) => format!("{MARK}{}", Value::from(value)),
            None => format!("{MARK}{text}"),
        };
        return Some(RequestId::String(marked.into()));
    }
    if !text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
        return None;
    }
    Some(match plain_integer(text) {
        Some(number) => RequestId::Number(number),
        None => RequestId::String(format!("{MARK}{text}").into()),
    })
}

/// Returns the value of a string, of which any is a good id.
fn string(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

/// Returns the integer that `text` is, if it is written as this side would write it.
fn plain_integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| *number != 0 || text == "0")
}

/// Returns the id in an answer, in the form that it was passed on in. An integer may be written
/// with a fraction, `7.0`, as some peers do.
pub(super) fn of_answer(raw: Raw<'_>) -> Option<RequestId> {
    /// Integers up to this one are exact in a 64-bit float.
    const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

    if raw.get().starts_with('"') {
        return string(raw.get()).map(|text| RequestId::String(text.into()));
    }
    let number = raw.parse::<i64>().or_else(|| {
        let number = raw.parse::<f64>()?;
        (number.fract() == 0.0 && number.abs() <= MAX_EXACT).then_some(number as i64)
    });
    number.map(RequestId::Number)
}

/// Returns the JSON by which an id is passed on.
pub(super) fn passed_on(id: &RequestId) -> String {
    id.clone().into_json_value().to_string()
}

/// Returns the JSON that the id was passed on for.
pub(super) fn original(id: &RequestId) -> Cow<'_, str> {
    match id {
        RequestId::String(text) => match text.strip_prefix(MARK) {
            Some(original) => original.into(),
            None => passed_on(id).into(),
        },
        RequestId::Number(_) => passed_on(id).into(),
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::json::Reader;

    use super::*;

    fn raw(text: &str) -> Raw<'_> {
        Reader::new(text).value().unwrap()
    }

    #[test]
    fn every_id_is_passed_on_and_comes_back_as_it_was() {
        for (text, passed) in [
            ("1", "1"),
            ("0", "0"),
            ("-9223372036854775808", "-9223372036854775808"),
            (r#""a b""#, r#""a b""#),
            (r#""""#, r#""""#),
            (r#""é""#, r#""é""#),
            (r#""$serde_json::private::Number""#, r#""$serde_json::private::Number""#),
            ("-0", r#""json:-0""#),
            ("1.0", r#""json:1.0""#),
            ("1e3", r#""json:1e3""#),
            ("9223372036854775808", r#""json:9223372036854775808""#),
            (r#""\ud800""#, r#""json:\"\\ud800\"""#),
            (r#""json:1""#, r#""json:\"json:1\"""#),
        ] {
            let id = of_request(raw(text)).unwrap();
            assert_eq!(passed_on(&id), passed, "{text}");
            assert_eq!(of_answer(raw(passed)), Some(id.clone()), "{text}");
            assert_eq!(original(&id), text);
            // Over two relays, one behind the other.
            let second = of_request(raw(passed)).unwrap();
            assert_eq!(original(&second), passed, "{text}");
        }
    }

    #[test]
    fn a_string_is_its_value_in_whatever_form() {
        for (text, other, passed) in [
            (r#""\u0061\/""#, r#""a/""#, r#""a/""#),
            (r#""\u00e9\"\n""#, r#""é\u0022\u000A""#, r#""é\"\n""#),
            (r#""\ud83d\ude00""#, r#""\uD83D\uDE00""#, r#""😀""#),
            (r#""json:1""#, r#""\u006ason\u003a1""#, r#""json:\"json:1\"""#),
        ] {
            let id = of_request(raw(text)).unwrap();
            assert_eq!(of_request(raw(other)), Some(id.clone()), "{text}");
            assert_eq!(passed_on(&id), passed, "{text}");
            assert_eq!(of_answer(raw(passed)), Some(id), "{text}");
        }
    }

    #[test]
    fn what_can_be_no_id_is_none() {
        for text in ["null", "true", "{}", "[1]"] {
            assert_eq!(of_request(raw(text)), None, "{text}");
        }
        assert_eq!(of_answer(raw("7.0")), Some(RequestId::Number(7)));
        assert_eq!(of_answer(raw("7.5")), None);
        assert_eq!(of_answer(raw("null")), None);
    }
}
