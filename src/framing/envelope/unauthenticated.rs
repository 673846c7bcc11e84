//! Envelopes of peers that have yet to authenticate.

use rmcp::{ErrorData, model::RequestId};
use serde::Deserialize;

use super::{Envelope, Form, wire::Kind};
use crate::{
    framing::{
        decode_error::DecodeError,
        json::invalid_request,
        unauthenticated::{self, Content, Member, Params, Request, Scalar, UnauthenticatedMessage},
    },
    role::AUTHENTICATE,
};

/// Members that are read.
#[derive(Deserialize)]
struct Unauthenticated {
    #[serde(rename = "type", default)]
    kind: Scalar,
    #[serde(default)]
    request: Content,
    #[serde(default)]
    payload: Content,
    #[serde(rename = "requestId", default)]
    request_id: Member<Scalar>,
}

impl Envelope {
    /// Decodes a message of a peer that has yet to authenticate.
    pub(super) fn read_unauthenticated(
        &mut self,
        json: &str,
    ) -> Result<UnauthenticatedMessage, DecodeError> {
        let Unauthenticated { kind, request, payload, request_id } = unauthenticated::read(json)?;
        let kind = kind.string();
        if self.form == Form::Wrapped {
            return match (kind.as_deref(), payload.0) {
                (Some("ping" | "pong"), _) => Ok(UnauthenticatedMessage::Other),
                (Some("mcp"), Some(request)) => request.judge(),
                (Some("mcp"), None) => Err(invalid_request(None, "`payload` is missing")),
                _ => Err(invalid_request(None, "`type` is missing, or not `mcp`")),
            };
        }
        let what = match kind.as_deref() {
            Some("mcp_request") => {
                let Ok(request_id) = request_id.id() else {
                    let what = "`requestId` is neither a string nor an integer";
                    let error = ErrorData::invalid_request(what, None);
                    return Err(self.peer_requests.refuse_request(None, error));
                };
                return self.read_unauthenticated_request(request.0.or(payload.0), request_id);
            }
            Some("ping") => {
                let request_id = request_id.id().ok().flatten();
                self.replies.push_back(self.seal(Kind::Pong, None, request_id.as_ref()));
                return Ok(UnauthenticatedMessage::Other);
            }
            Some("pong" | "notification" | "mcp_response" | "error") => {
                return Ok(UnauthenticatedMessage::Other);
            }
            Some(_) => "no such `type`",
            None => "`type` is missing, or no string",
        };
        let request_id = request_id.id().ok().flatten();
        Err(self.peer_requests.refuse(request_id, ErrorData::invalid_request(what, None)))
    }

    fn read_unauthenticated_request(
        &mut self,
        request: Option<Request>,
        request_id: Option<RequestId>,
    ) -> Result<UnauthenticatedMessage, DecodeError> {
        let Some(Request { method: Member::Present(Scalar::String(method)), params, .. }) = request
        else {
            let what = "`request` is no object with a `method`";
            let error = ErrorData::invalid_request(what, None);
            return Err(self.peer_requests.refuse_request(request_id, error));
        };
        let id = self.peer_requests.begin(request_id, false)?;
        match (&*method, params) {
            (AUTHENTICATE, Params::Named(token)) => {
                Ok(UnauthenticatedMessage::Authenticate { id, token })
            }
            (AUTHENTICATE, Params::Other) => {
                Err(invalid_request(Some(id), "`params` is no object"))
            }
            _ => Ok(UnauthenticatedMessage::Request { id }),
        }
    }
}
