//! The data types that the entries of the state are made of, and how the program's own types become them
//! and come back.
//!
//! These types are a format. A field is never renamed or removed within a format version; a new field
//! of a service has a default and stands at the top of its entry, where an older version keeps what it
//! does not know.

mod intake;
mod pins;
mod share;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub(super) use self::{
    intake::{HoldData, MaintenanceData},
    pins::PinKeyData,
};
use self::{pins::PinsData, share::ShareData};
use super::{
    audit_log::AuditLog,
    state::{Approval, Confirmation, PoolState, Promotion, ServiceState, WatchState},
};
use crate::{
    audit::LineHash,
    model::{
        Color, Endpoint, Generation, Link, PoolSpec, Protocol, ProxyProtocol, ServiceName,
        UpstreamTls, WeightedEndpoint,
    },
};

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ColorData {
    Blue,
    Green,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ServiceData {
    active: ColorData,
    previous: Option<ColorData>,
    blue: PoolData,
    green: PoolData,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approvals: Vec<ApprovalData>,
    /// Who set the pools at run time, by color.
    #[serde(default, skip_serializing_if = "SetByData::is_empty")]
    set_by: SetByData,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watch: Option<WatchData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmation: Option<ConfirmationData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<ShareData>,
    #[serde(default, skip_serializing_if = "PinsData::is_empty")]
    pins: PinsData,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ApprovalData {
    color: ColorData,
    by: String,
    at: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    authenticated: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct SetByData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    green: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
struct WatchData {
    generation: u64,
    /// In milliseconds of Unix time.
    until: u64,
    services: Vec<String>,
    #[serde(default)]
    failures_before: u64,
    #[serde(default)]
    requests_before: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct ConfirmationData {
    generation: u64,
    /// In milliseconds of Unix time.
    until: u64,
    services: Vec<String>,
}

/// The manifest of a pool, as the text that the application sent.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ManifestData {
    pub(super) json: String,
}

/// Where the chain of audit lines ends.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct AuditData {
    /// How many lines there ever were.
    count: u64,
    /// The hash of the last one.
    hash: String,
    /// How many of the first lines rotation may have removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    removed: u64,
    /// Commits that had only lines of refused calls.
    #[serde(default, skip_serializing_if = "is_zero")]
    refusal_commits: u64,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct PoolData {
    file: SpecData,
    runtime: Option<SpecData>,
    served: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SpecData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default)]
    endpoints: Vec<EndpointData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<LinkData>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum EndpointData {
    Plain(String),
    Weighted { address: String, weight: u16 },
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct LinkData {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<ProtocolData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_protocol: Option<ProxyProtocolData>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolData {
    Http1,
    H2,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ProxyProtocolData {
    V1,
    V2,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct TlsData {
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PromotionData {
    services: Vec<String>,
    generation: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rollback: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AcceptedData {
    pub(super) fingerprint: String,
    pub(super) generation: u64,
    /// Its place among the accepted calls: a larger number is later.
    pub(super) order: u64,
    /// When it was accepted, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
}

// === conversions: the model's words as data, and back ===

impl From<Color> for ColorData {
    fn from(color: Color) -> Self {
        match color {
            Color::Blue => Self::Blue,
            Color::Green => Self::Green,
        }
    }
}

impl From<ColorData> for Color {
    fn from(data: ColorData) -> Self {
        match data {
            ColorData::Blue => Self::Blue,
            ColorData::Green => Self::Green,
        }
    }
}

impl From<&ServiceState> for ServiceData {
    fn from(state: &ServiceState) -> Self {
        let ServiceState {
            active,
            previous,
            blue,
            green,
            approvals,
            watch,
            confirmation,
            share,
            history: _,
            unknown,
        } = state;
        let set_by = |it: &PoolState| it.set_by.as_ref().map(ToString::to_string);
        let set_by = SetByData { blue: set_by(blue), green: set_by(green) };
        let unknown = unknown.as_ref().map(|it| {
            serde_json::from_str(it).expect("it was written from a map of texts and JSON")
        });
        Self {
            active: (*active).into(),
            previous: previous.map(Into::into),
            blue: blue.into(),
            green: green.into(),
            approvals: approvals.iter().map(Into::into).collect(),
            set_by,
            watch: watch.as_ref().map(Into::into),
            confirmation: confirmation.as_ref().map(Into::into),
            share: share.as_ref().map(Into::into),
            pins: PinsData::of(state),
            unknown: unknown.unwrap_or_default(),
        }
    }
}

impl TryFrom<ServiceData> for ServiceState {
    type Error = String;

    fn try_from(data: ServiceData) -> Result<Self, String> {
        let ServiceData {
            active,
            previous,
            blue,
            green,
            approvals,
            set_by,
            watch,
            confirmation,
            share,
            pins,
            unknown,
        } = data;
        let pool = |data: PoolData, set_by: Option<String>| {
            let set_by = set_by.map(Into::into);
            PoolState::try_from(data).map(|it| PoolState { set_by, ..it })
        };
        let text = |it| serde_json::to_string(&it).expect("a map of texts and JSON").into();
        let mut state = Self {
            active: active.into(),
            previous: previous.map(Into::into),
            blue: pool(blue, set_by.blue)?,
            green: pool(green, set_by.green)?,
            approvals: approvals.into_iter().map(Into::into).collect(),
            watch: watch.map(TryInto::try_into).transpose()?,
            confirmation: confirmation.map(TryInto::try_into).transpose()?,
            share: share.map(TryInto::try_into).transpose()?,
            history: Vec::new(),
            unknown: Some(unknown).filter(|it| !it.is_empty()).map(text),
        };
        pins.put(&mut state);
        Ok(state)
    }
}

impl SetByData {
    fn is_empty(&self) -> bool {
        let Self { blue, green } = self;
        blue.is_none() && green.is_none()
    }
}

impl From<&WatchState> for WatchData {
    fn from(watch: &WatchState) -> Self {
        let WatchState { generation, until, services, before } = watch;
        let (failures_before, requests_before) = *before;
        let services = services.iter().map(ToString::to_string).collect();
        Self { generation: generation.0, until: *until, services, failures_before, requests_before }
    }
}

impl TryFrom<WatchData> for WatchState {
    type Error = String;

    fn try_from(data: WatchData) -> Result<Self, String> {
        let WatchData { generation, until, services, failures_before, requests_before } = data;
        let before = (failures_before, requests_before);
        Ok(Self { generation: Generation(generation), until, services: names(services)?, before })
    }
}

impl From<&Confirmation> for ConfirmationData {
    fn from(confirmation: &Confirmation) -> Self {
        let Confirmation { generation, until, services } = confirmation;
        let services = services.iter().map(ToString::to_string).collect();
        Self { generation: generation.0, until: *until, services }
    }
}

impl TryFrom<ConfirmationData> for Confirmation {
    type Error = String;

    fn try_from(data: ConfirmationData) -> Result<Self, String> {
        let ConfirmationData { generation, until, services } = data;
        Ok(Self { generation: Generation(generation), until, services: names(services)? })
    }
}

impl From<&AuditLog> for AuditData {
    fn from(log: &AuditLog) -> Self {
        // The lines are entries of their own.
        let AuditLog { count, hash, removed, refusal_commits, pending: _ } = log;
        let (count, hash, removed) = (*count, hash.to_string(), *removed);
        Self { count, hash, removed, refusal_commits: *refusal_commits }
    }
}

impl AuditData {
    /// Sets the end of the chain.
    pub(super) fn put(self, log: &mut AuditLog) -> Result<(), &'static str> {
        let Self { count, hash, removed, refusal_commits } = self;
        log.hash = LineHash::parse(hash.as_bytes()).ok_or("it has no hash of a line")?;
        (log.count, log.removed, log.refusal_commits) = (count, removed, refusal_commits);
        Ok(())
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn names(texts: Vec<String>) -> Result<Vec<ServiceName>, String> {
    let names = texts.into_iter().map(|it| it.parse::<ServiceName>());
    names.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

impl From<&Approval> for ApprovalData {
    fn from(approval: &Approval) -> Self {
        let Approval { color, by, is_authenticated, at } = approval;
        let (color, by) = ((*color).into(), by.to_string());
        Self { color, by, at: *at, authenticated: *is_authenticated }
    }
}

impl From<ApprovalData> for Approval {
    fn from(data: ApprovalData) -> Self {
        let ApprovalData { color, by, at, authenticated } = data;
        Self { color: color.into(), by: by.into(), at, is_authenticated: authenticated }
    }
}

impl From<&PoolState> for PoolData {
    fn from(state: &PoolState) -> Self {
        // The others stand at the top of the entry, where older versions keep them.
        let PoolState { file, runtime, served, set_by: _, pins_since: _, retired_at: _ } = state;
        Self { file: file.into(), runtime: runtime.as_ref().map(Into::into), served: *served }
    }
}

impl TryFrom<PoolData> for PoolState {
    type Error = String;

    fn try_from(data: PoolData) -> Result<Self, String> {
        let PoolData { file, runtime, served } = data;
        let runtime = runtime.map(TryInto::try_into).transpose()?;
        Ok(Self { runtime, served, ..Self::new(file.try_into()?) })
    }
}

impl From<&PoolSpec> for SpecData {
    fn from(spec: &PoolSpec) -> Self {
        let PoolSpec { version, endpoints, link } = spec;
        Self {
            version: version.as_ref().map(ToString::to_string),
            endpoints: endpoints.iter().map(Into::into).collect(),
            link: Some(link).filter(|it| !it.is_default()).map(Into::into),
        }
    }
}

impl TryFrom<SpecData> for PoolSpec {
    type Error = String;

    fn try_from(data: SpecData) -> Result<Self, String> {
        let SpecData { version, endpoints, link } = data;
        let version = version.map(|it| it.parse()).transpose().map_err(str::to_owned)?;
        let endpoints = endpoints.into_iter().map(WeightedEndpoint::try_from);
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { version, endpoints, link: link.map(Into::into).unwrap_or_default() })
    }
}

impl From<&WeightedEndpoint> for EndpointData {
    fn from(weighted: &WeightedEndpoint) -> Self {
        let WeightedEndpoint { endpoint, weight } = weighted;
        match weight {
            1 => Self::Plain(endpoint.to_string()),
            _ => Self::Weighted { address: endpoint.to_string(), weight: *weight },
        }
    }
}

impl TryFrom<EndpointData> for WeightedEndpoint {
    type Error = String;

    fn try_from(data: EndpointData) -> Result<Self, String> {
        let (address, weight) = match data {
            EndpointData::Plain(address) => (address, 1),
            EndpointData::Weighted { address, weight } => (address, weight),
        };
        let endpoint = address.parse::<Endpoint>().map_err(|error| error.to_string())?;
        Self::new(endpoint, weight.into())
            .ok_or_else(|| format!("`{address}`: a weight is 1 to {}", Self::MAX))
    }
}

impl From<&Link> for LinkData {
    fn from(link: &Link) -> Self {
        let Link { protocol, tls, proxy_protocol } = link;
        Self {
            protocol: protocol.map(|it| match it {
                Protocol::Http1 => ProtocolData::Http1,
                Protocol::H2 => ProtocolData::H2,
            }),
            tls: Some(tls).filter(|it| **it != UpstreamTls::default()).map(|it| {
                let UpstreamTls { ca, cert, key, server_name } = it.clone();
                TlsData { ca, cert, key, server_name }
            }),
            proxy_protocol: proxy_protocol.map(|it| match it {
                ProxyProtocol::V1 => ProxyProtocolData::V1,
                ProxyProtocol::V2 => ProxyProtocolData::V2,
            }),
        }
    }
}

impl From<LinkData> for Link {
    fn from(data: LinkData) -> Self {
        let LinkData { protocol, tls, proxy_protocol } = data;
        Self {
            protocol: protocol.map(|it| match it {
                ProtocolData::Http1 => Protocol::Http1,
                ProtocolData::H2 => Protocol::H2,
            }),
            tls: tls
                .map(|it| {
                    let TlsData { ca, cert, key, server_name } = it;
                    UpstreamTls { ca, cert, key, server_name }
                })
                .unwrap_or_default(),
            proxy_protocol: proxy_protocol.map(|it| match it {
                ProxyProtocolData::V1 => ProxyProtocol::V1,
                ProxyProtocolData::V2 => ProxyProtocol::V2,
            }),
        }
    }
}

impl From<&Promotion> for PromotionData {
    fn from(promotion: &Promotion) -> Self {
        let Promotion { services, generation, is_rollback, reason } = promotion;
        Self {
            services: services.iter().map(ToString::to_string).collect(),
            generation: generation.0,
            rollback: *is_rollback,
            reason: reason.clone(),
        }
    }
}

impl TryFrom<PromotionData> for Promotion {
    type Error = String;

    fn try_from(data: PromotionData) -> Result<Self, String> {
        let PromotionData { services, generation, rollback, reason } = data;
        let (services, generation) = (names(services)?, Generation(generation));
        Ok(Self { services, generation, is_rollback: rollback, reason })
    }
}
