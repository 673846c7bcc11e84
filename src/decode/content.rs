//! The result of `tools/call`, without the buffer that serde fills for each block of content.
//!
//! A block is an enum tagged by `type`, which nearly every server writes first: then what follows
//! is read as what it is. Where the tag comes later, or a member is unknown, rmcp decides.

use std::fmt;

use rmcp::model::{CallToolResult, ContentBlock, MetaObject, ResultType};
use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::StrDeserializer,
    },
};
use serde_json::Value;

use super::strict::{Unknown, object};

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Member {
    ResultType,
    Content,
    StructuredContent,
    IsError,
    #[serde(rename = "_meta")]
    Meta,
}

/// Reads the rest of a result, after the key that has already been taken out, if any.
pub(super) fn call_tool_result<'de, A: MapAccess<'de>>(
    mut map: A,
    taken: Option<&'static str>,
) -> Result<CallToolResult, A::Error> {
    let mut result_type: Option<Option<ResultType>> = None;
    let mut content: Option<Option<Vec<ContentBlock>>> = None;
    let mut structured_content: Option<Value> = None;
    let mut is_error: Option<Option<bool>> = None;
    let mut meta: Option<Option<MetaObject>> = None;

    let mut next = match taken {
        Some(key) => {
            let key: StrDeserializer<'_, A::Error> = key.into_deserializer();
            Some(Member::deserialize(key)?)
        }
        None => map.next_key()?,
    };
    while let Some(member) = next {
        match member {
            Member::ResultType if result_type.is_none() => result_type = Some(map.next_value()?),
            Member::Content if content.is_none() => content = Some(map.next_value_seed(Blocks)?),
            Member::StructuredContent if structured_content.is_none() => {
                structured_content = Some(map.next_value()?);
            }
            Member::IsError if is_error.is_none() => is_error = Some(map.next_value()?),
            Member::Meta if meta.is_none() => meta = Some(map.next_value()?),
            _ => return Err(A::Error::custom("a member twice")),
        }
        next = map.next_key()?;
    }

    let (result_type, content) = (result_type.flatten(), content.flatten());
    let is_error = is_error.flatten();
    if result_type.as_ref().is_some_and(|result_type| !result_type.is_complete()) {
        return Err(A::Error::custom("not complete"));
    }
    if content.is_none() && structured_content.is_none() && is_error.is_none() {
        return Err(A::Error::custom("nothing that only this result has"));
    }
    let mut result = CallToolResult::default();
    result.result_type = result_type;
    result.content = content.unwrap_or_default();
    result.structured_content = structured_content;
    result.is_error = is_error;
    result.meta = meta.flatten();
    Ok(result)
}

/// Reads an array of blocks, or null.
struct Blocks;

impl<'de> DeserializeSeed<'de> for Blocks {
    type Value = Option<Vec<ContentBlock>>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Blocks {
    type Value = Option<Vec<ContentBlock>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("blocks of content")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        // Most messages have one block, and `push` would allocate room for four.
        let Some(first) = seq.next_element_seed(Block)? else { return Ok(Some(Vec::new())) };
        let mut blocks = vec![first];
        while let Some(block) = seq.next_element_seed(Block)? {
            blocks.push(block);
        }
        Ok(Some(blocks))
    }
}

/// Reads one block.
struct Block;

/// The members that a block may begin with.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum First {
    Type,
    Text,
    Data,
    MimeType,
    Resource,
    Uri,
    Name,
    Annotations,
    #[serde(rename = "_meta")]
    Meta,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Type {
    Text,
    Image,
    Audio,
    Resource,
    ResourceLink,
}

impl<'de> DeserializeSeed<'de> for Block {
    type Value = ContentBlock;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<ContentBlock, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Block {
    type Value = ContentBlock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block of content")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ContentBlock, A::Error> {
        let first = match map.next_key()? {
            Some(First::Type) => {
                // A second `type` is refused, as any unknown member.
                return Ok(match map.next_value()? {
                    Type::Text => ContentBlock::Text(object(map, None, Unknown::Refuse)?),
                    Type::Image => ContentBlock::Image(object(map, None, Unknown::Refuse)?),
                    Type::Audio => ContentBlock::Audio(object(map, None, Unknown::Refuse)?),
                    Type::Resource => ContentBlock::Resource(object(map, None, Unknown::Refuse)?),
                    Type::ResourceLink => {
                        ContentBlock::ResourceLink(object(map, None, Unknown::Refuse)?)
                    }
                });
            }
            Some(First::Text) => "text",
            Some(First::Data) => "data",
            Some(First::MimeType) => "mimeType",
            Some(First::Resource) => "resource",
            Some(First::Uri) => "uri",
            Some(First::Name) => "name",
            Some(First::Annotations) => "annotations",
            Some(First::Meta) => "_meta",
            None => return Err(A::Error::custom("an empty block")),
        };
        object(map, Some(first), Unknown::Skip)
    }
}
