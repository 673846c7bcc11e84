//! What the two ends of the program add to a server for stdio, beside that server asked directly,
//! and beside another bridge where one is named.
//!
//! ```sh
//! cargo bench --package mcp-ws --bench bridge
//! cargo bench --package mcp-ws --bench bridge -- --supergateway path/to/supergateway/dist/index.js
//! ```
//!
//! One round of each after the other, several times; the medians of the rounds are printed.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "a program")]

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mcp-ws");

/// Requests of one measurement, one in flight and many.
const ONE_BY_ONE: usize = 2_000;
const MANY: usize = 20_000;
const IN_FLIGHT: usize = 64;

/// Large requests of one measurement, and the bytes that each and its answer have.
const LARGE: usize = 500;
const LARGE_BYTES: usize = 64 << 10;

const ROUNDS: usize = 7;
const SESSIONS: usize = 100;

fn main() {
    let arguments: Vec<_> = env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "--answer") {
        return answer();
    }
    let named = arguments.iter().position(|argument| argument == "--supergateway");
    let supergateway = named.and_then(|at| arguments.get(at + 1));
    let server = vec![env::current_exe().unwrap().to_str().unwrap().to_owned(), "--answer".into()];

    let mut rows: Vec<(&str, Vec<Figures>)> =
        vec![("stdio, directly", Vec::new()), ("mcp-ws connect, mcp-ws serve", Vec::new())];
    if supergateway.is_some() {
        rows.push(("mcp-ws connect, supergateway", Vec::new()));
    }
    for _ in 0..ROUNDS {
        rows[0].1.push(measure(|| Host::start(&server)));
        let serve = Bridge::mcp_ws(&server);
        rows[1].1.push(measure(|| serve.connect()));
        drop(serve);
        if let Some(script) = supergateway {
            let bridge = Bridge::supergateway(script, &server);
            rows[2].1.push(measure(|| bridge.connect()));
        }
    }
    println!(
        "{:32} {:>12} {:>16} {:>16} {:>14}",
        "", "p50, µs", "of 64 KiB, µs", "64 in flight, /s", "first, ms"
    );
    for (name, rounds) in rows {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
        let (p50, large) = (of(|f| f.p50), of(|f| f.large));
        let (rate, first) = (of(|f| f.rate), of(|f| f.first));
        println!("{name:32} {p50:12.1} {large:16.1} {rate:16.0} {first:14.1}");
    }
    println!("\nmemory of `mcp-ws serve` with {SESSIONS} sessions: {} KiB each", memory(&server));
}

/// Answers each line at once, as a server that does nothing. To a large one the answer is large.
fn answer() {
    let mut output = io::stdout().lock();
    let large = "x".repeat(LARGE_BYTES);
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let Some((_, rest)) = line.split_once(r#""id":"#) else { continue };
        let id = rest.split([',', '}']).next().unwrap();
        let text = if line.len() < LARGE_BYTES { "8" } else { &large };
        let result = format!(r#"{{"content":[{{"type":"text","text":"{text}"}}]}}"#);
        writeln!(output, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).unwrap();
        output.flush().unwrap();
    }
}

/// Figures of one round.
struct Figures {
    p50: f64,
    large: f64,
    rate: f64,
    first: f64,
}

fn measure(start: impl Fn() -> Host) -> Figures {
    let begin = Instant::now();
    let mut host = start();
    host.ask(&request(0, "3"));
    let first = begin.elapsed().as_secs_f64() * 1e3;
    let p50 = host.ask_all(ONE_BY_ONE, "3");
    let large = host.ask_all(LARGE, &format!("\"{}\"", "x".repeat(LARGE_BYTES)));
    Figures { p50, large, rate: host.flood(), first }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A process with standard streams, which ends with this.
struct Host {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Host {
    fn start(command: &[String]) -> Self {
        let mut process = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { input: process.stdin.take(), output, process }
    }

    fn ask(&mut self, request: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(request.as_bytes()).unwrap();
        self.line();
    }

    /// Asks one by one, and returns the median time of a call in µs.
    fn ask_all(&mut self, calls: usize, argument: &str) -> f64 {
        let mut times = Vec::with_capacity(calls);
        for id in 1..=calls {
            let request = request(id, argument);
            let begin = Instant::now();
            self.ask(&request);
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        median(times)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it has ended");
        line
    }

    /// Returns the requests per second with many in flight.
    fn flood(&mut self) -> f64 {
        let mut input = self.input.take().unwrap();
        let (done, asked) = std::sync::mpsc::sync_channel::<()>(IN_FLIGHT);
        let begin = Instant::now();
        let writing = thread::spawn(move || {
            for id in 0..MANY {
                done.send(()).unwrap();
                input.write_all(request(id, "3").as_bytes()).unwrap();
            }
            input
        });
        for _ in 0..MANY {
            self.line();
            asked.recv().unwrap();
        }
        let rate = MANY as f64 / begin.elapsed().as_secs_f64();
        self.input = Some(writing.join().unwrap());
        rate
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.input = None;
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            thread::sleep(Duration::from_millis(20));
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn request(id: usize, argument: &str) -> String {
    let params = format!(r#"{{"name":"add","arguments":{{"a":5,"b":{argument}}}}}"#);
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{params}}}\n")
}

/// A bridge that puts a server on a WebSocket.
struct Bridge {
    process: Child,
    url: String,
}

impl Bridge {
    fn mcp_ws(server: &[String]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--max-sessions", "200", "--"])
            .args(server)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { process, url }
    }

    fn supergateway(script: &str, server: &[String]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = port.to_string();
        let process = Command::new("node")
            .args([
                script,
                "--stdio",
                &server.join(" "),
                "--outputTransport",
                "ws",
                "--port",
                &port,
            ])
            .args(["--logLevel", "none"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        Self { process, url: format!("ws://127.0.0.1:{port}/message") }
    }

    fn connect(&self) -> Host {
        Host::start(&[PROGRAM.to_owned(), "connect".into(), self.url.clone()])
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// Returns what a session takes in the bridge, in KiB.
fn memory(server: &[String]) -> usize {
    let bridge = Bridge::mcp_ws(server);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", bridge.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or_default()
    };
    drop({
        let mut first = bridge.connect();
        first.ask(&request(0, "3"));
        first
    });
    let before = resident();
    let mut hosts: Vec<_> = (0..SESSIONS).map(|_| bridge.connect()).collect();
    hosts.iter_mut().for_each(|host| host.ask(&request(0, "3")));
    resident().saturating_sub(before) / SESSIONS
}
