//! What the access log says was done for a session: the program as a process, with its standard error read.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::mcp_server::{Manner, McpServer};
use crate::support::{BOUND, Client};

/// The program in front of one server.
struct Program {
    address: SocketAddr,
    lines: Lines<BufReader<ChildStderr>>,
    _child: Child,
}

impl Program {
    async fn start(server: &McpServer) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, admin) = (free(), free());
        let file = std::env::temp_dir()
            .join(format!("kagent-proxy-session-log-{}.yaml", std::process::id()));
        let yaml = format!(
            "listeners: [{{name: plain, address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\n\
             log: {{format: json}}\nroutes:\n- {{match: t.ns, targets: [\"{}\"]}}\n",
            server.address
        );
        std::fs::write(&file, yaml).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kagent-proxy"))
            .args(["run", "--config", file.to_str().unwrap()])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut program = Self { address, lines, _child: child };
        program.line(|line| line["message"] == "serving").await;
        std::fs::remove_file(file).unwrap();
        program
    }

    /// The next line like this.
    async fn line(&mut self, like: impl Fn(&Value) -> bool) -> Value {
        let read = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the program has ended");
                let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
                if like(&line) {
                    return line;
                }
            }
        };
        tokio::time::timeout(BOUND, read).await.expect("no such line")
    }

    /// What the line of the next request says, which was sent by this method.
    async fn event(&mut self, method: &str) -> String {
        let line = self.line(|line| line["method"] == method && line["path"] == "/mcp").await;
        line["session_event"].as_str().unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    async fn send(&self, method: &str, token: &str, body: &Value) -> Client {
        let mut client = Client(TcpStream::connect(self.address).await.unwrap());
        let session = if token.is_empty() {
            String::new()
        } else {
            format!("mcp-session-id: {token}\r\nmcp-protocol-version: 2025-06-18\r\n")
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let length = body.len();
        let head = format!(
            "{method} /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: t.ns\r\naccept: text/event-stream\r\n\
             content-type: application/json\r\nconnection: close\r\n{session}content-length: {length}\r\n\r\n"
        );
        client.send(&(head + &body)).await;
        client
    }
}

fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {"a": tool}}})
}

#[tokio::test]
async fn the_access_line_says_what_was_done_for_a_session() {
    let mut server = McpServer::start().await;
    let mut program = Program::start(&server).await;
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let ask = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let answer = program.send("POST", "", &ask).await.rest().await;
    let token = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
    let token = token.unwrap_or_else(|| panic!("{answer}")).to_owned();
    assert_eq!(program.event("POST").await, "opened");

    // The same session still: a stream that is opened again is no revival.
    server.behave(Manner { brief: true, ..Manner::default() });
    let stream = program.send("GET", &token, &Value::Null).await;
    server.until("the stream is opened again", |seen| seen.gets == 2).await;
    drop(stream);
    assert_eq!(program.event("GET").await, "");

    program.send("POST", &token, &call("count")).await.rest().await;
    assert_eq!(program.event("POST").await, "");
    server.forget();
    program.send("POST", &token, &call("count")).await.rest().await;
    assert_eq!(program.event("POST").await, "revived");

    server.behave(Manner { breaks: true, ..Manner::default() });
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let mut asked = program.send("POST", &token, &list).await;
    server.until("it is asked", |seen| seen.calls.iter().any(|call| call == "list")).await;
    server.behave(Manner::default());
    assert!(asked.rest().await.contains("\"tools\""));
    assert_eq!(program.event("POST").await, "replayed");

    let mut lost = program.send("POST", &token, &call("hang")).await;
    server.until("it runs", |seen| seen.calls.iter().any(|call| call == "hang")).await;
    server.kill().await;
    assert!(lost.rest().await.contains("isError"));
    assert_eq!(program.event("POST").await, "lost");
}
