//! Conversions between the types of `control` and the wire types.
//!
//! The wire types are in a crate that does not know the proxy, so the conversions are here.

use flipgate_api::wire::{
    ApprovalStatus, DrainKinds, DrainStatus, DrainStreams, EjectedStatus, EndpointRequest,
    EndpointStatus, HoldStatus, MaintenanceStatus, PinsStatus, PoolStatus, ServiceStatus,
    ShareEndStatus, ShareStatus, Status, WatchStatus,
};

use crate::{
    continuity::{HoldSnapshot, HoldTerm, Maintenance},
    control::{
        ApprovalSnapshot, DrainSnapshot, EndedStreams, EndingSnapshot, EndpointSnapshot, Holds,
        PinsSnapshot, PoolSnapshot, ServiceSnapshot, ShareSnapshot, SideRequests, StatusSnapshot,
        timestamp,
    },
    model::{Color, Endpoint, Source, WeightedEndpoint},
    store::ShareEnd,
    upstream::EndpointHealth,
};

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl From<StatusSnapshot> for Status {
    fn from(picture: StatusSnapshot) -> Self {
        let StatusSnapshot { generation, revision, services } = picture;
        let services = services.into_iter().map(|(name, it)| (name.to_string(), it.into()));
        Self {
            generation: generation.0,
            revision: revision.0,
            read_only: None,
            write_refused: None,
            audit_refused: None,
            partial: false,
            replayed: false,
            services: services.collect(),
        }
    }
}

impl From<ServiceSnapshot> for ServiceStatus {
    fn from(picture: ServiceSnapshot) -> Self {
        let ServiceSnapshot {
            active,
            previous,
            is_damaged,
            watch,
            confirm_by,
            share,
            share_end,
            rollout,
            hold,
            maintenance,
            blue,
            green,
        } = picture;
        let pools = [(Color::Blue, blue), (Color::Green, green)];
        Self {
            active: active.to_string(),
            previous: previous.map(|it| it.to_string()),
            damaged: is_damaged,
            watch: watch.map(|until| WatchStatus {
                until: until.to_string(),
                errors: 0.0,
                failures: 0,
                requests: 0,
                rescue: false,
            }),
            confirm_by: confirm_by.map(|it| it.to_string()),
            share: share.map(Into::into),
            share_ended: share_end.map(Into::into),
            rollout: rollout.map(|it| it.to_string()),
            hold: hold.map(Into::into),
            maintenance: maintenance.as_deref().map(Into::into),
            pools: pools.into_iter().map(|(it, pool)| (it.to_string(), pool.into())).collect(),
        }
    }
}

impl From<ShareSnapshot> for ShareStatus {
    fn from(picture: ShareSnapshot) -> Self {
        let ShareSnapshot { color, percent, steps, step, until, first_token } = picture;
        Self {
            color: color.to_string(),
            percent,
            steps,
            step: number(step + 1),
            until: until.to_string(),
            waiting: None,
            errors: 0.0,
            failures: 0,
            requests: 0,
            first_token: first_token.map(|it| it.to_string()),
        }
    }
}

impl From<ShareEnd> for ShareEndStatus {
    fn from(end: ShareEnd) -> Self {
        let ShareEnd { color, at, by, reason } = end;
        Self {
            color: color.to_string(),
            at: timestamp(at).to_string(),
            by: by.to_string(),
            reason: reason.map(|it| it.to_string()),
        }
    }
}

impl From<HoldSnapshot> for HoldStatus {
    fn from(picture: HoldSnapshot) -> Self {
        let HoldSnapshot { term, remaining, waiting, is_releasing } = picture;
        let HoldTerm { id, owner, began_ms, set_ms: _, until_ms, places } = term;
        Self {
            id,
            owner: owner.to_string(),
            since: timestamp(began_ms).to_string(),
            until: timestamp(until_ms).to_string(),
            remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
            waiting: number(waiting),
            requests: number(places),
            releasing: is_releasing,
        }
    }
}

impl From<&Maintenance> for MaintenanceStatus {
    fn from(maintenance: &Maintenance) -> Self {
        let Maintenance { owner, since_ms, page, retry_after, except_internal } = maintenance;
        Self {
            owner: owner.to_string(),
            since: timestamp(*since_ms).to_string(),
            retry_after_s: retry_after.get(),
            except_internal: *except_internal,
            page_bytes: page.as_ref().map_or(0, |it| number(it.len())),
        }
    }
}

impl From<ApprovalSnapshot> for ApprovalStatus {
    fn from(approval: ApprovalSnapshot) -> Self {
        let ApprovalSnapshot { by, at, until } = approval;
        Self { by: by.to_string(), at: at.to_string(), until: until.map(|it| it.to_string()) }
    }
}

impl From<PoolSnapshot> for PoolStatus {
    fn from(picture: PoolSnapshot) -> Self {
        let PoolSnapshot {
            role,
            version,
            source,
            in_flight,
            queued,
            retries_left,
            is_panicking,
            was_used: _,
            is_safe_to_stop,
            holds: Holds { by, until },
            pins,
            approvals,
            endpoints,
        } = picture;
        Self {
            safe_to_stop: is_safe_to_stop,
            approvals: approvals.into_iter().map(Into::into).collect(),
            held_by: by.into_iter().map(str::to_owned).collect(),
            until: until.map(|it| it.to_string()),
            pins: pins.map(Into::into),
            role: role.to_string(),
            version: version.map(|it| it.to_string()),
            source: match source {
                Source::File => "file".to_owned(),
                Source::Runtime => "runtime".to_owned(),
            },
            in_flight: number(in_flight),
            queued: number(queued),
            retry_budget: retries_left,
            panicking: is_panicking,
            endpoints: endpoints.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<EndpointSnapshot> for EndpointStatus {
    fn from(picture: EndpointSnapshot) -> Self {
        let EndpointSnapshot {
            address,
            resolved,
            weight,
            health: condition,
            in_flight,
            connections,
            was_used: _,
            was_ejected: _,
        } = picture;
        let EndpointHealth { health, since, failure, ejected } = condition;
        Self {
            address: address.to_string(),
            resolved: resolved.map(|it| it.to_string()),
            weight,
            health: health.to_string(),
            since: since.to_string(),
            reason: failure.map(|it| it.detail.to_string()),
            ejected: ejected.map(|it| EjectedStatus {
                since: it.since.to_string(),
                until: it.until.to_string(),
                reason: it.reason.to_string(),
            }),
            in_flight: number(in_flight),
            connections: number(connections),
        }
    }
}

impl TryFrom<&EndpointRequest> for WeightedEndpoint {
    type Error = String;

    fn try_from(request: &EndpointRequest) -> Result<Self, String> {
        let (address, weight) = match request {
            EndpointRequest::Plain(address) => (address, 1),
            EndpointRequest::Weighted(it) => (&it.address, it.weight),
        };
        let endpoint = address.parse::<Endpoint>().map_err(|error| error.to_string())?;
        Self::new(endpoint, weight.into())
            .ok_or_else(|| format!("`{address}`: a weight is 1 to {}", Self::MAX))
    }
}

impl From<PinsSnapshot> for PinsStatus {
    fn from(picture: PinsSnapshot) -> Self {
        let PinsSnapshot { count, until } = picture;
        Self { count: count.map(number), until: until.to_string() }
    }
}

impl From<DrainSnapshot> for DrainStatus {
    fn from(picture: DrainSnapshot) -> Self {
        let safe_to_stop = picture.is_safe_to_stop();
        let DrainSnapshot {
            service,
            color,
            is_active: _,
            in_flight,
            kinds,
            oldest,
            other: SideRequests { previews, rescued, pinned, shared, assets },
            pins,
            is_drained,
            streams,
            holds: Holds { by, until },
        } = picture;
        let oldest_ms = oldest.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        Self {
            service: service.to_string(),
            color: color.to_string(),
            in_flight: number(in_flight),
            oldest_ms,
            kinds: DrainKinds { request: number(kinds.request), tunnel: number(kinds.tunnel) },
            previews: number(previews),
            rescued: number(rescued),
            pinned: number(pinned),
            shared: number(shared),
            assets: number(assets),
            pins: pins.map(Into::into),
            streams: streams.map(Into::into),
            drained: is_drained,
            safe_to_stop,
            held_by: by.into_iter().map(str::to_owned).collect(),
            until: until.map(|it| it.to_string()),
        }
    }
}

impl From<EndingSnapshot> for DrainStreams {
    fn from(picture: EndingSnapshot) -> Self {
        let EndingSnapshot { is_going, left, ended } = picture;
        let EndedStreams(ended) = EndedStreams::new(ended);
        let ended = ended.into_iter().map(|(kind, ways)| {
            (
                kind.to_owned(),
                ways.into_iter().map(|(how, count)| (how.to_owned(), count)).collect(),
            )
        });
        Self {
            ending: is_going,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            ended: ended.collect(),
        }
    }
}
