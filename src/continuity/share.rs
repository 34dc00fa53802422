//! The share of the clients that a candidate gets while it is promoted gradually.
//!
//! A keyed hash of what tells clients apart is a number from 0 to 9,999, and the candidate gets those below its share. So a
//! larger share keeps every client that has moved already, and a client cannot compute where a value would lead.

use std::{fmt, hash::Hasher as _, sync::Arc};

use siphasher::{sip::SipHasher24, sip128};

use crate::model::{Color, Generation};

/// What tells the clients of a service apart during a gradual promotion.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ShareSettings {
    /// Where the value comes from.
    pub carrier: ShareCarrier,
    /// The `Domain` of the cookie.
    pub domain: Option<Box<str>>,
}

/// Where the value comes from that tells clients apart.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ShareCarrier {
    /// A cookie that Flipgate sets.
    #[default]
    Cookie,
    /// A header field, by its name in lower case.
    Header(Box<str>),
}

/// The secret of one gradual promotion: another one moves other clients first.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ShareSecret(pub [u8; 16]);

/// The value that lets its holder go to the candidate first.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct FirstToken(u128);

/// The share of a candidate in one generation.
#[derive(Clone, Debug)]
pub struct Share {
    /// The candidate, which is not active.
    pub color: Color,
    /// The generation that began the gradual promotion.
    pub from: Generation,
    /// How many of 100 clients the candidate gets.
    pub percent: u8,
    /// Whether internal clients and holders of the token go to the candidate, whatever the share.
    pub has_first: bool,
    /// What tells clients apart.
    pub settings: Arc<ShareSettings>,
    secret: ShareSecret,
    token: FirstToken,
}

/// A share is exact to a hundredth of a percent.
const PARTS: u64 = 10_000;

// === impl Share ===

impl Share {
    /// The name of the cookie that tells clients apart.
    pub const COOKIE: &str = "flipgate_share";

    /// A share of `percent`, which is at most 100.
    #[must_use]
    pub fn new(
        color: Color,
        from: Generation,
        percent: u8,
        has_first: bool,
        settings: Arc<ShareSettings>,
        secret: ShareSecret,
    ) -> Self {
        let token = secret.first_token();
        Self { color, from, percent, has_first, settings, secret, token }
    }

    /// Whether the candidate gets the client with this value.
    #[must_use]
    pub fn has(&self, client: &[u8]) -> bool {
        let mut hasher = SipHasher24::new_with_key(&self.secret.0);
        hasher.write(client);
        hasher.finish() % PARTS < u64::from(self.percent) * (PARTS / 100)
    }

    /// Whether this is the token of the clients that go first.
    #[must_use]
    pub fn is_token(&self, text: &[u8]) -> bool {
        // The numbers are compared as a whole, so the time says nothing of the token.
        self.has_first && FirstToken::parse(text) == Some(self.token)
    }
}

// === impl ShareSecret ===

impl ShareSecret {
    /// The token of the clients that go first.
    #[must_use]
    pub fn first_token(&self) -> FirstToken {
        use siphasher::sip128::Hasher128 as _;
        let mut hasher = sip128::SipHasher24::new_with_key(&self.0);
        hasher.write(b"first");
        FirstToken(hasher.finish128().as_u128())
    }
}

impl fmt::Debug for ShareSecret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareSecret")
    }
}

// === impl FirstToken ===

impl FirstToken {
    /// Its length as text.
    const TEXT: usize = 32;

    /// The token that is written like this.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok().filter(|it| it.len() == Self::TEXT)?;
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for FirstToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for FirstToken {
    /// Without the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstToken")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(percent: u8, secret: u8) -> Share {
        let secret = ShareSecret([secret; 16]);
        Share::new(Color::Green, Generation(3), percent, true, Arc::default(), secret)
    }

    fn clients(share: &Share) -> Vec<u32> {
        (0..20_000_u32).filter(|it| share.has(&it.to_be_bytes())).collect()
    }

    #[test]
    fn so_many_clients_move_and_all_of_them_stay_when_the_share_is_raised() {
        let mut before = Vec::new();
        for percent in [0, 1, 10, 50, 100] {
            let now = clients(&share(percent, 1));
            let expected = 200 * usize::from(percent);
            let near = expected.abs_diff(now.len());
            assert!(near * near <= 16 * expected.max(1), "{percent}: {} clients", now.len());
            assert!(before.iter().all(|it| now.contains(it)), "{percent}");
            before = now;
        }
        assert_eq!(before.len(), 20_000);
    }

    #[test]
    fn another_promotion_moves_other_clients_first() {
        let (one, other) = (clients(&share(10, 1)), clients(&share(10, 2)));
        let both = one.iter().filter(|it| other.contains(it)).count();
        assert!(both < 400, "{both} of 2,000");
    }

    #[test]
    fn only_the_token_of_this_promotion_goes_first() {
        let one = share(0, 1);
        let token = ShareSecret([1; 16]).first_token().to_string();
        assert!(one.is_token(token.as_bytes()));
        assert!(!share(0, 2).is_token(token.as_bytes()), "that of another promotion");
        let none = Share { has_first: false, ..share(0, 1) };
        assert!(!none.is_token(token.as_bytes()));
        for text in ["", "green", &token[1..], &format!("{token}0"), &format!("+{}", &token[1..])] {
            assert!(!one.is_token(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", share(1, 0xab));
        assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
    }
}
