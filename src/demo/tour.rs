//! The steps of the demo, and what it prints about them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use flipgate_api::terminal::print_line;
use flipgate_drill::{Color, sample::now_ns, spinner};
use http::Method;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    DemoError, DemoOptions,
    client::{DemoClient, read},
    load::{DemoLoad, FlipLog, Observations},
    report::{DemoReport, Row},
};

/// The addresses of the demo.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) public: SocketAddr,
    pub(super) preview: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) blue: SocketAddr,
    pub(super) green: SocketAddr,
}

/// A run of the demo.
pub(super) struct Tour {
    addresses: Addresses,
    options: DemoOptions,
    flips: FlipLog,
    report: DemoReport,
}

/// The address of a tester, the only internal client.
const TESTER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// The address of public clients.
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

const DOWNLOADS: usize = 8;
const DOWNLOAD_SECONDS: u64 = 3;

/// How long the demo shows the load between two steps.
const WATCH_TIME: Duration = Duration::from_millis(900);

impl Tour {
    pub(super) fn new(addresses: Addresses, options: DemoOptions) -> Self {
        Self { addresses, options, flips: FlipLog::default(), report: DemoReport::default() }
    }

    /// # Errors
    ///
    /// If a call of the admin API fails. Failed requests of clients are counted instead.
    pub(super) async fn run(mut self) -> Result<DemoReport, DemoError> {
        let Addresses { public, preview, admin, blue, green } = self.addresses;
        self.print_heading("A service with two versions, and Flipgate in front");
        self.print_line_of(format_args!("blue  7.9 on {blue}, green 8.0 on {green}"));
        self.print_line_of(format_args!(
            "public clients use http://{public}; testers can also use http://{preview}"
        ));
        self.print_line_of(format_args!("operators use http://{admin}"));

        self.print_heading("Public clients are served by blue");
        let observations = Arc::new(Observations::default());
        let load = DemoLoad::start(self.options.clients, PUBLIC, public, &observations);
        self.watch(&observations, WATCH_TIME).await;

        self.print_heading("A tester previews green");
        self.previews().await?;

        self.print_heading("Downloads begin on blue; then promote web=green");
        let downloads = self.start_downloads().await?;
        let promoted = Instant::now();
        self.flip(Color::Green).await?;
        let took = self.report.flips.last().copied().unwrap_or_default();
        self.print_line_of(format_args!(
            "flipped in {} µs, from the call to the acknowledgement",
            took.as_micros()
        ));
        self.drain(&observations, promoted).await?;
        self.finish_downloads(downloads).await;

        self.print_heading("Rollback");
        self.flip(Color::Blue).await?;
        let took = self.report.flips.last().copied().unwrap_or_default();
        self.print_line_of(format_args!("back on blue in {} µs", took.as_micros()));
        self.watch(&observations, WATCH_TIME).await;

        let flips = self.options.flips;
        self.print_heading(&format!("{flips} flips under load"));
        self.many_flips(&observations).await?;

        load.stop().await;
        let count = |it: &AtomicU64| it.load(Relaxed);
        self.report.rows.insert(
            0,
            Row {
                what: "public requests",
                blue: count(&observations.blue),
                green: count(&observations.green),
                refused: 0,
                failed: count(&observations.failed) + observations.conflict_count(&self.flips),
            },
        );
        Ok(self.report)
    }

    /// A tester gets green by header, by cookie and at the preview listener. A public client does not.
    async fn previews(&mut self) -> Result<(), DemoError> {
        let Addresses { public, preview, .. } = self.addresses;
        let header = ("flipgate-preview", "green");
        let cookie = ("cookie", "flipgate_preview=green");
        let forged = ("x-forwarded-for", "127.0.0.1");
        let mut tester = Row { what: "previews by a tester", ..EMPTY };
        for (place, headers) in [(public, &[header][..]), (public, &[cookie]), (preview, &[])] {
            let response =
                DemoClient::connect(TESTER, place).await?.get("/whoami", headers).await?;
            let is_private =
                response.headers.get("cache-control").is_some_and(|it| it == "private, no-store");
            let is_green =
                response.status == 200 && response.body.starts_with(b"{\"color\":\"green\"");
            if is_green && is_private {
                tester.green += 1;
            } else {
                tester.failed += 1;
            }
        }
        self.print_line_of(format_args!(
            "the tester gets green by header, by cookie and at the preview listener"
        ));
        let mut others = Row { what: "previews by the public", ..EMPTY };
        for (place, headers) in
            [(public, &[header, forged][..]), (public, &[cookie]), (preview, &[forged])]
        {
            let response =
                DemoClient::connect(PUBLIC, place).await?.get("/whoami", headers).await?;
            match response.status {
                200 if response.body.starts_with(b"{\"color\":\"blue\"") => others.blue += 1,
                403 => others.refused += 1,
                _ => others.failed += 1,
            }
        }
        self.print_line_of(format_args!(
            "a public client tries the same and gets blue, blue and 403"
        ));
        self.report.rows.extend([tester, others]);
        Ok(())
    }

    /// Begins long downloads, and returns when each has a response head.
    async fn start_downloads(&self) -> Result<JoinSet<bool>, DemoError> {
        let mut downloads = JoinSet::new();
        for _ in 0..DOWNLOADS {
            let mut client = DemoClient::connect(PUBLIC, self.addresses.public).await?;
            let path = format!("/stream?seconds={DOWNLOAD_SECONDS}");
            let response = client.open(Method::GET, &path, &[], "").await?;
            downloads.spawn(async move {
                let Ok(response) = read(response).await else { return false };
                // The response needs the connection until here.
                drop(client);
                let text = String::from_utf8_lossy(&response.body);
                text.ends_with("blue end\n") && !text.contains("green")
            });
        }
        self.print_line_of(format_args!(
            "{DOWNLOADS} downloads of {DOWNLOAD_SECONDS} s have begun"
        ));
        Ok(downloads)
    }

    async fn finish_downloads(&mut self, downloads: JoinSet<bool>) {
        let whole = downloads.join_all().await;
        let good = whole.iter().filter(|it| **it).count();
        self.print_line_of(format_args!(
            "{good} of {DOWNLOADS} downloads arrived completely, from blue"
        ));
        let (blue, failed) = (good as u64, (DOWNLOADS - good) as u64);
        self.report.rows.push(Row { what: "downloads across the flip", blue, failed, ..EMPTY });
    }

    /// Makes `color` active, and records how long that took.
    async fn flip(&mut self, color: Color) -> Result<(), DemoError> {
        let body = format!(r#"{{"services":{{"web":"{color}"}}}}"#);
        let mut operator = DemoClient::connect(TESTER, self.addresses.admin).await?;
        let called = now_ns();
        let response = operator.post("/v1/promote", &body).await?;
        if response.status != 200 {
            let text = String::from_utf8_lossy(&response.body);
            return Err(DemoError::Call(format!("the promotion was refused: {text}")));
        }
        self.flips.acknowledged(color, called);
        self.report.flips.push(Duration::from_nanos(now_ns() - called));
        Ok(())
    }

    /// Waits until blue is drained, and shows how many requests are in flight.
    async fn drain(
        &mut self,
        observations: &Observations,
        since: Instant,
    ) -> Result<(), DemoError> {
        let mut waiting = DemoClient::connect(TESTER, self.addresses.admin).await?;
        let mut polling = DemoClient::connect(TESTER, self.addresses.admin).await?;
        let bar = self.bar();
        let mut done = std::pin::pin!(waiting.get("/v1/services/web/drain?wait=60s", &[]));
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        let response = loop {
            tokio::select! {
                response = &mut done => break response?,
                _ = poll.tick() => {
                    let now = polling.get("/v1/services/web/drain", &[]).await?;
                    let in_flight = json(&now.body)?["in_flight"].as_u64().unwrap_or_default();
                    let (blue, green) = (observations.blue.load(Relaxed), observations.green.load(Relaxed));
                    bar.set_message(format!(
                        "blue drains: {in_flight} in flight; public responses: {blue} blue, {green} green"
                    ));
                }
            }
        };
        bar.finish_and_clear();
        self.report.drain = since.elapsed();
        let is_drained = json(&response.body)?["drained"] == Value::Bool(true);
        let failed = u64::from(!is_drained);
        self.report.rows.push(Row { what: "drain of blue", blue: 1, failed, ..EMPTY });
        self.print_line_of(format_args!(
            "drained after {:.1?}: it is safe to stop blue",
            self.report.drain
        ));
        Ok(())
    }

    async fn many_flips(&mut self, observations: &Observations) -> Result<(), DemoError> {
        let bar = self.bar();
        let flips = self.options.flips;
        for flip in 0..flips {
            let color = if flip % 2 == 0 { Color::Green } else { Color::Blue };
            self.flip(color).await?;
            let (blue, green) = (observations.blue.load(Relaxed), observations.green.load(Relaxed));
            bar.set_message(format!("flip {flip}: {blue} responses from blue, {green} from green"));
        }
        bar.finish_and_clear();
        self.print_line_of(format_args!("{flips} flips made"));
        Ok(())
    }

    /// Shows the load for a while.
    async fn watch(&self, observations: &Observations, time: Duration) {
        let bar = self.bar();
        let until = Instant::now() + time;
        while Instant::now() < until {
            let (blue, green) = (observations.blue.load(Relaxed), observations.green.load(Relaxed));
            bar.set_message(format!("{blue} responses from blue, {green} from green"));
            tokio::time::sleep(Duration::from_millis(80)).await;
        }
        bar.finish_and_clear();
        let (blue, green) = (observations.blue.load(Relaxed), observations.green.load(Relaxed));
        self.print_line_of(format_args!("{blue} responses from blue, {green} from green so far"));
    }

    fn bar(&self) -> ProgressBar {
        spinner(self.options.json)
    }

    fn print_heading(&self, text: &str) {
        if !self.options.json {
            let style = anstyle::Style::new().bold();
            // An error of the output is reported at the end.
            let _ = print_line(format_args!("\n{style}{text}{style:#}"));
        }
    }

    fn print_line_of(&self, text: std::fmt::Arguments<'_>) {
        if !self.options.json {
            let dim = anstyle::Style::new().dimmed();
            let _ = print_line(format_args!("  {dim}›{dim:#} {text}"));
        }
    }
}

const EMPTY: Row = Row { what: "", blue: 0, green: 0, refused: 0, failed: 0 };

fn json(body: &[u8]) -> Result<Value, DemoError> {
    serde_json::from_slice(body).map_err(|error| DemoError::Call(error.to_string()))
}
