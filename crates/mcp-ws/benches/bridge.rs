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
    println!("{:32} {:>12} {:>16} {:>14}", "", "p50, µs", "64 in flight, /s", "first, ms");
    for (name, rounds) in rows {
        let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure).collect());
        let (p50, rate, first) = (of(|f| f.p50), of(|f| f.rate), of(|f| f.first));
        println!("{name:32} {p50:12.1} {rate:16.0} {first:14.1}");
    }
    println!("\nmemory of `mcp-ws serve` with {SESSIONS} sessions: {} KiB each", memory(&server));
}

/// Answers each line at once, as a server that does nothing.
fn answer() {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line.unwrap();
        let Some((_, rest)) = line.split_once(r#""id":"#) else { continue };
        let id = rest.split([',', '}']).next().unwrap();
        let result = r#"{"content":[{"type":"text","text":"8"}]}"#;
        writeln!(output, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).unwrap();
        output.flush().unwrap();
    }
}

/// Figures of one round.
struct Figures {
    p50: f64,
    rate: f64,
    first: f64,
}

fn measure(start: impl Fn() -> Host) -> Figures {
    let begin = Instant::now();
    let mut host = start();
    host.ask(0);
    let first = begin.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::with_capacity(ONE_BY_ONE);
    for id in 1..=ONE_BY_ONE {
        let begin = Instant::now();
        host.ask(id);
        times.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    Figures { p50: median(times), rate: host.flood(), first }
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

    fn ask(&mut self, id: usize) {
        let input = self.input.as_mut().unwrap();
        input.write_all(request(id).as_bytes()).unwrap();
        self.line();
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
                input.write_all(request(id).as_bytes()).unwrap();
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

fn request(id: usize) -> String {
    let params = r#"{"name":"add","arguments":{"a":5,"b":3}}"#;
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
        first.ask(0);
        first
    });
    let before = resident();
    let mut hosts: Vec<_> = (0..SESSIONS).map(|_| bridge.connect()).collect();
    hosts.iter_mut().for_each(|host| host.ask(0));
    resident().saturating_sub(before) / SESSIONS
}
