//! Envelopes of peers that have yet to authenticate.

use rmcp::{ErrorData, model::RequestId};
use serde::Deserialize;

use super::{Envelope, Form, wire::Kind};
use crate::framing::{
    decode_error::DecodeError,
    first::{self, Content, FirstMessage, Member, Params, Request, Scalar},
    parts::invalid,
};

/// The members that matter.
#[derive(Deserialize)]
struct First {
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
    /// A message of a peer that has not authenticated.
    pub(super) fn first(&mut self, json: &str) -> Result<FirstMessage, DecodeError> {
        let First { kind, request, payload, request_id } = first::read(json)?;
        let kind = kind.string();
        if self.form == Form::Wrapped {
            return match (kind.as_deref(), payload.0) {
                (Some("ping" | "pong"), _) => Ok(FirstMessage::Other),
                (Some("mcp"), Some(request)) => request.judge(),
                (Some("mcp"), None) => Err(invalid(None, "`payload` is missing")),
                _ => Err(invalid(None, "`type` is missing, or not `mcp`")),
            };
        }
        let what = match kind.as_deref() {
            Some("mcp_request") => {
                let Ok(request_id) = request_id.id() else {
                    let what = "`requestId` is neither a string nor an integer";
                    let error = ErrorData::invalid_request(what, None);
                    return Err(self.inbound.refuse_request(None, error));
                };
                return self.first_request(request.0.or(payload.0), request_id);
            }
            Some("ping") => {
                let request_id = request_id.id().ok().flatten();
                self.replies.push_back(self.seal(Kind::Pong, None, request_id.as_ref()));
                return Ok(FirstMessage::Other);
            }
            Some("pong" | "notification" | "mcp_response" | "error") => {
                return Ok(FirstMessage::Other);
            }
            Some(_) => "no such `type`",
            None => "`type` is missing, or no string",
        };
        let request_id = request_id.id().ok().flatten();
        Err(self.inbound.refuse(request_id, ErrorData::invalid_request(what, None)))
    }

    fn first_request(
        &mut self,
        request: Option<Request>,
        request_id: Option<RequestId>,
    ) -> Result<FirstMessage, DecodeError> {
        let Some(Request { method: Member::There(Scalar::String(method)), params, .. }) = request
        else {
            let what = "`request` is no object with a `method`";
            let error = ErrorData::invalid_request(what, None);
            return Err(self.inbound.refuse_request(request_id, error));
        };
        let id = self.inbound.begin(request_id, false)?;
        match (&*method, params) {
            ("authenticate", Params::Named(token)) => Ok(FirstMessage::Authenticate { id, token }),
            ("authenticate", Params::Other) => Err(invalid(Some(id), "`params` is no object")),
            _ => Ok(FirstMessage::Request { id }),
        }
    }
}
