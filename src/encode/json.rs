//! Compact JSON, as serde_json writes it. Strings are escaped by runs instead of byte by byte,
//! which makes long text several times faster to write.

use serde::{
    Serialize,
    ser::{
        self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::Error;

/// The beginning of the names by which serde_json hands numbers and raw JSON to itself.
const PRIVATE: &str = "$serde_json::private::";

/// The number of bytes that are looked at at once.
const CHUNK: usize = 16;

/// Appends `value` to `out`.
///
/// # Errors
///
/// Fails as `serde_json::to_writer` does, but never for the writer.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    value.serialize(&mut Serializer { out })
}

/// Appends `text` as a JSON string.
fn write_str(out: &mut Vec<u8>, text: &str) {
    // With room for some escapes, so that long text with line breaks need not be moved.
    out.reserve(text.len() + text.len() / 16 + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = find_escaped(rest) {
        let (run, from) = rest.split_at(at);
        out.extend_from_slice(run);
        let Some((&byte, behind)) = from.split_first() else { break };
        write_escape(out, byte);
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Returns the place of the first byte that does not stand for itself in a JSON string.
fn find_escaped(bytes: &[u8]) -> Option<usize> {
    let (chunks, rest) = bytes.as_chunks::<CHUNK>();
    for (index, chunk) in chunks.iter().enumerate() {
        // Without a branch, so that the compiler makes a vector of it.
        if chunk.iter().fold(false, |any, byte| any | is_escaped(*byte)) {
            let at = chunk.iter().position(|byte| is_escaped(*byte))?;
            return Some(index * CHUNK + at);
        }
    }
    let at = rest.iter().position(|byte| is_escaped(*byte))?;
    Some(chunks.len() * CHUNK + at)
}

fn is_escaped(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let digits = [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)]);
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// A serializer whose scalars other than strings are written by serde_json.
struct Serializer<'a> {
    out: &'a mut Vec<u8>,
}

impl Serializer<'_> {
    fn scalar<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.out, value)
    }

    /// Begins the object around a variant with contents.
    fn variant(&mut self, name: &str) {
        self.out.push(b'{');
        write_str(self.out, name);
        self.out.push(b':');
    }

    /// Writes the name of a member. What is no string becomes one, or an error, as serde_json has
    /// it.
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let start = self.out.len();
        key.serialize(&mut *self)?;
        if self.out.get(start) == Some(&b'"') {
            return Ok(());
        }
        self.out.truncate(start);
        let mut json = serde_json::Serializer::new(&mut *self.out);
        let mut map = ser::Serializer::serialize_map(&mut json, None)?;
        map.serialize_key(key)?;
        self.out.remove(start);
        Ok(())
    }
}

/// Brackets that are open, and what has been written between them.
struct Compound<'a, 'b> {
    serializer: &'a mut Serializer<'b>,
    is_empty: bool,
    end: &'static [u8],
    /// The name of a structure by which serde_json hands something to itself.
    private: Option<&'static str>,
}

impl<'a, 'b> Compound<'a, 'b> {
    fn new(serializer: &'a mut Serializer<'b>, open: u8, end: &'static [u8]) -> Self {
        serializer.out.push(open);
        Self { serializer, is_empty: true, end, private: None }
    }

    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.serializer.out.push(b',');
        }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.separate();
        value.serialize(&mut *self.serializer)
    }

    fn member<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        if let Some(private) = self.private {
            let mut json = serde_json::Serializer::new(&mut *self.serializer.out);
            let mut whole = ser::Serializer::serialize_struct(&mut json, private, 1)?;
            SerializeStruct::serialize_field(&mut whole, name, value)?;
            return SerializeStruct::end(whole);
        }
        self.separate();
        write_str(self.serializer.out, name);
        self.serializer.out.push(b':');
        value.serialize(&mut *self.serializer)
    }

    fn close(self) {
        self.serializer.out.extend_from_slice(self.end);
    }
}

/// Forwards scalars to serde_json.
macro_rules! scalars {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            self.scalar(&value)
        })*
    };
}

impl<'a, 'b> ser::Serializer for &'a mut Serializer<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a, 'b>;
    type SerializeTuple = Compound<'a, 'b>;
    type SerializeTupleStruct = Compound<'a, 'b>;
    type SerializeTupleVariant = Compound<'a, 'b>;
    type SerializeMap = Compound<'a, 'b>;
    type SerializeStruct = Compound<'a, 'b>;
    type SerializeStructVariant = Compound<'a, 'b>;

    scalars! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        write_str(self.out, text);
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        ser::Serializer::serialize_bytes(&mut serde_json::Serializer::new(&mut *self.out), bytes)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(variant);
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'a, 'b>, Error> {
        Ok(Compound::new(self, b'[', b"]"))
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a, 'b>, Error> {
        Ok(Compound::new(self, b'[', b"]"))
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _len: usize,
    ) -> Result<Compound<'a, 'b>, Error> {
        Ok(Compound::new(self, b'[', b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a, 'b>, Error> {
        self.variant(variant);
        Ok(Compound::new(self, b'[', b"]}"))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'a, 'b>, Error> {
        Ok(Compound::new(self, b'{', b"}"))
    }

    fn serialize_struct(self, name: &'static str, _len: usize) -> Result<Compound<'a, 'b>, Error> {
        if name.starts_with(PRIVATE) {
            return Ok(Compound {
                serializer: self,
                is_empty: true,
                end: b"",
                private: Some(name),
            });
        }
        Ok(Compound::new(self, b'{', b"}"))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a, 'b>, Error> {
        self.variant(variant);
        Ok(Compound::new(self, b'{', b"}}"))
    }
}

/// Implements the traits of what has elements.
macro_rules! elements {
    ($($trait:ident::$method:ident,)*) => {
        $(impl $trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        })*
    };
}

/// Implements the traits of what has members with fixed names.
macro_rules! members {
    ($($trait:ident,)*) => {
        $(impl $trait for Compound<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.member(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

members! {
    SerializeStruct,
    SerializeStructVariant,
}

impl SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.separate();
        self.serializer.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.serializer.out.push(b':');
        value.serialize(&mut *self.serializer)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
