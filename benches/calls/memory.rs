//! rmcp alone: its client and its server in one process, with a queue between them.

use std::{collections::HashMap, convert::Infallible, future::ready};

use mcp_ws_transport::{
    McpRole,
    decode::{Method, PendingMethods, decode},
    encode::encode,
};
use rmcp::{
    RoleClient, RoleServer, ServiceExt,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
    transport::Transport,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    common::Result,
    service::{Adder, Client, Handler},
};

/// A client, with a server of its own.
pub(crate) async fn connect(json: bool) -> Result<Client> {
    if json {
        let (to_server, from_client) = unbounded_channel();
        let (to_client, from_server) = unbounded_channel();
        join(Json::new(to_server, from_server), Json::new(to_client, from_client)).await
    } else {
        let (to_server, from_client) = unbounded_channel();
        let (to_client, from_server) = unbounded_channel();
        let client = Queue::<RoleClient> { to: to_server, from: from_server };
        join(client, Queue::<RoleServer> { to: to_client, from: from_client }).await
    }
}

async fn join(
    client: impl Transport<RoleClient> + 'static,
    server: impl Transport<RoleServer> + 'static,
) -> Result<Client> {
    tokio::spawn(async move {
        Adder::new().serve(server).await?.waiting().await?;
        Result::<()>::Ok(())
    });
    Ok(Handler::default().serve(client).await?)
}

/// Messages as they are.
struct Queue<R: ServiceRole> {
    to: UnboundedSender<TxJsonRpcMessage<R>>,
    from: UnboundedReceiver<RxJsonRpcMessage<R>>,
}

impl<R: ServiceRole> Transport<R> for Queue<R> {
    type Error = Infallible;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<R>,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + 'static {
        // Nobody is told who no longer listens.
        let _ = self.to.send(message);
        ready(Ok(()))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<R>> {
        self.from.recv().await
    }

    async fn close(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Messages as JSON, by this crate's codec.
struct Json {
    to: UnboundedSender<Vec<u8>>,
    from: UnboundedReceiver<Vec<u8>>,
    calls: InFlight,
}

impl Json {
    fn new(to: UnboundedSender<Vec<u8>>, from: UnboundedReceiver<Vec<u8>>) -> Self {
        Self { to, from, calls: InFlight::default() }
    }
}

#[derive(Default)]
struct InFlight(HashMap<RequestId, Method>);

impl PendingMethods for InFlight {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.0.get(id).copied()
    }
}

impl<R: McpRole> Transport<R> for Json {
    type Error = serde_json::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<R>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        if let JsonRpcMessage::Request(request) = &message {
            self.calls.0.insert(request.id.clone(), R::method_of(&request.request));
        }
        ready(encode::<R>(&message).map(|json| {
            let _ = self.to.send(json);
        }))
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<R>> {
        let message = decode::<R>(&self.from.recv().await?, &self.calls).ok()?;
        if let JsonRpcMessage::Response(response) = &message {
            self.calls.0.remove(&response.id);
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
