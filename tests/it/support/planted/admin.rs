//! The admin API of the planted proxy: status, flips, and events.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use flipgate::model::Color;
use flipgate_api::wire::{PoolStatus, PromoteRequest, ServiceStatus, Status};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};

use super::{Body, Fault, GAP, NAMES, Proxy, empty, shares::Share};

impl Proxy {
    fn set(self: &Arc<Self>, service: usize, color: Color, generation: u64) {
        let mut table = self.table.lock().expect("no panic inside");
        if table.active[service] != color {
            table.active[service] = color;
            table.replaced[service] = [None; 2];
            table.replaced[service][color.other() as usize] = Some(generation);
            self.replace_pins(&mut table, service, color.other());
            self.tell(&mut table, service, color.other());
        }
    }

    fn status(&self) -> Status {
        let table = self.table.lock().expect("no panic inside");
        let service = |place: usize| {
            let pool = |color: Color| PoolStatus {
                role: if table.active[place] == color { "active" } else { "standby" }.to_owned(),
                version: None,
                source: "file".to_owned(),
                in_flight: table.in_flight[place][color as usize],
                queued: 0,
                retry_budget: 0,
                panicking: false,
                safe_to_stop: None,
                held_by: Vec::new(),
                pins: None,
                approvals: Vec::new(),
                until: None,
                endpoints: Vec::new(),
            };
            let pools = Color::BOTH.map(|it| (it.to_string(), pool(it)));
            ServiceStatus {
                active: table.active[place].to_string(),
                previous: None,
                damaged: false,
                share: table.shares[place].as_ref().map(Share::status),
                share_ended: None,
                rollout: None,
                watch: None,
                confirm_by: None,
                hold: None,
                maintenance: None,
                pools: pools.into(),
            }
        };
        let services = (0..table.active.len()).map(|it| (NAMES[it].to_owned(), service(it)));
        Status {
            generation: table.generation,
            revision: table.generation,
            read_only: None,
            write_refused: None,
            audit_refused: None,
            partial: false,
            replayed: false,
            services: services.collect(),
        }
    }

    /// Makes a flip as this proxy does.
    async fn promote(self: &Arc<Self>, request: PromoteRequest) -> Option<Status> {
        if !request.steps.is_empty() {
            self.promote_gradually(&request);
            return Some(self.status());
        }
        let place = |name: &str| NAMES.iter().position(|it| *it == name).expect("a service");
        let parsed =
            |(name, color): (String, String)| (place(&name), color.parse().expect("a color"));
        let changes: Vec<(usize, Color)> = request.services.into_iter().map(parsed).collect();
        let generation = {
            let mut table = self.table.lock().expect("no panic inside");
            table.generation += 1;
            table.generation
        };
        self.flips.send_replace(generation);
        if self.fault == Fault::Refuses && generation.is_multiple_of(4) {
            return None;
        }
        let mut shown = self.status();
        match self.fault {
            Fault::NoBarrier => {
                for (service, color) in &changes {
                    let service = shown.services.get_mut(NAMES[*service]).expect("a service");
                    service.active = color.to_string();
                }
                let proxy = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(GAP).await;
                    proxy.set_all(&changes, generation);
                });
                return Some(shown);
            }
            Fault::Halves => {
                for (service, color) in changes {
                    self.set(service, color, generation);
                    tokio::time::sleep(GAP).await;
                }
            }
            _ => self.set_all(&changes, generation),
        }
        Some(self.status())
    }

    /// All at once, under the lock.
    pub(super) fn set_all(self: &Arc<Self>, changes: &[(usize, Color)], generation: u64) {
        let mut table = self.table.lock().expect("no panic inside");
        for (service, color) in changes {
            table.active[*service] = *color;
            table.replaced[*service] = [None; 2];
            table.replaced[*service][color.other() as usize] = Some(generation);
            self.replace_pins(&mut table, *service, color.other());
        }
        for (service, color) in changes {
            self.tell(&mut table, *service, color.other());
        }
    }
}

pub(super) async fn control(
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
) -> Result<Response<Body>, io::Error> {
    let json = |status: &Status| {
        let text = serde_json::to_string(status).expect("texts and numbers");
        Response::new(Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync())
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/status") => Ok(json(&proxy.status())),
        (&Method::POST, "/v1/promote") => {
            let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            let wanted = serde_json::from_slice(&body).expect("a promotion");
            Ok(proxy
                .promote(wanted)
                .await
                .map_or_else(|| bare(StatusCode::CONFLICT), |it| json(&it)))
        }
        (&Method::GET, "/v1/events") => {
            let events = proxy.events.subscribe();
            let lines = stream::unfold(events, |mut events| async move {
                let event = events.recv().await.ok()?;
                let frame = Frame::data(Bytes::from(format!("data: {event}\n\n")));
                Some((Ok::<_, io::Error>(frame), events))
            });
            let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
            let kind = http::HeaderValue::from_static("text/event-stream");
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            Ok(answer)
        }
        _ => Ok(bare(StatusCode::NOT_FOUND)),
    }
}

fn bare(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(empty());
    *answer.status_mut() = status;
    answer
}
