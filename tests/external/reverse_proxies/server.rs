//! Proxies as the deployment guide configures them, on ports and paths of a test's own.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use mcp_ws_transport::{
    client::{ClientTls, Connect, Target},
    connect,
    server::{Config, Server},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rmcp::RoleClient;
use tokio::{
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
};

use crate::{
    free_port,
    guide::{block, replace},
    instance::instance,
};

/// Name by which clients know the site.
pub const NAME: &str = "mcp.example.com";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Haproxy,
    Caddy,
    Apache,
}

/// Two instances, and a proxy before them.
pub struct Site {
    proxy: ReverseProxy,
    pub address: SocketAddr,
    /// The instances; `None` for one that was shut down.
    pub instances: [Option<Server>; 2],
}

/// A proxy that is ended, and its files removed, when it is dropped.
pub struct ReverseProxy {
    kind: Kind,
    program: Child,
    directory: PathBuf,
    authority: String,
    pub address: SocketAddr,
}

/// Files and addresses of a site to be.
struct Plan {
    directory: PathBuf,
    address: SocketAddr,
    instances: [SocketAddr; 2],
}

impl Site {
    /// Starts instances of this `config`, and a proxy in front of them.
    pub async fn new(kind: Kind, config: Config) -> Self {
        let config = config.allowed_hosts([NAME]);
        let instances = [instance('a', config.clone()).await, instance('b', config).await];
        let addresses = [instances[0].local_addr(), instances[1].local_addr()];
        let proxy = ReverseProxy::start(kind, addresses).await;
        Self { address: proxy.address, proxy, instances: instances.map(Some) }
    }

    /// A client that goes through the proxy by way of `address`, from `source`.
    pub fn dial_from(&self, source: IpAddr, address: SocketAddr) -> Connect<RoleClient> {
        static SESSIONS: AtomicUsize = AtomicUsize::new(0);
        let connector = move |_: Target| async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(address).await
        };
        // Apache leads by this; the others by the tag of the instance.
        let query = match self.proxy.kind {
            Kind::Apache => format!("?mcp_session_id={:x}", SESSIONS.fetch_add(1, SeqCst)),
            Kind::Haproxy | Kind::Caddy => String::new(),
        };
        self.proxy.connect(&query).connector(connector)
    }

    pub fn dial(&self) -> Connect<RoleClient> {
        self.dial_from([127, 0, 0, 1].into(), self.address)
    }

    /// The origin of the site's own pages.
    pub fn origin(&self) -> String {
        format!("https://{NAME}:{}", self.address.port())
    }
}

impl ReverseProxy {
    /// Starts a proxy in front of these instances. Its time-outs are 3 s, not 60.
    pub async fn start(kind: Kind, instances: [SocketAddr; 2]) -> Self {
        let address = free_port();
        let name = format!("mcp-site-{}-{}", std::process::id(), address.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        for (name, text) in [
            ("cert.pem", cert.clone()),
            ("key.pem", key.clone()),
            ("both.pem", cert.clone() + &key),
        ] {
            fs::write(directory.join(name), text).unwrap();
        }
        let plan = Plan { directory: directory.clone(), address, instances };
        let program = match kind {
            Kind::Haproxy => plan.haproxy(),
            Kind::Caddy => plan.caddy(),
            Kind::Apache => plan.apache(),
        };
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut program = Command::from(program);
        program.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let program = program.kill_on_drop(true).spawn();
        let program = program.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let mut proxy = Self { kind, program, directory, authority: cert, address };
        while TcpStream::connect(address).await.is_err() {
            if let Some(status) = proxy.program.try_wait().unwrap() {
                panic!("{kind:?}: {status}; {}", proxy.log());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy
    }

    /// A client of the site with this query in its URL. It has to be given a way there.
    pub fn connect(&self, query: &str) -> Connect<RoleClient> {
        connect(format!("wss://{NAME}:{}/mcp{query}", self.address.port()))
            .tls(ClientTls::authorities(self.authority.clone()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        // SIGTERM, which reaches their children.
        if let Some(id) = self.program.id() {
            let _ = std::process::Command::new("kill").arg(id.to_string()).status();
            while matches!(self.program.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Plan {
    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Returns the guide's block of this language with the instances and these replacements.
    fn block(&self, language: &str, replacements: &[(&str, &str)]) -> String {
        let mut configuration = block(language);
        let instances = self.instances.map(|instance| instance.to_string());
        let own = [("127.0.0.1:8081", &*instances[0]), ("127.0.0.1:8082", &*instances[1])];
        for (what, by) in own.iter().chain(replacements) {
            configuration = replace(&configuration, what, by);
        }
        configuration
    }

    fn write(&self, configuration: String) -> String {
        let file = self.path("conf");
        fs::write(&file, configuration).unwrap();
        file
    }

    fn haproxy(&self) -> std::process::Command {
        let configuration = self.block(
            "haproxy",
            &[
                ("maxconn 20000", "maxconn 500"),
                ("bind :443", &format!("bind {}", self.address)),
                ("/etc/ssl/private/mcp.example.com.pem", &self.path("both.pem")),
                ("timeout client 60s", "timeout client 3s"),
                ("timeout server 60s", "timeout server 3s"),
                ("timeout tunnel 60s", "timeout tunnel 3s"),
            ],
        );
        let mut program = std::process::Command::new("/usr/sbin/haproxy");
        program.args(["-db", "-f", &self.write(configuration)]);
        program
    }

    fn caddy(&self) -> std::process::Command {
        let tls = format!("\ttls {} {}\n", self.path("cert.pem"), self.path("key.pem"));
        let site =
            format!("{NAME}:{} {{\n\tbind {}\n{tls}", self.address.port(), self.address.ip());
        let configuration = self.block("caddyfile", &[("mcp.example.com {\n", &site)]);
        let global = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
        let mut program = std::process::Command::new("caddy");
        let file = self.write(global.to_owned() + &configuration);
        program.args(["run", "--adapter", "caddyfile", "--config", &file]);
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            program.env(variable, &self.directory);
        }
        program
    }

    fn apache(&self) -> std::process::Command {
        let site = self.block(
            "apache",
            &[
                ("<VirtualHost *:443>", &format!("<VirtualHost {}>", self.address)),
                ("/etc/ssl/certs/mcp.example.com.pem", &self.path("cert.pem")),
                ("/etc/ssl/private/mcp.example.com.key", &self.path("key.pem")),
                ("    Timeout 60", "    Timeout 3"),
                ("ProxyTimeout 60", "ProxyTimeout 3"),
            ],
        );
        // What the distribution's own configuration says, and `a2enmod` with the guide's modules.
        let modules = [
            "mpm_event",
            "authz_core",
            "ssl",
            "rewrite",
            "proxy",
            "proxy_http",
            "proxy_balancer",
            "lbmethod_bybusyness",
            "slotmem_shm",
        ];
        let modules: String = modules
            .map(|name| {
                format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
            })
            .concat();
        let configuration = format!(
            "ServerRoot {root}\nDefaultRuntimeDir {root}\nPidFile {root}/pid\nListen {address}\n\
             ErrorLog {root}/error.log\nUser www-data\nGroup www-data\n{modules}\n{site}",
            root = self.directory.display(),
            address = self.address,
        );
        let mut program = std::process::Command::new("/usr/sbin/apache2");
        program.args(["-D", "FOREGROUND", "-f", &self.write(configuration)]);
        program
    }
}
