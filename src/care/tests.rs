use std::{net::TcpListener, num::NonZeroU32, sync::Mutex};

use prometheus::Registry;

use super::*;
use crate::{
    metrics::{LimitHit, Metrics},
    model::{Ejection, Endpoint, Health, Policy, PoolSpec},
    upstream::{Admission, PoolContext, ResolverSettings},
};

const WEB: &str = "web";

struct Scene {
    pools: watch::Sender<Pools>,
    blue: Arc<Pool>,
    green: Arc<Pool>,
    parts: PoolContext,
    events: Arc<Mutex<Vec<EndpointEvent>>>,
    _upstreams: [TcpListener; 2],
}

impl Scene {
    /// Two pools without care. One failed request ejects an endpoint for 300 ms.
    fn new() -> Self {
        let ejection = Ejection {
            failures: NonZeroU32::new(1),
            base_duration: Duration::from_millis(300),
            ..Ejection::default()
        };
        let policy = Arc::new(Policy { ejection, ..Policy::default() });
        let names = Resolver::new(&ResolverSettings::default());
        let parts = PoolContext::new(names);
        let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
        let name: ServiceName = WEB.parse().expect("a name");
        let admission = Admission::new(&policy.limits);
        let upstreams = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a socket"));
        let address = |it: &TcpListener| it.local_addr().expect("it is bound").to_string();
        let pool = |color| {
            let endpoints = upstreams.each_ref().map(address);
            let endpoints = endpoints.map(|it| it.parse::<Endpoint>().expect("an endpoint"));
            let spec = PoolSpec::new(None, endpoints).expect("no two alike");
            let (policy, admission) = (Arc::clone(&policy), Arc::clone(&admission));
            let metrics = Arc::new(metrics.pool(&name, color));
            let (name, parts) = (name.clone(), parts.clone());
            Arc::new(Pool::new(name, color, spec, policy, admission, parts, metrics))
        };
        let (blue, green) = (pool(Color::Blue), pool(Color::Green));
        let (pools, events) = (watch::Sender::new(Pools::default()), Arc::default());
        Self { pools, blue, green, parts, events, _upstreams: upstreams }
    }

    fn care(&self) -> JoinHandle<()> {
        let events = Arc::clone(&self.events);
        let sink = Arc::new(move |event| events.lock().expect("no panic").push(event));
        let PoolContext { resolver: names, alerts, .. } = self.parts.clone();
        let settings = CareSettings::default();
        let (pools, metrics) = (self.pools.subscribe(), samples::metrics());
        tokio::spawn(Care::new(pools, alerts, names, settings, sink, metrics).run())
    }

    /// Gives the pools to care.
    fn show(&self) {
        let (blue, green) = (Arc::clone(&self.blue), Arc::clone(&self.green));
        let pools = ServicePools { active: Color::Blue, blue, green };
        self.pools.send_modify(|it| drop(it.insert(WEB.parse().expect("a name"), pools)));
    }

    /// Ejects the first endpoint of blue.
    fn eject(&self) {
        self.blue.record_failure(&self.blue.endpoints()[0], "503", Instant::now());
        assert!(self.blue.has_ejected());
    }

    /// Waits until blue will not change by itself.
    async fn settle(&self) {
        let is_up = || self.blue.endpoints().iter().all(|it| it.health() == Health::Up);
        soon("the endpoints are up", is_up).await;
        tokio::time::sleep(BREATH * 3).await;
    }

    fn ejected(&self) -> usize {
        let events = self.events.lock().expect("no panic");
        events.iter().filter(|it| matches!(it, EndpointEvent::EndpointEjected { .. })).count()
    }
}

async fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_pool_that_rings_before_it_is_taken_up_is_heard_later() {
    let scene = Scene::new();
    let _care = scene.care();
    tokio::time::sleep(BREATH).await;
    // Requests reach a new service as soon as the table has it, which may be before care knows it.
    scene.blue.record_limit(LimitHit::Queue);
    soon("the list is taken", || scene.parts.alerts.is_empty()).await;
    scene.show();
    scene.settle().await;
    scene.eject();
    soon("the ejection is published", || scene.ejected() == 1).await;
    soon("the endpoint returns", || !scene.blue.has_ejected()).await;
}

#[tokio::test]
async fn an_endpoint_that_was_ejected_before_care_restarted_returns() {
    let scene = Scene::new();
    let care = scene.care();
    scene.show();
    scene.settle().await;
    scene.eject();
    soon("the ejection is published", || scene.ejected() == 1).await;
    care.abort();
    let _ended = care.await;
    let _care = scene.care();
    soon("the endpoint returns", || !scene.blue.has_ejected()).await;
}
