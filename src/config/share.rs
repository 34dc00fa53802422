//! Gradual promotion: `[service.X.share]`.

use std::sync::Arc;

use super::{
    pins::{domain, header},
    reader::{Section, text},
};
use crate::{
    continuity::{ShareCarrier, ShareSettings},
    model::HostPattern,
};

/// What tells the clients of a service with these hosts apart.
pub(super) fn share(section: &Section<'_>, hosts: &[HostPattern]) -> Arc<ShareSettings> {
    let settings = ShareSettings {
        carrier: section.read("by", ShareCarrier::Cookie, |it| carrier(text(it)?)),
        domain: section.read("domain", None, |it| domain(it, hosts)),
    };
    if section.has("domain") && settings.carrier != ShareCarrier::Cookie {
        let what = "only has an effect with by = \"cookie\"\nset that too, or remove the key";
        section.note("domain", what);
    }
    section.finish();
    Arc::new(settings)
}

fn carrier(text: &str) -> Result<ShareCarrier, String> {
    match text.split_once(':') {
        None if text == "cookie" => Ok(ShareCarrier::Cookie),
        Some(("header", name)) => header(name).map(ShareCarrier::Header),
        _ => Err("expected \"cookie\" or \"header:NAME\"".to_owned()),
    }
}
