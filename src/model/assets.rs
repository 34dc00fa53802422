//! Which missing assets of a service are asked of its other color.

use super::{PathPrefix, StatusSet, has_content_hash};

/// The asset fallback of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AssetFallback {
    /// The prefixes of the assets.
    pub prefixes: Vec<PathPrefix>,
    /// Statuses that say that an asset is missing.
    pub statuses: StatusSet,
    /// Whether only names with a hash of the content are asked of the other color.
    pub hashed_only: bool,
    /// Whether HTML is a missing asset if the name is that of a script, a style, a font or an image.
    pub html_is_missing: bool,
}

/// An asset by its path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Asset {
    /// Whether its name may be asked of the other color.
    pub may_fall_back: bool,
    /// Whether its name is that of a script, a style, a font or an image, so that HTML would not be it.
    pub is_never_html: bool,
}

/// The names of files that are no HTML: scripts, styles, fonts, images, and what belongs to scripts.
const NEVER_HTML: [&str; 21] = [
    "js", "mjs", "cjs", "css", "map", "wasm", "woff", "woff2", "ttf", "otf", "eot", "png", "jpg",
    "jpeg", "gif", "webp", "avif", "svg", "ico", "bmp", "apng",
];

// === impl AssetFallback ===

impl AssetFallback {
    /// The asset at this normalized path, if it is below a prefix.
    #[must_use]
    pub fn asset(&self, path: &str) -> Option<Asset> {
        if !self.prefixes.iter().any(|it| it.covers(path)) {
            return None;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |it| it.1);
        Some(Asset {
            may_fall_back: !self.hashed_only || has_content_hash(name),
            is_never_html: NEVER_HTML.iter().any(|it| it.eq_ignore_ascii_case(extension)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_below_a_prefix_and_says_by_its_name_what_it_is() {
        let settings = |hashed_only| AssetFallback {
            prefixes: ["/static/", "/_app"].map(|it| it.parse().expect("a path")).to_vec(),
            statuses: StatusSet::default(),
            hashed_only,
            html_is_missing: true,
        };
        let asset = |may_fall_back, is_never_html| Some(Asset { may_fall_back, is_never_html });
        for (path, expected) in [
            ("/static/app.3f2c9a7b.js", asset(true, true)),
            ("/static/deep/app.3f2c9a7b.JS", asset(true, true)),
            ("/_app/3f2c9a7b.html", asset(true, false)),
            ("/static/app.js", asset(false, true)),
            ("/static/3f2c9a7b/app", asset(false, false)),
            ("/static", asset(false, false)),
            ("/statics/app.3f2c9a7b.js", None),
            ("/app.3f2c9a7b.js", None),
        ] {
            assert_eq!(settings(true).asset(path), expected, "{path}");
            let expected = expected.map(|it| Asset { may_fall_back: true, ..it });
            assert_eq!(settings(false).asset(path), expected, "{path}");
        }
    }
}
