//! The demo of gates and the watch: a version that is refused, one that passes, and one that turns bad after the flip.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use flipgate_api::{
    Call, CallError, Caller, Target, gate_text,
    terminal::print_line,
    wire::{GateStatus, PromoteRequest, Status},
};
use flipgate_drill::sample::{Faults, Sample, SampleIdentity};
use serde_json::json;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use super::{ANY_PORT, DemoError, client::DemoClient};
use crate::{admin, app::App, config::Config};

/// Public clients, each with an address of its own.
const CLIENTS: u8 = 10;

/// The requests of one client in a second.
const RATE: u32 = 10;

/// How long the good version is shown before it turns bad.
const GOOD_TIME: Duration = Duration::from_secs(3);

/// The share of requests that fail then, in percent.
const BAD_SHARE: u8 = 20;

/// The longest wait for the rollback.
const ROLLBACK_TIME_MAX: Duration = Duration::from_secs(30);

/// What the public clients got.
#[derive(Debug, Default)]
struct PublicRequests {
    answered: AtomicU64,
    failed: AtomicU64,
}

/// What the demo has shown.
#[derive(Debug)]
struct Outcome {
    /// Whether the bad version was refused, with these gates.
    refused_by: Vec<String>,
    has_passed: bool,
    /// From the first failure to the rollback, if it came.
    rolled_back_after: Option<Duration>,
    answered: u64,
    failed: u64,
    /// Those of them that failed before green turned bad.
    failed_before: u64,
}

/// Runs the demo, and returns whether everything was as it should be.
pub(super) fn run(is_json: bool) -> Result<bool, DemoError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo")
        .enable_all()
        .build()?;
    let state = tempfile::tempdir()?;
    let start = async |color: &str, version: &str, schema: u32| {
        let manifest = json!({"version": version, "schema": schema}).to_string();
        let identity = SampleIdentity {
            color: color.to_owned(),
            version: version.to_owned(),
            instance: color.to_owned(),
            journal: None,
            manifest: Some(manifest),
            faults: Faults::default(),
        };
        Sample::start(ANY_PORT, identity).await
    };
    let (blue, bad, good) = runtime.block_on(async {
        let blue = start("blue", "7.9", 12).await?;
        // It serves another version than it should, on another schema.
        Ok::<_, std::io::Error>((
            blue,
            start("green", "8.1", 14).await?,
            start("green", "8.0", 12).await?,
        ))
    })?;
    let app = App::start(config(state.path(), blue.address, bad.address)?, None)?;
    let admin::AdminAddress::Tcp(admin) = app.admin else {
        return Err(DemoError::Call("the admin API of the demo has no TCP address".to_owned()));
    };
    let caller = Caller { target: Target::Tcp(admin.to_string()), token: None };
    let demo = GatesDemo { caller, public: app.listeners[0], is_json };
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = demo.run(&good) => shown,
            _ = tokio::signal::ctrl_c() => Err(DemoError::Call("interrupted".to_owned())),
        }
    });
    let _ = app.shut_down();
    runtime.shutdown_background();
    let outcome = shown?;
    demo.report(&outcome)?;
    Ok(outcome.is_as_expected())
}

/// Only 127.0.0.1 is internal. Public clients connect from 127.0.0.2 and above.
fn config(
    state: &std::path::Path,
    blue: SocketAddr,
    green: SocketAddr,
) -> Result<Config, DemoError> {
    let text = format!(
        r#"
        state_dir = {state:?}
        workers = 1
        admin.listen = "127.0.0.1:0"
        clients.internal = ["127.0.0.1/32"]
        shutdown.patience = "2s"
        [[listener]]
        listen = "127.0.0.1:0"
        [service.web]
        blue = {{ version = "7.9", endpoints = ["{blue}"] }}
        green = {{ version = "8.0", endpoints = ["{green}"] }}
        [service.web.watch]
        errors = 5
        [service.web.gate.compatible]
        manifest = "/manifest.json"
        rules = [{{ name = "same schema", require = "new.schema == old.schema", help = "deploy the migration first" }}]
        [[service.web.gate.smoke]]
        name = "version"
        path = "/whoami"
        expect.json = 'body.version == "8.0"'
        [service.web.gate.warm_up]
        requests = 50
        "#
    );
    Config::parse("demo.toml".as_ref(), &text).map_err(|mistakes| {
        DemoError::Call(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

/// A run of the demo.
#[derive(Debug)]
struct GatesDemo {
    caller: Caller,
    public: SocketAddr,
    is_json: bool,
}

// === impl GatesDemo ===

impl GatesDemo {
    async fn run(&self, good: &Sample) -> Result<Outcome, DemoError> {
        let requests = Arc::new(PublicRequests::default());
        let mut load = JoinSet::new();
        for number in 0..CLIENTS {
            load.spawn(send_requests(self.public, number, Arc::clone(&requests)));
        }
        let count = u32::from(CLIENTS) * RATE;
        self.heading(&format!("Blue 7.9 serves {count} requests per second of {CLIENTS} clients"));
        tokio::time::sleep(Duration::from_secs(1)).await;

        self.heading("A wrong version was deployed to green: flipgate promote web=green");
        let refused = self.promote().await?.err().unwrap_or_default();
        for status in &refused {
            self.line(&gate_text(status));
        }
        let refused_by = refused.iter().flat_map(|it| &it.gates);
        let refused_by = refused_by.filter(|it| !it.passed && !it.not_run);
        let refused_by = refused_by.map(|it| it.gate.clone()).collect();

        self.heading("Green is replaced by 8.0: flipgate promote web=green");
        let endpoints = vec![flipgate_api::wire::EndpointRequest::Plain(good.address.to_string())];
        let pool = flipgate_api::wire::PoolRequest {
            version: Some("8.0".to_owned()),
            endpoints,
            force: false,
        };
        self.caller.set_pool("web", "green", &pool).await.map_err(failed)?;
        self.line(&gate_text(&self.caller.gate("web", None).await.map_err(failed)?));
        let has_passed = self.promote().await?.is_ok();
        self.line(if has_passed {
            "promoted: green 8.0 serves the public, and is watched"
        } else {
            "refused"
        });
        tokio::time::sleep(GOOD_TIME).await;

        self.heading(&format!("Green turns bad: {BAD_SHARE} % of its responses are errors"));
        let failed_before = requests.failed.load(Relaxed);
        good.set_faults(Faults { errors: BAD_SHARE, ..Faults::default() });
        let began = Instant::now();
        let rolled_back_after = self.wait_for_rollback(began).await?;
        match rolled_back_after {
            Some(took) => self.line(&format!(
                "rolled back by the watch after {:.1} s: blue 7.9 serves the public again",
                took.as_secs_f64()
            )),
            None => self.line("not rolled back"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        load.shutdown().await;
        Ok(Outcome {
            refused_by,
            has_passed,
            rolled_back_after,
            answered: requests.answered.load(Relaxed),
            failed: requests.failed.load(Relaxed),
            failed_before,
        })
    }

    /// Makes green active, or returns the verdicts of the gates that refuse it.
    async fn promote(&self) -> Result<Result<Status, Vec<GateStatus>>, DemoError> {
        let services = [("web".to_owned(), "green".to_owned())].into();
        let request = PromoteRequest { services, ..PromoteRequest::default() };
        let wait = Duration::from_secs(60);
        match self.caller.call(Call { wait, ..Call::promote(&request) }).await {
            Ok(status) => Ok(Ok(status)),
            Err(CallError::Refused { problem: Some(problem), .. }) if !problem.gates.is_empty() => {
                Ok(Err(problem.gates))
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn wait_for_rollback(&self, began: Instant) -> Result<Option<Duration>, DemoError> {
        let mut poll = tokio::time::interval(Duration::from_millis(50));
        while began.elapsed() < ROLLBACK_TIME_MAX {
            poll.tick().await;
            let status = self.caller.status().await.map_err(failed)?;
            if status.services.get("web").is_some_and(|it| it.active == "blue") {
                return Ok(Some(began.elapsed()));
            }
        }
        Ok(None)
    }

    fn report(&self, outcome: &Outcome) -> Result<(), DemoError> {
        let Outcome { refused_by, has_passed, rolled_back_after, answered, failed, failed_before } =
            outcome;
        if self.is_json {
            print_line(json!({
                "clean": outcome.is_as_expected(),
                "refused_by": refused_by,
                "passed": has_passed,
                "rolled_back_after_ms": rolled_back_after.map(|it| it.as_millis()),
                "public_requests": answered + failed,
                "failed": failed,
                "failed_before": failed_before,
            }))?;
            return Ok(());
        }
        print_line(format_args!(
            "\n{failed} of {} public requests failed, {} of them after green had turned bad.",
            answered + failed,
            failed - failed_before
        ))?;
        Ok(())
    }

    fn heading(&self, text: &str) {
        if !self.is_json {
            let style = anstyle::Style::new().bold();
            // An error of the output is reported at the end.
            let _ = print_line(format_args!("\n{style}{text}{style:#}"));
        }
    }

    fn line(&self, text: &str) {
        if !self.is_json {
            let dim = anstyle::Style::new().dimmed();
            for line in text.lines() {
                let _ = print_line(format_args!("  {dim}›{dim:#} {line}"));
            }
        }
    }
}

impl Outcome {
    fn is_as_expected(&self) -> bool {
        !self.refused_by.is_empty()
            && self.has_passed
            && self.rolled_back_after.is_some()
            && self.failed_before == 0
    }
}

/// Sends requests at a fixed rate, each on the connection of the one before.
async fn send_requests(public: SocketAddr, number: u8, requests: Arc<PublicRequests>) {
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number + 2));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut kept: Option<DemoClient> = None;
    loop {
        ticks.tick().await;
        let client = match kept.take() {
            Some(client) => Ok(client),
            None => DemoClient::connect(from, public).await,
        };
        let Ok(mut client) = client else {
            requests.failed.fetch_add(1, Relaxed);
            continue;
        };
        match client.get("/whoami", &[]).await {
            Ok(response) if response.status == 200 => {
                requests.answered.fetch_add(1, Relaxed);
                kept = Some(client);
            }
            Ok(_) => {
                requests.failed.fetch_add(1, Relaxed);
                kept = Some(client);
            }
            Err(_) => drop(requests.failed.fetch_add(1, Relaxed)),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> DemoError {
    DemoError::Call(error.to_string())
}
