//! A proxy that does to connections what networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

/// Faults of one connection. Bytes are counted in both directions together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Number of bytes after which it is cut.
    pub cut_after: Option<usize>,
    /// `true` for a reset, `false` for an end of the stream.
    pub reset: bool,
    /// End that is not told of a cut: from then on it gets nothing, and what it sends is dropped.
    pub half_open: Option<End>,
    /// Time that each piece takes; the next is not read before.
    pub delay: Duration,
    /// Time by which everything arrives later, in order. What is under way has no bound.
    pub latency: Duration,
    /// Bytes per second that pass, in each direction.
    pub rate: Option<u32>,
}

/// End of a connection, as the proxy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// Draws the faults of the next connection.
type DrawFaults = Box<dyn FnMut() -> Faults + Send>;

/// Stands between a client and a server, and goes on when the server has gone.
pub struct Proxy {
    pub address: SocketAddr,
    faults: Arc<Mutex<DrawFaults>>,
    /// Number of times that everything is cut, or stalled from then on.
    cuts: watch::Sender<usize>,
    stalls: watch::Sender<bool>,
    pub target: Arc<Mutex<SocketAddr>>,
    /// Number of connections so far.
    pub dials: Arc<AtomicUsize>,
    /// Times at which connections were cut that neither end had ended.
    pub cut_at: Arc<Mutex<Vec<Instant>>>,
}

impl Proxy {
    pub async fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            faults: Arc::new(Mutex::new(Box::new(Faults::default))),
            cuts: watch::Sender::new(0),
            stalls: watch::Sender::new(false),
            target: Arc::new(Mutex::new(target)),
            dials: Arc::default(),
            cut_at: Arc::default(),
        };
        let (faults, target, dials) =
            (proxy.faults.clone(), proxy.target.clone(), proxy.dials.clone());
        let cut_at = proxy.cut_at.clone();
        let (cuts, stalls) = (proxy.cuts.clone(), proxy.stalls.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                dials.fetch_add(1, SeqCst);
                let (faults, target) = (faults.lock().unwrap()(), *target.lock().unwrap());
                let (mut cuts, stalls) = (cuts.subscribe(), stalls.subscribe());
                cuts.mark_unchanged();
                let cut_at = cut_at.clone();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else { return };
                    pass(near, far, faults, cuts, stalls, &cut_at).await;
                });
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("ws://{}/mcp", self.address)
    }

    /// Sets the faults of the connections that are made from now on.
    pub fn faults(&self, faults: Faults) {
        self.draw_faults(move || faults);
    }

    /// Sets the faults of each connection from now on.
    pub fn draw_faults(&self, faults: impl FnMut() -> Faults + Send + 'static) {
        *self.faults.lock().unwrap() = Box::new(faults);
    }

    /// Cuts all connections that there are.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing pass any more, or all again.
    pub fn stall(&self, stalled: bool) {
        self.stalls.send_replace(stalled);
    }
}

/// Passes bytes both ways until the connection is cut, or either end has ended it.
async fn pass(
    mut near: TcpStream,
    mut far: TcpStream,
    faults: Faults,
    mut cuts: watch::Receiver<usize>,
    stalls: watch::Receiver<bool>,
    cut_at: &Mutex<Vec<Instant>>,
) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let left = AtomicUsize::new(faults.cut_after.unwrap_or(usize::MAX));
    let is_cut = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let one = pass_one_way(near_read, far_write, faults, &left, stalls.clone());
        let other = pass_one_way(far_read, near_write, faults, &left, stalls);
        tokio::select! {
            () = one => left.load(SeqCst) == 0,
            () = other => left.load(SeqCst) == 0,
            _ = cuts.changed() => true,
        }
    };
    if is_cut {
        cut_at.lock().unwrap().push(Instant::now());
    }
    if faults.reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
    if let (true, Some(end)) = (is_cut, faults.half_open) {
        let mut silent = match end {
            End::Client => {
                drop(far);
                near
            }
            End::Server => {
                drop(near);
                far
            }
        };
        let _ = tokio::io::copy(&mut silent, &mut tokio::io::sink()).await;
    }
}

/// Passes bytes one way until the end of the stream, or until no bytes are left that may pass.
async fn pass_one_way(
    mut from: impl AsyncReadExt + Unpin,
    to: impl AsyncWriteExt + Unpin,
    faults: Faults,
    left: &AtomicUsize,
    stalls: watch::Receiver<bool>,
) {
    let mut direction = Direction { to, faults, left, stalls };
    if faults.latency.is_zero() {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if !direction.pass(&buffer[..read]).await {
                return;
            }
        }
        return;
    }
    // Reads at once, and writes later.
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let _ = sender.send((Instant::now() + faults.latency, buffer[..read].to_vec()));
        }
    };
    let write = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if !direction.pass(&bytes).await {
                return;
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read.then(|()| std::future::pending()) => {}
    }
}

/// Direction of a connection: passes bytes on with its faults.
struct Direction<'a, W> {
    to: W,
    faults: Faults,
    left: &'a AtomicUsize,
    stalls: watch::Receiver<bool>,
}

impl<W: AsyncWriteExt + Unpin> Direction<'_, W> {
    /// Returns `false` if nothing may pass after these bytes.
    async fn pass(&mut self, bytes: &[u8]) -> bool {
        if self.stalls.wait_for(|stalled| !stalled).await.is_err() {
            return false;
        }
        let mut time = self.faults.delay;
        if let Some(rate) = self.faults.rate {
            time += Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate));
        }
        if !time.is_zero() {
            sleep(time).await;
        }
        let taken = |left: usize| Some(left.saturating_sub(bytes.len()));
        let left = self.left.fetch_update(SeqCst, SeqCst, taken).unwrap_or(0);
        let passes = bytes.len().min(left);
        self.to.write_all(&bytes[..passes]).await.is_ok() && passes == bytes.len()
    }
}
