//! The asset fallback of a service: `[service.X.assets]`.

use super::reader::{Section, flag};
use crate::model::{AssetFallback, ParsePathError, ParseStatusesError, PathPrefix, StatusSet};

/// The asset fallback of a service with this path prefix.
pub(super) fn assets(section: &Section<'_>, prefix: &PathPrefix) -> AssetFallback {
    let prefixes: Vec<PathPrefix> = section.list("prefixes", Vec::new(), |it| {
        let path: PathPrefix = it.parse().map_err(|error: ParsePathError| error.to_string())?;
        match prefix.covers(&path.to_string()) {
            true => Ok(path),
            false => Err(format!(
                "`{it}` is not below the path `{prefix}` of the service, so that no request of the service has it\nwrite whole \
                 paths"
            )),
        }
    });
    if !section.has("prefixes") {
        section.note("prefixes", "missing\nwrite the paths of the assets, like [\"/static/\"]");
    } else if section.is_empty_list("prefixes") {
        section.note("prefixes", "the list is empty, so that nothing is an asset\nwrite the paths of the assets, like [\"/static/\"]");
    }
    let known = vec!["404".parse().expect("a status")];
    let statuses: Vec<StatusSet> = section.list("status", known, |it| {
        it.parse().map_err(|error: ParseStatusesError| error.to_string())
    });
    let settings = AssetFallback {
        prefixes,
        statuses: statuses.into_iter().fold(StatusSet::default(), StatusSet::union),
        hashed_only: section.read("hashed_only", true, flag),
        html_is_missing: section.read("html_is_missing", true, flag),
    };
    if (100..400).any(|it| settings.statuses.contains(it)) {
        section.note(
            "status",
            "the list has statuses of successful responses\nwrite statuses from 400 to 599",
        );
    }
    if settings.statuses.is_empty() && !settings.html_is_missing {
        section.note("status", "the list is empty, so that no asset is missing\nwrite [\"404\"], or set html_is_missing");
    }
    section.finish();
    settings
}
