//! `mcp-ws dial`: a stdio server that dials out.

use mcp_ws_transport::accept;
use rmcp::{RoleClient, ServiceExt, model::CallToolRequestParams};
use tokio::net::TcpListener;

use crate::{Running, gone, limit, server};

#[tokio::test]
async fn a_server_dials_its_client_and_ends_with_the_connection() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
        let arguments: Vec<_> =
            ["-v", "dial", &url, "--"].map(str::to_owned).into_iter().chain(server(&[])).collect();
        let mut dial = Running::start(&arguments);
        let (stream, _) = listener.accept().await.unwrap();
        let transport = accept::<RoleClient, _>(stream).await.unwrap();
        let client = ().serve(transport).await.unwrap();
        let result = client.call_tool(CallToolRequestParams::new("pid")).await.unwrap();
        let pid = result.content[0].as_text().unwrap().text.clone();
        let _ = client.call_tool(CallToolRequestParams::new("die")).await;
        gone(&pid).await;
        assert_eq!(dial.ended().await.code(), Some(6));
    })
    .await;
}
