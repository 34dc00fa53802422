//! What the tests share: a Flipgate with its services, upstreams, and clients from two networks.

pub(crate) mod application;
pub(crate) mod authority;
pub(crate) mod client;
pub(crate) mod faulty;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod misbehaving;
pub(crate) mod nameserver;
pub(crate) mod panicking;
pub(crate) mod planted;
pub(crate) mod process;
pub(crate) mod scripted;
pub(crate) mod test_proxy;
pub(crate) mod upstream;

use std::time::Duration;

pub(crate) use self::{
    application::{AppRequest, Application, Reply},
    authority::Authority,
    client::{Answer, Client},
    faulty::{Fault, Faults, FaultyStore},
    http2::{Http2, Http2Upstream},
    misbehaving::{MisbehavingUpstream, Misbehavior, Walled},
    nameserver::NameServer,
    panicking::{PanickingProxy, Panics, Place},
    process::Process,
    scripted::Scripted,
    test_proxy::TestProxy,
    upstream::Upstream,
};

/// Longer than anything here takes on a busy machine; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, looking often.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        loop {
            look.tick().await;
            if condition().await {
                return;
            }
        }
    };
    let found = tokio::time::timeout(LONG, looking).await;
    assert!(found.is_ok(), "never came: {what}");
}
