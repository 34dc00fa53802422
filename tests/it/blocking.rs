//! No file and no disk holds up the control thread.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process::Command,
};

use rustix::fs::OFlags;

use crate::support::{Authority, Process, Upstream, eventually, process::write_config};

fn put_fifo(path: &Path) {
    fs::remove_file(path).expect("ours");
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo is there");
    assert!(made.success());
}

async fn flip(process: &Process, colors: &[&str]) {
    for color in colors {
        let promoted = process.cli(&["promote", &format!("web={color}")]);
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
        assert_eq!(process.get("/").await, *color);
    }
}

/// Once, a reload that waited for a pipe without a writer blocked every flip.
#[tokio::test]
async fn a_configuration_that_cannot_be_read_holds_up_no_flip() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let path = folder.path().join("flipgate.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    put_fifo(&path);
    process.signal("HUP");
    // A pipe can be opened for writing without waiting once it has a reader.
    let mut fifo = None;
    eventually("the configuration is being read", async || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        fifo = File::options().write(true).custom_flags(flags).open(&path).ok();
        fifo.is_some()
    })
    .await;
    flip(&process, &["green", "blue", "green"]).await;
    // What comes through the pipe in the end is applied.
    let changed = text.replace("[service.web]", "[service.web]\npath = \"/new\"");
    fifo.take().expect("open").write_all(changed.as_bytes()).expect("there is a reader");
    eventually("it is applied", async || process.log().contains("configuration applied")).await;
    assert_eq!(process.get("/new").await, "green");
}

/// The TLS files of a pool are checked every two seconds, and with every reload.
#[tokio::test]
async fn a_pipe_in_place_of_an_authority_holds_up_no_flip() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let ca = folder.path().join("ca.pem");
    fs::copy(&authority.file, &ca).expect("copied");
    let config = write_config(folder.path(), 0, &blue, &green);
    let text = fs::read_to_string(&config).expect("the configuration");
    let secured = format!(
        "{text}[service.secured]\nhosts = [\"secured.test\"]\n\
         blue = {{ endpoints = [\"https://127.0.0.1:1\"], tls = {{ ca = {ca:?} }} }}\n\
         green = {{ endpoints = [\"https://127.0.0.1:2\"], tls = {{ ca = {ca:?} }} }}\n"
    );
    fs::write(&config, secured).expect("written");
    let process = Process::start_with(folder.path(), &config).await;
    put_fifo(&ca);
    // Also a reload reads it, and says what is wrong instead of waiting for a writer.
    let refused = process.caller().reload().await.expect_err("it is no file").to_string();
    assert!(refused.contains("ca.pem") && refused.contains("no file"), "{refused}");
    flip(&process, &["green", "blue"]).await;
    eventually("the change is noticed and published", async || {
        process.log().contains("cannot reload certificates")
    })
    .await;
}
