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
            let code = match reason.code {
                // Any number that a peer likes, each of which would be a series of its own.
                CloseCode::Other(_) => "other".to_owned(),
                code => u16::from(code).to_string(),
            };
            labels.push(metrics::Label::new("error_type", code));
        }
        let durations = match self.is_client {
            true => metrics::histogram!("mcp_client_session_duration_seconds", labels),
            false => metrics::histogram!("mcp_server_session_duration_seconds", labels),
        };
        durations.record(std::time::Duration::from_millis(self.stats.age_ms()));
    }
}

#[cfg(test)]
#[cfg(feature = "metrics")]
mod tests {
    use std::time::Duration;

    use metrics::with_local_recorder;
    use tokio::time::advance;

    use super::*;
    use crate::stats::test_recorder::TestRecorder;

    #[tokio::test(start_paused = true)]
    async fn sessions_are_timed_at_either_side_by_the_code_of_their_end() {
        let recorder = TestRecorder::default();
        let server = Stats::default();
        advance(Duration::from_secs(1)).await;
        let client = Stats::default();
        advance(Duration::from_millis(1500)).await;
        with_local_recorder(&recorder, || {
            for (stats, is_client) in [(&client, true), (&server, false)] {
                let report = EndReport::new(Span::none(), stats.clone(), is_client);
                for code in [1000, 1001, 1006, 4410] {
                    report.end(&CloseReason::new(code.into(), ""));
                }
                // Of the peer's choice, and as many as it likes.
                for code in 3000..3010 {
                    report.end(&CloseReason::new(code.into(), ""));
                }
            }
        });
        let expected =
            [("client", 1.5), ("server", 2.5)].into_iter().flat_map(|(side, seconds)| {
                let name = format!(
                    "mcp_{side}_session_duration_seconds{{network_protocol_name=websocket}}"
                );
                [
                    ("", 2),
                    ("{error_type=1006}", 1),
                    ("{error_type=4410}", 1),
                    ("{error_type=other}", 10),
                ]
                .map(|(label, times)| (format!("{name}{label}"), vec![seconds; times]))
            });
        assert_eq!(recorder.recorded(), expected.collect::<Vec<_>>());
    }

    #[cfg(all(feature = "client", feature = "server"))]
    #[test]
    fn the_end_of_a_session_is_recorded_at_either_side() {
        use futures::{SinkExt, StreamExt};
        use rmcp::{RoleClient, RoleServer};

        let recorder = TestRecorder::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let session = async {
            let (near, far) = tokio::io::duplex(1 << 16);
            let serving = async {
                let server = crate::accept::<RoleServer, _>(far).await.unwrap();
                let mut server = server.into_sink_stream();
                while server.next().await.is_some() {}
            };
            let dialling = async {
                let client = crate::connect_over::<RoleClient, _>(near, "ws://localhost/mcp");
                client.await.unwrap().into_sink_stream().close().await.unwrap();
            };
            tokio::join!(serving, dialling);
        };
        with_local_recorder(&recorder, || runtime.block_on(session));
        let recorded = recorder.recorded();
        let durations = recorded.iter().filter(|(name, _)| name.contains("duration"));
        let durations: Vec<_> =
            durations.map(|(name, values)| (name.as_str(), values.len())).collect();
        let expected = ["client", "server"].map(|side| {
            format!("mcp_{side}_session_duration_seconds{{network_protocol_name=websocket}}")
        });
        assert_eq!(durations, expected.each_ref().map(|name| (name.as_str(), 1)));
    }
}
