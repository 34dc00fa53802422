//! A full disk refuses changes with the remedy, except rollbacks.

use std::{fs, io::Write};

use super::{assert_good, lines};
use crate::{
    state::Mount,
    support::{TestProxy, Upstream, eventually},
};

#[tokio::test]
async fn a_full_disk_refuses_changes_and_accepts_rollbacks() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mount) = Mount::at(folder.path()) else {
        println!("left out: not allowed to mount");
        return;
    };
    let proxy = TestProxy::build().state(folder).service("web", &[&blue], &[&green]).start();
    let state = proxy.state_folder().to_owned();
    proxy.promote(&[("web", "green")]).await;
    let mut filler = fs::File::create(state.join("filler")).expect("there is room");
    while filler.write_all(&[1; 4096]).is_ok() {}
    // The file of the audit log has room up to the end of its last page.
    let mut refused = None;
    eventually("a change is refused", async || {
        for color in ["green", "blue"] {
            let body = format!("{{\"services\":{{\"web\":\"{color}\"}}}}");
            let answer = proxy.call("POST", "/v1/promote", "", &body).await;
            if answer.status == 500 {
                refused = Some(answer.json()["detail"].as_str().expect("a text").to_owned());
            }
        }
        refused.is_some()
    })
    .await;
    let refused = refused.expect("it was refused");
    for part in [&*state.display().to_string(), "full", "free space", "rollbacks"] {
        assert!(refused.contains(part), "{refused}");
    }
    let status = proxy.status().await;
    assert!(status["write_refused"].as_str().is_some_and(|it| it.contains("full")), "{status}");
    assert_eq!(proxy.metric("flipgate_state_writable").await, 0.0);
    eventually("it is ready, with a warning", async || {
        let ready = proxy.call("GET", "/readyz", "", "").await;
        ready.status == 200
            && ready.json()["warnings"][0].as_str().is_some_and(|it| it.contains("full"))
    })
    .await;
    // The way back from the last promotion is open.
    let active = status["services"]["web"]["active"].clone();
    let rolled_back = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(rolled_back.status, 200, "{}", rolled_back.text());
    assert_ne!(proxy.status().await["services"]["web"]["active"], active);
    // With room again, changes are accepted, and no line is missing.
    drop(filler);
    fs::remove_file(state.join("filler")).expect("it is there");
    eventually("changes are accepted", async || {
        proxy.status().await.get("write_refused").is_none()
    })
    .await;
    proxy.promote(&[("web", active.as_str().expect("a color"))]).await;
    let kept = proxy.shut_down();
    assert_good(&state);
    let made = lines(&state);
    assert!(made.iter().any(|it| it["result"] == "refused 500 not-written"), "{made:#?}");
    drop((mount, kept));
}
