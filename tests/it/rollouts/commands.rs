//! Commands of stages: what they get, what they leave behind, and what is kept of their output.

use std::path::Path;

use serde_json::json;

use super::{Host, act, application, begin, settled, story, until_stage};
use crate::support::{Application, eventually};

/// A plan with one command, and one that undoes it.
fn plan(name: &str, command: &str, more: &str, undo: &str) -> String {
    format!(
        "[[rollout.{name}.stage]]\nname = \"run\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {command:?}, \"sh\", \"{{version}}\"]\n{more}\n\
         undo = {{ kind = \"exec\", command = [\"sh\", \"-c\", {undo:?}] }}\n"
    )
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn is_gone(pid: &str) -> bool {
    let stat = read(&Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_empty() || stat.contains(") Z ")
}

async fn both() -> (Application, Application, Host, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (application("blue").await, application("green").await, Host::start().await, folder)
}

#[tokio::test]
async fn a_command_gets_what_is_declared_and_nothing_else() {
    let (blue, green, host, folder) = both().await;
    let file = folder.path().join("out");
    let command =
        format!("env | sort > {0}; echo $1 >> {0}; pwd >> {0}; cat >> {0}", file.display());
    let more = format!("env = {{ COLOR = \"{{candidate}}\" }}\ndir = {:?}", folder.path());
    let plans = format!("[rollouts]\nexec = true\n{}", plan("good", &command, &more, "true"));
    let proxy = story(&blue, &host, &plans).start();
    let id = begin(&proxy, "good", &green, json!({})).await;
    assert_eq!(settled(&proxy, &id).await["state"], "done");
    let text = read(&file);
    let folder = std::fs::canonicalize(folder.path()).expect("it is there");
    assert!(text.contains("COLOR=green\n") && text.contains("\n8.0\n"), "{text}");
    assert!(text.contains(&format!("FLIPGATE_ROLLOUT={id}\n")), "{text}");
    assert!(text.ends_with(&format!("{}\n", folder.display())), "{text}");
    let variables = text.lines().filter(|it| it.contains('=')).map(|it| it.split('=').next());
    let known = ["COLOR", "FLIPGATE_ROLLOUT", "PATH", "PWD", "OLDPWD", "SHLVL", "_"];
    for variable in variables.flatten() {
        assert!(known.contains(&variable), "{variable} was not declared");
    }
}

#[tokio::test]
async fn a_command_that_fails_says_why_and_keeps_the_ends_of_its_output() {
    let (blue, green, host, folder) = both().await;
    let file = folder.path().join("undone");
    let undo = format!("echo undone >> {}", file.display());
    let flood = "echo begin; yes xxx | head -c 3000000; echo end >&2; exit 7";
    let plans = [
        "[rollouts]\nexec = true\n".to_owned(),
        plan("flood", flood, "", &undo),
        plan("signal", "kill -9 $$", "", &undo),
        plan("order", "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 1", "", &undo),
        "[[rollout.missing.stage]]\nname = \"run\"\nkind = \"exec\"\ncommand = [\"/nowhere/program\"]\n".to_owned(),
    ];
    let proxy = story(&blue, &host, &plans.concat()).start();
    let failed =
        async |name: &str| settled(&proxy, &begin(&proxy, name, &green, json!({})).await).await;
    let flood = failed("flood").await;
    let stage = &flood["stages"][0];
    assert!(stage["error"].as_str().is_some_and(|it| it.ends_with("exit code 7")), "{stage}");
    let output = stage["output"].as_str().expect("a text");
    assert!(output.starts_with("begin\nxxx") && output.contains("bytes left out"), "{output}");
    assert!(output.ends_with("end\n") && output.len() < 20_000, "{}", output.len());
    let order = failed("order").await;
    let printed = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n";
    assert_eq!(order["stages"][0]["output"], printed);
    let signal = failed("signal").await;
    assert!(
        signal["error"].as_str().is_some_and(|it| it.contains("ended by signal 9")),
        "{signal}"
    );
    assert_eq!(read(&file), "undone\nundone\nundone\n");
    let missing = failed("missing").await;
    assert!(
        missing["error"].as_str().is_some_and(|it| it.contains("cannot run /nowhere/program")),
        "{missing}"
    );
}

#[tokio::test]
async fn a_cancelled_command_is_ended_with_everything_that_it_has_started() {
    let (blue, green, host, folder) = both().await;
    let (pids, undone) = (folder.path().join("pids"), folder.path().join("undone"));
    // One child ignores SIGTERM, another has a session of its own.
    let command = format!(
        "(trap '' TERM; echo $$ > {0}.tmp; sleep 600) & setsid sleep 600 & echo $! >> {0}.tmp; sleep 1000 & echo $! >> {0}.tmp; \
         mv {0}.tmp {0}; wait",
        pids.display()
    );
    let undo = format!("pgrep -f 'sleep (600|1000)' > {}; true", undone.display());
    let plans = format!("[rollouts]\nexec = true\n{}", plan("long", &command, "", &undo));
    let proxy = story(&blue, &host, &plans).start();
    let id = begin(&proxy, "long", &green, json!({})).await;
    eventually("it runs", async || pids.exists()).await;
    assert_eq!(act(&proxy, &id, "cancel").await.status, 200);
    let over = settled(&proxy, &id).await;
    assert_eq!(over["state"], "cancelled", "{over}");
    for pid in read(&pids).lines() {
        assert!(is_gone(pid).await, "{pid} is left");
    }
}

#[tokio::test]
async fn what_a_command_leaves_behind_is_ended_when_it_succeeds() {
    let (blue, green, host, folder) = both().await;
    let pids = folder.path().join("pids");
    let command = format!("setsid sleep 600 & echo $! > {}; exit 0", pids.display());
    let plans = format!("[rollouts]\nexec = true\n{}", plan("daemon", &command, "", "true"));
    let proxy = story(&blue, &host, &plans).start();
    let done = settled(&proxy, &begin(&proxy, "daemon", &green, json!({})).await).await;
    assert_eq!(done["state"], "done", "{done}");
    let note = done["stages"][0]["note"].as_str().expect("a note");
    assert!(note.contains("left behind"), "{note}");
    assert!(is_gone(read(&pids).trim()).await);
}

#[tokio::test]
async fn a_secret_is_kept_nowhere() {
    let (blue, green, host, folder) = both().await;
    let (file, out) = (folder.path().join("secret"), folder.path().join("out"));
    let secret = "s3same-0pen+street";
    std::fs::write(&file, format!("{secret}\nsecond line\n")).expect("written");
    let address = host.application.address;
    let stages = format!(
        "[rollouts]\nexec = true\n[rollout.secret.secrets.token]\nfile = {file:?}\n\
         [[rollout.secret.stage]]\nname = \"call\"\nkind = \"call\"\nurl = \"http://{address}/x?t={{secret.token}}\"\n\
         headers = {{ Authorization = \"Bearer {{secret.token}}\" }}\n\
         [[rollout.secret.stage]]\nname = \"run\"\nkind = \"exec\"\nenv = {{ TOKEN = \"{{secret.token}}\" }}\n\
         command = [\"sh\", \"-c\", \"echo $TOKEN > {0}; echo token $TOKEN; printf %s user:$TOKEN | base64; exit 1\"]\n",
        out.display()
    );
    let proxy = story(&blue, &host, &stages).start();
    let undone = settled(&proxy, &begin(&proxy, "secret", &green, json!({})).await).await;
    assert_eq!(read(&out).trim(), secret, "the command has it");
    let request = &host.application.requests()[0];
    assert_eq!(request.header("authorization"), format!("Bearer {secret}"));
    assert!(request.path.ends_with("?t=s3same-0pen%2Bstreet"), "{}", request.path);
    let output = undone["stages"][1]["output"].as_str().expect("a text");
    assert!(output.contains("token ***"), "{output}");
    let everything = undone.to_string();
    let state = read_all(proxy.state_folder());
    for hidden in [secret, "s3same-0pen%2Bstreet", "czNzYW1lLTBwZW4r"] {
        assert!(!everything.contains(hidden), "{hidden} in {everything}");
        assert!(!state.contains(hidden), "{hidden} is in the state");
    }
}

/// The content of all files of a folder.
fn read_all(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).expect("it is there").flatten();
    files
        .map(|it| {
            String::from_utf8_lossy(&std::fs::read(it.path()).unwrap_or_default()).into_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_command_that_floods_its_output_does_not_hold_up_requests() {
    let (blue, green, host, _folder) = both().await;
    let plans =
        format!("[rollouts]\nexec = true\n{}", plan("flood", "yes", "deadline = \"1s\"", "true"));
    let proxy = story(&blue, &host, &plans).start();
    let id = begin(&proxy, "flood", &green, json!({})).await;
    until_stage(&proxy, &id, 0, "running").await;
    for _ in 0..50 {
        assert_eq!(proxy.get("/").await, "blue");
    }
    assert_eq!(settled(&proxy, &id).await["state"], "undone");
}

/// The undo begins when nothing of the command is left, also if the command kills what watches over it.
#[tokio::test]
async fn a_command_without_its_helper_is_ended_before_its_undo() {
    let (blue, green, host, folder) = both().await;
    let (pid, undone) = (folder.path().join("pid"), folder.path().join("undone"));
    let command = format!("echo $$ > {}; kill -9 $PPID; sleep 600", pid.display());
    let undo = format!(
        "p=$(cat {}); if [ ! -e /proc/$p ] || grep -q ') Z ' /proc/$p/stat; then echo gone; else echo alive; fi > {}",
        pid.display(),
        undone.display()
    );
    let plans = format!("[rollouts]\nexec = true\n{}", plan("bad", &command, "", &undo));
    let proxy = story(&blue, &host, &plans).start();
    let id = begin(&proxy, "bad", &green, json!({})).await;
    let over = settled(&proxy, &id).await;
    assert_eq!(over["state"], "undone", "{over}");
    assert!(over.to_string().contains("without a report"), "{over}");
    assert_eq!(read(&undone), "gone\n");
}

/// A cancellation that comes just after a command starts no other.
#[tokio::test]
async fn a_cancelled_stage_starts_no_further_command() {
    let (blue, green, host, folder) = both().await;
    let (begun, more) = (folder.path().join("begun"), folder.path().join("more"));
    // It leaves a process behind that takes its time to end, and is done itself.
    let left = format!(
        "echo {{service}} >> {0}; (trap '' TERM; exec >/dev/null 2>&1 </dev/null; sleep 5) & [ $(wc -l < {0}) = 1 ] || touch {1}",
        begun.display(),
        more.display()
    );
    let stage = format!(
        "[rollouts]\nexec = true\n[[rollout.two.stage]]\nname = \"run\"\nkind = \"exec\"\n\
         command = [\"sh\", \"-c\", {left:?}, \"sh\", \"{{service}}\"]\n"
    );
    let stage = stage.replace("echo {service}", "echo $1");
    let proxy = story(&blue, &host, &stage)
        .service_of("api", "api.test", "/", &[blue.address], &[])
        .start();
    let of = || json!({"version": "8.0", "endpoints": [green.address.to_string()]});
    let body = json!({"plan": "two", "services": {"web": of(), "api": of()}}).to_string();
    let id = proxy.call("POST", "/v1/rollouts", "", &body).await.json();
    let id = id["id"].as_str().expect("an id");
    eventually("the first command runs", async || !read(&begun).is_empty()).await;
    assert_eq!(act(&proxy, id, "cancel").await.status, 200);
    let over = super::settled_for_good(&proxy, id).await;
    assert_eq!(over["state"], "cancelled", "{over}");
    assert_eq!((read(&begun).lines().count(), more.exists()), (1, false));
}

/// A stage needs the secrets that it uses, and no other.
#[tokio::test]
async fn a_secret_that_is_gone_is_in_the_way_of_no_other_stage() {
    let (blue, green, host, folder) = both().await;
    let (token, undone) = (folder.path().join("token"), folder.path().join("undone"));
    std::fs::write(&token, "s3same-0pen\n").expect("written");
    let undo = format!("echo undone > {}", undone.display());
    let plans = format!(
        "[rollouts]\nexec = true\n[rollout.gone.secrets.token]\nfile = {token:?}\n{}\
         [[rollout.gone.stage]]\nname = \"ask\"\nkind = \"approve\"\n\
         [[rollout.gone.stage]]\nname = \"use\"\nkind = \"call\"\nurl = \"http://{}/x?t={{secret.token}}\"\n",
        plan("gone", "true", "", &undo),
        host.application.address
    );
    let proxy = story(&blue, &host, &plans).start();
    let id = begin(&proxy, "gone", &green, json!({})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    std::fs::remove_file(&token).expect("it was there");
    assert_eq!(act(&proxy, &id, "approve").await.status, 200);
    let over = settled(&proxy, &id).await;
    assert_eq!(over["state"], "undone", "{over}");
    assert!(over["error"].as_str().is_some_and(|it| it.contains("secret `token`")), "{over}");
    assert_eq!((read(&undone).as_str(), host.calls().len()), ("undone\n", 0));
}
