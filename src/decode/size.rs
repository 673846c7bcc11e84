//! An estimate of the memory that a message takes once it is decoded. The figures were measured
//! with the worst that a peer can write, on the longer of the two ways, where rmcp keeps a buffer
//! beside the values.

use super::json::Reader;

/// A map with its first member: one node of a `BTreeMap` of `Value`s.
const MAP: usize = 1472;
/// Another member of a map, in a node that is half full.
const MEMBER: usize = 384;
/// A list with room for four values, and as much in the buffer.
const LIST: usize = 544;
/// Another value of a list, which is moved when the list grows to twice its size.
const ELEMENT: usize = 320;

/// Estimates what `json` takes at most once it is decoded, in bytes.
///
/// Text in strings counts as if it were JSON. Where that makes more than `limit`, the message is
/// counted anew without its strings, which takes longer.
pub(crate) fn estimate_decoded_size(json: &[u8], limit: usize) -> usize {
    if json.len() <= 256 {
        return json.len() * 240;
    }
    let (mut maps, mut lists, mut others) = (0, 0, 0);
    // In counters of a byte each, so that the compiler makes vectors of them.
    for chunk in json.chunks(255) {
        let (mut in_maps, mut in_lists, mut in_others) = (0_u8, 0_u8, 0_u8);
        for &byte in chunk {
            in_maps += u8::from(byte == b'{');
            in_lists += u8::from(byte == b'[');
            in_others += u8::from(byte == b',');
        }
        maps += usize::from(in_maps);
        lists += usize::from(in_lists);
        others += usize::from(in_others);
    }
    let size = json.len() + MAP * maps + LIST * lists + MEMBER * others;
    match str::from_utf8(json) {
        Ok(text) if size > limit => size_without_strings(text),
        _ => size,
    }
}

fn size_without_strings(text: &str) -> usize {
    let mut open = Vec::new();
    let mut size = text.len();
    Reader::new(text).each_delimiter(|byte| match byte {
        b'{' | b'[' => {
            open.push(byte);
            size += if byte == b'{' { MAP } else { LIST };
        }
        b'}' | b']' => drop(open.pop()),
        b',' => size += if open.last() == Some(&b'{') { MEMBER } else { ELEMENT },
        _ => {}
    });
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_string_is_no_value() {
        let text = format!(r#"{{"text":"{}"}}"#, r#"{\"a\":[1,2]},"#.repeat(1000));
        let size = estimate_decoded_size(text.as_bytes(), 100_000);
        assert!((text.len()..text.len() + 2000).contains(&size), "{size}");
        let dense = format!(r#"{{"list":[{}]}}"#, "{},".repeat(1000));
        assert!(estimate_decoded_size(dense.as_bytes(), 1000) > 640_000);
        assert!(estimate_decoded_size(dense.as_bytes(), 1 << 20) > 640_000);
    }
}
