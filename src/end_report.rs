//! [`EndReport`]: logs and measures the end of each connection, once.

use tracing::Span;

use crate::{close::CloseReason, stats::Stats};

/// Report of the end of a connection, made from its span and its counters.
#[derive(Debug, Clone)]
pub(crate) struct EndReport {
    span: Span,
    stats: Stats,
    /// `true` at the client of MCP, whichever side has dialled.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only the metrics need it"))]
    is_client: bool,
}

impl EndReport {
    /// Creates the report of the connection that is traced in `span` and counts in `stats`.
    pub(crate) fn new(span: Span, stats: Stats, is_client: bool) -> Self {
        Self { span, stats, is_client }
    }

    /// Logs that the connection has ended, for this reason.
    pub(crate) fn log(&self, reason: &CloseReason) {
        let counted = self.stats.snapshot();
        tracing::info!(
            parent: &self.span,
            code = u16::from(reason.code),
            reason = reason.to_string(),
            age_ms = self.stats.age_ms(),
            messages_received = counted.messages_received,
            messages_sent = counted.messages_sent,
            "connection ended"
        );
    }

    /// Logs the end, and records how long the session of MCP has lasted.
    pub(crate) fn end(&self, reason: &CloseReason) {
        self.log(reason);
        #[cfg(feature = "metrics")]
        self.record_duration(reason);
    }

    #[cfg(feature = "metrics")]
    fn record_duration(&self, reason: &CloseReason) {
        use crate::close::CloseCode;

        let mut labels =
            vec![metrics::Label::from_static_parts("network_protocol_name", "websocket")];
        if !matches!(reason.code, CloseCode::Normal | CloseCode::GoingAway) {
            labels.push(metrics::Label::new("error_type", u16::from(reason.code).to_string()));
        }
        let durations = match self.is_client {
            true => metrics::histogram!("mcp_client_session_duration_seconds", labels),
            false => metrics::histogram!("mcp_server_session_duration_seconds", labels),
        };
        durations.record(std::time::Duration::from_millis(self.stats.age_ms()));
    }
}
