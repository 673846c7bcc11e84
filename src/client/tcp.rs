//! TCP connections by name, racing all of its addresses (RFC 8305, Happy Eyeballs).
//!
//! `hyper-util`'s connector races the two address families against each other, but tries the
//! addresses of one family in turn. Behind a name with two IPv4 addresses, of which the first drops
//! packets, that costs a whole timeout. Here each address starts [`ATTEMPT_DELAY`] after the one
//! before.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

/// Delay before the next attempt begins (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Connects to `port` of `host`, a name or an address.
///
/// # Errors
/// The name does not resolve, or the first error of those that its addresses failed with.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = lookup_host((host, port)).await.map_err(|error| {
        io::Error::new(error.kind(), format!("the name {host} does not resolve: {error}"))
    })?;
    race(interleaved(addresses), TcpStream::connect).await
}

/// Interleaves the address families, starting with the one that the system prefers.
fn interleaved(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<_> = addresses.collect();
    let Some(preferred) = all.first().map(SocketAddr::is_ipv6) else { return all };
    let (first, second): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        mixed.extend(first.next());
        mixed.extend(second.next());
    }
    mixed
}

/// Returns the first connection made. An attempt begins [`ATTEMPT_DELAY`] after the one before, or
/// as soon as one has failed.
async fn race<T, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut attempts = FuturesUnordered::new();
    let mut addresses = addresses.into_iter();
    let mut first = None;
    loop {
        if let Some(address) = addresses.next() {
            let connecting = connect(address);
            attempts.push(async move { (address, connecting.await) });
        }
        let outcome = if addresses.len() > 0 {
            timeout(ATTEMPT_DELAY, attempts.next()).await
        } else {
            Ok(attempts.next().await)
        };
        match outcome {
            Ok(Some((_, Ok(connected)))) => return Ok(connected),
            Ok(Some((address, Err(error)))) => {
                first.get_or_insert_with(|| unreachable(address, &error));
            }
            Ok(None) => {
                let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                return Err(first.unwrap_or_else(none));
            }
            Err(_) => {}
        }
    }
}

/// Adds the address and advice to a connection error.
fn unreachable(address: SocketAddr, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => ": is the server running, and this its port?",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{address}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Mutex};

    use tokio::{
        net::TcpSocket,
        time::{Instant, sleep},
    };

    use super::*;

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns() {
        for (system, expected) in [
            (&[][..], &[][..]),
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"],
            ),
            (&["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"], &["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"]),
        ] {
            assert_eq!(interleaved(addresses(system).into_iter()), addresses(expected));
        }
    }

    /// Virtual time: who is dialled when, and what comes of it.
    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_costs_a_quarter_of_a_second() {
        let ms = Duration::from_millis;
        let all = ["[::1]:1", "1.1.1.1:2", "[::1]:3", "1.1.1.1:4"];
        let (began, dialed) = (Instant::now(), Mutex::new(Vec::new()));
        let connect = |address: SocketAddr| {
            dialed.lock().unwrap().push((address.port(), began.elapsed()));
            async move {
                match address.port() {
                    2 => {
                        sleep(ms(100)).await;
                        Err(io::ErrorKind::ConnectionRefused.into())
                    }
                    4 => {
                        sleep(ms(10)).await;
                        Ok(address.port())
                    }
                    _ => pending().await,
                }
            }
        };
        assert_eq!(race(addresses(&all), connect).await.unwrap(), 4);
        // The third begins when the second has failed.
        let expected = [(1, ms(0)), (2, ms(250)), (3, ms(350)), (4, ms(600))];
        for ((port, at), (expected, then)) in dialed.lock().unwrap().iter().zip(expected) {
            assert_eq!(*port, expected);
            assert!(*at >= then && *at <= then + ms(5), "{port} at {at:?}");
        }
        assert_eq!(dialed.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn where_none_answers_the_first_error_names_the_address() {
        let connect = |address: SocketAddr| async move {
            Err::<(), _>(match address.port() {
                1 => io::Error::from(io::ErrorKind::ConnectionRefused),
                _ => io::ErrorKind::HostUnreachable.into(),
            })
        };
        let error = race(addresses(&["1.1.1.1:1", "[::1]:2"]), connect).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().starts_with("1.1.1.1:1: "), "{error}");
        assert!(race(Vec::new(), connect).await.is_err());
    }

    /// Real sockets: a listener whose backlog is full swallows what asks for a connection.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_swallows_what_it_is_sent_does_not_hide_the_next() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let full = socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let connecting = TcpStream::connect(full.local_addr().unwrap());
            match timeout(Duration::from_millis(100), connecting).await {
                Ok(stream) => waiting.push(stream.unwrap()),
                Err(_) => break,
            }
            assert!(waiting.len() < 100, "the backlog has no end");
        }
        let there = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let all = vec![full.local_addr().unwrap(), there.local_addr().unwrap()];
        let began = Instant::now();
        let stream = race(all, TcpStream::connect).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), there.local_addr().unwrap());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
