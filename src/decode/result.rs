//! Results, by the method of the request that they answer, or by their first member.
//!
//! rmcp tries the variants of a result in turn and takes the first that fits. So a result is
//! decoded here only when it has no member that its type does not know: each earlier variant
//! requires one that is not among them. The exception is the result of `subscriptions/listen`,
//! which is all of `resultType` and a `_meta` with a subscription's id.

use std::fmt;

use rmcp::model::{
    ClientResult, CompleteResult, ElicitResult, EmptyObject, GetPromptResult, InitializeResult,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    MetaObject, ReadResourceResult, ResultType, ServerResult,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};

use super::{
    content,
    method::Method,
    strict::{Unknown, object},
};

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// The results that are decoded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Empty,
    CallTool,
    Complete,
    Elicit,
    GetPrompt,
    Initialize,
    ListPrompts,
    ListResources,
    ListResourceTemplates,
    ListTools,
    ReadResource,
}

impl Kind {
    fn answers(method: Method) -> Option<Self> {
        Some(match method {
            Method::Ping | Method::SetLevel | Method::Subscribe | Method::Unsubscribe => {
                Self::Empty
            }
            Method::CallTool => Self::CallTool,
            Method::Complete => Self::Complete,
            Method::Elicit => Self::Elicit,
            Method::GetPrompt => Self::GetPrompt,
            Method::Initialize => Self::Initialize,
            Method::ListPrompts => Self::ListPrompts,
            Method::ListResources => Self::ListResources,
            Method::ListResourceTemplates => Self::ListResourceTemplates,
            Method::ListTools => Self::ListTools,
            Method::ReadResource => Self::ReadResource,
            _ => return None,
        })
    }

    /// Returns the kind of result that begins with this member, and the member's name.
    fn begins(member: &str) -> Option<(Self, &'static str)> {
        Some(match member {
            "content" => (Self::CallTool, "content"),
            "structuredContent" => (Self::CallTool, "structuredContent"),
            "isError" => (Self::CallTool, "isError"),
            "completion" => (Self::Complete, "completion"),
            "action" => (Self::Elicit, "action"),
            "description" => (Self::GetPrompt, "description"),
            "messages" => (Self::GetPrompt, "messages"),
            "protocolVersion" => (Self::Initialize, "protocolVersion"),
            "capabilities" => (Self::Initialize, "capabilities"),
            "serverInfo" => (Self::Initialize, "serverInfo"),
            "prompts" => (Self::ListPrompts, "prompts"),
            "resources" => (Self::ListResources, "resources"),
            "resourceTemplates" => (Self::ListResourceTemplates, "resourceTemplates"),
            "tools" => (Self::ListTools, "tools"),
            "contents" => (Self::ReadResource, "contents"),
            _ => return None,
        })
    }
}

/// Reads the result of a request that a client has sent.
pub(super) struct OfServer(pub(super) Option<Method>);

/// Reads the result of a request that a server has sent.
pub(super) struct OfClient(pub(super) Option<Method>);

impl OfServer {
    fn read<'de, A: MapAccess<'de>>(kind: Kind, rest: Rest<A>) -> Result<ServerResult, A::Error> {
        use ServerResult as S;
        Ok(match kind {
            Kind::CallTool => {
                let result = content::call_tool_result(rest.map, rest.taken)?;
                unless_listen(&result.result_type, &result.meta)?;
                S::CallToolResult(result)
            }
            Kind::ListTools => {
                let result: ListToolsResult = rest.read()?;
                unless_listen(&result.result_type, &result.meta)?;
                S::ListToolsResult(result)
            }
            Kind::Empty => S::EmptyResult(rest.read::<EmptyObject>()?),
            Kind::Complete => S::CompleteResult(rest.read::<CompleteResult>()?),
            Kind::GetPrompt => S::GetPromptResult(rest.read::<GetPromptResult>()?),
            Kind::Initialize => S::InitializeResult(rest.read::<InitializeResult>()?),
            Kind::ListPrompts => S::ListPromptsResult(rest.read::<ListPromptsResult>()?),
            Kind::ListResources => S::ListResourcesResult(rest.read::<ListResourcesResult>()?),
            Kind::ListResourceTemplates => {
                S::ListResourceTemplatesResult(rest.read::<ListResourceTemplatesResult>()?)
            }
            Kind::ReadResource => S::ReadResourceResult(rest.read::<ReadResourceResult>()?),
            Kind::Elicit => return Err(A::Error::custom("no fast path")),
        })
    }
}

impl OfClient {
    fn read<'de, A: MapAccess<'de>>(kind: Kind, rest: Rest<A>) -> Result<ClientResult, A::Error> {
        use ClientResult as C;
        Ok(match kind {
            Kind::Empty => C::EmptyResult(rest.read::<EmptyObject>()?),
            Kind::Elicit => C::ElicitResult(rest.read::<ElicitResult>()?),
            _ => return Err(A::Error::custom("no fast path")),
        })
    }
}

macro_rules! seed {
    ($seed:ty => $result:ty) => {
        impl<'de> DeserializeSeed<'de> for $seed {
            type Value = $result;

            fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<$result, D::Error> {
                json.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for $seed {
            type Value = $result;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a result")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$result, A::Error> {
                let (kind, rest) = Rest::of(self.0.and_then(Kind::answers), map)?;
                Self::read(kind, rest)
            }
        }
    };
}

seed!(OfServer => ServerResult);
seed!(OfClient => ClientResult);

/// An object of which the first key may have been read.
struct Rest<A> {
    map: A,
    taken: Option<&'static str>,
}

impl<'de, A: MapAccess<'de>> Rest<A> {
    fn of(kind: Option<Kind>, mut map: A) -> Result<(Kind, Self), A::Error> {
        let (kind, taken) = match kind {
            Some(kind) => (kind, None),
            None => match map.next_key::<First>()? {
                Some(First(kind, member)) => (kind, Some(member)),
                None => (Kind::Empty, None),
            },
        };
        Ok((kind, Self { map, taken }))
    }

    fn read<T: Deserialize<'de>>(self) -> Result<T, A::Error> {
        object(self.map, self.taken, Unknown::Refuse)
    }
}

/// The first member of a result, with what it says about its type.
struct First(Kind, &'static str);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(FirstVisitor)
    }
}

struct FirstVisitor;

impl Visitor<'_> for FirstVisitor {
    type Value = First;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member that only one result has")
    }

    fn visit_str<E: Error>(self, member: &str) -> Result<First, E> {
        Kind::begins(member)
            .map(|(kind, member)| First(kind, member))
            .ok_or_else(|| E::custom("ambiguous member"))
    }
}

fn unless_listen<E: Error>(
    result_type: &Option<ResultType>,
    meta: &Option<MetaObject>,
) -> Result<(), E> {
    match (result_type, meta) {
        (Some(_), Some(meta)) if meta.contains_key(SUBSCRIPTION_ID) => {
            Err(E::custom("perhaps the result of subscriptions/listen"))
        }
        _ => Ok(()),
    }
}
