use tokio::time::advance;

use super::*;

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn idle_since_bytes_last_arrived() {
    let stats = Stats::default();
    advance(7 * MS).await;
    assert_eq!(stats.idle(), 7 * MS);
    stats.record_bytes_received(0);
    stats.record_bytes_sent(5);
    stats.record_message_sent();
    assert_eq!(stats.idle(), 7 * MS, "neither the end nor what is sent is a sign of the peer");
    stats.record_bytes_received(5);
    assert_eq!(stats.idle(), Duration::ZERO);
    advance(90_000 * MS).await;
    assert_eq!(stats.snapshot().idle, 90_000 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_serialised_with_units() {
    let stats = Stats::default();
    stats.record_message_received();
    stats.record_bytes_received(9);
    stats.record_refused();
    let mut expected = serde_json::json!({
        "messages_received": 1, "messages_sent": 0, "bytes_received": 9, "bytes_sent": 0,
        "malformed": 0, "orphans": 0, "refused": 1, "round_trip_us": null, "idle_ms": 0,
    });
    assert_eq!(serde_json::to_value(stats.snapshot()).unwrap(), expected);
    stats.record_round_trip(Duration::from_micros(1234));
    advance(Duration::from_micros(2_500_999)).await;
    expected["round_trip_us"] = 1234.into();
    expected["idle_ms"] = 2500.into();
    assert_eq!(serde_json::to_value(stats.snapshot()).unwrap(), expected);
}

#[cfg(feature = "metrics")]
#[test]
fn connections_count_together_under_the_documented_names() {
    let recorder = test_recorder::TestRecorder::default();
    let outside = Stats::default();
    let [first, second] =
        metrics::with_local_recorder(&recorder, || [(); 2].map(|()| Stats::default()));
    for stats in [&first, &second, &outside] {
        stats.record_message_received();
        (0..2).for_each(|_| stats.record_message_sent());
        stats.record_bytes_received(30);
        stats.record_bytes_sent(400);
        (0..5).for_each(|_| stats.record_malformed());
        (0..6).for_each(|_| stats.record_orphan());
        (0..7).for_each(|_| stats.record_refused());
        stats.record_round_trip(Duration::from_millis(1500));
    }
    let expected = [
        ("mcp_ws_bytes_total{direction=received}", 60),
        ("mcp_ws_bytes_total{direction=sent}", 800),
        ("mcp_ws_malformed_total", 10),
        ("mcp_ws_messages_total{direction=received}", 2),
        ("mcp_ws_messages_total{direction=sent}", 4),
        ("mcp_ws_orphans_total", 12),
        ("mcp_ws_refused_requests_total", 14),
    ];
    assert_eq!(recorder.counts(), expected.map(|(name, count)| (name.to_owned(), count)));
    let expected = [("mcp_ws_round_trip_seconds".to_owned(), vec![1.5, 1.5])];
    assert_eq!(recorder.recorded(), expected);
    assert_eq!(first.snapshot().bytes_received, 30, "its own count is its own");
}
