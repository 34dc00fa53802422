//! What policy needs to know of a request, and what it decides.

use crate::{
    model::{Audience, Color, Host, Rules},
    proxy::ProxyError,
    switch::Visit,
};

/// What policy needs to know of a request. Borrowed; no body, no I/O, no HTTP library.
#[derive(Clone, Debug)]
pub struct RequestView<'a> {
    /// The host that is asked.
    pub host: &'a Host<'a>,
    /// The path in its one form.
    pub path: &'a str,
    /// Who is asking.
    pub audience: Audience,
    /// The color that the request names.
    pub requested: RequestedColor,
    /// The color of the preview listener that it came in by.
    pub listener: Option<Color>,
}

/// The color that a request asks for by header or cookie.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RequestedColor {
    /// None: whatever is active.
    #[default]
    None,
    /// This one.
    Color(Color),
    /// A word that is no color, or several that differ.
    Unclear,
}

/// Which service a request is for, by its place in the table, and which of its sides it may have.
///
/// An internal client gets what it asks for and nothing else: a preview listener's color, or the
/// color that the request names. A public client gets the active color, whatever it names.
///
/// # Errors
///
/// [`ProxyError::Audience`] for the public on a preview listener, [`ProxyError::NoRoute`], and
/// [`ProxyError::UnclearPreview`] for an internal client whose wish cannot be met.
pub fn admit(rules: &Rules, view: &RequestView<'_>) -> Result<(usize, Visit), ProxyError> {
    let visit = match (view.audience, view.listener, view.requested) {
        (Audience::Public, Some(_), _) => return Err(ProxyError::Audience),
        (Audience::Public, None, _) | (Audience::Internal, None, RequestedColor::None) => {
            Visit::Active
        }
        (Audience::Internal, Some(color), _) => Visit::Preview(color),
        (Audience::Internal, None, RequestedColor::Color(color)) => Visit::Preview(color),
        (Audience::Internal, None, RequestedColor::Unclear) => {
            return Err(ProxyError::UnclearPreview);
        }
    };
    let service = rules.router.find(view.host, view.path).ok_or(ProxyError::NoRoute)?;
    Ok((service, visit))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Networks, Router};

    fn rules() -> Rules {
        let mut router = Router::default();
        let (host, path) = ("*".parse().expect("a pattern"), "/app".parse().expect("a prefix"));
        router.insert(&host, &path, 0).expect("free");
        Rules {
            id: 0,
            router,
            internal: Networks::default(),
            trusted_proxies: Networks::default(),
            public_headers: false,
            keeps_trace: false,
            response_timeout: Duration::from_secs(60),
            services: Vec::new(),
        }
    }

    /// Every combination of audience, listener, wish and path: the public never gets a wish.
    #[test]
    fn the_public_gets_the_active_color_and_nothing_else() {
        let host = Host::parse("h").expect("a host");
        let wishes = [
            RequestedColor::None,
            RequestedColor::Color(Color::Blue),
            RequestedColor::Color(Color::Green),
            RequestedColor::Unclear,
        ];
        for listener in [None, Some(Color::Blue), Some(Color::Green)] {
            for wish in wishes {
                for path in ["/app", "/other"] {
                    let audience = Audience::Public;
                    let view =
                        RequestView { host: &host, path, audience, requested: wish, listener };
                    let expected = match (listener, path) {
                        (Some(_), _) => Err(ProxyError::Audience),
                        (None, "/app") => Ok((0, Visit::Active)),
                        (None, _) => Err(ProxyError::NoRoute),
                    };
                    assert_eq!(admit(&rules(), &view), expected, "{view:?}");
                }
            }
        }
    }

    #[test]
    fn an_internal_client_gets_what_it_asks_for_or_nothing() {
        let host = Host::parse("h").expect("a host");
        let ask = |wish, listener| {
            let (path, audience) = ("/app/x", Audience::Internal);
            admit(&rules(), &RequestView { host: &host, path, audience, requested: wish, listener })
        };
        assert_eq!(ask(RequestedColor::None, None), Ok((0, Visit::Active)));
        assert_eq!(
            ask(RequestedColor::Color(Color::Green), None),
            Ok((0, Visit::Preview(Color::Green)))
        );
        assert_eq!(ask(RequestedColor::Unclear, None), Err(ProxyError::UnclearPreview));
        let on_preview = ask(RequestedColor::Color(Color::Blue), Some(Color::Green));
        assert_eq!(on_preview, Ok((0, Visit::Preview(Color::Green))), "the listener decides");
    }
}
