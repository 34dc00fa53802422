//! Pins as signed texts, and the keys that sign them.
//!
//! A pin says at which generation its transaction began. With the history of a service that is enough: the generation
//! decides the color, and whether the pool is still the one of that time. So the same pin is right for every service of a
//! group, and no clock is part of it.
//!
//! The signature is SipHash-2-4 with a key of 128 bits and a tag of 128 bits, made for short messages. It costs a pinned
//! request a few hundred instructions, where HMAC-SHA-256 costs some thousands.

use std::{fmt, hash::Hasher as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use subtle::ConstantTimeEq as _;

use crate::model::{Generation, ServiceName};

/// What a pin says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pin {
    /// The generation at which the transaction began.
    pub generation: Generation,
    /// Which of two pins is older: a smaller number. It decides nothing else.
    pub order: u32,
    /// The transaction. Random, so that its use can be remembered.
    pub id: u64,
}

/// A key that signs pins.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct PinKey {
    /// Its number: later keys have larger ones.
    pub id: u32,
    /// The secret.
    pub secret: [u8; 16],
}

/// Keys, the newest first. The newest one signs, and all verify.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PinKeys(Arc<[PinKey]>);

/// The service or the group that a pin is valid for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinScope {
    /// What the signature begins with. No scope is the beginning of another one: names have no byte 0.
    label: Box<[u8]>,
    cookie: Box<str>,
}

/// The format of the bytes below. Others are ignored.
const VERSION: u8 = 1;

/// Version, key, generation, order and id.
const CONTENT: usize = 1 + 4 + 8 + 4 + 8;

/// The content and its tag.
const SIGNED: usize = CONTENT + 16;

/// The length of a pin as text.
const TEXT: usize = (SIGNED * 4).div_ceil(3);

// === impl PinKeys ===

impl PinKeys {
    /// These keys.
    #[must_use]
    pub fn new(mut keys: Vec<PinKey>) -> Self {
        keys.sort_by_key(|it| std::cmp::Reverse(it.id));
        Self(keys.into())
    }

    /// The text of a pin; `None` without a key.
    #[must_use]
    pub fn sign(&self, scope: &PinScope, pin: Pin) -> Option<String> {
        let key = self.0.first()?;
        let mut bytes = [0; SIGNED];
        bytes[0] = VERSION;
        bytes[1..5].copy_from_slice(&key.id.to_be_bytes());
        bytes[5..13].copy_from_slice(&pin.generation.0.to_be_bytes());
        bytes[13..17].copy_from_slice(&pin.order.to_be_bytes());
        bytes[17..25].copy_from_slice(&pin.id.to_be_bytes());
        let tag = tag(key, scope, &bytes[..CONTENT]);
        bytes[CONTENT..].copy_from_slice(&tag);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a text says, if one of the keys has signed it for this scope.
    #[must_use]
    pub fn verify(&self, scope: &PinScope, text: &[u8]) -> Option<Pin> {
        if text.len() != TEXT {
            return None;
        }
        // The decoder wants room for whole groups.
        let mut bytes = [0; SIGNED.next_multiple_of(3)];
        let count = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (content, given) = bytes.get(..count)?.split_at_checked(CONTENT)?;
        let number = |at: usize| content[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        let long = |at: usize| content[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        let id = number(1)?;
        let key = self.0.iter().find(|it| it.id == id).filter(|_| content[0] == VERSION)?;
        if !bool::from(tag(key, scope, content)[..].ct_eq(given)) {
            return None;
        }
        Some(Pin { generation: Generation(long(5)?), order: number(13)?, id: long(17)? })
    }
}

fn tag(key: &PinKey, scope: &PinScope, content: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(&key.secret);
    hasher.write(&scope.label);
    hasher.write(content);
    hasher.finish128().as_bytes()
}

// === impl PinScope ===

impl PinScope {
    /// The scope of a service that shares its pins with no other one.
    #[must_use]
    pub fn service(name: &ServiceName) -> Self {
        Self::of(b"service", name)
    }

    /// The scope of a group of services.
    #[must_use]
    pub fn group(name: &ServiceName) -> Self {
        Self::of(b"group", name)
    }

    fn of(kind: &[u8], name: &ServiceName) -> Self {
        let label = [b"flipgate pin\0", kind, b"\0", name.as_str().as_bytes(), b"\0"].concat();
        Self { label: label.into(), cookie: format!("flipgate_pin_{name}").into() }
    }

    /// The name of the cookie.
    #[must_use]
    pub fn cookie(&self) -> &str {
        &self.cookie
    }
}

// === impl PinKey ===

impl fmt::Debug for PinKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: u32) -> PinKey {
        PinKey { id, secret: [u8::try_from(id).expect("a small number"); 16] }
    }

    fn scope(name: &str) -> PinScope {
        PinScope::service(&name.parse().expect("a name"))
    }

    const PIN: Pin = Pin { generation: Generation(7), order: 9, id: 0x1234_5678_9abc_def0 };

    #[test]
    fn a_pin_is_read_by_every_key_that_is_kept_and_signed_by_the_newest() {
        let old = PinKeys::new(vec![key(1)]);
        let both = PinKeys::new(vec![key(1), key(2)]);
        let new = PinKeys::new(vec![key(2)]);
        let web = scope("web");
        let [by_old, by_both] = [&old, &both].map(|it| it.sign(&web, PIN).expect("a key"));
        assert_eq!(both.verify(&web, by_old.as_bytes()), Some(PIN));
        assert_eq!(new.verify(&web, by_both.as_bytes()), Some(PIN));
        assert_eq!(new.verify(&web, by_old.as_bytes()), None, "its key is gone");
        assert_eq!(old.verify(&web, by_both.as_bytes()), None);
        assert_eq!(PinKeys::default().sign(&web, PIN), None);
        assert_eq!(by_old.len(), TEXT);
        assert!(by_old.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)));
    }

    #[test]
    fn a_forged_pin_is_ignored() {
        let keys = PinKeys::new(vec![key(1)]);
        let (web, api) = (scope("web"), scope("api"));
        let good = keys.sign(&web, PIN).expect("a key");
        let group = PinScope::group(&"web".parse().expect("a name"));
        assert_eq!(keys.verify(&api, good.as_bytes()), None, "of another service");
        assert_eq!(keys.verify(&group, good.as_bytes()), None, "of a service, not of a group");
        // Every change of every character, also those of the unused bits of the last one.
        for at in 0..good.len() {
            for other in *b"AQgw-_=. 0\x00\xff" {
                let mut forged = good.clone().into_bytes();
                if forged[at] != other {
                    forged[at] = other;
                    assert_eq!(keys.verify(&web, &forged), None, "{at} {other}");
                }
            }
        }
        for text in ["", "A", &good[1..], &format!("{good}A"), &good.repeat(100)] {
            assert_eq!(keys.verify(&web, text.as_bytes()), None, "{text}");
        }
        let other = PinKeys::new(vec![PinKey { id: 1, secret: [9; 16] }]);
        assert_eq!(other.verify(&web, good.as_bytes()), None, "by another secret");
    }

    #[test]
    fn pins_stay_readable_from_one_version_to_the_next() {
        let keys = PinKeys::new(vec![key(1)]);
        let text = keys.sign(&scope("web"), PIN).expect("a key");
        assert_eq!(text, TEXT_OF_PIN);
    }

    /// The signature is that of another implementation of SipHash-2-4-128.
    const TEXT_OF_PIN: &str = "AQAAAAEAAAAAAAAABwAAAAkSNFZ4mrze8EEbaYXgzGyTok9eYh0z4q0";

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", key(3)), "PinKey { id: 3, .. }");
    }
}
