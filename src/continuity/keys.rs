//! Pins as signed texts, and the keys that sign them.
//!
//! A pin says at which generation its transaction began. With the history of a service that is enough: the generation
//! decides the color, and whether the pool is still the one of that time. So the same pin is right for every service of a
//! group, and no clock is part of it.
//!
//! The signature is SipHash-2-4, a keyed hash for short messages: a key of 128 bits and a tag of 64 bits, which has to be
//! guessed over the network. It costs a pinned request a hundred instructions, where HMAC-SHA-256 costs some thousands.

use std::{cell::RefCell, fmt, hash::Hasher as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use siphasher::sip::SipHasher24;

use super::members::Begin;
use crate::model::{Generation, ServiceName};

/// What a pin says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pin {
    /// When the transaction began, and where.
    pub begin: Begin,
    /// The transaction: a random number of 40 bits, so that its use can be remembered.
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

/// The last pin that was read on a connection. A client sends the same one again and again, so its signature is checked once,
/// until the table changes.
#[derive(Debug, Default)]
pub struct LastPin(RefCell<Option<Box<ReadPin>>>);

#[derive(Debug)]
struct ReadPin {
    text: [u8; TEXT],
    pin: Pin,
    /// The keys that verified it. Other services, and later tables, have others.
    keys: Arc<[ScopedKey]>,
}

/// The keys of one scope, the newest first. The newest one signs, and all verify.
#[derive(Clone, Debug)]
pub(super) struct PinKeys {
    scope: PinScope,
    keys: Arc<[ScopedKey]>,
}

/// A key that has signed the scope.
#[derive(Clone)]
struct ScopedKey {
    key: PinKey,
    hasher: SipHasher24,
}

/// The service or the group that a pin is valid for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PinScope {
    /// What is signed before the content. No scope is the beginning of another one: names have no byte 0.
    label: Box<[u8]>,
    cookie: Box<str>,
}

/// The format of the bytes below, for a pin to the active color, and for one to a candidate. Others are ignored.
const VERSIONS: [u8; 2] = [1, 2];

/// Version and key, a byte each; generation, order and id, of 5, 4 and 5 bytes.
const CONTENT: usize = 16;

/// The content and its tag.
const SIGNED: usize = CONTENT + 8;

/// The length of a pin as text.
const TEXT: usize = SIGNED / 3 * 4;

/// The largest number of 5 bytes.
const LARGEST: u64 = (1 << 40) - 1;

// === impl PinKeys ===

impl PinKeys {
    /// These keys, for one scope.
    pub(super) fn new(scope: PinScope, mut keys: Vec<PinKey>) -> Self {
        keys.sort_by_key(|it| std::cmp::Reverse(it.id));
        let keys = keys.into_iter().map(|key| ScopedKey::new(key, &scope)).collect();
        Self { scope, keys }
    }

    /// The scope.
    pub(super) fn scope(&self) -> &PinScope {
        &self.scope
    }

    /// The text of a pin; `None` without a key.
    pub(super) fn sign(&self, pin: Pin) -> Option<String> {
        let Pin { begin: Begin { generation: Generation(generation), order, on_candidate }, id } =
            pin;
        let key = self.keys.first().filter(|_| generation <= LARGEST)?;
        let mut bytes = [0; SIGNED];
        bytes[..2].copy_from_slice(&[VERSIONS[usize::from(on_candidate)], key.short_id()]);
        bytes[2..7].copy_from_slice(&generation.to_be_bytes()[3..]);
        bytes[7..11].copy_from_slice(&order.to_be_bytes());
        bytes[11..16].copy_from_slice(&(id & LARGEST).to_be_bytes()[3..]);
        let tag = key.tag(&bytes[..CONTENT]);
        bytes[CONTENT..].copy_from_slice(&tag.to_be_bytes());
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a text says, if one of the keys has signed it for this scope.
    pub(super) fn verify(&self, text: &[u8]) -> Option<Pin> {
        let bytes = decode(text.try_into().ok()?)?;
        let (content, tag) = bytes.split_at(CONTENT);
        let tag = u64::from_be_bytes(tag.try_into().ok()?);
        let has_signed = |it: &&ScopedKey| {
            // Two words are compared at once, so the time says nothing of the tag.
            content[1] == it.short_id() && it.tag(content) == tag
        };
        let on_candidate = VERSIONS.iter().position(|it| *it == content[0])? == 1;
        // Of 256 keys two have the same short number; so many are never kept.
        self.keys.iter().find(has_signed)?;
        let [_, _, g0, g1, g2, g3, g4, o0, o1, o2, o3, i0, i1, i2, i3, i4] =
            *content.first_chunk::<CONTENT>()?;
        let generation = Generation(u64::from_be_bytes([0, 0, 0, g0, g1, g2, g3, g4]));
        let order = u32::from_be_bytes([o0, o1, o2, o3]);
        Some(Pin {
            begin: Begin { generation, order, on_candidate },
            id: u64::from_be_bytes([0, 0, 0, i0, i1, i2, i3, i4]),
        })
    }
}

// === impl LastPin ===

impl LastPin {
    /// What a text says, if one of the keys has signed it for their scope.
    pub(super) fn read(&self, keys: &PinKeys, text: &[u8]) -> Option<Pin> {
        let text: &[u8; TEXT] = text.try_into().ok()?;
        let mut last = self.0.borrow_mut();
        if let Some(known) = last.as_ref()
            && known.text == *text
            && Arc::ptr_eq(&known.keys, &keys.keys)
        {
            return Some(known.pin);
        }
        let pin = keys.verify(text)?;
        let read = ReadPin { text: *text, pin, keys: Arc::clone(&keys.keys) };
        match last.as_mut() {
            Some(place) => **place = read,
            None => *last = Some(Box::new(read)),
        }
        Some(pin)
    }
}

/// Whether the secrets and the scope are the same.
impl PartialEq for PinKeys {
    fn eq(&self, other: &Self) -> bool {
        let keys = |it: &Self| it.keys.iter().map(|it| it.key).collect::<Vec<_>>();
        self.scope == other.scope && keys(self) == keys(other)
    }
}

/// The bytes of a text in base64 for URLs (RFC 4648, section 5). A library takes five times as long for a text of this
/// one length, and each pinned request has one.
fn decode(text: &[u8; TEXT]) -> Option<[u8; SIGNED]> {
    let mut bytes = [0; SIGNED];
    let mut all = 0;
    for (group, out) in text.as_chunks::<4>().0.iter().zip(bytes.as_chunks_mut::<3>().0) {
        let [a, b, c, d] = group.map(usize::from);
        let value = DIGITS[0][a] | DIGITS[1][b] | DIGITS[2][c] | DIGITS[3][d];
        all |= value;
        let [_, first, second, third] = value.to_be_bytes();
        *out = [first, second, third];
    }
    (all < INVALID).then_some(bytes)
}

/// Marks a character that is no digit.
const INVALID: u32 = 1 << 24;

/// The value of each character at each of the four places of a group.
static DIGITS: [[u32; 256]; 4] = {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut digits = [[INVALID; 256]; 4];
    let mut value = 0;
    while value < 64 {
        let at = ALPHABET[value as usize] as usize;
        digits[0][at] = value << 18;
        digits[1][at] = value << 12;
        digits[2][at] = value << 6;
        digits[3][at] = value;
        value += 1;
    }
    digits
};

// === impl ScopedKey ===

impl ScopedKey {
    fn new(key: PinKey, scope: &PinScope) -> Self {
        let mut hasher = SipHasher24::new_with_key(&key.secret);
        hasher.write(&scope.label);
        Self { key, hasher }
    }

    /// The last byte of its number.
    fn short_id(&self) -> u8 {
        self.key.id.to_be_bytes()[3]
    }

    fn tag(&self, content: &[u8]) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(content);
        hasher.finish()
    }
}

impl fmt::Debug for ScopedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}

// === impl PinScope ===

impl PinScope {
    /// The scope of a service that shares its pins with no other one.
    pub(super) fn service(name: &ServiceName) -> Self {
        Self::of(b"service", name)
    }

    /// The scope of a group of services.
    pub(super) fn group(name: &ServiceName) -> Self {
        Self::of(b"group", name)
    }

    fn of(kind: &[u8], name: &ServiceName) -> Self {
        let mut label = [kind, b"\0", name.as_str().as_bytes()].concat();
        // Whole words, with at least one byte 0: what follows is hashed fastest.
        label.resize((label.len() + 1).next_multiple_of(8), 0);
        Self { label: label.into(), cookie: format!("flipgate_pin_{name}").into() }
    }

    /// The name of the cookie.
    pub(super) fn cookie(&self) -> &str {
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

    const PIN: Pin = Pin {
        begin: Begin { generation: Generation(7), order: 9, on_candidate: false },
        id: 0x12_3456_789a,
    };

    fn keys(ids: &[u32]) -> PinKeys {
        PinKeys::new(scope("web"), ids.iter().map(|it| key(*it)).collect())
    }

    #[test]
    fn a_pin_that_was_read_before_is_valid_for_the_same_keys_only() {
        let (keys, last) = (keys(&[1]), LastPin::default());
        let text = keys.sign(PIN).expect("a key");
        let mut forged = text.clone().into_bytes();
        forged[TEXT - 1] ^= 1;
        for _ in 0..2 {
            assert_eq!(last.read(&keys, text.as_bytes()), Some(PIN));
            assert_eq!(last.read(&keys, &forged), None);
            assert_eq!(last.read(&keys, &text.as_bytes()[1..]), None);
        }
        let api = PinKeys::new(scope("api"), vec![key(1)]);
        assert_eq!(last.read(&api, text.as_bytes()), None, "it is of another service");
        assert_eq!(last.read(&self::keys(&[2]), text.as_bytes()), None, "its key is gone");
        let other = self::keys(&[1, 2]);
        let next = Pin { id: 7, ..PIN };
        let by_other = other.sign(next).expect("a key");
        assert_eq!(last.read(&other, by_other.as_bytes()), Some(next));
        assert_eq!(last.read(&keys, by_other.as_bytes()), None);
        assert_eq!(last.read(&other, text.as_bytes()), Some(PIN));
    }

    #[test]
    fn a_pin_is_read_by_every_key_that_is_kept_and_signed_by_the_newest() {
        let (old, both, new) = (keys(&[1]), keys(&[1, 2]), keys(&[2]));
        let [by_old, by_both] = [&old, &both].map(|it| it.sign(PIN).expect("a key"));
        assert_eq!(both.verify(by_old.as_bytes()), Some(PIN));
        assert_eq!(new.verify(by_both.as_bytes()), Some(PIN));
        assert_eq!(new.verify(by_old.as_bytes()), None, "its key is gone");
        assert_eq!(old.verify(by_both.as_bytes()), None);
        assert_eq!(keys(&[]).sign(PIN), None);
        assert_eq!(by_old.len(), TEXT);
        assert!(by_old.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it)));
    }

    #[test]
    fn the_largest_numbers_fit_and_larger_ones_are_not_signed() {
        let begin = Begin { generation: Generation(LARGEST), order: u32::MAX, on_candidate: true };
        let largest = Pin { begin, id: LARGEST };
        let text = keys(&[1]).sign(largest).expect("a key");
        assert_eq!(keys(&[1]).verify(text.as_bytes()), Some(largest));
        let begin = Begin { generation: Generation(LARGEST + 1), ..begin };
        let larger = Pin { begin, ..largest };
        assert_eq!(keys(&[1]).sign(larger), None);
    }

    #[test]
    fn a_forged_pin_is_ignored() {
        let web = keys(&[1]);
        let good = web.sign(PIN).expect("a key");
        let other = |scope, secret| PinKeys::new(scope, vec![PinKey { id: 1, secret }]);
        let group = PinScope::group(&"web".parse().expect("a name"));
        assert_eq!(other(scope("web"), [1; 16]).verify(good.as_bytes()), Some(PIN));
        assert_eq!(other(scope("api"), [1; 16]).verify(good.as_bytes()), None, "another service");
        assert_eq!(other(group, [1; 16]).verify(good.as_bytes()), None, "not of a group");
        assert_eq!(other(scope("web"), [9; 16]).verify(good.as_bytes()), None, "another secret");
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut forged = good.clone().into_bytes();
                if forged[at] != byte {
                    forged[at] = byte;
                    assert_eq!(web.verify(&forged), None, "{at} {byte}");
                }
            }
        }
        for text in ["", "A", &good[1..], &format!("{good}A"), &good.repeat(100)] {
            assert_eq!(web.verify(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_text_is_decoded_as_by_the_library() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut text = [0; TEXT].map(|_: u8| *random.choice(b"AZaz09-_").expect("one of 8"));
            if random.u8(..4) == 0 {
                text[random.usize(..TEXT)] = random.u8(..);
            }
            let expected = URL_SAFE_NO_PAD.decode(text).ok();
            assert_eq!(decode(&text).map(Vec::from), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn pins_stay_readable_from_one_version_to_the_next() {
        assert_eq!(keys(&[1]).sign(PIN).as_deref(), Some(TEXT_OF_PIN));
        // Its first byte differs, and so does its signature.
        let on_candidate = Pin { begin: Begin { on_candidate: true, ..PIN.begin }, ..PIN };
        let text = keys(&[1]).sign(on_candidate).expect("a key");
        assert_eq!((&text[..2], keys(&[1]).verify(text.as_bytes())), ("Ag", Some(on_candidate)));
    }

    /// The signature is that of another implementation of SipHash-2-4.
    const TEXT_OF_PIN: &str = "AQEAAAAABwAAAAkSNFZ4mhmbBoCZFGkT";

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", key(3)), "PinKey { id: 3, .. }");
    }
}
