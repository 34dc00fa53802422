//! The application side: pools of endpoints, load balancing, and each worker's connections.
//!
//! This room does not know what a request is for. A pool is shared by all workers and outlives promotions, so a
//! rollback finds it unchanged. Each connection belongs to one worker, so requests take no lock.

mod admission;
mod alerts;
mod balance;
mod budget;
mod check;
mod connect;
mod connect_config;
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
mod preconnect;
mod probe;
mod queue;
mod resolver;
mod service_pools;
mod sessions;
mod tap;

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
    pool::{PickRequest, PickResult, Pool, Rescuer},
    pool_context::PoolContext,
    probe::{ProbeError, ProbeRequest, ProbeResponse},
    queue::QueueTicket,
    resolver::{AddressFamilies, LookupError, ResolvedAddresses, Resolver, ResolverSettings},
    service_pools::{
        Pools, ServicePools, ServiceSwitch, ServiceTable, TableEntry, TableService, Terms,
    },
    tap::{NotCopied, OpenTap, Tap, TapQueue, TapSettings},
};
