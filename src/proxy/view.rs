//! What routing needs to know of a request, and the decision.

use crate::{
    model::{Audience, Color, Host, Rules},
    proxy::ProxyError,
    switch::Visit,
};

/// What routing needs to know of a request. Borrowed; no body, no I/O, no HTTP library.
#[derive(Clone, Debug)]
pub struct RequestView<'a> {
    /// The host.
    pub host: &'a Host<'a>,
    /// The normalized path.
    pub path: &'a str,
    /// The audience of the client.
    pub audience: Audience,
    /// The color that the request asks for.
    pub requested: RequestedColor,
    /// The color of its preview listener.
    pub listener: Option<Color>,
}

/// The color that a request asks for by header or cookie.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum RequestedColor {
    /// None: the active color.
    #[default]
    None,
    /// This color.
    Color(Color),
    /// Not a color, or several different ones.
    Unclear,
}

/// Returns the service of a request, by its place in the table, and the side that it gets.
///
/// An internal client gets the color of the preview listener, or the color that it asks for, and never another one. A
/// public client gets the active color, whatever it asks for.
///
/// # Errors
///
/// [`ProxyError::PublicOnPreviewListener`] for a public client on a preview listener, [`ProxyError::NoRoute`], and
/// [`ProxyError::UnclearPreview`] for an internal client with an invalid or ambiguous color.
pub fn admit(rules: &Rules, view: &RequestView<'_>) -> Result<(usize, Visit), ProxyError> {
    let visit = match (view.audience, view.listener, view.requested) {
        (Audience::Public, Some(_), _) => return Err(ProxyError::PublicOnPreviewListener),
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

    /// Every combination of audience, listener, requested color and path: a public client never gets a preview.
    #[test]
    fn the_public_gets_the_active_color_and_nothing_else() {
        let host = Host::parse("h").expect("a host");
        let requests = [
            RequestedColor::None,
            RequestedColor::Color(Color::Blue),
            RequestedColor::Color(Color::Green),
            RequestedColor::Unclear,
        ];
        for listener in [None, Some(Color::Blue), Some(Color::Green)] {
            for requested in requests {
                for path in ["/app", "/other"] {
                    let audience = Audience::Public;
                    let view = RequestView { host: &host, path, audience, requested, listener };
                    let expected = match (listener, path) {
                        (Some(_), _) => Err(ProxyError::PublicOnPreviewListener),
                        (None, "/app") => Ok((0, Visit::Active)),
                        (None, _) => Err(ProxyError::NoRoute),
                    };
                    assert_eq!(admit(&rules(), &view), expected, "{view:?}");
                }
            }
        }
    }

    #[test]
    fn an_internal_client_gets_the_color_it_asks_for_or_an_error() {
        let host = Host::parse("h").expect("a host");
        let ask = |requested, listener| {
            let (path, audience) = ("/app/x", Audience::Internal);
            admit(&rules(), &RequestView { host: &host, path, audience, requested, listener })
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
