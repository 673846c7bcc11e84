//! A server program of a test's own, on a port of its own.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Program that is killed when this is dropped.
pub(crate) struct Server {
    program: &'static str,
    arguments: Vec<OsString>,
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Starts a program with the arguments that it needs for a port.
    pub(crate) fn start(program: &'static str, arguments: impl Fn(u16) -> Vec<OsString>) -> Self {
        // Another process may take the port before the program does: then with another one.
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let arguments = arguments(address.port());
            let mut server = Self { program, arguments, address, child: None };
            if server.restart() {
                return server;
            }
        }
        panic!("{program} does not start");
    }

    /// Starts the program on its port, and returns whether it listens there.
    pub(crate) fn restart(&mut self) -> bool {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program));
        let child = self.child.insert(child);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            sleep(Duration::from_millis(5));
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends the program a signal, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.as_ref().unwrap().id(), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, such as `STOP`, to the process with this id.
pub(crate) fn send_signal(process: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(status.unwrap().success());
}
