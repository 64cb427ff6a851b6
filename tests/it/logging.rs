//! A log that nobody can or will read costs log lines, and nothing else: the program as a process, with a
//! standard error of each bad kind.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use kagent_proxy::config::{Config, LogConfig, LogFormat};
use kagent_proxy::telemetry::log::Log;
use kagent_proxy::telemetry::{self, metrics::Metrics};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

use crate::support::{BOUND, Backend, Client};

const LOST: &str = "kagent_proxy_log_lines_dropped_total";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// A port for a program that cannot say which one it took: nobody else gets it while this is kept.
struct Reserved(TcpSocket);

impl Reserved {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}

/// The program, which follows a file of its own.
struct Program {
    child: Child,
    folder: PathBuf,
    backend: Backend,
    listen: Reserved,
    admin: Reserved,
}

impl Program {
    async fn start(name: &str, stderr: impl Into<Stdio>) -> Self {
        let folder = format!("kagent-proxy-logging-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let (listen, admin, backend) = (Reserved::new(), Reserved::new(), Backend::start().await);
        let file = folder.join("config.yaml");
        std::fs::write(&file, yaml(&listen, &admin, &backend, &["s.ns"])).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_kagent-proxy"))
            .args(["run", "--config", file.to_str().unwrap()])
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut program = Self { child, folder, backend, listen, admin };
        let wait = async {
            while TcpStream::connect(program.listen.address()).await.is_err() {
                let ended = program.child.try_wait().unwrap();
                assert!(ended.is_none(), "the program has ended at its start: {ended:?}");
                // Between two looks at another process's state.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, wait).await.expect("it does not listen");
        program
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.listen.address()).await.unwrap())
    }

    /// The whole answer to a GET of this path, from this host.
    async fn get(&self, host: &str, path: &str) -> String {
        let mut client = self.connect().await;
        client.send(&get(host, path)).await;
        client.rest().await
    }

    async fn metrics(&self) -> String {
        let mut client = Client(TcpStream::connect(self.admin.address()).await.unwrap());
        client.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        client.rest().await
    }

    /// Until `/metrics` shows it.
    async fn shows(&self, part: &str) {
        let wait = async {
            while !self.metrics().await.contains(part) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("no {part}"));
    }

    /// Lines lost for this cause.
    async fn lost(&self, cause: &str) -> u64 {
        let (metrics, name) = (self.metrics().await, format!("{LOST}{{cause=\"{cause}\"}} "));
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
    }

    /// Both kinds of call are answered, and the configuration is followed more than once.
    async fn works(&self) {
        let ok = async {
            self.backend.answer(OK).await;
        };
        let (answer, ()) = tokio::join!(self.get("s.ns", "/"), ok);
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
        let answer = self.get("no.ns", "/").await;
        assert!(answer.starts_with("HTTP/1.1 503 unknown_target"), "{answer}");
        for (count, hosts) in [(1, &["s.ns", "t.ns"][..]), (2, &["s.ns"])] {
            let new = self.folder.join("new.yaml");
            std::fs::write(&new, yaml(&self.listen, &self.admin, &self.backend, hosts)).unwrap();
            std::fs::rename(&new, self.folder.join("config.yaml")).unwrap();
            self.shows(&format!("config_reloads_total{{result=\"applied\"}} {count}")).await;
        }
    }

    /// Drains by a signal while a stream is open; the stream must come to its own end.
    async fn ends(mut self) {
        let mut client = self.connect().await;
        client.send(&get("s.ns", "/")).await;
        let mut call = self.backend.accept().await;
        call.until("\r\n\r\n").await;
        call.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await;
        client.until("\r\n\r\n").await;
        let pid = self.child.id().unwrap();
        let kill = ["-c", &format!("kill -TERM {pid}")];
        assert!(Command::new("sh").args(kill).status().await.unwrap().success());
        let closed = async {
            while TcpStream::connect(self.listen.address()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, closed).await.expect("it still accepts");
        call.send("data: the last\n\n").await;
        client.until("data: the last\n\n").await;
        drop((call, client));
        let ended = tokio::time::timeout(BOUND, self.child.wait()).await.expect("it does not end");
        assert_eq!(ended.unwrap().code(), Some(0));
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: p\r\nx-kagent-host: {host}\r\nconnection: close\r\n\r\n")
}

fn yaml(listen: &Reserved, admin: &Reserved, backend: &Backend, hosts: &[&str]) -> String {
    let (listen, admin, port) = (listen.address(), admin.address(), backend.port());
    let route = |host: &&str| format!("- {{match: {host}, targets: [\"127.0.0.1:{port}\"]}}\n");
    format!(
        "listeners: [{{name: plain, address: \"{listen}\"}}]\n\
         admin: {{address: \"{admin}\"}}\n\
         log: {{format: json}}\n\
         drain: {{lag: 0s, deadline: 10s}}\n\
         reloadEvery: 10ms\n\
         routes:\n{}",
        hosts.iter().map(route).collect::<String>()
    )
}

/// Both ends of a pipe that takes nothing more.
async fn full_pipe() -> (pipe::Sender, pipe::Receiver) {
    let (sender, receiver) = pipe::pipe().unwrap();
    sender.writable().await.unwrap();
    let mut taken = 0;
    // In pages, of which a pipe is made.
    while let Ok(some) = sender.try_write(&[b'\n'; 4096]) {
        taken += some;
    }
    assert!(taken > 0, "a pipe takes something");
    (sender, receiver)
}

#[tokio::test]
async fn a_log_on_a_full_disk_costs_lines_only() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let program = Program::start("disk", full).await;
    program.works().await;
    assert!(program.lost("write_failed").await > 0);
    assert_eq!(program.lost("queue_full").await, 0);
    program.ends().await;
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_lines_only() {
    let (sender, receiver) = pipe::pipe().unwrap();
    drop(receiver);
    let program = Program::start("gone", sender.into_blocking_fd().unwrap()).await;
    program.works().await;
    assert!(program.lost("write_failed").await > 0);
    program.ends().await;
}

type IntoFd = fn(pipe::Sender) -> std::io::Result<OwnedFd>;

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_nothing() {
    let kinds: [(&str, IntoFd); 2] =
        [("waits", pipe::Sender::into_blocking_fd), ("refuses", pipe::Sender::into_nonblocking_fd)];
    for (name, end) in kinds {
        let (sender, reader) = full_pipe().await;
        let program = Program::start(name, end(sender).unwrap()).await;
        program.works().await;
        assert_eq!(program.lost("queue_full").await, 0, "what fits into the queue is kept");
        // Twelve lines of 60 KB at a time, more than the bound in all.
        let path = format!("/{}", "x".repeat(60_000));
        while program.lost("queue_full").await == 0 {
            let some = (0..12).map(|_| program.get("no.ns", &path));
            for answer in futures_util::future::join_all(some).await {
                assert!(answer.starts_with("HTTP/1.1 503 unknown_target"), "{answer}");
            }
        }
        assert!(program.get("no.ns", "/").await.starts_with("HTTP/1.1 503 unknown_target"));
        program.ends().await;
        drop(reader);
    }
}

#[tokio::test]
async fn what_was_kept_is_written_in_order_once_somebody_reads() {
    let (sender, reader) = full_pipe().await;
    let program = Program::start("later", sender.into_blocking_fd().unwrap()).await;
    for path in ["/1", "/2", "/3"] {
        program.get("no.ns", path).await;
    }
    let mut lines = BufReader::new(reader).lines();
    let seen = async {
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let line = lines.next_line().await.unwrap().unwrap();
            if !line.is_empty() {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                let what = line["path"].as_str().or_else(|| line["message"].as_str()).unwrap();
                // Said once a second at most, so it may stand between any two.
                if what != "a request found no route" {
                    seen.push(what.to_owned());
                }
            }
        }
        seen
    };
    let seen = tokio::time::timeout(BOUND, seen).await.expect("no lines");
    assert_eq!(seen, ["serving", "/1", "/2", "/3"]);
    assert_eq!((program.lost("write_failed").await, program.lost("queue_full").await), (0, 0));
    program.ends().await;
}

#[tokio::test]
async fn what_must_be_said_before_the_start_does_not_wait_either() {
    let (sender, reader) = full_pipe().await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_kagent-proxy"))
        .args(["run", "--route", "no-target"])
        .stderr(sender.into_blocking_fd().unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(BOUND, child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(ended.code(), Some(64));
    drop(reader);
}

#[test]
fn a_panic_is_a_line_with_its_place_and_is_counted() {
    const CHILD: &str = "LOGGING_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let log = Log::standard_error().unwrap();
        let config = LogConfig { format: LogFormat::Json, ..Config::sidecar().log };
        telemetry::start_logging(&config, log.clone()).unwrap();
        let unlucky = std::thread::Builder::new().name("unlucky".to_owned());
        assert!(unlucky.spawn(|| panic!("on purpose")).unwrap().join().is_err());
        let metrics = Metrics::new().render();
        std::io::stdout().write_all(metrics.as_bytes()).unwrap();
        assert!(log.flush(BOUND));
        return;
    }
    // A hook belongs to the whole process, so this test has one of its own.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "logging::a_panic_is_a_line_with_its_place_and_is_counted",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("on purpose")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    let texts = ["level", "message", "reason", "thread"].map(|name| line[name].as_str().unwrap());
    assert_eq!(texts, ["ERROR", "panic", "on purpose", "unlucky"]);
    assert!(line["place"].as_str().unwrap().starts_with("tests/it/logging.rs:"), "{line}");
    let metrics = String::from_utf8(output.stdout).unwrap();
    assert!(metrics.contains("\nkagent_proxy_panics_total 1\n"), "{metrics}");
}
