//! [`Refusal`]: a refused client in the log.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use http::StatusCode;

use super::event::RejectReason;
use crate::{
    close::{CloseCode, CloseReason, Escaped},
    warn_limit::WarnLimit,
};

/// Refusal of a client: the reason that the registry counts, and what the client is told.
#[derive(Debug)]
pub(in crate::server) struct Refusal<'a> {
    pub(super) reason: RejectReason,
    status: Option<StatusCode>,
    code: Option<CloseCode>,
    why: Cow<'a, str>,
}

impl<'a> Refusal<'a> {
    /// Creates the refusal of a request, with the status and the text of the response.
    pub(in crate::server) fn of_request(
        reason: RejectReason,
        status: StatusCode,
        why: &'a str,
    ) -> Self {
        Self { reason, status: Some(status), code: None, why: why.into() }
    }

    /// Creates the refusal of a client whose connection is closed after the upgrade, unless it has
    /// left: that one is not refused.
    pub(in crate::server) fn of_connection(
        reason: RejectReason,
        close: &CloseReason,
    ) -> Option<Refusal<'static>> {
        let why = match &*close.reason {
            "" => close.code.to_string(),
            reason => Escaped(reason).to_string(),
        };
        let code = Some(close.code).filter(|code| *code != CloseCode::Abnormal)?;
        Some(Refusal { reason, status: None, code: Some(code), why: why.into() })
    }

    /// Creates the refusal of a client that has sent no request in time, or none at all.
    pub(in crate::server) fn before_request(reason: RejectReason) -> Refusal<'static> {
        let why = match reason {
            RejectReason::TimedOut => "the handshake was not made in time",
            RejectReason::Evicted => "too many unauthenticated clients",
            _ => "no TLS or no HTTP",
        };
        Refusal { reason, status: None, code: None, why: why.into() }
    }
}

/// Log of the refusals, limited for each reason: whoever reaches the port can cause them.
#[derive(Debug, Default)]
pub(super) struct RefusalLog(Mutex<[WarnLimit; RejectReason::ALL.len()]>);

impl RefusalLog {
    /// Logs that a client from `peer` was refused.
    pub(super) fn log(&self, refusal: &Refusal<'_>, peer: Option<SocketAddr>) {
        let Refusal { reason, status, code, why } = refusal;
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = limits[*reason as usize].admit();
        drop(limits);
        let Some(suppressed) = admitted else {
            tracing::debug!(%reason, ?peer, %why, "one more was refused");
            return;
        };
        tracing::warn!(
            error.type = reason.as_str(),
            http.response.status_code = status.map(|status| status.as_u16()),
            code = code.map(u16::from),
            client.address = peer.map(|peer| display(peer.ip())),
            suppressed,
            "refused: {why}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_is_told_is_logged_without_control_characters() {
        let why = |close: &CloseReason| {
            Refusal::of_connection(RejectReason::Unauthorized, close).map(|refusal| refusal.why)
        };
        let close = CloseReason::new(CloseCode::Policy, "é\n2026 INFO\x1b[31m");
        assert_eq!(why(&close).unwrap(), "é\\n2026 INFO\\u{1b}[31m");
        assert_eq!(why(&CloseCode::Policy.into()).unwrap(), "1008 (policy violation)");
        assert_eq!(why(&CloseReason::new(CloseCode::Abnormal, "the client has left")), None);
    }
}
