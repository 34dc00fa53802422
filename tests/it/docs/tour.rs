//! Does the tour of the README work, as it is written?

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use serde_json::Value;

use super::markdown::{self, Block};

const HEADING: &str = "A tour in five minutes";

/// The line that is printed between two blocks.
const MARK: &str = "=== next block";

/// Ports that are free now. Others could take them before the tour does, which no other test of ours tries.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listen = |_| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    // All are open at the same time, so that no two are the same.
    let listeners: [_; COUNT] = std::array::from_fn(listen);
    listeners.map(|it| it.local_addr().expect("an address").port())
}

/// The blocks with commands as one script, with these ports in place of those that are written.
fn script(blocks: &[Block], [public, blue, green, admin]: [u16; 4]) -> String {
    let mut script = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    let ends = format!("curl -s http://127.0.0.1:{admin}/metrics\nkill %1 %2 %3");
    let listens = format!("<<'TOML'\nadmin.listen = \"127.0.0.1:{admin}\"\n");
    for block in blocks.iter().filter(|it| it.language == "sh") {
        script.push_str(&format!("echo '{MARK}'\n"));
        let text = block.text.replace("<<'TOML'\n", &listens);
        let text = text.replace("8080", &public.to_string());
        let text = text.replace("9001", &blue.to_string()).replace("9002", &green.to_string());
        script.push_str(&text.replace("kill %1 %2 %3", &ends));
    }
    script
}

#[test]
fn the_tour_of_the_readme_works() {
    let readme = markdown::pages().into_iter().find(|it| it.path == Path::new("README.md"));
    let blocks = readme.expect("the README").blocks_below(HEADING);
    let ports = free_ports();
    let script = script(&blocks, ports);
    for written in ["9900", "kill %1 %2 %3\nkill"] {
        assert!(!script.contains(written), "{script}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_flipgate"));
    let path =
        std::env::join_paths(
            program.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(
                &std::env::var_os("PATH").expect("where programs are"),
            )),
        );
    let ran = Command::new("timeout")
        .args(["--kill-after=5", "60", "bash", "-euo", "pipefail", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path.expect("a path without colons"))
        .env("FLIPGATE_ADMIN", format!("http://127.0.0.1:{}", ports[3]))
        .env_remove("FLIPGATE_TOKEN")
        .env_remove("FLIPGATE_CONFIG")
        .output()
        .expect("bash is there");
    let output = String::from_utf8_lossy(&ran.stdout);
    let log = std::fs::read_to_string(folder.path().join("tour/flipgate.log")).unwrap_or_default();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}\n{output}\n{errors}\n{log}", ran.status);

    let parts: Vec<&str> = output.split(MARK).skip(1).map(str::trim).collect();
    let (mut number, mut shown) = (0, 0);
    for block in &blocks {
        match &*block.language {
            "sh" => number += 1,
            "json" => {
                assert_eq!(parts[number - 1], block.text.trim(), "the output of block {number}");
                shown += 1;
            }
            // What people see; in a pipe it is JSON.
            "text" => {}
            other => panic!("README.md:{}: a block of {other}", block.line),
        }
    }
    assert!(shown >= 3, "the answers of blue, of green as a preview, and of green");

    // The first status is true: what is there is found to be there.
    let status = serde_json::Deserializer::from_str(parts[0]).into_iter::<Value>();
    let status = status.last().expect("the status").expect("JSON");
    let blue = &status["services"]["web"]["pools"]["blue"];
    assert_eq!(blue["endpoints"][0]["health"], "up", "{status}");

    // What a scrape shows is on the page of metrics.
    let known = super::documented_metrics();
    let shown = output.lines().filter_map(|it| it.strip_prefix("# TYPE ")?.split(' ').next());
    let shown: BTreeSet<String> = shown.map(str::to_owned).collect();
    let unknown: Vec<_> =
        shown.difference(&known).filter(|it| it.starts_with("flipgate_")).collect();
    assert!(shown.len() > 10 && unknown.is_empty(), "not in metrics.md: {unknown:?}");
}
