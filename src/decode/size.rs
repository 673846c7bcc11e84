//! An estimate of the memory that a message takes once it is decoded. The figures were measured
//! with the worst that a peer can write.

use serde_json::Value;

use super::json::Reader;

/// The bytes that values take on one of the two ways of the decoder.
struct Costs {
    /// A map with its first member: one node of a `BTreeMap` of `Value`s.
    map: usize,
    /// A further member of a map, in a node that is half full.
    member: usize,
    /// A list with room for four values.
    list: usize,
    /// A further value of a list, which is moved when the list grows to twice its size.
    element: usize,
}

/// The size of a value. It is 32 bytes, or 72 where the program enables `preserve_order` in
/// serde_json, whose maps are tables with an index then.
const VALUE: usize = size_of::<Value>();

/// Costs of the usual messages, whose values are decoded at once.
const USUAL: Costs = Costs {
    map: 704,
    member: if VALUE > 32 { 4 * (VALUE + 32) } else { 192 },
    list: 80 + 4 * VALUE,
    element: 48 + 3 * VALUE,
};

/// Costs of all other messages, where rmcp keeps a buffer beside the values.
const BUFFERED: Costs = Costs {
    map: 768 + USUAL.map,
    member: 192 + USUAL.member,
    list: 336 + USUAL.list,
    element: 176 + USUAL.element,
};

/// The most memory that a message takes once it is decoded, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DecodedSize {
    /// Size of a message that takes the short way of the decoder.
    pub(crate) usual: usize,
    /// Size of one that rmcp's own `Deserialize` has to judge.
    pub(crate) buffered: usize,
}

impl DecodedSize {
    /// Returns the size of a message of type `M` that stays a text of so many `bytes`.
    pub(crate) fn of_text<M>(bytes: usize) -> Self {
        /// Memory of the extensions, in bytes: a table of eight entries, and what is in one.
        const EXTENSIONS: usize = 512;

        let size = bytes + size_of::<M>() + EXTENSIONS;
        Self { usual: size, buffered: size }
    }

    /// Returns `true` if the message, whose JSON has `json_len` bytes, may take far less. Then
    /// [`count_decoded_size`] is worth its time where that matters.
    pub(crate) fn is_rough(&self, json_len: usize) -> bool {
        self.usual - json_len > 256 << 10
    }
}

/// The values of a message, by what they stand in.
#[derive(Default)]
struct Counts {
    maps: usize,
    lists: usize,
    members: usize,
    elements: usize,
}

/// The number of bytes that are counted at once. As many as a counter of one byte can tell, in
/// whole vectors.
const CHUNK: usize = 240;

impl Counts {
    /// Counts what `bytes` begins, as if all of it stood in maps; there are at most [`CHUNK`].
    #[inline]
    fn add(&mut self, bytes: &[u8]) {
        // Counters of one byte, so that the compiler makes vectors of them.
        let (mut maps, mut lists, mut members) = (0_u8, 0_u8, 0_u8);
        for &byte in bytes {
            maps += u8::from(byte == b'{');
            lists += u8::from(byte == b'[');
            members += u8::from(byte == b',');
        }
        self.maps += usize::from(maps);
        self.lists += usize::from(lists);
        self.members += usize::from(members);
    }

    fn size(&self, json: &[u8]) -> DecodedSize {
        let size = |costs: &Costs| {
            json.len()
                + costs.map * self.maps
                + costs.member * self.members
                + costs.list * self.lists
                + costs.element * self.elements
        };
        DecodedSize { usual: size(&USUAL), buffered: size(&BUFFERED) }
    }
}

/// Estimates what `json` takes at most once it is decoded.
///
/// Text in strings counts as if it were JSON. Where that makes more than `limit`, the message is
/// counted anew without its strings, which takes longer.
pub(crate) fn estimate_decoded_size(json: &[u8], limit: usize) -> DecodedSize {
    let mut counts = Counts::default();
    let (chunks, rest) = json.as_chunks::<CHUNK>();
    chunks.iter().for_each(|chunk| counts.add(chunk));
    counts.add(rest);
    let size = counts.size(json);
    if size.buffered <= limit {
        return size;
    }
    str::from_utf8(json).map_or(size, |text| counts_without_strings(text).size(json))
}

/// Estimates what `json` takes more exactly than [`estimate_decoded_size`]. Takes longer: text in
/// strings is no JSON.
pub(crate) fn count_decoded_size(json: &[u8]) -> usize {
    let counts = str::from_utf8(json).map(counts_without_strings).unwrap_or_default();
    counts.size(json).usual
}

fn counts_without_strings(text: &str) -> Counts {
    let mut open = Vec::new();
    let mut counts = Counts::default();
    Reader::new(text).each_delimiter(|byte| match byte {
        b'{' => {
            open.push(byte);
            counts.maps += 1;
        }
        b'[' => {
            open.push(byte);
            counts.lists += 1;
        }
        b'}' | b']' => drop(open.pop()),
        b',' if open.last() == Some(&b'{') => counts.members += 1,
        b',' => counts.elements += 1,
        _ => {}
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_message_counts_for_what_it_is() {
        let json = br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#;
        let (counted, most) =
            (count_decoded_size(json), estimate_decoded_size(json, 1 << 20).usual);
        assert!(most < 3000 && counted <= most, "{counted} of {most}");
    }

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        let text = format!(r#"{{"text":"{}"}}"#, r#"{\"a\":[1,2]},"#.repeat(1000));
        let size = estimate_decoded_size(text.as_bytes(), 100_000).buffered;
        assert!((text.len()..text.len() + 2000).contains(&size), "{size}");
        let size = count_decoded_size(text.as_bytes());
        assert!((text.len()..text.len() + 1000).contains(&size), "{size}");
        let dense = format!(r#"{{"list":[{}]}}"#, "{},".repeat(1000));
        for limit in [1000, 1 << 20] {
            let size = estimate_decoded_size(dense.as_bytes(), limit);
            assert!(size.usual > 640_000 && size.buffered > 2 * size.usual, "{size:?}");
        }
    }
}
