//! Mutations of JSON text that keep what a parsed value would lose: order, duplicate members and
//! the spelling of numbers and strings.

use std::fmt::Write as _;

use super::corpus::{MEMBERS, VALUES};

/// A small deterministic generator (SplitMix64).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// JSON whose leaves are still text.
#[derive(Clone)]
pub(crate) enum Json {
    Leaf(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Takes compact, well-formed JSON apart.
    pub(crate) fn parse(text: &str) -> Self {
        let (json, rest) = Self::parse_some(text);
        assert!(rest.is_empty(), "{rest}");
        json
    }

    fn parse_some(text: &str) -> (Self, &str) {
        if let Some(mut rest) = text.strip_prefix('[') {
            let mut items = vec![];
            while !rest.starts_with(']') {
                let (item, after) = Self::parse_some(rest.trim_start_matches(','));
                items.push(item);
                rest = after;
            }
            return (Self::Array(items), &rest[1..]);
        }
        if let Some(mut rest) = text.strip_prefix('{') {
            let mut members = vec![];
            while !rest.starts_with('}') {
                let (key, after) = Self::parse_some(rest.trim_start_matches(','));
                let Self::Leaf(key) = key else { panic!("{rest}") };
                let (value, after) = Self::parse_some(&after[1..]);
                members.push((key, value));
                rest = after;
            }
            return (Self::Object(members), &rest[1..]);
        }
        let end = match text.strip_prefix('"') {
            Some(string) => {
                let mut escaped = false;
                let close = string.find(|c| {
                    let closes = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                close.map_or(text.len(), |at| at + 2)
            }
            None => text.find([',', ']', '}']).unwrap_or(text.len()),
        };
        (Self::Leaf(text[..end].into()), &text[end..])
    }

    pub(crate) fn print(&self, out: &mut String) {
        match self {
            Self::Leaf(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (n, item) in items.iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    item.print(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (n, (key, value)) in members.iter().enumerate() {
                    let comma = if n > 0 { "," } else { "" };
                    let _ = write!(out, "{comma}{key}:");
                    value.print(out);
                }
                out.push('}');
            }
        }
    }

    /// Picks a value in here, the nearer to the top the more likely.
    fn somewhere(&mut self, rng: &mut Rng) -> &mut Self {
        let below = match self {
            Self::Leaf(_) => 0,
            Self::Array(items) => items.len(),
            Self::Object(members) => members.len(),
        };
        if below == 0 || rng.below(4) == 0 {
            return self;
        }
        let at = rng.below(below);
        match self {
            Self::Leaf(_) => self,
            Self::Array(items) => items[at].somewhere(rng),
            Self::Object(members) => members[at].1.somewhere(rng),
        }
    }
}

/// Changes one thing about a message; `other` is one to take parts from.
pub(crate) fn mutate(message: &mut Json, other: &Json, rng: &mut Rng) {
    let donor = other.clone().somewhere(rng).clone();
    let target = message.somewhere(rng);
    match (rng.below(12), target) {
        (0, target) => *target = Json::parse(rng.pick(VALUES)),
        (1, target) => *target = donor,
        (2, target) => *target = Json::Array(vec![target.clone()]),
        (3, target) => *target = Json::Object(vec![(member(rng), target.clone())]),
        (4, target) if rng.below(8) == 0 => {
            let depth = [3, 120, 124, 125, 126, 127, 128, 300][rng.below(8)];
            *target = Json::Leaf(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        }
        (_, Json::Leaf(text)) if rng.below(6) == 0 => {
            if let Some(inner) = text.strip_prefix('"').filter(|inner| !inner.starts_with('\\'))
                && let Some(first) = inner.chars().next().filter(|first| *first != '"')
            {
                let escape = format!("\"\\u{:04x}", first as u32 & 0xffff);
                *text = escape + &inner[first.len_utf8()..];
            }
        }
        (_, Json::Object(members)) => mutate_members(members, donor, rng),
        (_, Json::Array(items)) if !items.is_empty() => {
            let at = rng.below(items.len());
            match rng.below(3) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => items.insert(at, donor),
            }
        }
        (_, target) => *target = Json::parse(rng.pick(VALUES)),
    }
}

fn mutate_members(members: &mut Vec<(String, Json)>, donor: Json, rng: &mut Rng) {
    let at = rng.below(members.len());
    let add = match donor {
        Json::Object(mut donor) if !donor.is_empty() && rng.below(2) == 0 => {
            let at = rng.below(donor.len());
            donor.swap_remove(at)
        }
        _ => (member(rng), Json::parse(rng.pick(VALUES))),
    };
    match rng.below(7) {
        0 if !members.is_empty() => drop(members.remove(at)),
        1 if !members.is_empty() => members.push(members[at].clone()),
        2 if !members.is_empty() => members[at].0 = member(rng),
        3 if members.len() > 1 => {
            let other = rng.below(members.len());
            members.swap(at, other);
        }
        4 if members.len() > 1 => {
            let first = members.remove(0);
            members.push(first);
        }
        5 => members.insert(0, add),
        _ => members.push(add),
    }
}

fn member(rng: &mut Rng) -> String {
    format!("\"{}\"", rng.pick(MEMBERS))
}

/// Changes one thing about the bytes themselves.
pub(crate) fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(8) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = rng.next() as u8,
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, b"\"{}[],:\\ \n\x00\xff0e."[rng.below(15)]),
        5 => bytes.extend_from_slice([&b"\n"[..], b" ", b"x", b"{}", b"\0"][rng.below(5)]),
        6 => drop(bytes.splice(0..0, *b"\xef\xbb\xbf")),
        _ => drop(bytes.splice(0..0, *b" \r\n")),
    }
}
