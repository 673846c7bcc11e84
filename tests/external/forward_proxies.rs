//! Clients behind forward proxies that others have written.
//!
//! `cargo test --features proxy --test external forward_proxies -- --ignored`

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio};

use futures::StreamExt;
use mcp_ws_transport::{Error, client::Connect, connect, error::HandshakeError, event::Event};
use rmcp::{RoleClient, ServiceExt};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use crate::{
    common::{counting::Counting, limit, proxy::Proxy, tool_call},
    free_port,
};

/// A proxy that is ended, and its files removed, when it is dropped.
struct Forward {
    program: Child,
    directory: PathBuf,
    address: SocketAddr,
}

impl Forward {
    /// Runs `program` with what `configuration` returns for its directory and the address.
    async fn start(
        program: &str,
        arguments: &[&str],
        configuration: impl FnOnce(&str, SocketAddr) -> String,
    ) -> Self {
        let address = free_port();
        let name = format!("mcp-forward-{}-{}", std::process::id(), address.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("conf");
        fs::write(&file, configuration(directory.to_str().unwrap(), address)).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let program = Command::new(program)
            .args(arguments)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let mut forward = Self { program, directory, address };
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = forward.program.try_wait().unwrap() {
                panic!("{status}; {}", forward.log());
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        forward
    }

    /// Debian's tinyproxy, which wants a user and allows these ports.
    async fn tinyproxy(port: u16) -> Self {
        Self::start("tinyproxy", &["-d", "-c"], |directory, address| {
            format!(
                "Port {}\nListen {}\nTimeout 600\nMaxClients 20\nAllow 127.0.0.1\n\
                 LogFile \"{directory}/tinyproxy.log\"\nPidFile \"{directory}/pid\"\n\
                 BasicAuth alice s3cr3t\nConnectPort {port}\n",
                address.port(),
                address.ip()
            )
        })
        .await
    }

    /// Dante's server, which allows connections to this port alone.
    async fn dante(port: u16) -> Self {
        Self::start("danted", &["-f"], |_, address| {
            format!(
                "logoutput: stderr\ninternal: 127.0.0.1 port = {}\nexternal: 127.0.0.1\n\
                 socksmethod: none\nclientmethod: none\nuser.privileged: root\n\
                 user.unprivileged: root\n\
                 client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}\n\
                 socks pass {{ from: 127.0.0.0/8 to: 127.0.0.0/8 port = {port} command: connect }}\n",
                address.port()
            )
        })
        .await
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // SIGTERM first: the children of one that is killed would stay.
        if let Some(id) = self.program.id() {
            let _ = std::process::Command::new("kill").arg(id.to_string()).status();
            while matches!(self.program.try_wait(), Ok(None)) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Calls, and cuts the line between the proxy and the server again and again: each call is executed
/// once, in one session.
async fn survives(connect: Connect<RoleClient>, line: &Proxy, counting: &Counting) {
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    for number in 0..30 {
        let call = tool_call("count", serde_json::json!({ "number": number, "ms": 20 }));
        let calling = client.call_tool(call);
        let cutting = async {
            if number % 3 == 0 {
                line.cut();
                while !matches!(events.next().await.unwrap(), Event::Resumed { .. }) {}
            }
        };
        let (result, ()) = tokio::join!(calling, cutting);
        result.unwrap();
        assert_eq!(counting.times(number), 1);
    }
    client.cancel().await.unwrap();
}

async fn counting() -> (mcp_ws_transport::server::Server, Proxy, Counting) {
    let counting = Counting::default();
    let service = counting.clone();
    let server = mcp_ws_transport::serve("127.0.0.1:0", move || service.clone()).await.unwrap();
    let line = Proxy::new(server.local_addr()).await;
    (server, line, counting)
}

async fn refused(connect: Connect<RoleClient>) -> HandshakeError {
    match connect.no_reconnect().await {
        Err(Error::Handshake(error @ HandshakeError::Proxy(_))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs tinyproxy: apt-get install tinyproxy-bin"]
async fn sessions_resume_through_tinyproxy() {
    limit(async {
        let (_server, line, calls) = counting().await;
        let proxy = Forward::tinyproxy(line.address.port()).await;
        let by = |user: &str| format!("http://{user}{}", proxy.address);
        survives(connect(line.url()).proxy(by("alice:s3cr3t@")), &line, &calls).await;

        for (user, port, status, says) in [
            ("", line.address.port(), 407, "it wants a user and password"),
            ("alice:wrong@", line.address.port(), 401, "401"),
            ("alice:s3cr3t@", 22, 403, "does not allow this host and port"),
        ] {
            let error =
                refused(connect(format!("ws://127.0.0.1:{port}/mcp")).proxy(by(user))).await;
            let HandshakeError::Proxy(refusal) = &error else { unreachable!() };
            assert_eq!(refusal.status.unwrap(), status, "{error}");
            assert!(error.to_string().contains(says) && !error.is_retryable(), "{error}");
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "needs dante: apt-get install dante-server; as root"]
async fn sessions_resume_through_dante() {
    limit(async {
        let (_server, line, calls) = counting().await;
        let proxy = Forward::dante(line.address.port()).await;
        for scheme in ["socks5h", "socks5"] {
            let by = format!("{scheme}://{}", proxy.address);
            survives(connect(line.url()).proxy(by), &line, &calls).await;
            calls.0.lock().unwrap().clear();
        }
        let by = format!("socks5h://{}", proxy.address);
        let error = refused(connect("ws://127.0.0.1:22/mcp").proxy(by)).await;
        assert!(!error.is_retryable() && error.to_string().contains("rules"), "{error}");
    })
    .await;
}
