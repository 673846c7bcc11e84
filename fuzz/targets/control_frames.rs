//! Either side reads the control frames of `mcp.resume.v1`.

use mcp_ws_transport::{Message, layer::resume::Frame};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Message::Text(text) = Message::text(text.to_owned()) else { return };
    match Frame::parse(&text) {
        Ok(Some(frame)) => {
            let Message::Text(written) = frame.encode() else { panic!("{frame:?}") };
            assert_eq!(Frame::parse(&written), Ok(Some(frame)), "{text:?}");
        }
        Ok(None) => assert!(!text.as_str().starts_with('@'), "{text:?}"),
        Err(_) => assert!(text.as_str().starts_with('@'), "{text:?}"),
    }
}
