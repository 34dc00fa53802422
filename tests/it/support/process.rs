//! Flipgate as a process of its own, as an operator has it.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use flipgate_api::{Caller, Target};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{Client, Upstream, client, eventually};

/// A running process with a folder for its configuration and state.
pub(crate) struct Process {
    child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) public: SocketAddr,
    admin: PathBuf,
}

/// The command line, ready for its arguments.
pub(crate) fn flipgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flipgate"));
    command.args(arguments).env_remove("FLIPGATE_ADMIN").env_remove("FLIPGATE_TOKEN");
    command
}

/// Runs the command line to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    flipgate(arguments).stdin(Stdio::null()).output().expect("the program is there")
}

/// Writes a configuration into a folder: one service `web`, the admin API on a unix socket.
pub(crate) fn write_config(folder: &Path, port: u16, blue: &Upstream, green: &Upstream) -> PathBuf {
    let path = folder.join("flipgate.toml");
    let text = format!(
        "state_dir = {:?}\nworkers = 2\nshutdown.patience = \"20s\"\n\
         clients.internal = [\"127.0.0.1/32\"]\n[admin]\nlisten = \"unix:{}\"\n\
         [[listener]]\nlisten = \"127.0.0.1:{port}\"\n\
         [service.web]\nblue = {{ endpoints = [\"{}\"] }}\ngreen = {{ endpoints = [\"{}\"] }}\n",
        folder.join("state").display().to_string(),
        folder.join("admin.sock").display(),
        blue.address,
        green.address
    );
    std::fs::File::create(&path)
        .and_then(|mut it| it.write_all(text.as_bytes()))
        .expect("a writable folder");
    path
}

/// Sends a signal by its name to any process.
pub(crate) fn send(name: &str, pid: i32) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status().expect("kill is there");
    assert!(sent.success());
}

/// The listener's real address, which the log tells.
fn listener(log: &str) -> SocketAddr {
    let line = log.lines().find(|it| it.contains("\"listening\"")).expect("it listens");
    let line: Value = serde_json::from_str(line).expect("a line of JSON");
    line["listen"].as_str().and_then(|it| it.parse().ok()).expect("an address")
}

impl Process {
    /// Starts a process on a free port and waits until it serves.
    pub(crate) async fn start(folder: &TempDir, blue: &Upstream, green: &Upstream) -> Self {
        let config = write_config(folder.path(), 0, blue, green);
        Self::start_with(folder.path(), &config).await
    }

    /// The same with a limit of open files, and more services.
    pub(crate) async fn start_limited(
        folder: &TempDir,
        files: u64,
        blue: &Upstream,
        green: &Upstream,
        services: &str,
    ) -> Self {
        let config = write_config(folder.path(), 0, blue, green);
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&config, text + services).expect("written");
        let mut command = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_flipgate");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), program]);
        Self::start_by(command, folder.path(), &config).await
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("the kernel has no larger ones")
    }

    /// Starts a process with a configuration that is there already.
    pub(crate) async fn start_with(folder: &Path, config: &Path) -> Self {
        Self::start_by(flipgate(&[]), folder, config).await
    }

    /// Starts a process with a pipe as standard error, and reads it until the process serves.
    pub(crate) async fn start_piped(
        folder: &TempDir,
        blue: &Upstream,
        green: &Upstream,
    ) -> (Self, BufReader<ChildStderr>) {
        let config = write_config(folder.path(), 0, blue, green);
        let mut process = Self::spawn(flipgate(&[]), folder.path(), &config, Stdio::piped());
        let pipe = process.child.stderr.take().expect("it is a pipe");
        let started = tokio::task::spawn_blocking(move || {
            let (mut pipe, mut log) = (BufReader::new(pipe), String::new());
            while !log.contains("\"started\"") {
                let count = pipe.read_line(&mut log).expect("lines are UTF-8");
                assert!(count > 0, "ended: {log}");
            }
            (pipe, log)
        });
        let (pipe, log) = started.await.expect("it starts");
        process.public = listener(&log);
        (process, pipe)
    }

    /// Starts a process and does not wait for anything.
    pub(crate) fn spawn(
        mut command: Command,
        folder: &Path,
        config: &Path,
        log: impl Into<Stdio>,
    ) -> Self {
        let config = config.display().to_string();
        let child = command
            .args(["run", "--config", &config])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program is there");
        let public = SocketAddr::from(([127, 0, 0, 1], 0));
        let admin = folder.join("admin.sock");
        Self { child, folder: folder.to_owned(), public, admin }
    }

    /// The same with its log in a file.
    pub(crate) fn spawn_logging(command: Command, folder: &Path, config: &Path) -> Self {
        let log = std::fs::File::create(folder.join("log")).expect("a writable folder");
        Self::spawn(command, folder, config, log)
    }

    async fn start_by(command: Command, folder: &Path, config: &Path) -> Self {
        let mut process = Self::spawn_logging(command, folder, config);
        process.until_it_serves().await;
        process
    }

    /// Waits until a process that logs to a file serves.
    pub(crate) async fn until_it_serves(&mut self) {
        eventually("the process serves", async || {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "ended: {}", self.log());
            self.cli(&["status"]).status.success() && self.log().contains("started")
        })
        .await;
        self.public = listener(&self.log());
    }

    /// A client of the admin API.
    pub(crate) fn caller(&self) -> Caller {
        Caller { target: Target::Unix(self.admin.clone()), token: None }
    }

    /// Runs the command line against this process.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_command(arguments).output().expect("the program is there")
    }

    pub(crate) fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = flipgate(arguments);
        command.env("FLIPGATE_ADMIN", format!("unix:{}", self.admin.display()));
        command.stdin(Stdio::null());
        command
    }

    /// The picture.
    pub(crate) fn status(&self) -> Value {
        let output = self.cli(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Asks for a reload. The answer is still to be read.
    pub(crate) async fn ask_to_reload(&self) -> UnixStream {
        let mut stream = UnixStream::connect(&self.admin).await.expect("the admin API");
        let request = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// What `/readyz` says, as it comes.
    pub(crate) async fn ready(&self) -> String {
        self.ask("/readyz").await
    }

    /// The metrics.
    pub(crate) async fn scrape(&self) -> String {
        let answer = self.ask("/metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer
    }

    async fn ask(&self, path: &str) -> String {
        let mut stream = UnixStream::connect(&self.admin).await.expect("the admin API");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("UTF-8");
        answer
    }

    /// What the public gets for a path.
    pub(crate) async fn get(&self, path: &str) -> String {
        Client::connect(client::PUBLIC, self.public).await.get(path, "").await.text()
    }

    pub(crate) async fn public(&self) -> Client {
        Client::connect(client::PUBLIC, self.public).await
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        send(name, self.pid());
    }

    /// Waits for the end and returns the exit code; `None` for a process that was killed.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the process ends", async || {
            let ended = self.child.try_wait().expect("our own child");
            code = ended.map(|it| it.code());
            code.is_some()
        })
        .await;
        code.flatten()
    }

    /// Kills the process as the kernel does, with nothing said to it.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.wait().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
