//! The terms of Flipgate as types. No I/O, no clock, no runtime, no HTTP library.
//!
//! Everything here is a value: parsed once where it enters the program, then only compared, matched and printed. A
//! value that exists is valid; there is no second check.

mod assets;
mod audience;
mod authority;
mod color;
mod content_hash;
mod endpoint;
mod error_pages;
mod gate;
mod link;
mod name_pattern;
mod network;
mod own;
mod path;
mod policy;
mod pool_spec;
mod rollout_id;
mod route;
mod rules;
mod service;
mod spelling;
mod statuses;
mod streams;
mod version_signal;
mod versioned_map;
mod watch;
mod weighted;

pub use self::{
    assets::{Asset, AssetFallback},
    audience::Audience,
    authority::{default_port, is_same_authority},
    color::{Color, ParseColorError, Role},
    content_hash::has_content_hash,
    endpoint::{Endpoint, EndpointAddress, Health, ParseEndpointError},
    error_pages::{ErrorPage, ErrorPages},
    gate::{
        ApprovalGate, CompatibilityRule, CompatibleGate, EndpointShare, Expectation, GateSettings,
        HealthyGate, HookGate, HookSecret, ManifestSample, ShadowGate, SmokeStep, WarmUpGate,
        WarmUpTarget,
    },
    link::{Link, Protocol, ProxyProtocol, UpstreamTls},
    name_pattern::{NamePattern, ParseNamePatternError},
    network::{Networks, ParseNetworkError, client_key},
    own::{OwnAddress, OwnAddressKind, OwnAddresses},
    path::{PathError, normalize_path},
    policy::{
        AbandonedRequests, Algorithm, Balance, DrainPolicy, Ejection, HashKey, HealthCheck, Policy,
        RateLimit, Retry, ServiceLimits, ServiceTimeouts,
    },
    pool_spec::{PoolSpec, PoolSpecError, Source, Version},
    rollout_id::{ParseRolloutIdError, RolloutId},
    route::{Host, HostPattern, ParseHostError, ParsePathError, PathPrefix, RouteConflict, Router},
    rules::{Rules, ServiceRules},
    service::{Generation, ParseServiceNameError, ServiceName},
    spelling::nearest,
    statuses::{ParseStatusesError, StatusSet},
    streams::{StreamEnd, StreamKind, StreamPolicies, StreamPolicy},
    version_signal::{SignalResource, VersionId, VersionSignal},
    versioned_map::{Difference, VersionedMap},
    watch::{LatencyLimit, WatchAction, WatchResult, WatchSettings},
    weighted::WeightedEndpoint,
};
