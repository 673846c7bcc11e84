//! The server of a contender, in a process of its own.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{self, Child, ChildStdin, Command, Stdio},
    thread,
};

use clap::ValueEnum;

use super::Result;

/// A server process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) child: Child,
    /// While it is open the process lives.
    stdin: Option<ChildStdin>,
    addr: SocketAddr,
}

impl Server {
    /// This program once more, which calls [`run`].
    pub(crate) fn start(contender: impl ValueEnum) -> Result<Self> {
        let name = contender.to_possible_value().ok_or("a contender without a name")?;
        Self::spawn(Command::new(env::current_exe()?).args(["--bench", "--serve", name.get_name()]))
    }

    /// A program that writes the address that it serves on, and serves until its standard input
    /// ends. It inherits the core on which this process runs.
    pub(crate) fn spawn(program: &mut Command) -> Result<Self> {
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a server without an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| format!("{program:?} does not serve"))?;
        Ok(Self { child, stdin, addr })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

/// Tells the address that is served on, until the standard input ends.
pub(crate) async fn run(addr: SocketAddr) -> Result<()> {
    writeln!(io::stdout(), "{addr}")?;
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    std::future::pending().await
}
