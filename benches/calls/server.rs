//! The server of a contender: this program once more, in a process of its own.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    process::{self, Child, ChildStdin, Command, Stdio},
    thread,
};

use clap::ValueEnum;

use crate::{Result, contender::Contender};

/// A server process. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// While it is open the process lives.
    stdin: Option<ChildStdin>,
    addr: SocketAddr,
}

impl Server {
    /// It inherits the core on which this process runs.
    pub(crate) fn start(contender: Contender) -> Result<Self> {
        let name = contender.to_possible_value().ok_or("a contender without a name")?;
        let mut child = Command::new(env::current_exe()?)
            .args(["--bench", "--serve", name.get_name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or("a server without an output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let addr = line.trim().parse().map_err(|_| format!("{contender} does not serve"))?;
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

/// Serves until the standard input ends.
pub(crate) async fn run(contender: Contender) -> Result<()> {
    let addr = contender.serve().await?;
    writeln!(io::stdout(), "{addr}")?;
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    std::future::pending().await
}
