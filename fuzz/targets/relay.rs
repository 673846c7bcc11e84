//! A relay parses a message, and writes it as it came but for its ids.

use futures::{SinkExt, StreamExt};
use mcp_ws_transport::relay::{self, Lines, RawMessage};
use rmcp::model::JsonRpcMessage;
use serde_json::Value;
use tokio::io::{AsyncWriteExt, duplex};

use crate::runtime;

/// Longest line that is read, in bytes.
const LIMIT: usize = 1024;

/// A line is a message; the first byte is the size of the pieces in which they arrive.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let lines: Vec<&[u8]> = rest.split(|byte| *byte == b'\n').collect();
    for line in &lines {
        if let Ok(message) = relay::parse(line.to_vec()) {
            check(line, &message);
        }
    }
    let expected: Vec<_> = lines
        .into_iter()
        .filter(|line| !line.trim_ascii().is_empty())
        .map(|line| relay::parse(line.to_vec()).ok().filter(|_| line.len() <= LIMIT))
        .map(|message| message.map(|message| relay::write(&message).expect("a text")))
        .collect();
    assert_eq!(runtime::block_on(read_lines(rest, usize::from(*first) + 1)), expected);
}

/// Panics unless a message is written as it was read.
fn check(line: &[u8], message: &RawMessage) {
    let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    let written = relay::write(message).expect("a text");
    let again = relay::parse(written.clone()).expect("a message");
    assert_eq!(kind(message), kind(&again));
    if written == text || kind(message) == "error" {
        return;
    }
    // Only ids may have another form, the one in which they are passed on.
    let parsed = |text: &[u8]| serde_json::from_slice::<Value>(text).map(without_ids);
    if let (Ok(read), Ok(written)) = (parsed(text), parsed(&written)) {
        assert_eq!(read, written);
    }
}

fn kind(message: &RawMessage) -> &'static str {
    match message {
        JsonRpcMessage::Request(_) => "request",
        JsonRpcMessage::Response(_) => "response",
        JsonRpcMessage::Notification(_) => "notification",
        JsonRpcMessage::Error(_) => "error",
    }
}

fn without_ids(mut message: Value) -> Value {
    if let Some(members) = message.as_object_mut() {
        members.remove("id");
    }
    if let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) {
        params.remove("requestId");
    }
    message
}

/// Reads `input` as lines, which arrive in pieces of `size`. What is no message is `None`.
async fn read_lines(input: &[u8], size: usize) -> Vec<Option<bytes::Bytes>> {
    let (near, mut far) = duplex(size);
    let mut lines = Lines::new(near, tokio::io::sink()).max_line_size(LIMIT);
    let writing = async {
        far.write_all(input).await.expect("a reader");
        drop(far);
    };
    let reading = async {
        let mut read = Vec::new();
        while let Some(message) = lines.next().await {
            let text = message.as_ref().ok().map(|message| relay::write(message).expect("a text"));
            read.push(text);
            if let Ok(message) = message {
                lines.send(message).await.expect("a sink");
            }
        }
        read
    };
    futures::join!(writing, reading).1
}
