//! [`write`]: the text of a message, with other ids where they have changed.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use rmcp::model::{JsonRpcMessage, RequestId};

use super::{
    id,
    message::{About, RawMessage, RawNotification, RawRequest, RawResponse, Source},
    parse::SUBSCRIPTION_ID,
};
use crate::decode::json::Reader;

/// Returns the text of `message`. It is the one that it came with, byte for byte, unless an id or a
/// progress token is another now.
///
/// # Errors
/// An error of serde_json, which cannot write an error of this side.
pub(super) fn write(message: &RawMessage) -> Result<Bytes, serde_json::Error> {
    Ok(match message {
        JsonRpcMessage::Request(request) => write_request(&request.request, &request.id),
        JsonRpcMessage::Notification(notification) => {
            write_notification(&notification.notification)
        }
        JsonRpcMessage::Response(response) => write_response(&response.result, &response.id),
        JsonRpcMessage::Error(error) => {
            let id = error.id.as_ref().map_or("null".into(), id::original);
            let error = serde_json::to_string(&error.error)?;
            format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
        }
    })
}

fn write_request(request: &RawRequest, id: &RequestId) -> Bytes {
    let mut edits = Edits::of(&request.source);
    edits.put(&request.source.id, id::passed_on(id).into());
    if !request.token.is_empty()
        && let Some(token) = request.meta.get_progress_token()
    {
        edits.put_anew(&request.token, id::passed_on(&token.0).into());
    }
    edits.finish()
}

fn write_notification(notification: &RawNotification) -> Bytes {
    let mut edits = Edits::of(&notification.source);
    match &notification.about {
        About::Cancelled(id, place) => edits.put(place, id::passed_on(id).into()),
        About::Progress(token, place) => edits.put_anew(place, id::passed_on(&token.0).into()),
        About::Initialized | About::Other => {}
    }
    if let Some(id) = notification.meta.subscription_id() {
        edits.put_anew(&notification.subscription, id::original(&id).into_owned().into());
    }
    edits.finish()
}

fn write_response(response: &RawResponse, id: &RequestId) -> Bytes {
    let source = &response.source;
    let id = id::original(id);
    let mut edits = Edits::of(source);
    if source.get(&source.id) != id
        && let Some(place) = subscription_of(source)
    {
        edits.put(&place, id.clone());
    }
    edits.put(&source.id, id);
    edits.finish()
}

/// Returns the place of the id that the result of a subscription has in its `_meta`.
fn subscription_of(source: &Source) -> Option<Range<usize>> {
    let result = source.get(&source.body);
    let (mut meta, mut id) = (None, None);
    Reader::new(result).object(|name, value| {
        if name == "_meta" {
            meta = value;
        }
    });
    Reader::new(meta?.get()).object(|name, value| {
        if name == SUBSCRIPTION_ID {
            id = value;
        }
    });
    let id = id?.get();
    let start = source.body.start + (id.as_ptr() as usize - result.as_ptr() as usize);
    Some(start..start + id.len())
}

/// Text of which some places are to be written anew.
struct Edits<'a> {
    source: &'a Source,
    edits: Vec<(Range<usize>, Cow<'a, str>)>,
}

impl<'a> Edits<'a> {
    fn of(source: &'a Source) -> Self {
        Self { source, edits: Vec::new() }
    }

    /// Puts `json` in a place, unless it stands there already, or there is no such place.
    fn put(&mut self, place: &Range<usize>, json: Cow<'a, str>) {
        if !place.is_empty() && self.source.get(place) != json {
            self.edits.push((place.clone(), json));
        }
    }

    /// Puts an id or a token in a place, unless that has the same already, in whatever form.
    fn put_anew(&mut self, place: &Range<usize>, json: Cow<'a, str>) {
        let id_in = |json| Reader::new(json).value().and_then(id::of_answer);
        if id_in(self.source.get(place)) != id_in(&json) {
            self.put(place, json);
        }
    }

    fn finish(mut self) -> Bytes {
        if self.edits.is_empty() {
            return self.source.text.clone();
        }
        self.edits.sort_unstable_by_key(|(place, _)| place.start);
        let mut text = Vec::with_capacity(self.source.text.len() + 64);
        let mut at = 0;
        for (place, json) in &self.edits {
            text.extend_from_slice(self.source.get(&(at..place.start)).as_bytes());
            text.extend_from_slice(json.as_bytes());
            at = place.end;
        }
        text.extend_from_slice(self.source.text.get(at..).unwrap_or_default());
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use rmcp::{
        model::{GetMeta, NumberOrString, ProgressToken},
        service::RxJsonRpcMessage,
    };

    use super::*;
    use crate::{
        relay::{Client, parse::parse},
        role::McpRole,
    };

    fn read(text: &str) -> RxJsonRpcMessage<Client> {
        parse(&Bytes::copy_from_slice(text.as_bytes()), &()).expect(text)
    }

    fn written(message: &RawMessage) -> String {
        String::from_utf8(write(message).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn every_byte_of_a_message_is_kept() {
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"n","arguments":{"b":1.0,"a":1e999,"a":-0}}}"#,
            r#"{ "params" : {"_meta":{"progressToken":"p"},"z":[12345678901234567890]} ,"method":"x","id":"a","jsonrpc":"2.0","extra":null}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[1,2]}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"\u0078"}"#,
            r#"{"result":{"\ud800":"\ud800"},"jsonrpc":"2.0","id":7,"more":{"x":[]}}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1.5,"message":7,"data":[1.10]}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"reason":"r","requestId":9,"x":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1.50,"progressToken":"t"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1.5}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"$serde_json::private::RawValue":"1"}}"#,
        ] {
            assert_eq!(written(&read(text)), text);
        }
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{deep}}}"#);
        assert_eq!(written(&read(&deep)), deep);
        let spaced = "\u{feff} {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\r\n";
        assert_eq!(written(&read(spaced)), spaced.trim_matches(['\u{feff}', ' ', '\r', '\n']));
    }

    #[test]
    fn an_id_of_another_form_is_passed_on_as_a_string_and_comes_back() {
        let asked = read(r#"{"jsonrpc":"2.0","id":1.0,"method":"x","params":{"id":1.0}}"#);
        let on_the_wire = r#"{"jsonrpc":"2.0","id":"json:1.0","method":"x","params":{"id":1.0}}"#;
        assert_eq!(written(&asked), on_the_wire);
        let answered = read(r#"{"jsonrpc":"2.0","result":{"id":1},"id":"json:1.0"}"#);
        let JsonRpcMessage::Request(asked) = asked else { panic!("{asked:?}") };
        let JsonRpcMessage::Response(answer) = &answered else { panic!("{answered:?}") };
        assert_eq!(asked.id, answer.id);
        assert_eq!(written(&answered), r#"{"jsonrpc":"2.0","result":{"id":1},"id":1.0}"#);
        let cancelled =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1.0}}"#;
        assert_eq!(written(&read(cancelled)), cancelled.replace("1.0}", "\"json:1.0\"}"));
    }

    #[test]
    fn ids_and_tokens_that_have_changed_are_written_in_their_places() {
        let text =
            r#"{"jsonrpc":"2.0","method":"x","params":{"_meta":{"progressToken":5,"a":5}},"id":5}"#;
        let JsonRpcMessage::Request(mut request) = read(text) else { panic!() };
        request.id = NumberOrString::String("new".into());
        request.request.get_meta_mut().set_progress_token(ProgressToken(NumberOrString::Number(6)));
        assert_eq!(
            written(&JsonRpcMessage::Request(request)),
            r#"{"jsonrpc":"2.0","method":"x","params":{"_meta":{"progressToken":6,"a":5}},"id":"new"}"#
        );
        let text = r#"{"jsonrpc":"2.0","id":5,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":5}}}"#;
        let JsonRpcMessage::Response(mut response) = read(text) else { panic!() };
        response.id = NumberOrString::Number(8);
        let written = written(&JsonRpcMessage::Response(response));
        assert_eq!(written, text.replace('5', "8"));
    }

    #[test]
    fn a_cancellation_of_this_side_is_one_for_others() {
        use rmcp::model::{CancelledNotification, CancelledNotificationParam};
        let param =
            CancelledNotificationParam::new(Some(NumberOrString::Number(3)), Some("\"".into()));
        let message = JsonRpcMessage::notification(CancelledNotification::new(param).into());
        let text = written(&message);
        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3,"reason":"\""}}"#
        );
        let JsonRpcMessage::Notification(read) = read(&text) else { panic!() };
        let id = Client::cancelled_by_peer(&read.notification);
        assert_eq!(id, Some(&NumberOrString::Number(3)));
    }

    #[test]
    fn a_cancellation_without_an_id_is_about_no_request() {
        use rmcp::model::{CancelledNotification, CancelledNotificationParam};
        for (reason, params) in [(None, "{}"), (Some("r".into()), r#"{"reason":"r"}"#)] {
            let param = CancelledNotificationParam::new(None, reason);
            let mut notification = RawNotification::from(CancelledNotification::new(param));
            assert_eq!(Client::cancelled(&mut notification), None);
            assert_eq!(notification.method(), "notifications/cancelled");
            assert_eq!(notification.params(), Some(params));
            let text = written(&JsonRpcMessage::notification(notification));
            let JsonRpcMessage::Notification(read) = read(&text) else { panic!() };
            assert_eq!(Client::cancelled_by_peer(&read.notification), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        for text in [
            "",
            "hello",
            "[]",
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"x","result":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
        ] {
            assert!(parse(&Bytes::from_static(text.as_bytes()), &()).is_err(), "{text}");
        }
    }
}
