//! The processes that a drill starts: sample applications and the proxy. They end with the drill.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::timeout,
};

use super::{
    error::DrillError,
    program::Program,
    record::{Kill, KilledProcess, UnnumberedRequest},
};
use crate::{
    color::Color,
    sample::{Number, now_ns, read_journal},
};

/// The processes of a drill.
#[derive(Debug)]
pub(super) struct Processes {
    folder: TempDir,
    /// The program of the sample applications.
    sample: Program,
    apps: Vec<App>,
    /// Started to replace others.
    prepared: Vec<App>,
    /// Replaced, and running until they are idle.
    replaced: Vec<App>,
    proxy: Option<Proxy>,
    /// The service and the color of each application, including those that have ended.
    instances: BTreeMap<u16, (u8, Color)>,
    /// Kills after which the process was not started again.
    open_kills: Vec<Kill>,
}

/// A sample application.
#[derive(Debug)]
struct App {
    service: u8,
    color: Color,
    instance: u16,
    address: SocketAddr,
    child: Option<Child>,
}

/// The tested proxy.
#[derive(Debug)]
struct Proxy {
    program: Program,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// The requests that the applications received.
#[derive(Debug, Default)]
pub(super) struct ArrivedRequests {
    /// The number of each request.
    pub(super) numbers: Vec<u64>,
    /// Requests without a number.
    pub(super) unnumbered: Vec<UnnumberedRequest>,
}

/// The number of the first application of the drill. Others have small numbers, such as 1.
const FIRST_INSTANCE: u16 = 1001;

/// The time in which a proxy finds that an application is running again: 3 s, in nanoseconds.
const RECOVERY: u64 = 3_000_000_000;

/// The timeout for the start and for the end of a process.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(30);

impl Processes {
    /// No processes yet. Sample applications will be processes of the program `sample`.
    pub(super) fn new(sample: Program) -> io::Result<Self> {
        Ok(Self {
            folder: TempDir::with_prefix("flipgate-drill-")?,
            sample,
            apps: Vec::new(),
            prepared: Vec::new(),
            replaced: Vec::new(),
            proxy: None,
            instances: BTreeMap::new(),
            open_kills: Vec::new(),
        })
    }

    /// The command that starts a sample application.
    pub(super) fn sample_command(&self) -> String {
        format!("{} sample", self.sample.name())
    }

    /// A folder that is removed after the drill.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the drill started applications, which count their requests.
    pub(super) fn has_apps(&self) -> bool {
        !self.apps.is_empty()
    }

    /// The endpoints of a color.
    pub(super) fn endpoints(&self, service: u8, color: Color) -> Vec<SocketAddr> {
        let own = self.apps.iter().filter(|it| (it.service, it.color) == (service, color));
        own.map(|it| it.address).collect()
    }

    /// Starts an application of a color, and returns its address.
    pub(super) async fn add(
        &mut self,
        service: u8,
        color: Color,
        address: SocketAddr,
    ) -> Result<SocketAddr, DrillError> {
        let app = self.new_app(service, color, address).await?;
        let address = app.address;
        self.apps.push(app);
        Ok(address)
    }

    /// Starts as many new applications as a color has, and returns their addresses. [`Processes::replace`] completes
    /// the replacement.
    pub(super) async fn prepare(
        &mut self,
        service: u8,
        color: Color,
    ) -> Result<Vec<SocketAddr>, DrillError> {
        let mut addresses = Vec::new();
        for address in self.endpoints(service, color) {
            let address = SocketAddr::new(address.ip(), 0);
            let app = self.new_app(service, color, address).await?;
            addresses.push(app.address);
            self.prepared.push(app);
        }
        Ok(addresses)
    }

    /// Replaces the applications of a color by those of [`Processes::prepare`], or ends the new ones if `is_accepted` is
    /// false. The old ones run until [`Processes::end_replaced`]. Returns the kills of the color that are over now.
    pub(super) async fn replace(
        &mut self,
        service: u8,
        color: Color,
        is_accepted: bool,
    ) -> Vec<Kill> {
        let fresh = take_of(&mut self.prepared, service, color);
        if !is_accepted {
            for app in fresh {
                terminate(app.child).await;
            }
            return Vec::new();
        }
        self.replaced.extend(take_of(&mut self.apps, service, color));
        self.apps.extend(fresh);
        self.close_color_kills(service, color)
    }

    /// Ends the replaced applications of a color.
    pub(super) async fn end_replaced(&mut self, service: u8, color: Color) {
        for app in take_of(&mut self.replaced, service, color) {
            terminate(app.child).await;
        }
    }

    async fn new_app(
        &mut self,
        service: u8,
        color: Color,
        address: SocketAddr,
    ) -> Result<App, DrillError> {
        let count = u16::try_from(self.instances.len()).unwrap_or(u16::MAX);
        let instance = FIRST_INSTANCE.saturating_add(count);
        self.instances.insert(instance, (service, color));
        let mut app = App { service, color, instance, address, child: None };
        self.start_app(&mut app).await?;
        Ok(app)
    }

    async fn start_app(&self, app: &mut App) -> Result<(), DrillError> {
        let failed = |what: String| DrillError::Process(format!("a sample application {what}"));
        let mut command = self.sample.command();
        command
            .args([
                "sample",
                "--json",
                "--version",
                if app.color == Color::Blue { "1" } else { "2" },
            ])
            .args(["--color", app.color.as_str(), "--instance", &app.instance.to_string()])
            .args(["--listen", &app.address.to_string(), "--journal"])
            .arg(self.folder().join(format!("arrived-{}", app.instance)));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let out = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(out).lines();
        let line = timeout(PROCESS_TIMEOUT, lines.next_line()).await;
        let line = line.map_err(|_| failed("did not start in time".to_owned()))??;
        let line_json: Option<Value> = line.and_then(|it| serde_json::from_str(&it).ok());
        let address = line_json.as_ref().and_then(|it| it["listening"].as_str()?.parse().ok());
        app.address = address.ok_or_else(|| failed(format!("cannot listen on {}", app.address)))?;
        app.child = Some(child);
        Ok(())
    }

    /// Sets the command of the proxy. Does not start it.
    pub(super) fn set_proxy(&mut self, program: Program, arguments: Vec<String>) {
        self.proxy = Some(Proxy { program, arguments, child: None });
    }

    pub(super) fn has_proxy(&self) -> bool {
        self.proxy.is_some()
    }

    /// Whether a color has an endpoint with this number.
    pub(super) fn has_endpoint(&self, service: u8, color: Color, number: usize) -> bool {
        (1..=self.endpoints(service, color).len()).contains(&number)
    }

    /// Starts the proxy, if there is one and it is not running. Does not wait until it serves requests.
    pub(super) fn start_proxy(&mut self) -> Result<(), DrillError> {
        let log = self.folder().join("proxy.log");
        let Some(proxy) = &mut self.proxy else { return Ok(()) };
        if proxy.child.is_some() {
            return Ok(());
        }
        let log = std::fs::File::options().append(true).create(true).open(log)?;
        let mut command = proxy.program.command();
        command.args(&proxy.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| {
            let program = proxy.program.name();
            DrillError::Process(format!("cannot start the proxy: {program}: {error}"))
        })?;
        proxy.child = Some(child);
        Ok(())
    }

    /// The exit of the proxy, if the drill did not stop it. Returns it once.
    pub(super) fn take_proxy_exit(&mut self) -> Option<String> {
        let child = &mut self.proxy.as_mut()?.child;
        let status = child.as_mut()?.try_wait().ok().flatten()?;
        *child = None;
        Some(format!("the proxy ended by itself ({status})\n{}", self.proxy_log()))
    }

    /// The kills of the proxy, which are over: it serves requests again.
    pub(super) fn proxy_recovered(&mut self) -> Vec<Kill> {
        self.close_kills(|it| it == KilledProcess::Proxy)
    }

    /// The last lines of the output of the proxy.
    pub(super) fn proxy_log(&self) -> String {
        let text = std::fs::read(self.folder().join("proxy.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Ends the proxy with SIGKILL, or with SIGTERM. Failures are excused until [`Processes::proxy_recovered`].
    pub(super) async fn end_proxy(&mut self, is_kill: bool) {
        let Some(mut child) = self.proxy.as_mut().and_then(|it| it.child.take()) else { return };
        let kill = Kill { process: KilledProcess::Proxy, from: now_ns(), until: u64::MAX };
        self.open_kills.push(kill);
        if is_kill {
            signal(&child, Signal::KILL);
            let _ = child.wait().await;
        } else {
            terminate(Some(child)).await;
        }
    }

    /// Kills an endpoint. Returns the kill if its color has other running endpoints.
    pub(super) async fn kill_app(
        &mut self,
        service: u8,
        color: Color,
        number: usize,
    ) -> Option<Kill> {
        let mut own: Vec<_> =
            self.apps.iter_mut().filter(|it| (it.service, it.color) == (service, color)).collect();
        let is_alive = |it: &&mut App| it.child.is_some();
        let is_last = own.iter().filter(|it| is_alive(it)).count() == 1;
        let app = own.get_mut(number.checked_sub(1)?)?;
        let mut child = app.child.take()?;
        let process =
            KilledProcess::Upstream { service, color, instance: app.instance, was_last: is_last };
        let from = now_ns();
        let _ = child.start_kill();
        let _ = child.wait().await;
        if is_last {
            self.open_kills.push(Kill { process, from, until: u64::MAX });
            return None;
        }
        // The process has ended, so its connections are closed.
        Some(Kill { process, from, until: now_ns() })
    }

    /// Starts a killed endpoint at its old address, and returns the kills that are over now.
    pub(super) async fn start_app_again(
        &mut self,
        service: u8,
        color: Color,
        number: usize,
    ) -> Result<Vec<Kill>, DrillError> {
        let mut apps = std::mem::take(&mut self.apps);
        let mut own = apps.iter_mut().filter(|it| (it.service, it.color) == (service, color));
        let started = match own.nth(number.saturating_sub(1)) {
            Some(app) if app.child.is_none() => self.start_app(app).await,
            _ => Ok(()),
        };
        self.apps = apps;
        started?;
        Ok(self.close_color_kills(service, color))
    }

    /// The kills of the last endpoint of a color, which are over: an endpoint is running again.
    fn close_color_kills(&mut self, service: u8, color: Color) -> Vec<Kill> {
        let is_own = |it: KilledProcess| matches!(it, KilledProcess::Upstream { service: of, color: it, .. } if (of, it) == (service, color));
        let ended = self.close_kills(is_own).into_iter();
        ended.map(|it| Kill { until: it.until + RECOVERY, ..it }).collect()
    }

    fn close_kills(&mut self, is_over: impl Fn(KilledProcess) -> bool) -> Vec<Kill> {
        let now = now_ns();
        let ended = self.open_kills.extract_if(.., |it| is_over(it.process));
        ended.map(|it| Kill { until: now, ..it }).collect()
    }

    /// The service and the color of each application.
    pub(super) fn instances(&self) -> BTreeMap<u16, (u8, Color)> {
        self.instances.clone()
    }

    /// Ends all processes. Returns the requests that the applications received, and the kills after which the process
    /// was not started again.
    pub(super) async fn end(&mut self) -> Result<(ArrivedRequests, Vec<Kill>), DrillError> {
        if let Some(proxy) = &mut self.proxy {
            terminate(proxy.child.take()).await;
        }
        for app in self.apps.iter_mut().chain(&mut self.replaced).chain(&mut self.prepared) {
            if let Some(mut child) = app.child.take() {
                let _ = child.start_kill();
                let _ = child.wait().await;
            }
        }
        let mut arrived = ArrivedRequests::default();
        for &instance in self.instances.keys() {
            match read_journal(&self.folder().join(format!("arrived-{instance}"))) {
                Ok(journal) => journal.iter().for_each(|it| match it.number {
                    Number::Known(number) => arrived.numbers.push(number),
                    other => arrived.unnumbered.push(UnnumberedRequest {
                        instance,
                        at: it.at,
                        is_traffic: other == Number::Missing,
                    }),
                }),
                // The application never started.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((arrived, std::mem::take(&mut self.open_kills)))
    }
}

fn take_of(apps: &mut Vec<App>, service: u8, color: Color) -> Vec<App> {
    apps.extract_if(.., |it| (it.service, it.color) == (service, color)).collect()
}

/// Sends SIGTERM, and SIGKILL after a timeout.
async fn terminate(child: Option<Child>) {
    let Some(mut child) = child else { return };
    signal(&child, Signal::TERM);
    if timeout(PROCESS_TIMEOUT, child.wait()).await.is_err() {
        signal(&child, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Sends a signal to the process group of a process.
pub(super) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|it| i32::try_from(it).ok()).and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// A free address of this machine.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
