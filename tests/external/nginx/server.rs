//! nginx as the deployment guide configures it, on ports and paths of a test's own.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcp_ws_transport::{
    WebSocketTransport,
    client::{ClientTls, Connect},
    connect,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rmcp::RoleClient;
use tokio::{
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::{
    free_port,
    guide::{block, replace},
};

type Transport = WebSocketTransport<RoleClient>;

/// A running nginx that is killed, and its files removed, when it is dropped.
pub struct Nginx {
    master: Child,
    directory: PathBuf,
    authority: String,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts nginx in front of these instances, with the guide's configuration as `edit` leaves
    /// it. Its time-outs are 3 s, not 60.
    pub async fn start(instances: [SocketAddr; 2], edit: impl FnOnce(String) -> String) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mcp-nginx-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(directory.join("certificate.pem"), cert.pem()).unwrap();
        fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();

        let address = free_port();
        let path = |name: &str| directory.join(name).display().to_string();
        let mut configuration = edit(block("nginx"));
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {};\n", path(kind)))
            .concat();
        for (what, by) in [
            ("worker_processes auto;", "worker_processes 2;"),
            ("worker_rlimit_nofile 40000;", "worker_rlimit_nofile 1000;"),
            ("worker_connections 20000;", "worker_connections 500;"),
            ("worker_shutdown_timeout 60s;", "worker_shutdown_timeout 1s;"),
            ("/run/nginx.pid", &path("pid")),
            ("/var/log/nginx/error.log", &path("error.log")),
            ("/var/log/nginx/access.log", &path("access.log")),
            ("http {\n", &format!("http {{\n{temporary}")),
            ("127.0.0.1:8081", &instances[0].to_string()),
            ("127.0.0.1:8082", &instances[1].to_string()),
            ("listen 443 ssl;", &format!("listen {address} ssl;")),
            ("/etc/ssl/certs/mcp.example.com.pem", &path("certificate.pem")),
            ("/etc/ssl/private/mcp.example.com.key", &path("key.pem")),
            ("proxy_read_timeout 60s;", "proxy_read_timeout 3s;"),
            ("proxy_send_timeout 60s;", "proxy_send_timeout 3s;"),
        ] {
            configuration = replace(&configuration, what, by);
        }
        let file = directory.join("nginx.conf");
        fs::write(&file, configuration).unwrap();
        let master = spawn(&directory, &file);
        let mut nginx = Self { master, directory, authority: cert.pem(), address };
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = nginx.master.try_wait().unwrap() {
                panic!("nginx: {status}; {}", nginx.log("stderr"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        nginx
    }

    /// A client with this name of its session, or none, that goes through nginx by way of
    /// `address`.
    pub fn dial(&self, address: SocketAddr, name: &str) -> Connect<RoleClient> {
        let query = if name.is_empty() { "" } else { "?mcp_session_id=" };
        connect(format!("wss://{address}/mcp{query}{name}"))
            .tls(ClientTls::authorities(self.authority.clone()))
    }

    /// Connects over a connection of its own, which comes from `source`.
    pub async fn enter_from(&self, source: IpAddr, connect: Connect<RoleClient>) -> Transport {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(self.address).await.unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = self.address.ip().into();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        connect.over(stream).await.unwrap()
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.directory.join(name)).unwrap()
    }

    /// Has new workers take over from the old.
    pub async fn reload(&self) {
        let id = self.master.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
    }
}

fn spawn(directory: &Path, file: &Path) -> Child {
    let stderr = fs::File::create(directory.join("stderr")).unwrap();
    Command::new("/usr/sbin/nginx")
        .arg("-p")
        .arg(directory)
        .arg("-c")
        .arg(file)
        .args(["-g", "daemon off;"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap_or_else(|error| panic!("nginx: {error}"))
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, which the master passes on to its workers: killed, it would leave them behind.
        if let Some(id) = self.master.id() {
            let kill = std::process::Command::new("kill").arg(id.to_string()).status();
            assert!(kill.is_ok_and(|status| status.success()) || std::thread::panicking());
            while matches!(self.master.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
