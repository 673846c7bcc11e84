//! [`Lines`]: one message per line, as MCP's stdio transport has it.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use rmcp::ErrorData;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::{message::RawMessage, parse::parse, write::write};
use crate::decode::{json::Reader, malformed::Malformed};

/// Bytes that are read at once, at most.
const CHUNK: usize = 16 << 10;

/// Bytes that are kept of each end of a line that is too long, to tell whose it is.
const KEPT: usize = 1 << 10;

/// Bytes that are gathered before they are written.
const GATHERED: usize = 64 << 10;

pin_project! {
    /// [End](super::End) of a relay with one message per line, over a reader and a writer.
    ///
    /// Reader and writer are the standard streams of this process or of a child, or the halves of
    /// any other stream. Empty lines are skipped. A line that is too long is read past, without
    /// being kept.
    #[derive(Debug)]
    #[must_use = "streams and sinks do nothing unless polled"]
    pub struct Lines<I, O> {
        #[pin]
        reader: I,
        #[pin]
        writer: O,
        max_line: usize,
        // What was read and not handed out.
        input: BytesMut,
        // Bytes of `input` that have no line break.
        searched: usize,
        too_long: Option<TooLong>,
        is_at_end: bool,
        output: BytesMut,
    }
}

/// Line that is too long: how long it is so far, and its ends.
#[derive(Debug)]
struct TooLong {
    length: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl<I, O> Lines<I, O> {
    /// Creates the end over what the other side writes and what it reads.
    pub fn new(reader: I, writer: O) -> Self {
        Self {
            reader,
            writer,
            max_line: 16 << 20,
            input: BytesMut::new(),
            searched: 0,
            too_long: None,
            is_at_end: false,
            output: BytesMut::new(),
        }
    }

    /// Sets the longest line that is read, in bytes: 16 MiB.
    pub fn max_line_size(mut self, bytes: usize) -> Self {
        self.max_line = bytes;
        self
    }
}

impl TooLong {
    fn new(line: &[u8]) -> Self {
        let mut new =
            Self { length: 0, head: line[..line.len().min(KEPT)].to_vec(), tail: Vec::new() };
        new.add(line);
        new
    }

    fn add(&mut self, more: &[u8]) {
        self.length += more.len();
        self.tail.extend_from_slice(&more[more.len().saturating_sub(KEPT)..]);
        self.tail.drain(..self.tail.len().saturating_sub(KEPT));
    }

    /// Returns the error, for whoever the message concerns as far as its ends tell.
    fn malformed(self, limit: usize) -> Malformed {
        let what = format!("a line of {} bytes, more than the limit of {limit}", self.length);
        let error = ErrorData::invalid_request(what, None);
        let mut malformed = Malformed::refused(&self.head, error);
        if malformed.id.is_none() {
            malformed.id = id_at_end(&String::from_utf8_lossy(&self.tail));
        }
        malformed
    }
}

/// Returns the id among the last members of an object, whose last member it may be.
fn id_at_end(tail: &str) -> Option<rmcp::model::RequestId> {
    ["\"jsonrpc\"", "\"id\""].into_iter().find_map(|member| {
        let rest = tail.get(tail.rfind(member)?..)?;
        let members = format!("{{{rest}");
        let mut reader = Reader::new(&members);
        let mut id = None;
        let is_closed = reader.object(|name, value| {
            if name == "id" {
                id = value.and_then(super::id::of_answer);
            }
        });
        // No outer object has its end behind this one's.
        id.filter(|_| is_closed && reader.peek().is_none())
    })
}

impl<I: AsyncRead, O> Lines<I, O> {
    /// Takes the next line out of what was read.
    fn take_line(self: Pin<&mut Self>) -> Option<Result<Bytes, Malformed>> {
        let this = self.project();
        let found = memchr::memchr(b'\n', &this.input[*this.searched..]);
        let end = match found {
            Some(at) => *this.searched + at,
            // The last line may have no break.
            None if *this.is_at_end && (!this.input.is_empty() || this.too_long.is_some()) => {
                this.input.len()
            }
            None => {
                *this.searched = this.input.len();
                if let Some(too_long) = this.too_long {
                    too_long.add(this.input);
                } else if this.input.len() > *this.max_line {
                    *this.too_long = Some(TooLong::new(this.input));
                } else {
                    return None;
                }
                this.input.clear();
                *this.searched = 0;
                return None;
            }
        };
        *this.searched = 0;
        // Copied: a line that waits would keep the whole buffer, and the next one be a new one.
        let line = Bytes::copy_from_slice(&this.input[..end]);
        this.input.advance(end + usize::from(found.is_some()));
        let too_long = match this.too_long.take() {
            Some(mut too_long) => {
                too_long.add(&line);
                Some(too_long)
            }
            None if line.len() > *this.max_line => Some(TooLong::new(&line)),
            None => None,
        };
        Some(match too_long {
            Some(too_long) => Err(too_long.malformed(*this.max_line)),
            None => Ok(line),
        })
    }

    /// Reads more. Ready when something was read, or there is no more.
    fn poll_fill(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.input.is_empty() && this.input.capacity() > GATHERED {
            *this.input = BytesMut::new();
        }
        this.input.reserve(CHUNK);
        let mut reader = this.reader;
        let mut room = this.input.limit(CHUNK);
        let reading = pin!(reader.read_buf(&mut room));
        match ready!(reading.poll(cx)) {
            Ok(read) => *this.is_at_end |= read == 0,
            Err(error) => {
                tracing::debug!(%error, "the end of a relay cannot be read");
                *this.is_at_end = true;
            }
        }
        Poll::Ready(())
    }
}

impl<I: AsyncRead, O> Stream for Lines<I, O> {
    type Item = Result<RawMessage, Malformed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.as_mut().take_line() {
                Some(Ok(line)) if line.trim_ascii().is_empty() => {}
                Some(line) => return Poll::Ready(Some(line.and_then(|line| parse(&line, &())))),
                None if self.is_at_end => return Poll::Ready(None),
                None => ready!(self.as_mut().poll_fill(cx)),
            }
        }
    }
}

impl<I, O: AsyncWrite> Lines<I, O> {
    /// Writes what is gathered.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut this = self.project();
        while !this.output.is_empty() {
            match ready!(this.writer.as_mut().poll_write(cx, this.output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => this.output.advance(written),
            }
        }
        if this.output.capacity() > GATHERED {
            *this.output = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I, O: AsyncWrite> Sink<RawMessage> for Lines<I, O> {
    type Error = io::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.len() < GATHERED { Poll::Ready(Ok(())) } else { self.poll_write(cx) }
    }

    fn start_send(self: Pin<&mut Self>, message: RawMessage) -> io::Result<()> {
        let text = write(&message).map_err(io::Error::other)?;
        let output = self.project().output;
        let start = output.len();
        output.extend_from_slice(&text);
        // Outside of strings these are white space, and inside they cannot be.
        let written = &mut output[start..];
        if memchr::memchr2(b'\n', b'\r', written).is_some() {
            for byte in written.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
                *byte = b' ';
            }
        }
        output.extend_from_slice(b"\n");
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_write(cx))?;
        self.project().writer.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_write(cx))?;
        self.project().writer.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
    use rmcp::model::{JsonRpcMessage, RequestId};
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::decode::malformed::MalformedKind;

    /// Returns the messages in `input`, whose lines may have 100 bytes.
    async fn read(input: &[u8]) -> Vec<Result<String, Malformed>> {
        // In small pieces, so that lines are cut anywhere.
        let (mut far, near) = tokio::io::duplex(7);
        let input = input.to_vec();
        let writing = tokio::spawn(async move { far.write_all(&input).await });
        let lines = Lines::new(near, tokio::io::sink()).max_line_size(100);
        let read = lines
            .map(|line| {
                line.map(|message| String::from_utf8(write(&message).unwrap().into()).unwrap())
            })
            .collect()
            .await;
        writing.await.unwrap().unwrap();
        read
    }

    const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

    #[tokio::test]
    async fn a_line_is_a_message() {
        let read = read(format!("{PING}\n\r\n  \n{PING}\r\n{PING}").as_bytes()).await;
        assert_eq!(read, [(); 3].map(|()| Ok(PING.to_owned())));
    }

    #[tokio::test]
    async fn a_line_that_waits_keeps_no_more_than_itself() {
        let input = format!("{PING}\n").repeat(100);
        let lines = Lines::new(input.as_bytes(), tokio::io::sink());
        let read: Vec<_> = lines.collect().await;
        for message in &read {
            let Ok(JsonRpcMessage::Request(request)) = message else { panic!("{message:?}") };
            assert!(request.request.source.text.is_unique());
        }
        assert_eq!(read.len(), 100);
    }

    #[tokio::test]
    async fn a_large_line_leaves_no_large_buffer_behind() {
        let (mut far, near) = tokio::io::duplex(2 << 20);
        let mut lines = Lines::new(near, tokio::io::sink());
        let large = "x".repeat(1 << 20);
        let large = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{large}\"}}\n");
        far.write_all(large.as_bytes()).await.unwrap();
        let message = lines.next().await.unwrap().unwrap();
        assert!(lines.next().now_or_never().is_none());
        assert!(lines.input.capacity() <= GATHERED, "{}", lines.input.capacity());
        lines.send(message).await.unwrap();
        assert!(lines.output.capacity() <= GATHERED, "{}", lines.output.capacity());
    }

    #[tokio::test]
    async fn rubbish_and_half_a_line_are_skipped() {
        let input =
            [b"Server started\n\xff\xfe\n\0\n", PING.as_bytes(), b"\n{\"jsonrpc\":\"2."].concat();
        let read = read(&input).await;
        let is_message: Vec<_> = read.iter().map(Result::is_ok).collect();
        assert_eq!(is_message, [false, false, false, true, false]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_read_past_and_tells_whose_it_is() {
        let long = "x".repeat(50_000);
        for (line, kind, id) in [
            (
                format!(r#"{{"jsonrpc":"2.0","id":5,"method":"x","params":"{long}"}}"#),
                MalformedKind::Request,
                Some(5),
            ),
            (
                format!(r#"{{"jsonrpc":"2.0","id":5,"result":"{long}"}}"#),
                MalformedKind::Response,
                Some(5),
            ),
            (
                format!(r#"{{"result":"{long}","jsonrpc":"2.0","id":5}}"#),
                MalformedKind::Response,
                Some(5),
            ),
            (format!(r#"{{"result":"{long}","id":5}}"#), MalformedKind::Response, Some(5)),
            (format!(r#"{{"result":{{"a":"{long}","id":5}}}}"#), MalformedKind::Response, None),
            (long.clone(), MalformedKind::Other, None),
        ] {
            let read = read(format!("{line}\n{PING}\n").as_bytes()).await;
            let [Err(malformed), Ok(ping)] = &read[..] else { panic!("{}", read.len()) };
            assert_eq!(
                (malformed.kind, &malformed.id),
                (kind, &id.map(RequestId::Number)),
                "{}",
                &line[..40]
            );
            assert!(malformed.to_string().contains(&line.len().to_string()), "{malformed}");
            assert_eq!(ping, PING);
        }
    }

    #[tokio::test]
    async fn a_message_with_line_breaks_is_written_as_one_line() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let mut lines = Lines::new(tokio::io::empty(), near);
        let text = "{\"jsonrpc\":\"2.0\",\r\n\t\"id\":1,\n\"method\":\"a\\nb\"}";
        lines.send(parse(&Bytes::from_static(text.as_bytes()), &()).unwrap()).await.unwrap();
        lines
            .send(JsonRpcMessage::error(ErrorData::internal_error("e", None), None))
            .await
            .unwrap();
        lines.close().await.unwrap();
        let mut written = String::new();
        far.read_to_string(&mut written).await.unwrap();
        assert_eq!(
            written,
            "{\"jsonrpc\":\"2.0\",  \t\"id\":1, \"method\":\"a\\nb\"}\n\
             {\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"e\"}}\n"
        );
    }
}
