//! A client that speaks both eras and follows orders: `program eras MODE HOST`. `../eras.py` has them.

use std::collections::HashMap;
use std::time::Duration;

use rmcp::model::{CallToolRequestParams, ContentBlock, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{Failure, Steps};

type Client = RunningService<RoleClient, Steps>;

/// Tries until it has connected.
async fn connect(mode: &str, url: &str, host: &str) -> Result<(Client, Value), Failure> {
    for tries in 1.. {
        let lifecycle = match mode {
            "auto" => ClientLifecycleMode::Auto {
                preferred_versions: vec![ProtocolVersion::LATEST],
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            _ => ClientLifecycleMode::Initialize,
        };
        let headers = HashMap::from([("x-kagent-host".parse()?, host.parse()?)]);
        let config = StreamableHttpClientTransportConfig::with_uri(url).custom_headers(headers);
        let transport = StreamableHttpClientTransport::from_config(config);
        match Steps::default().serve_with_lifecycle(transport, lifecycle).await {
            Ok(client) => {
                let server = client.peer_info().ok_or("the server has said nothing of itself")?;
                let protocol = server.protocol_version.to_string();
                return Ok((client, json!({"tries": tries, "protocol": protocol})));
            }
            Err(error) => eprintln!("{tries} {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await; // between two tries
    }
    unreachable!("it tries for ever")
}

async fn call(client: &Client, name: &str) -> Value {
    let arguments = if name == "add" { json!({"a": 2, "b": 3}) } else { json!({}) };
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let order = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
    match client.call_tool(order).await {
        Ok(result) => {
            let text = result.content.first().and_then(ContentBlock::as_text);
            let text = text.map(|text| text.text.clone());
            json!({"told": result.is_error.unwrap_or(false), "text": text})
        }
        Err(error) => {
            eprintln!("{error}");
            json!({"error": true})
        }
    }
}

/// Does what standard input says until it ends.
pub async fn follow(mode: &str, host: &str) -> Result<(), Failure> {
    println!("{}", json!({"ready": true}));
    let mut connected = None;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let order: Vec<String> = serde_json::from_str(&line)?;
        let words: Vec<&str> = order.iter().map(String::as_str).collect();
        let answer = match (words.as_slice(), &connected) {
            (["connect", url], _) => {
                let (client, answer) = connect(mode, url, host).await?;
                connected = Some(client);
                answer
            }
            (["call", name], Some(client)) => call(client, name).await,
            _ => return Err(format!("there is no order {order:?}").into()),
        };
        println!("{answer}");
    }
    Ok(())
}
