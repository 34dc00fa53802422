//! What holds of a service need: `[service.X.hold]`.

use std::sync::Arc;

use super::{
    reader::{Section, whole},
    settings::duration,
};
use crate::continuity::{HoldSettings, PassPath, PassPathError};

/// The settings of holds of a service.
pub(super) fn hold(section: &Section<'_>) -> HoldSettings {
    let known = HoldSettings::default();
    let length = section.read("for", known.length, |it| match duration(it)? {
        length if length <= HoldSettings::LENGTH_MAX => Ok(length),
        _ => Err("a hold lasts at most \"5m\": clients give up long before".to_owned()),
    });
    let places =
        section.read("requests", known.places, |it| whole(it, 1..=HoldSettings::PLACES_MAX));
    let pass = section.list("pass", Vec::<PassPath>::new(), |it| {
        it.parse().map_err(|error: PassPathError| error.to_string())
    });
    if pass.len() > HoldSettings::PASS_MAX {
        let most = HoldSettings::PASS_MAX;
        section.note("pass", format_args!("more than {most} paths: list health checks only"));
    }
    section.finish();
    HoldSettings { length, places, pass: Arc::from(pass) }
}
