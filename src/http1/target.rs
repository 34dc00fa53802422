//! The target and the host of a request (section 3.2).

use super::{
    HttpVersion,
    field_name::FieldName,
    fields::{Fields, Span},
    reject::HeadRejection,
};
use crate::model::{default_port, is_same_authority};

/// The form of a target without its authority (section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetForm {
    /// A path with or without a query.
    Path,
    /// Empty or a query; the path is `/`.
    Root,
    /// `*`: the request is for the server itself.
    Asterisk,
}

/// Whether a request is a plain health check, like that of HAProxy, which sends no host. It is valid with an empty
/// host.
pub(super) fn may_lack_host(method: &str, target: &str, version: HttpVersion) -> bool {
    version == HttpVersion::Http10 && method == "OPTIONS" && matches!(target, "*" | "/")
}

/// The one `Host` of a request (section 3.2).
pub(super) fn single_host(fields: &Fields) -> Result<Span, HeadRejection> {
    let mut hosts = fields.iter().filter(|it| it.name == FieldName::Host);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.value_at()),
        _ => Err(HeadRejection::Malformed("a request needs exactly one Host")),
    }
}

/// The form of a target, the target without its authority, and the authority (sections 3.2.1 to 3.2.4).
pub(super) fn parse_target<'a>(
    target: &'a str,
    method: &str,
    host: &[u8],
) -> Result<(TargetForm, &'a str, Option<&'a str>), HeadRejection> {
    if memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(HeadRejection::Malformed("a request target must not have a fragment"));
    }
    if target.starts_with('/') {
        return Ok((TargetForm::Path, target, None));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((TargetForm::Asterisk, target, None));
    }
    let begins =
        |scheme: &str| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    let scheme = ["http://", "https://"].into_iter().find(|it| begins(it));
    let scheme =
        scheme.ok_or(HeadRejection::Malformed("the request target is neither a path nor a URL"))?;
    let rest = &target[scheme.len()..];
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = default_port(scheme.trim_end_matches("://").as_bytes());
    if !is_same_authority(authority.as_bytes(), host, port) {
        return Err(HeadRejection::Malformed(
            "the request target and the Host field name different hosts",
        ));
    }
    let form = match rest {
        "" if method == "OPTIONS" => TargetForm::Asterisk,
        path if path.starts_with('/') => TargetForm::Path,
        _ => TargetForm::Root,
    };
    Ok((form, rest, Some(authority)))
}
