//! The processes of a benchmark: the servers of the contenders, and others.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{self, Child, ChildStdin, Command, Stdio},
    thread,
};

use clap::ValueEnum;

use super::Result;

/// A process that writes one line once it is ready. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// While it is open the process lives.
    stdin: Option<ChildStdin>,
    line: String,
}

impl Process {
    /// Starts `program`, which inherits the core on which this process runs.
    pub(crate) fn spawn(program: &mut Command) -> Result<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a process without an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            return Err(format!("{program:?} says nothing").into());
        }
        Ok(Self { child, stdin, line: line.trim().into() })
    }

    /// Starts this program once more.
    pub(crate) fn this(args: &[&str]) -> Result<Self> {
        Self::spawn(Command::new(env::current_exe()?).arg("--bench").args(args))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// Writes a line to it.
    pub(crate) fn tell(&mut self) -> Result<()> {
        Ok(self.stdin.as_mut().ok_or("a process without an input")?.write_all(b"\n")?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// The server of a contender, in a process of its own.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    addr: SocketAddr,
}

impl Server {
    /// Starts this program once more, with further arguments, which calls.
    pub(crate) fn start(contender: impl ValueEnum, args: &[&str]) -> Result<Self> {
        let name = contender.to_possible_value().ok_or("a contender without a name")?;
        Self::new(Process::this(&[&["--serve", name.get_name()], args].concat())?)
    }

    /// A program that writes the address that it serves on, and serves until its standard input
    /// ends.
    pub(crate) fn spawn(program: &mut Command) -> Result<Self> {
        Self::new(Process::spawn(program)?)
    }

    fn new(process: Process) -> Result<Self> {
        let addr = process.line().parse().map_err(|_| format!("{} serves?", process.line()))?;
        Ok(Self { process, addr })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Has it do what it was given to [`run`].
    pub(crate) fn tell(&mut self) -> Result<()> {
        self.process.tell()
    }
}

/// Writes a line, and then calls `told` for each line of the standard input, until that ends.
pub(crate) async fn run(
    line: impl std::fmt::Display,
    mut told: impl FnMut() + Send + 'static,
) -> Result<()> {
    writeln!(io::stdout(), "{line}")?;
    thread::spawn(move || {
        io::stdin().lines().map_while(io::Result::ok).for_each(|_| told());
        process::exit(0);
    });
    std::future::pending().await
}
