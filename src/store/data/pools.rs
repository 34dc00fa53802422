//! The pools of a service, as they are written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    model::{Endpoint, Link, PoolSpec, Protocol, ProxyProtocol, UpstreamTls, WeightedEndpoint},
    store::pool_state::PoolState,
};

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PoolData {
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

impl From<&PoolState> for PoolData {
    fn from(state: &PoolState) -> Self {
        // The others stand at the top of the entry, where older versions keep them.
        let PoolState { file, runtime, served, shared: _, set_by: _, pins_since: _, retired_at: _ } =
            state;
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
