//! A look at every endpoint, every few seconds, so that the picture is true before a request finds
//! out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::{actor::Control, events::EventKind};
use crate::{
    model::{Color, Endpoint, Health, ServiceName},
    upstream::{Member, Pool},
};

/// The time between two looks at an endpoint.
const INTERVAL: Duration = Duration::from_secs(2);

/// How long a connection may take to open.
const PATIENCE: Duration = Duration::from_secs(1);

/// Endpoints that are looked at together.
const TOGETHER: usize = 64;

impl Control {
    /// Opens a connection to every endpoint now and then and closes it again. Runs until it is
    /// dropped.
    pub async fn probe(&self) {
        let mut told: HashMap<(ServiceName, Color, Endpoint), Health> = HashMap::new();
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let control = self.clone();
            // A disk may take its time, and calls of the admin API must not wait for it.
            drop(tokio::task::spawn_blocking(move || control.refresh_tls()).await);
            let members = self.members();
            stream::iter(&members)
                .for_each_concurrent(TOGETHER, |(service, color, member)| async move {
                    // What comes of it is the member's health.
                    if let Err(error) = member.probe(PATIENCE).await
                        && member.has_news()
                    {
                        warn!(%service, %color, %error, "an endpoint is down");
                    }
                })
                .await;
            let mut now = HashMap::new();
            for (service, color, member) in &members {
                let health = member.health();
                let which = (service.clone(), *color, member.endpoint().clone());
                let before = told.get(&which).copied();
                now.insert(which, health);
                // The first look at an endpoint that is fine is no news.
                if before == Some(health) || before.is_none() && health == Health::Up {
                    continue;
                }
                let endpoint = member.endpoint().clone();
                match health {
                    Health::Down => warn!(%service, %color, %endpoint, %health, "health changed"),
                    _ => info!(%service, %color, %endpoint, %health, "health changed"),
                }
                let (service, color) = (service.clone(), *color);
                self.events().publish(EventKind::HealthChanged {
                    service,
                    color,
                    endpoint,
                    health,
                });
            }
            told = now;
        }
    }

    /// Has pools whose files for TLS have changed use the new ones.
    fn refresh_tls(&self) {
        for pool in self.pools() {
            let (service, color) = (pool.service(), pool.color());
            match pool.refresh_tls() {
                Ok(false) => {}
                Ok(true) => info!(%service, %color, "certificates read again"),
                Err(error) => warn!(%service, %color, %error, "certificates stay as they were"),
            }
        }
    }

    fn pools(&self) -> Vec<Arc<Pool>> {
        self.switch().look(|table| {
            let sides = table.services().iter();
            sides
                .flat_map(|it| Color::BOTH.map(|color| Arc::clone(it.side(color).pool())))
                .collect()
        })
    }

    fn members(&self) -> Vec<(ServiceName, Color, Arc<Member>)> {
        let of_pool = |pool: Arc<Pool>| {
            let members = pool.members().to_vec();
            let (service, color) = (pool.service().clone(), pool.color());
            members.into_iter().map(move |it| (service.clone(), color, it))
        };
        self.pools().into_iter().flat_map(of_pool).collect()
    }
}
