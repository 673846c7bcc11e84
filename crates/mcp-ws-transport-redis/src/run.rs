//! [`Runner`]: the task that keeps a connection to Redis.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use mcp_ws_transport::cluster::AskError;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, PushInfo, PushKind, RedisError,
    aio::MultiplexedConnection,
};
use tokio::{
    sync::Notify,
    task::unconstrained,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{link::Link, outbox::Command};

/// Maker of one connection after the other, for the subscribers and publishers of a link.
pub(crate) struct Runner {
    pub(crate) client: Client,
    pub(crate) link: Arc<Link>,
    pub(crate) ping_interval: Duration,
}

/// Connection to Redis on which messages arrive.
pub(crate) struct Connection {
    connection: MultiplexedConnection,
    /// Notified once the connection is lost.
    disconnected: Arc<Notify>,
}

/// Loss of the connection, with its reason.
struct Lost(String);

type InFlight = FuturesUnordered<Pin<Box<dyn Future<Output = Result<(), Lost>> + Send>>>;

impl Runner {
    /// Most commands that Redis has not confirmed.
    const MAX_IN_FLIGHT: usize = 256;

    /// The longest wait between two attempts to connect.
    const MAX_DELAY: Duration = Duration::from_secs(1);

    /// Connects, subscribes to what has subscribers, and takes messages.
    pub(crate) async fn connect(&self) -> Result<Connection, RedisError> {
        let (link, disconnected) = (self.link.clone(), Arc::new(Notify::new()));
        let notify = disconnected.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.ping_interval))
            .set_response_timeout(Some(self.ping_interval))
            .set_pipeline_buffer_size(2 * Self::MAX_IN_FLIGHT)
            .set_push_sender(move |info: PushInfo| {
                match info.kind {
                    PushKind::Disconnection => notify.notify_one(),
                    _ => link.on_push(info),
                }
                Ok::<_, std::convert::Infallible>(())
            });
        let mut connection =
            self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let channels = self.link.channels();
        for some in channels.chunks(1000) {
            connection.subscribe(some).await?;
        }
        // It can only be closed meanwhile by this task.
        let _ = self.link.open(&channels);
        Ok(Connection { connection, disconnected })
    }

    /// Runs one connection after the other.
    pub(crate) async fn run(self, mut connection: Option<Connection>) {
        let mut attempts = 0;
        loop {
            if let Some(connection) = connection.take() {
                attempts = 0;
                self.serve(connection).await;
                self.link.close();
            }
            match self.connect().await {
                Ok(made) => connection = Some(made),
                Err(error) => {
                    if let Some(suppressed) = self.link.warnings.not_connected.admit() {
                        tracing::warn!(suppressed, "cannot connect to Redis: {error}");
                    }
                    attempts = (attempts + 1).min(10);
                    sleep(Self::MAX_DELAY.min(Duration::from_millis(10 << attempts))).await;
                }
            }
        }
    }

    /// Sends commands until the connection is lost.
    async fn serve(&self, Connection { connection, disconnected }: Connection) {
        let mut in_flight = InFlight::new();
        let mut pings = interval(self.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                biased;
                () = disconnected.notified() => Err(Lost("it was closed".into())),
                Some(done) = in_flight.next() => done,
                _ = pings.tick() => {
                    in_flight.push(ping(connection.clone()).boxed());
                    Ok(())
                }
                command = self.link.outbox.next(), if in_flight.len() < Self::MAX_IN_FLIGHT => {
                    begin(execute(connection.clone(), command, self.link.clone()).boxed(), &in_flight)
                }
            };
            if let Err(Lost(why)) = result {
                if let Some(suppressed) = self.link.warnings.lost.admit() {
                    tracing::warn!(suppressed, "the connection to Redis is lost: {why}");
                }
                return;
            }
        }
    }
}

/// Sends a command there and then, so that those after it are sent after it.
fn begin(
    mut command: Pin<Box<dyn Future<Output = Result<(), Lost>> + Send>>,
    in_flight: &InFlight,
) -> Result<(), Lost> {
    // What tokio lets a task do at a time must not change the order.
    if let Some(done) = unconstrained(pin!(&mut command)).now_or_never() {
        return done;
    }
    in_flight.push(command);
    Ok(())
}

async fn ping(mut connection: MultiplexedConnection) -> Result<(), Lost> {
    let pong: Result<(), _> = redis::cmd("PING").query_async(&mut connection).await;
    refused(pong).map(drop)
}

/// Sends a command, and tells who waits for it what became of it.
async fn execute(
    mut connection: MultiplexedConnection,
    command: Command,
    link: Arc<Link>,
) -> Result<(), Lost> {
    let size = command.size();
    match command {
        Command::Publish { channel, body, question } => {
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(channel).arg(body);
            match refused(publish.query_async::<u64>(&mut connection).await)? {
                Ok(0) => {
                    question.map(|question| link.questions.answer(question, Err(AskError::Nobody)));
                }
                Ok(_) => {}
                Err(error) => warn_of_refusal(&link, "publish", &error),
            }
        }
        Command::Subscribe { channel, done } => {
            let subscribed = refused(connection.subscribe(channel).await)?;
            let _ = done.send(subscribed.map_err(|error| error.to_string()));
        }
        Command::Unsubscribe { channel } => {
            if let Err(error) = refused(connection.unsubscribe(channel).await)? {
                warn_of_refusal(&link, "unsubscribe", &error);
            }
        }
    }
    link.outbox.note_confirmed(size);
    Ok(())
}

fn warn_of_refusal(link: &Link, what: &str, error: &RedisError) {
    if let Some(suppressed) = link.warnings.refused.admit() {
        tracing::warn!(suppressed, "Redis refuses to {what}: {error}");
    }
}

/// Tells what Redis refuses from a connection that is lost.
fn refused<T>(result: Result<T, RedisError>) -> Result<Result<T, RedisError>, Lost> {
    match result {
        Err(error) if !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
            Err(Lost(error.to_string()))
        }
        result => Ok(result),
    }
}
