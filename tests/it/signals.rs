//! Signals during start and stop.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::support::{
    Process, Upstream, eventually,
    process::{flipgate, send, write_config},
};

/// A configuration that a process waits for: its path is a FIFO until it is sent.
struct Awaited {
    path: PathBuf,
    text: String,
    fifo: File,
}

impl Awaited {
    /// Spawns a process, and returns when it has opened its configuration and waits for the content.
    async fn spawn(
        command: Command,
        folder: &TempDir,
        blue: &Upstream,
        green: &Upstream,
    ) -> (Process, Self) {
        let path = write_config(folder.path(), 0, blue, green);
        let text = fs::read_to_string(&path).expect("the configuration");
        fs::remove_file(&path).expect("ours");
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
        assert!(made.success());
        let process = Process::spawn_logging(command, folder.path(), &path);
        let mut fifo = None;
        eventually("the process reads its configuration", async || {
            // Fails as long as there is no reader.
            let flags = OFlags::NONBLOCK.bits().cast_signed();
            fifo = File::options().write(true).custom_flags(flags).open(&path).ok();
            fifo.is_some()
        })
        .await;
        (process, Self { path, text, fifo: fifo.expect("it is open") })
    }

    /// Sends the configuration, and puts `next` in its place for a reload.
    fn send(mut self, next: impl FnOnce(&str) -> String) {
        let file = self.path.with_extension("next");
        fs::write(&file, next(&self.text)).expect("written");
        fs::rename(&file, &self.path).expect("ours");
        self.fifo.write_all(self.text.as_bytes()).expect("there is a reader");
    }
}

/// Once, `flipgate run & kill -HUP $!` ended the process: handlers were registered when it served.
#[tokio::test]
async fn a_reload_that_is_asked_for_during_the_start_follows_it() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let newer = Upstream::start("newer").await;
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, config) = Awaited::spawn(flipgate(&[]), &folder, &blue, &green).await;
    process.signal("HUP");
    config.send(|it| it.replace(&blue.address.to_string(), &newer.address.to_string()));
    process.until_it_serves().await;
    eventually("applied", async || process.log().contains("configuration applied")).await;
    assert_eq!(process.get("/").await, "newer");
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
}

/// Once, no reload was possible any more when one had met a FIFO without a writer.
#[tokio::test]
async fn a_reading_that_hangs_for_ever_does_not_hold_up_the_next_reload() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let path = write_config(folder.path(), 0, &blue, &green);
    let text = fs::read_to_string(&path).expect("the configuration");
    fs::remove_file(&path).expect("ours");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo is there").success());
    let caller = process.ask_to_reload().await;
    let mut fifo = None;
    eventually("the process reads its configuration", async || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        fifo = File::options().write(true).custom_flags(flags).open(&path).ok();
        fifo.is_some()
    })
    .await;
    // The caller gives up; the reading goes on for as long as the FIFO is open.
    drop(caller);
    fs::remove_file(&path).expect("ours");
    fs::write(&path, text).expect("written");
    eventually("reloaded", async || {
        let mut answer = [0; 12];
        let mut caller = process.ask_to_reload().await;
        caller.read_exact(&mut answer).await.expect("an answer");
        answer == *b"HTTP/1.1 200"
    })
    .await;
}

/// Once, the process did not stop before the reload had ended, which a FIFO without a writer puts off.
#[tokio::test]
async fn a_reload_that_hangs_does_not_hold_up_a_stop() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    let path = write_config(folder.path(), 0, &blue, &green);
    fs::remove_file(&path).expect("ours");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo is there").success());
    process.signal("HUP");
    let mut fifo = None;
    eventually("the process reads its configuration", async || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        fifo = File::options().write(true).custom_flags(flags).open(&path).ok();
        fifo.is_some()
    })
    .await;
    let begun = Instant::now();
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_process_that_waits_for_its_configuration_can_be_stopped() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut process, _config) = Awaited::spawn(flipgate(&[]), &folder, &blue, &green).await;
        process.signal(signal);
        assert_eq!(process.wait().await, Some(0), "{signal}");
        assert_eq!(process.log(), "");
    }
}

/// Process 1 of a container has no default actions: a signal without a handler is lost.
#[tokio::test]
async fn process_1_of_a_container_ends_by_the_first_signal() {
    if !unshare().arg("true").status().is_ok_and(|it| it.success()) {
        eprintln!("not tested: this user may not make a namespace of processes");
        return;
    }
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let command = || {
        let mut command = unshare();
        command.arg(env!("CARGO_BIN_EXE_flipgate"));
        command
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, _config) = Awaited::spawn(command(), &folder, &blue, &green).await;
    send("TERM", child_of(process.pid()));
    assert_eq!(process.wait().await, Some(0), "while it starts");

    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, config) = Awaited::spawn(command(), &folder, &blue, &green).await;
    let pid = child_of(process.pid());
    send("HUP", pid);
    config.send(str::to_owned);
    process.until_it_serves().await;
    eventually("reloaded", async || process.log().contains("nothing has changed")).await;
    send("TERM", pid);
    assert_eq!(process.wait().await, Some(0), "while it serves");
}

/// A new namespace, which ends together with the test.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    command
}

/// The only child of a process.
fn child_of(pid: i32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(Path::new(&path)).expect("the kernel lists children");
    children.trim().parse().expect("one child")
}
