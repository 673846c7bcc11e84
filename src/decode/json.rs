//! JSON taken apart without being decoded: the members of an object as they stand in the text.
//!
//! A [`Reader`] goes on where a strict parser stops: at NaN, at a raw line break in a string. None
//! of serde_json's features is used that would change how other code reads a `Value`.

use std::{borrow::Cow, sync::LazyLock};

use memchr::{memchr, memmem::Finder};
use rmcp::model::RequestId;
use serde::{
    Deserialize,
    de::{Error as _, IgnoredAny},
};
use serde_json::Number;

/// The deepest nesting that serde_json reads.
const MAX_DEPTH: usize = 127;

/// The beginning of the names by which serde_json hands numbers and raw JSON to itself.
const RESERVED: &str = "$serde_json::private::";

/// `true` if serde_json reads numbers that exceed a 64-bit float. Its feature `arbitrary_precision`
/// has it do so in the whole program.
pub(crate) static KEEPS_ALL_NUMBERS: LazyLock<bool> =
    LazyLock::new(|| serde_json::from_str::<Number>("1e999").is_ok());

/// Fault of a message with such a name.
pub(super) const RESERVED_NAME: &str =
    "the name of a member begins with `$serde_json::private::`, which is reserved";

/// The text of a JSON value inside a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    pub(crate) const NULL: Self = Raw("null");

    /// Returns the text, without white space around it.
    pub(crate) fn get(self) -> &'a str {
        self.0
    }

    /// Decodes the value; `None` if it is not of that type, or has a reserved name.
    pub(crate) fn parse<T: Deserialize<'a>>(self) -> Option<T> {
        parse(self.0).ok()
    }

    pub(crate) fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    pub(crate) fn is_null(self) -> bool {
        self.0 == "null"
    }
}

/// Reads JSON, and what is nearly JSON.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the position in the text, in bytes.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Returns the next byte that is not white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while self.byte().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
        self.byte()
    }

    /// Consumes this byte, if it is the next that is not white space. Returns `true` if it was.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Calls `delimiter` with each byte outside of strings that begins, separates or ends values.
    pub(crate) fn each_delimiter(&mut self, mut delimiter: impl FnMut(u8)) {
        while let Some(byte) = self.byte() {
            if byte != b'"' {
                delimiter(byte);
                self.at += 1;
            } else if self.string().is_none() {
                return;
            }
        }
    }

    /// Reads a string with its quotes; the reader stands before it.
    fn string(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let stop = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += stop;
            if rest.get(stop) == Some(&b'"') {
                self.at += 1;
                return self.text.get(start..self.at);
            }
            self.at += 2;
        }
    }

    /// Takes the text up to the next delimiter.
    fn token(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest.bytes().position(|byte| {
            byte.is_ascii_whitespace()
                || matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
        });
        let token = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        self.at += token.len();
        token
    }

    /// Reads the next value; `None` where there is none, or it does not end.
    pub(crate) fn value(&mut self) -> Option<Raw<'a>> {
        self.peek()?;
        let start = self.at;
        let mut open = Vec::new();
        loop {
            match self.peek()? {
                b'"' => drop(self.string()?),
                b'{' => self.open(&mut open, b'}'),
                b'[' => self.open(&mut open, b']'),
                byte @ (b'}' | b']') => {
                    if open.pop() != Some(byte) {
                        return None;
                    }
                    self.at += 1;
                }
                b',' | b':' if !open.is_empty() => self.at += 1,
                _ => {
                    if self.token().is_empty() {
                        return None;
                    }
                }
            }
            if open.is_empty() {
                return self.text.get(start..self.at).map(Raw);
            }
        }
    }

    fn open(&mut self, open: &mut Vec<u8>, close: u8) {
        open.push(close);
        self.at += 1;
    }

    /// Reads an object, and hands out each member; the value is `None` where it does not end.
    /// Returns whether the object ended.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&str, Option<Raw<'a>>)) -> bool {
        if !self.take(b'{') {
            return false;
        }
        loop {
            match self.peek() {
                Some(b'"') => {}
                Some(b'}') => return self.take(b'}'),
                _ => return false,
            }
            let Some(name) = self.string().and_then(name) else { return false };
            if !self.take(b':') {
                return false;
            }
            let value = self.value();
            // A number at the end of a message may have been cut short.
            let value = value.filter(|value| {
                self.at < self.text.len() || value.get().ends_with(['"', '}', ']'])
            });
            member(&name, value);
            if value.is_none() {
                return false;
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {}
                _ => return false,
            }
        }
    }
}

/// Decodes JSON of the peer, unless a member has a name that serde_json keeps for itself.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, serde_json::Error> {
    if has_reserved_name(text.as_bytes()) {
        return Err(serde_json::Error::custom(RESERVED_NAME));
    }
    serde_json::from_str(text)
}

/// Decodes the name of a member, out of its quotes.
fn name(quoted: &str) -> Option<Cow<'_, str>> {
    if quoted.contains('\\') {
        return serde_json::from_str(quoted).ok().map(Cow::Owned);
    }
    quoted.get(1..quoted.len() - 1).map(Cow::Borrowed)
}

/// Returns the message without a leading byte order mark.
pub(crate) fn without_bom(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Returns the reason why this is not JSON in UTF-8, without quoting it; `None` if it is.
pub(crate) fn not_json(bytes: &[u8]) -> Option<String> {
    let text = match str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Some(format!("not JSON: {error}")),
    };
    let error = serde_json::from_str::<IgnoredAny>(text).err()?;
    Some(match literal(text) {
        Some(name) => format!("not JSON: {name} is no JSON value"),
        None => format!("not JSON: {error}"),
    })
}

/// Returns the first literal that other languages have and JSON has not.
fn literal(text: &str) -> Option<&'static str> {
    const LITERALS: &[&str] =
        &["NaN", "Infinity", "-Infinity", "undefined", "None", "True", "False", "nan", "inf"];
    find(text, |_, token| {
        let token = token.trim_start_matches('+');
        LITERALS.iter().copied().find(|literal| *literal == token)
    })
}

/// Returns the fault of JSON that the decoder refuses: its depth, a number or half a character.
pub(crate) fn fault(text: &str) -> Option<&'static str> {
    find(text, |depth, token| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        if depth > MAX_DEPTH {
            Some("nested more than 127 levels deep")
        } else if token.starts_with('"') {
            has_lone_surrogate(token)
                .then_some("a string holds half a character (a lone surrogate)")
        } else if digits.starts_with(|digit: char| digit.is_ascii_digit()) {
            let is_infinite = token.parse::<f64>().is_ok_and(f64::is_infinite);
            is_infinite.then_some("a number exceeds the range of a 64-bit float")
        } else {
            None
        }
    })
}

/// Calls `about` with each token and its depth, until that has an answer. Tokens are strings,
/// literals and opening brackets.
fn find<T>(text: &str, mut about: impl FnMut(usize, &str) -> Option<T>) -> Option<T> {
    let mut reader = Reader::new(text);
    let mut depth = 0_usize;
    loop {
        let token = match reader.peek()? {
            b'"' => reader.string()?,
            b'{' | b'[' => {
                depth += 1;
                reader.at += 1;
                "["
            }
            byte @ (b'}' | b']' | b',' | b':') => {
                depth = depth.saturating_sub(usize::from(matches!(byte, b'}' | b']')));
                reader.at += 1;
                continue;
            }
            _ => reader.token(),
        };
        if let Some(answer) = about(depth, token) {
            return Some(answer);
        }
    }
}

fn has_lone_surrogate(string: &str) -> bool {
    let mut rest = string;
    let mut leads = false;
    loop {
        let Some(at) = rest.find('\\') else { return leads };
        let is_next = at == 0;
        let unit = rest.get(at..at + 6).and_then(|escape| escape.strip_prefix("\\u"));
        let unit = unit.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let trails = matches!(unit, Some(0xDC00..=0xDFFF));
        if leads != (trails && is_next) || trails && !leads {
            return true;
        }
        leads = matches!(unit, Some(0xD800..=0xDBFF));
        let len = if unit.is_some() { 6 } else { 2 };
        rest = rest.get(at + len..).unwrap_or_default();
    }
}

/// Returns whether a member has a name that serde_json keeps for itself.
///
/// If any crate of the program enables its features `raw_value` or `arbitrary_precision`, such a
/// member inside a `Value` is no member: its string is parsed anew, without a bound on the depth.
pub(crate) fn has_reserved_name(json: &[u8]) -> bool {
    /// Made once: making one takes longer than the search through a short message.
    static NAMES: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(RESERVED));
    static ESCAPES: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\\u00"));

    let is_plain = memchr(b'$', json).is_none_or(|at| NAMES.find(&json[at..]).is_none());
    // A name may be written with escapes too, of which only those of ASCII matter.
    let has_escape = || {
        let Some(first) = memchr(b'\\', json) else { return false };
        let rest = &json[first..];
        ESCAPES.find_iter(rest).any(|at| matches!(rest.get(at + 4), Some(b'2'..=b'7')))
    };
    if is_plain && !has_escape() {
        return false;
    }
    let text = String::from_utf8_lossy(json);
    let mut reader = Reader::new(&text);
    loop {
        match reader.peek() {
            None => return false,
            Some(b'"') => {
                let Some(string) = reader.string() else { return false };
                if reader.peek() == Some(b':')
                    && name(string).is_some_and(|name| name.starts_with(RESERVED))
                {
                    return true;
                }
            }
            Some(_) => reader.at += 1,
        }
    }
}

/// An id as it stands in a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Id {
    Valid(RequestId),
    Null,
    /// An integer that is not one of 64 bits.
    TooLarge,
    Repeated,
    /// A string with one half of a surrogate pair.
    LoneSurrogate,
    /// Anything else, or cut off.
    Invalid,
}

impl Id {
    pub(crate) fn of(raw: Option<Raw<'_>>) -> Self {
        let Some(raw) = raw else { return Self::Invalid };
        let digits = raw.get().strip_prefix('-').unwrap_or(raw.get());
        if raw.get().starts_with(['{', '[']) {
            return Self::Invalid;
        }
        match raw.parse::<RequestId>() {
            Some(id) => Self::Valid(id),
            None if raw.is_null() => Self::Null,
            None if digits.bytes().all(|byte| byte.is_ascii_digit()) => Self::TooLarge,
            None if raw.get().len() > 1 && raw.get().ends_with('"') => Self::LoneSurrogate,
            None => Self::Invalid,
        }
    }

    /// Returns the fault of the id, under the `name` of its member.
    pub(crate) fn fault(&self, name: &str) -> Option<String> {
        let what = match self {
            Self::Valid(_) => return None,
            Self::Null => "is null",
            Self::TooLarge => "is an integer of more than 64 bits (-2^63 to 2^63-1)",
            Self::Repeated => "appears twice",
            Self::LoneSurrogate => {
                "is a string with half of a surrogate pair, which is no character"
            }
            Self::Invalid => "is neither a string nor an integer",
        };
        Some(format!("`{name}` {what}"))
    }

    pub(crate) fn valid(self) -> Option<RequestId> {
        match self {
            Self::Valid(id) => Some(id),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> (Vec<(String, Option<&str>)>, bool) {
        let mut members = Vec::new();
        let closed = Reader::new(text)
            .object(|name, value| members.push((name.to_owned(), value.map(Raw::get))));
        (members, closed)
    }

    #[test]
    fn members_stand_as_they_are_written() {
        let (found, closed) = members(r#" { "a" : [1, "]}\"" ] ,"\u0062":{"c":{}}, "d":NaN } "#);
        assert!(closed);
        let expected = [("a", r#"[1, "]}\"" ]"#), ("b", r#"{"c":{}}"#), ("d", "NaN")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), Some(value))));
    }

    #[test]
    fn what_is_cut_off_is_said_to_be() {
        for (text, count) in [("{", 0), (r#"{"a":1"#, 1), (r#"{"a":"x"#, 1), (r#"{"a":[1}"#, 1)] {
            let (found, closed) = members(text);
            assert_eq!((found.len(), closed), (count, false), "{text}");
            assert!(found.iter().all(|(_, value)| value.is_none()), "{text}");
        }
        assert_eq!(members(r#"{"a":"x""#).0, [("a".to_owned(), Some(r#""x""#))]);
    }

    #[test]
    fn a_fault_has_a_name() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        for (text, what) in [
            (deep(127).as_str(), None),
            (&deep(128), Some("127 levels")),
            ("[1e308,-0.5]", None),
            ("[-1e309]", Some("64-bit float")),
            (r#"["\ud83d\ude00 \\ud800"]"#, None),
            (r#"["\ud83d"]"#, Some("surrogate")),
            (r#"["\ude00"]"#, Some("surrogate")),
            (r#"["\ud83d \ude00"]"#, Some("surrogate")),
            (r#"["\ud83d\n"]"#, Some("surrogate")),
        ] {
            let fault = fault(text);
            assert_eq!(fault.is_some(), what.is_some(), "{text}");
            assert!(fault.unwrap_or_default().contains(what.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn reserved_names_are_found_however_they_are_written() {
        for (text, is_reserved) in [
            (r#"{"a":{"$serde_json::private::RawValue":"1"}}"#, true),
            (r#"{"a":[{"$serde_json::private::Number" : "1"}]}"#, true),
            (r#"{"\u0024serde_json::private::Number":"1"}"#, true),
            (r#"{"$serde_json::privat\u0065::RawValue":"1"}"#, true),
            (r#"{"a":"$serde_json::private::RawValue"}"#, false),
            (r#"{"a":"\"$serde_json::private::RawValue\":"}"#, false),
            (r#"{"a\u0041":"\u00e9"}"#, false),
        ] {
            assert_eq!(has_reserved_name(text.as_bytes()), is_reserved, "{text}");
        }
    }
}
