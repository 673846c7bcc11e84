//! An estimate of what a message takes once it is decoded.

/// A map with room for eleven members: one node of a `BTreeMap` of `Value`s.
const MAP: usize = 640;
/// A list with room for four values.
const LIST: usize = 128;
/// A value among others, in a list that has grown to twice its size.
const MEMBER: usize = 64;

/// Estimates what `json` takes at most once it is decoded, in bytes.
pub(crate) fn estimate_decoded_size(json: &[u8]) -> usize {
    if json.len() <= 256 {
        return json.len() * 240;
    }
    let (mut maps, mut lists, mut members) = (0, 0, 0);
    // In counters of a byte each, so that the compiler makes vectors of them.
    for chunk in json.chunks(255) {
        let (mut in_maps, mut in_lists, mut in_members) = (0_u8, 0_u8, 0_u8);
        for &byte in chunk {
            in_maps += u8::from(byte == b'{');
            in_lists += u8::from(byte == b'[');
            in_members += u8::from(byte == b',');
        }
        maps += usize::from(in_maps);
        lists += usize::from(in_lists);
        members += usize::from(in_members);
    }
    json.len() + MAP * maps + LIST * lists + MEMBER * members
}
