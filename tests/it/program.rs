//! The built program as a process of its own, for what a process has only one of: its environment.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::support::{BOUND, Client, LAST_GET};
use crate::tls::{Authority, tls_backend};

/// A running program; ended with the value.
pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Lines<BufReader<ChildStderr>>,
    child: Child,
}

impl Program {
    /// Starts `kagent-proxy run` with these flags on free ports.
    pub(crate) async fn start(flags: &[&str], env: &[(&str, &str)]) -> Self {
        Self::spawn(&mut Command::new(env!("CARGO_BIN_EXE_kagent-proxy")), flags, env).await
    }

    /// The same with so few open files.
    pub(crate) async fn with_files(files: usize, flags: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let limited = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_kagent-proxy")]);
        Self::spawn(&mut command, flags, &[]).await
    }

    async fn spawn(command: &mut Command, flags: &[&str], env: &[(&str, &str)]) -> Self {
        let listens = flags.contains(&"--listen");
        let mut child = command
            .arg("run")
            .args(if listens { &[][..] } else { &["--listen", "127.0.0.1:0"] })
            .args(["--admin", "127.0.0.1:0", "--log-format", "json"])
            .args(flags)
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = loop {
            let line = tokio::time::timeout(BOUND, log.next_line()).await.expect("silent").unwrap();
            let line = line.expect("ended before it served");
            if line.contains("\"serving\"") {
                break serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
        };
        let address = |key: &str| serving[key].as_str().unwrap().parse().unwrap();
        Self { address: address("listen"), admin: address("admin"), log, child }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Bytes of memory that are in use at the moment.
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap()));
        let status = status.unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// The next line that has this.
    pub(crate) async fn logs(&mut self, part: &str) -> String {
        let found = async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("the program has ended");
                if line.contains(part) {
                    return line;
                }
            }
        };
        tokio::time::timeout(BOUND, found).await.unwrap_or_else(|_| panic!("no {part}"))
    }
}

/// Clients that take every descriptor must not take liveness with them: a kubelet would kill the pod.
#[tokio::test]
async fn the_admin_listener_answers_at_the_limit_of_open_files() {
    let mut program = Program::with_files(64, &["--route", "s.ns=127.0.0.1:9"]).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(program.connect().await);
    }
    program.logs("cannot accept").await;
    for _ in 0..20 {
        let mut admin = Client(TcpStream::connect(program.admin).await.unwrap());
        admin.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        admin.until("\r\n\r\nok\n").await;
    }
    drop(clients);
}

#[tokio::test]
async fn an_https_target_without_an_authority_is_trusted_by_the_system_s_store() {
    let (authority, other) = (Authority::new(), Authority::new());
    let port = tls_backend(&authority.issue("localhost"), b"http/1.1").await;
    let folder = std::env::temp_dir().join(format!("kagent-proxy-store-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let route = format!("s.ns=https://localhost:{port}");
    for (trusted, start) in
        [(&authority, "HTTP/1.1 200 OK"), (&other, "HTTP/1.1 502 connect_failed")]
    {
        let store = folder.join("store.pem");
        std::fs::write(&store, trusted.pem()).unwrap();
        let env = [("SSL_CERT_FILE", store.to_str().unwrap())];
        let program = Program::start(&["--route", &route], &env).await;
        let mut client = program.connect().await;
        client.send(LAST_GET).await;
        let answer = client.rest().await;
        assert!(answer.starts_with(start), "{answer}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
