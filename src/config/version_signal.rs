//! The version signal of a service: `[service.X.version_signal]`.

use std::time::Duration;

use super::{
    reader::{Section, flag, text},
    settings::duration,
};
use crate::model::{ParsePathError, PathPrefix, VersionSignal};

const PATH: &str = "/.flipgate";

const SPREAD: Duration = Duration::from_secs(30);

/// The version signal of a service with this path prefix.
pub(super) fn version_signal(section: &Section<'_>, prefix: &PathPrefix) -> VersionSignal {
    let known = || PATH.parse().expect("a path");
    let path = section.read("path", known(), |it| match text(it)? {
        "/" => Err("the resources would take the place of paths of the application\nwrite a path like \"/.flipgate\"".to_owned()),
        path => path.parse().map_err(|error: ParsePathError| error.to_string()),
    });
    let header = section.read("header", false, flag);
    let spread = section.read("spread", SPREAD, |it| match text(it) {
        Ok("0s") => Ok(Duration::ZERO),
        _ => duration(it).map_err(|what| format!("{what}, or \"0s\"")),
    });
    section.finish();
    VersionSignal::new(prefix, &path, header, spread)
}
