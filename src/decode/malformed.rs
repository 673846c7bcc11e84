use std::fmt;

use rmcp::{
    ErrorData,
    model::{ErrorCode, RequestId},
};
use serde_json::{Value, json};

use super::json::{Id, Raw, Reader, fault, not_json, without_bom};

/// Most ids of a batch that are reported.
const MAX_ANSWERS: usize = 4096;

/// The most that is kept of an error that is not one of JSON-RPC, in bytes.
const MAX_ERROR_BYTES: usize = 4096;

/// Input that is no message for anybody: not JSON, or JSON that is not a JSON-RPC 2.0 message.
///
/// What to do with it depends on [`kind`](Self::kind): a malformed request is answered with
/// [`error`](Self::error), a malformed response ends the call of that [`id`](Self::id).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Malformed {
    /// The error to answer with.
    ///
    /// `PARSE_ERROR` (-32700) for what is not JSON, `INVALID_REQUEST` (-32600) for the rest, and
    /// the peer's own code for an error of its that is not one of JSON-RPC.
    ///
    /// The message is short and holds nothing of the peer's input. Where the peer's error could not
    /// be read, it is in the data, as `error`.
    pub error: ErrorData,
    /// The id, when there is exactly one and it is a string or an integer. Of what is not JSON it
    /// is the one that stands at the top level, where that can be told.
    pub id: Option<RequestId>,
    /// Kind of the input.
    pub kind: MalformedKind,
    /// The ids of the answers in a batch, or in several messages that came as one; at most 4,096.
    pub answers: Vec<RequestId>,
    /// `true` if a request came beside such answers, which is to be answered with the error.
    pub has_requests: bool,
}

/// Kind of malformed input, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MalformedKind {
    /// Neither JSON in UTF-8 nor the beginning of a message.
    NotJson,
    /// An array: JSON-RPC 2.0 calls it a batch, MCP has none.
    Batch,
    /// An object with `method` and `id`.
    Request,
    /// An object with `method` and without `id`.
    Notification,
    /// An object with `result` or `error` and without `method`.
    Response,
    /// An object that is not JSON, and ends before it has `method`, `result` or `error`.
    Fragment,
    /// Any other JSON.
    Other,
}

impl Malformed {
    /// Returns `true` for an answer to a call of ours, which no error may answer in turn.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.kind == MalformedKind::Response
    }

    /// Finds the fault of input that did not decode.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let outline = Outline::of(&text);
        let error = match (not_json(bytes), &outline) {
            (Some(error), _) => {
                return outline.malformed(ErrorData::parse_error(error, None), true);
            }
            (None, Outline::Object(members)) => members.fault(&text),
            (None, Outline::Batch(_)) => invalid("batching is not supported"),
            (None, _) => invalid("not a JSON object"),
        };
        outline.malformed(error, false)
    }

    /// Creates it for input that is not decoded, for the reason that `error` gives.
    pub(crate) fn refused(bytes: &[u8], error: ErrorData) -> Self {
        let text = String::from_utf8_lossy(without_bom(bytes));
        Outline::of(&text).malformed(error, false)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.message)
    }
}

impl std::error::Error for Malformed {}

fn invalid(why: impl Into<String>) -> ErrorData {
    ErrorData::invalid_request(why.into(), None)
}

/// The top level of a message.
enum Outline<'a> {
    Object(Members<'a>),
    /// An array.
    Batch(Batch),
    /// Several objects, one after the other.
    Several(Batch),
    Other,
}

/// Contents of several messages that came as one.
#[derive(Default)]
struct Batch {
    /// The ids of the answers in it.
    answers: Vec<RequestId>,
    has_requests: bool,
}

impl Batch {
    fn push(&mut self, members: &Members<'_>) {
        self.answers.extend(members.answer());
        self.has_requests |= members.method.is_some() && members.id.is_some();
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= MAX_ANSWERS
    }
}

/// The members of a JSON-RPC object: `None` when absent, otherwise what matters of it.
#[derive(Default)]
struct Members<'a> {
    /// `true` if it is "2.0".
    jsonrpc: Option<bool>,
    id: Option<Id>,
    /// `true` if it is a string.
    method: Option<bool>,
    params: Option<Option<Raw<'a>>>,
    result: Option<Option<Raw<'a>>>,
    error: Option<Option<Raw<'a>>>,
    /// Name of a member that appears twice.
    repeated: Option<&'static str>,
    is_closed: bool,
}

impl<'a> Outline<'a> {
    fn of(text: &'a str) -> Self {
        let mut reader = Reader::new(text);
        match reader.peek() {
            Some(b'{') => {
                let first = Members::read(&mut reader);
                if !first.is_closed || reader.peek() != Some(b'{') {
                    return Self::Object(first);
                }
                let mut batch = Batch::default();
                batch.push(&first);
                while reader.peek() == Some(b'{') && !batch.is_full() {
                    let members = Members::read(&mut reader);
                    batch.push(&members);
                    if !members.is_closed {
                        break;
                    }
                }
                Self::Several(batch)
            }
            Some(b'[') => {
                let mut batch = Batch::default();
                reader.take(b'[');
                while !batch.is_full() {
                    let is_whole = if reader.peek() == Some(b'{') {
                        let members = Members::read(&mut reader);
                        batch.push(&members);
                        members.is_closed
                    } else {
                        reader.value().is_some()
                    };
                    if !is_whole || !reader.take(b',') {
                        break;
                    }
                }
                Self::Batch(batch)
            }
            _ => Self::Other,
        }
    }

    fn malformed(self, error: ErrorData, is_broken: bool) -> Malformed {
        use MalformedKind as K;
        let (kind, id, batch) = match self {
            Self::Object(members) => {
                let kind = members.kind(is_broken);
                (kind, members.id.and_then(Id::valid), Batch::default())
            }
            Self::Batch(batch) => (if is_broken { K::NotJson } else { K::Batch }, None, batch),
            Self::Several(batch) => (K::NotJson, None, batch),
            Self::Other if is_broken => (K::NotJson, None, Batch::default()),
            Self::Other => (K::Other, None, Batch::default()),
        };
        let Batch { answers, has_requests } = batch;
        let has_requests = has_requests && !answers.is_empty();
        Malformed { error, id, kind, answers, has_requests }
    }
}

impl<'a> Members<'a> {
    fn read(reader: &mut Reader<'a>) -> Self {
        let mut members = Self::default();
        let is_closed = reader.object(|name, value| members.note(name, value));
        members.is_closed = is_closed;
        members
    }

    fn note(&mut self, name: &str, value: Option<Raw<'a>>) {
        let string = || value.and_then(Raw::parse::<String>);
        let name = match name {
            "jsonrpc" if self.jsonrpc.is_none() => {
                return self.jsonrpc = Some(string().is_some_and(|version| version == "2.0"));
            }
            "id" if self.id.is_none() => return self.id = Some(Id::of(value)),
            "method" if self.method.is_none() => return self.method = Some(string().is_some()),
            "params" if self.params.is_none() => return self.params = Some(value),
            "result" if self.result.is_none() => return self.result = Some(value),
            "error" if self.error.is_none() => return self.error = Some(value),
            "id" => {
                self.id = Some(Id::Repeated);
                "`id` appears twice"
            }
            "jsonrpc" => "`jsonrpc` appears twice",
            "method" => "`method` appears twice",
            "params" => "`params` appears twice",
            "result" => "`result` appears twice",
            "error" => "`error` appears twice",
            _ => return,
        };
        self.repeated.get_or_insert(name);
    }

    fn is_answer(&self) -> bool {
        self.method.is_none() && (self.result.is_some() || self.error.is_some())
    }

    /// Returns the id of the request that this answers.
    fn answer(&self) -> Option<RequestId> {
        self.id.clone().filter(|_| self.is_answer()).and_then(Id::valid)
    }

    fn kind(&self, is_broken: bool) -> MalformedKind {
        use MalformedKind as K;
        match (self.method.is_some(), &self.id) {
            // The id may be behind the fault, where nothing can be read.
            (true, None) if is_broken && !self.is_closed => K::NotJson,
            (true, None) => K::Notification,
            (true, Some(_)) => K::Request,
            (false, _) if self.is_answer() => K::Response,
            (false, _) if is_broken => K::Fragment,
            (false, _) => K::Other,
        }
    }

    /// Finds the fault of an object that is JSON.
    fn fault(&self, text: &str) -> ErrorData {
        let answer = self.result.is_some() || self.error.is_some();
        let id_fault = self.id.as_ref().and_then(|id| id.fault("id"));
        let is_error = self.error.is_some() && self.result.is_none() && self.method.is_none();
        let why = if let Some(repeated) = self.repeated {
            repeated
        } else if self.jsonrpc != Some(true) {
            "`jsonrpc` is not \"2.0\""
        } else if self.method.is_some() && answer {
            "`method` beside `result` or `error`"
        } else if self.result.is_some() && self.error.is_some() {
            "both `result` and `error`"
        } else if self.method.is_none() && !answer {
            "none of `method`, `result`, `error`"
        } else if let Some(fault) = id_fault.filter(|_| !is_error || self.id != Some(Id::Null)) {
            return invalid(fault);
        } else if self.method == Some(false) {
            "`method` is not a string"
        } else if self.result.is_some() && self.id.is_none() {
            "`result` without `id`"
        } else if let Some(fault) = fault(text) {
            fault
        } else if let Some(error) = self.error.flatten() {
            return error_fault(error);
        } else if let Some(Some(params)) = self.params {
            params_fault(params)
        } else {
            "a member appears twice or has the wrong type"
        };
        invalid(why)
    }
}

fn params_fault(params: Raw<'_>) -> &'static str {
    if !params.is_object() {
        return "`params` is not an object";
    }
    let mut is_wrong = false;
    Reader::new(params.get()).object(|name, value| {
        let value = value.filter(|value| !value.is_object() && !value.is_null());
        is_wrong |= name == "_meta" && value.is_some();
    });
    if is_wrong {
        return "`params._meta` is not an object";
    }
    "a member of `params` appears twice or has the wrong type"
}

/// Builds the error for one of the peer that is not one of JSON-RPC, which is kept in the data.
fn error_fault(error: Raw<'_>) -> ErrorData {
    let (mut code, mut message) = (None, None);
    Reader::new(error.get()).object(|name, value| match name {
        "code" => code = value,
        "message" => message = value,
        _ => {}
    });
    let number = code.and_then(Raw::parse::<i32>);
    let why = if !error.is_object() {
        "`error` is not an object"
    } else if code.is_none() {
        "`error` has no `code`"
    } else if number.is_none() {
        "the `code` of `error` is not a 32-bit integer"
    } else if message.is_none() {
        "`error` has no `message`"
    } else if message.and_then(Raw::parse::<String>).is_none() {
        "the `message` of `error` is not a string"
    } else {
        "a member of `error` appears twice or has the wrong type"
    };
    let text = error.parse::<Value>().filter(|_| error.get().len() <= MAX_ERROR_BYTES);
    let text = text
        .unwrap_or_else(|| error.get().chars().take(MAX_ERROR_BYTES).collect::<String>().into());
    let code = number.map_or(ErrorCode::INVALID_REQUEST, ErrorCode);
    ErrorData::new(code, why, Some(json!({ "error": text })))
}
