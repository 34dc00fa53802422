//! Towards the application: pools of endpoints, the choice among them, and each worker's own
//! connections to them.
//!
//! Does not know why a request comes here or what becomes of its answer. A pool is shared by all
//! workers and outlives promotions, so that a rollback finds it as it was left; the connections
//! belong to one worker each, so that no lock is on the path of a request.

mod admission;
mod alerts;
mod balance;
mod budget;
mod check;
mod condition;
mod connect;
mod connection;
mod connections;
mod event;
mod idle;
mod member;
mod names;
mod own;
mod parts;
mod pool;
mod queue;
mod service_pools;
mod sessions;
mod wanted;

pub use self::{
    admission::{
        Admission, ConcurrencyLimit, ConcurrencyPermit, SHARE_OF_CLIENT, SHARE_OF_SERVICE,
    },
    alerts::AlertQueue,
    condition::{Ejected, EndpointHealth, FailureKind, HealthFailure},
    connect::{ConnectContext, ConnectError, ConnectReason},
    connection::UpstreamConnection,
    connections::{ConnectionSettings, WorkerConnectionPool},
    event::EndpointEvent,
    member::{EndpointState, RequestPermit},
    names::{AddressFamilies, LookupError, ResolvedAddresses, Resolver, ResolverSettings},
    own::wrong_socket,
    parts::PoolContext,
    pool::{PickRequest, PickResult, Pool},
    queue::QueueTicket,
    service_pools::{Pools, ServicePools},
    wanted::WorkerRegistry,
};
