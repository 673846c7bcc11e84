//! Requests, by the name of their method.

use rmcp::model::{
    ClientRequest, Request, RequestMetaObject, RequestNoParam, RequestOptionalParam,
    RequestParamsMeta, ServerRequest,
};
use serde::{
    Deserialize,
    de::{Error, MapAccess},
};

use super::{method::Method, strict::Object};

/// Reads the params of a request that a client sends.
pub(super) fn of_client<'de, A: MapAccess<'de>>(
    method: Method,
    map: &mut A,
) -> Result<ClientRequest, A::Error> {
    use ClientRequest as C;
    Ok(match method {
        Method::CallTool => C::CallToolRequest(request(map)?),
        Method::ListTools => C::ListToolsRequest(optional(map)?),
        Method::Ping => C::PingRequest(no_param(map)?),
        Method::Initialize => C::InitializeRequest(request(map)?),
        Method::Complete => C::CompleteRequest(request(map)?),
        Method::SetLevel => C::SetLevelRequest(request(map)?),
        Method::GetPrompt => C::GetPromptRequest(request(map)?),
        Method::ListPrompts => C::ListPromptsRequest(optional(map)?),
        Method::ListResources => C::ListResourcesRequest(optional(map)?),
        Method::ListResourceTemplates => C::ListResourceTemplatesRequest(optional(map)?),
        Method::ReadResource => C::ReadResourceRequest(request(map)?),
        Method::Subscribe => C::SubscribeRequest(request(map)?),
        Method::Unsubscribe => C::UnsubscribeRequest(request(map)?),
        _ => return Err(A::Error::custom("no fast path")),
    })
}

/// A request that a client sends without params.
pub(super) fn of_client_bare(method: Method) -> Option<ClientRequest> {
    use ClientRequest as C;
    Some(match method {
        Method::Ping => C::PingRequest(RequestNoParam::default()),
        Method::ListTools => C::ListToolsRequest(RequestOptionalParam::default()),
        Method::ListPrompts => C::ListPromptsRequest(RequestOptionalParam::default()),
        Method::ListResources => C::ListResourcesRequest(RequestOptionalParam::default()),
        _ => return None,
    })
}

/// Reads the params of a request that a server sends.
pub(super) fn of_server<'de, A: MapAccess<'de>>(
    method: Method,
    map: &mut A,
) -> Result<ServerRequest, A::Error> {
    use ServerRequest as S;
    Ok(match method {
        Method::Ping => S::PingRequest(no_param(map)?),
        Method::ListRoots => S::ListRootsRequest(no_param(map)?),
        _ => return Err(A::Error::custom("no fast path")),
    })
}

/// A request that a server sends without params.
pub(super) fn of_server_bare(method: Method) -> Option<ServerRequest> {
    use ServerRequest as S;
    Some(match method {
        Method::Ping => S::PingRequest(RequestNoParam::default()),
        Method::ListRoots => S::ListRootsRequest(RequestNoParam::default()),
        _ => return None,
    })
}

fn request<'de, A, M, P>(map: &mut A) -> Result<Request<M, P>, A::Error>
where
    A: MapAccess<'de>,
    M: Default,
    P: Deserialize<'de> + RequestParamsMeta,
{
    let mut request = Request::new(map.next_value_seed(Object::<P>::SEED)?);
    if let Some(meta) = request.params.meta_mut().take() {
        request.extensions.insert(meta);
    }
    Ok(request)
}

fn optional<'de, A, M, P>(map: &mut A) -> Result<RequestOptionalParam<M, P>, A::Error>
where
    A: MapAccess<'de>,
    M: Default,
    P: Deserialize<'de> + RequestParamsMeta,
{
    let mut params = map.next_value_seed(Object::<P>::SEED)?;
    let meta = params.meta_mut().take();
    let mut request = RequestOptionalParam::with_param(params);
    if let Some(meta) = meta {
        request.extensions.insert(meta);
    }
    Ok(request)
}

fn no_param<'de, A, M>(map: &mut A) -> Result<RequestNoParam<M>, A::Error>
where
    A: MapAccess<'de>,
    M: Default,
{
    let mut request = RequestNoParam { method: M::default(), extensions: Default::default() };
    if let Some(meta) = map.next_value_seed(Object::<OnlyMeta>::SEED)?.meta {
        request.extensions.insert(meta);
    }
    Ok(request)
}

#[derive(Deserialize)]
struct OnlyMeta {
    #[serde(rename = "_meta")]
    meta: Option<RequestMetaObject>,
}
