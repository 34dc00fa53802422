//! The proxy of a worker, which panics on demand.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use flipgate::{
    downstream::{AfterExchange, ClientStream, Handler, HeadError, RejectReason},
    http1::RequestHead,
    proxy::Proxy,
};

/// Where the proxy can be made to panic.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// In the exchange of a request with the field `x-panic`, when it is polled next.
    Exchange,
    /// In a tunnel, in the same way.
    Tunnel,
    /// Where a client is refused.
    TurnedAway,
    /// In a worker's own loop.
    Tick,
}

/// The planted panics that have not happened yet; each happens once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panics(Arc<[AtomicUsize; 4]>);

/// The proxy of a worker with its planted panics.
pub(crate) struct PanickingProxy {
    pub(crate) proxy: Proxy,
    pub(crate) panics: Panics,
}

impl Panics {
    pub(crate) fn plant(&self, place: Place) {
        self.0[place as usize].fetch_add(1, SeqCst);
    }

    fn strike(&self, place: Place) {
        let left = self.0[place as usize].try_update(SeqCst, SeqCst, |it| it.checked_sub(1));
        assert!(left.is_err(), "planted: {place:?}");
    }

    /// Everything that the work holds is alive when it panics, as in a panic of its own.
    async fn during<T>(&self, place: Place, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut has_begun = false;
        poll_fn(|context| {
            if std::mem::replace(&mut has_begun, true) {
                self.strike(place);
            }
            work.as_mut().poll(context)
        })
        .await
    }
}

impl Handler for PanickingProxy {
    type ConnectionCache = <Proxy as Handler>::ConnectionCache;
    type Tunnel = <Proxy as Handler>::Tunnel;

    async fn exchange(
        &self,
        client: &mut ClientStream<Self::ConnectionCache>,
        head: Result<RequestHead, HeadError>,
    ) -> AfterExchange<Self::Tunnel> {
        let head_text = String::from_utf8_lossy(client.stream.unread()).to_ascii_lowercase();
        let is_to_panic = head_text.contains("x-panic:");
        let exchange = self.proxy.exchange(client, head);
        match is_to_panic {
            true => self.panics.during(Place::Exchange, exchange).await,
            false => exchange.await,
        }
    }

    async fn tunnel(&self, client: ClientStream<Self::ConnectionCache>, tunnel: Self::Tunnel) {
        self.panics.during(Place::Tunnel, self.proxy.tunnel(client, tunnel)).await;
    }

    fn count_rejected(&self, why: RejectReason) {
        self.panics.strike(Place::TurnedAway);
        self.proxy.count_rejected(why);
    }

    fn serve_other_workers(&self) -> impl Future<Output = ()> {
        self.proxy.serve_other_workers()
    }

    fn tick(&self) -> bool {
        self.panics.strike(Place::Tick);
        self.proxy.tick()
    }
}
