//! The requests of this side that are in flight, and what is told when the link takes them with it.

use std::{collections::HashMap, vec};

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use rustc_hash::FxBuildHasher;
use serde_json::json;

use super::UNAVAILABLE;
use crate::{
    decode::{Calls, Method, Role},
    error::Error,
};

/// The link has ended: what is still to be told, and to whom.
#[derive(Debug)]
pub(super) struct Ending {
    calls: vec::IntoIter<(RequestId, Call)>,
    handed: u64,
    error: Option<Error>,
}

/// The ids are our own, so the hasher need not withstand an attacker.
#[derive(Debug, Default)]
pub(super) struct Outbound(pub(super) HashMap<RequestId, Call, FxBuildHasher>);

#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Its place in the order of all that was sent.
    pub(super) ticket: u64,
}

impl Outbound {
    /// Takes out the request that `id` answers. Some servers return a number as a string, which rmcp
    /// allows too.
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Call> {
        self.0.remove(id).or_else(|| match id {
            RequestId::String(text) => self.0.remove(&RequestId::Number(text.parse().ok()?)),
            RequestId::Number(_) => None,
        })
    }
}

impl Calls for Outbound {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.0.get(id).map(|call| call.method)
    }
}

impl Ending {
    pub(super) fn new(outbound: Outbound, handed: u64, error: Option<Error>) -> Self {
        let mut calls: Vec<_> = outbound.0.into_iter().collect();
        calls.sort_unstable_by_key(|(_, call)| call.ticket);
        Self { calls: calls.into_iter(), handed, error }
    }

    /// One call's error after the other, then the cause, then nothing.
    pub(super) fn next<R: Role>(&mut self) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        let Some((id, call)) = self.calls.next() else {
            return self.error.take().map(Err);
        };
        let (reason, message) = if call.ticket > self.handed {
            ("not_sent", "the connection was lost before the request was sent")
        } else {
            ("outcome_unknown", "the connection was lost before the response arrived")
        };
        let cause = self.error.as_ref().map(ToString::to_string);
        let data = json!({ "reason": reason, "cause": cause, "method": call.method.name() });
        Some(Ok(JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))))
    }
}
