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
mod connect;
mod connection;
mod connection_requests;
mod connections;
mod endpoint_health;
mod endpoint_state;
mod event;
mod idle;
mod own;
mod pool;
mod pool_context;
mod queue;
mod resolver;
mod service_pools;
mod sessions;

pub use self::{
    admission::{
        Admission, CLIENT_SHARE_FACTOR, ConcurrencyLimit, ConcurrencyPermit, SERVICE_SHARE_FACTOR,
    },
    alerts::AlertQueue,
    connect::{ConnectContext, ConnectError, ConnectReason},
    connection::UpstreamConnection,
    connection_requests::WorkerRegistry,
    connections::{ConnectionSettings, WorkerConnectionPool},
    endpoint_health::{Ejected, EndpointHealth, FailureKind, HealthFailure},
    endpoint_state::{EndpointState, RequestPermit},
    event::EndpointEvent,
    own::invalid_socket,
    pool::{PickRequest, PickResult, Pool},
    pool_context::PoolContext,
    queue::QueueTicket,
    resolver::{AddressFamilies, LookupError, ResolvedAddresses, Resolver, ResolverSettings},
    service_pools::{Pools, ServicePools},
};
