//! The requests of this side that are in flight, and what is told when they are lost.

use std::{collections::HashMap, time::Duration, vec};

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use rustc_hash::FxBuildHasher;
use serde_json::json;

use super::{TIMED_OUT, UNAVAILABLE};
use crate::{
    decode::{Calls, Method, Role},
    error::Error,
};

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
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<(RequestId, Call)> {
        self.0.remove_entry(id).or_else(|| match id {
            RequestId::String(text) => self.0.remove_entry(&RequestId::Number(text.parse().ok()?)),
            RequestId::Number(_) => None,
        })
    }

    /// Takes out what `unwanted` says, in the order in which it was sent.
    pub(super) fn take(
        &mut self,
        mut unwanted: impl FnMut(&RequestId, &Call) -> bool,
    ) -> Vec<(RequestId, Call)> {
        let mut calls: Vec<_> = self.0.extract_if(|id, call| unwanted(id, call)).collect();
        calls.sort_unstable_by_key(|(_, call)| call.ticket);
        calls
    }
}

impl Calls for Outbound {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.0.get(id).map(|call| call.method)
    }
}

/// What is certain about a request that will have no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    NotSent,
    OutcomeUnknown,
}

impl Fate {
    fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }
}

impl Call {
    /// The fate of this call on a link to which so many messages were handed.
    pub(super) fn fate(self, handed: u64) -> Fate {
        if self.ticket > handed { Fate::NotSent } else { Fate::OutcomeUnknown }
    }

    /// The error that ends it.
    pub(super) fn lost<R: Role>(
        self,
        id: RequestId,
        fate: Fate,
        cause: Option<&str>,
    ) -> RxJsonRpcMessage<R> {
        let message = match fate {
            Fate::NotSent => "the connection was lost before the request was sent",
            Fate::OutcomeUnknown => "the connection was lost before the response arrived",
        };
        let data = json!({ "reason": fate.name(), "cause": cause, "method": self.method.name() });
        JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))
    }

    /// The error that ends it past its deadline.
    pub(super) fn overdue<R: Role>(
        self,
        id: RequestId,
        fate: Fate,
        deadline: Duration,
    ) -> RxJsonRpcMessage<R> {
        let message = match fate {
            Fate::NotSent => format!("not sent within {deadline:?}"),
            Fate::OutcomeUnknown => format!("no response within {deadline:?}"),
        };
        let method = self.method.name();
        let data = json!({ "reason": "timed_out", "outcome": fate.name(), "method": method });
        JsonRpcMessage::error(ErrorData::new(TIMED_OUT, message, Some(data)), Some(id))
    }
}

/// The last link has ended: what is still to be told, and to whom.
#[derive(Debug)]
pub(super) struct Ending {
    calls: vec::IntoIter<(RequestId, Call)>,
    handed: u64,
    error: Option<Error>,
}

impl Ending {
    pub(super) fn new(calls: Vec<(RequestId, Call)>, handed: u64, error: Option<Error>) -> Self {
        Self { calls: calls.into_iter(), handed, error }
    }

    /// One call's error after the other, then the cause, then nothing.
    pub(super) fn next<R: Role>(&mut self) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        let Some((id, call)) = self.calls.next() else {
            return self.error.take().map(Err);
        };
        let cause = self.error.as_ref().map(ToString::to_string);
        Some(Ok(call.lost::<R>(id, call.fate(self.handed), cause.as_deref())))
    }
}
