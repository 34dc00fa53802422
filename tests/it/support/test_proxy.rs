//! Flipgate in the test's own process, with a folder for its state.

use std::{net::SocketAddr, path::Path, sync::Arc};

use flipgate::{
    admin,
    app::{App, AppError, ExitOutcome, StartSignals},
    config::Config,
    rollout::HelperProgram,
    store::FileStore,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Answer, Client, Faults, FaultyStore, PanickingProxy, Panics, Upstream, client, eventually,
};

/// Builds a [`TestProxy`].
pub(crate) struct TestProxyBuilder {
    state: Option<TempDir>,
    workers: usize,
    top: String,
    admin: String,
    listeners: String,
    services: String,
    admin_address: SocketAddr,
}

/// A running Flipgate with one public listener and one that previews green.
pub(crate) struct TestProxy {
    /// None only while it is being shut down.
    app: Option<App>,
    pub(crate) public: SocketAddr,
    pub(crate) preview: SocketAddr,
    /// Further listeners, in their order.
    pub(crate) others: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    state: Option<TempDir>,
}

impl TestProxyBuilder {
    /// More configuration, of tables that come before the services.
    pub(crate) fn with(mut self, toml: &str) -> Self {
        self.top.push_str(toml);
        self.top.push('\n');
        self
    }

    /// So many worker threads.
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// More configuration of the admin API.
    pub(crate) fn admin(mut self, toml: &str) -> Self {
        self.admin.push_str(toml);
        self.admin.push('\n');
        self
    }

    /// The admin API at this address, which has to be free.
    pub(crate) fn admin_at(mut self, address: SocketAddr) -> Self {
        self.admin_address = address;
        self
    }

    /// One more listener, on a free port.
    pub(crate) fn listener(mut self, toml: &str) -> Self {
        self.listeners.push_str("[[listener]]\nlisten = \"127.0.0.1:0\"\n");
        self.listeners.push_str(toml);
        self.listeners.push('\n');
        self
    }

    /// Services, as they are written.
    pub(crate) fn services(mut self, toml: &str) -> Self {
        self.services.push_str(toml);
        self.services.push('\n');
        self
    }

    /// A service for every host, with its pools.
    pub(crate) fn service(self, name: &str, blue: &[&Upstream], green: &[&Upstream]) -> Self {
        self.service_at(name, "*", "/", blue, green)
    }

    /// A service for a host and a path.
    pub(crate) fn service_at(
        self,
        name: &str,
        host: &str,
        path: &str,
        blue: &[&Upstream],
        green: &[&Upstream],
    ) -> Self {
        let addresses =
            |pool: &[&Upstream]| pool.iter().map(|it| it.address).collect::<Vec<SocketAddr>>();
        self.service_of(name, host, path, &addresses(blue), &addresses(green))
    }

    /// A service for a host and a path, of endpoints at these addresses.
    pub(crate) fn service_of(
        mut self,
        name: &str,
        host: &str,
        path: &str,
        blue: &[SocketAddr],
        green: &[SocketAddr],
    ) -> Self {
        let list =
            |pool: &[SocketAddr]| pool.iter().map(ToString::to_string).collect::<Vec<String>>();
        self.services.push_str(&format!(
            "[service.{name}]\nhosts = [{host:?}]\npath = {path:?}\n\
             blue = {{ version = \"1\", endpoints = {:?} }}\n\
             green = {{ version = \"2\", endpoints = {:?} }}\n",
            list(blue),
            list(green)
        ));
        self
    }

    /// The state of a Flipgate that was shut down.
    pub(crate) fn state(mut self, state: TempDir) -> Self {
        self.state = Some(state);
        self
    }

    pub(crate) fn toml(&self, state: &TempDir) -> String {
        format!(
            "state_dir = {:?}\nworkers = {}\nshutdown.patience = \"2s\"\n{}\n\
             [admin]\nlisten = \"{}\"\n{}\
             [[listener]]\nlisten = \"127.0.0.1:0\"\n\
             [[listener]]\nlisten = \"127.0.0.1:0\"\npreview = \"green\"\n{}{}",
            state.path().display().to_string(),
            self.workers,
            self.top,
            self.admin_address,
            self.admin,
            self.listeners,
            self.services
        )
    }

    pub(crate) fn start(self) -> TestProxy {
        self.start_by(|config| App::start(config, None))
    }

    /// The same with a store that fails on demand.
    pub(crate) fn start_faulty(self) -> (TestProxy, Faults) {
        let mut faults = None;
        let proxy = self.start_by(|config| {
            let open = |config: &Config| {
                let (store, planned) = FaultyStore::around(FileStore::open(&config.state_dir)?);
                faults = Some(planned);
                Ok(Arc::new(store) as _)
            };
            App::start_on(open, config, None)
        });
        (proxy, faults.expect("the store was opened"))
    }

    /// The same with workers that panic on demand.
    pub(crate) fn start_panicking(self) -> (TestProxy, Panics) {
        let panics = Panics::default();
        let planted = panics.clone();
        let proxy = self.start_by(|config| {
            let open = |config: &Config| Ok(Arc::new(FileStore::open(&config.state_dir)?) as _);
            let wrap = move |proxy| PanickingProxy { proxy, panics: planted.clone() };
            App::start_with(open, config, None, wrap)
        });
        (proxy, panics)
    }

    fn start_by(mut self, start: impl FnOnce(Config) -> Result<App, AppError>) -> TestProxy {
        if !self.top.contains("clients") {
            self.top.insert_str(0, "clients.internal = [\"127.0.0.1/32\"]\n");
        }
        let state = self.state.take().unwrap_or_else(|| tempfile::tempdir().expect("a folder"));
        let text = self.toml(&state);
        let config = Config::parse("test.toml".as_ref(), &text)
            .unwrap_or_else(|mistakes| panic!("{mistakes:#?}\n{text}"));
        let mut config = config;
        // The program of the test is no helper.
        config.rollouts.helper = HelperProgram(env!("CARGO_BIN_EXE_flipgate").into());
        let app = start(config).expect("free ports and a folder");
        let admin::AdminAddress::Tcp(admin) = app.admin else { panic!("an address") };
        let [public, preview, others @ ..] = &*app.listeners else { panic!("two listeners") };
        let (public, preview, others) = (*public, *preview, others.to_vec());
        TestProxy { app: Some(app), public, preview, others, admin, state: Some(state) }
    }
}

impl TestProxy {
    pub(crate) fn build() -> TestProxyBuilder {
        TestProxyBuilder {
            state: None,
            workers: 2,
            top: String::new(),
            admin: String::new(),
            listeners: String::new(),
            services: String::new(),
            admin_address: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }

    /// A proxy with one service, with this endpoint in both pools.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self::build().service_of("web", "*", "/", &[address], &[address]).start()
    }

    /// A Flipgate with one service of one endpoint in each pool.
    pub(crate) fn of(blue: &Upstream, green: &Upstream) -> Self {
        Self::build().service("web", &[blue], &[green]).start()
    }

    /// A client of the public.
    pub(crate) async fn public(&self) -> Client {
        Client::connect(client::PUBLIC, self.public).await
    }

    /// A client of the internal network.
    pub(crate) async fn internal(&self) -> Client {
        Client::connect(client::INTERNAL, self.public).await
    }

    /// What the public gets for a path, on a fresh connection.
    pub(crate) async fn get(&self, path: &str) -> String {
        self.public().await.get(path, "").await.text()
    }

    /// A call of the admin API, with fields as they are written.
    pub(crate) async fn call(&self, method: &str, path: &str, fields: &str, body: &str) -> Answer {
        let mut client = Client::connect(client::INTERNAL, self.admin).await;
        call(&mut client, method, path, fields, body).await
    }

    /// Makes colors active; panics with the problem if that is refused.
    pub(crate) async fn promote(&self, colors: &[(&str, &str)]) -> Value {
        let services: serde_json::Map<_, _> =
            colors.iter().map(|(name, color)| ((*name).to_owned(), Value::from(*color))).collect();
        let body = serde_json::json!({ "services": services }).to_string();
        let answer = self.call("POST", "/v1/promote", "", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The picture.
    pub(crate) async fn status(&self) -> Value {
        self.call("GET", "/v1/status", "", "").await.json()
    }

    /// The generation.
    pub(crate) async fn generation(&self) -> u64 {
        self.status().await["generation"].as_u64().expect("a number")
    }

    /// What holds the color of a service that is not active.
    pub(crate) async fn drain(&self, service: &str) -> Value {
        self.call("GET", &format!("/v1/services/{service}/drain"), "", "").await.json()
    }

    /// Waits until this many requests are inside a pool.
    pub(crate) async fn wait_for_in_flight(&self, service: &str, color: &str, count: u64) {
        let what = format!("{count} in flight on {service} {color}");
        eventually(&what, async || {
            self.status().await["services"][service]["pools"][color]["in_flight"] == count
        })
        .await;
    }

    /// The events with this name.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let events = self.app().control().events().subscribe(Some(0)).missed;
        let named = events.iter().filter(|it| it.kind.name() == name);
        named.map(|it| serde_json::to_value(&**it).expect("texts and numbers")).collect()
    }

    /// An endpoint's part of the picture, by its place in the pool.
    pub(crate) async fn endpoint(&self, service: &str, color: &str, place: usize) -> Value {
        self.status().await["services"][service]["pools"][color]["endpoints"][place].clone()
    }

    /// Waits until an endpoint is known to be well, or not to be.
    pub(crate) async fn wait_for_health(&self, color: &str, place: usize, health: &str) {
        eventually(&format!("{color} {place} {health}"), async || {
            self.endpoint("web", color, place).await["health"] == health
        })
        .await;
    }

    /// The value of a series, with its labels as they are shown; 0 if it is not there.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.call("GET", "/metrics", "", "").await.text();
        let line = text.lines().find_map(|it| it.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |it| it.parse().expect("a number"))
    }

    /// The folder of its state.
    pub(crate) fn state_folder(&self) -> &Path {
        self.state.as_ref().expect("running").path()
    }

    /// Changes and pictures without the detour over HTTP.
    pub(crate) fn app(&self) -> &App {
        self.app.as_ref().expect("running")
    }

    /// Has it run as a process does, until it ends by itself.
    pub(crate) fn run(&mut self) -> std::thread::JoinHandle<ExitOutcome> {
        let app = self.app.take().expect("running");
        std::thread::spawn(move || {
            let signals = StartSignals::register().expect("descriptors");
            let ((), signals) = signals.unless_stopped(|| ()).expect("no signal");
            app.run(signals)
        })
    }

    /// Stops Flipgate and returns its state.
    pub(crate) fn shut_down(mut self) -> TempDir {
        self.end();
        self.state.take().expect("taken once")
    }

    fn end(&mut self) {
        if let Some(app) = self.app.take() {
            // A runtime cannot end within another one.
            let ended = std::thread::spawn(move || app.shut_down()).join();
            if !std::thread::panicking() {
                assert!(ended.is_ok(), "Flipgate did not stop cleanly");
            }
        }
    }
}

impl Drop for TestProxy {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) async fn call(
    client: &mut Client,
    method: &str,
    path: &str,
    fields: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let json = match method {
        "GET" | "HEAD" | "DELETE" => "",
        _ => "Content-Type: application/json\r\n",
    };
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{json}{fields}\r\n{body}"
        ))
        .await;
    client.answer().await
}
