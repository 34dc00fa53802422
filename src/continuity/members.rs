//! The transactions of clients that name them: a bounded table of who began when, and was last seen when.
//!
//! A client chooses these names, so the table is the clients' to fill. Each network of clients has a part of it: what one
//! of them adds to a full table takes the place of what the fullest network has used least lately.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::model::Generation;

/// Transactions by their names. All methods take a lock that is held for a moment.
#[derive(Debug)]
pub struct Members {
    shards: Box<[Mutex<Shard>]>,
    /// Hashes names and clients, so that clients cannot choose names that collide.
    secret: [u8; 16],
}

/// The name of a transaction, and the part of the table that its client may fill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemberKey {
    name: u128,
    owner: u8,
}

/// When a transaction began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Begin {
    /// The generation.
    pub generation: Generation,
    /// Which of two began earlier: a smaller number. It decides nothing else.
    pub order: u32,
    /// Whether it began on the candidate of a gradual promotion instead of the active color.
    pub on_candidate: bool,
}

#[derive(Debug)]
struct Shard {
    index: HashMap<u128, u32, BuildHasherDefault<Same>>,
    members: Vec<Member>,
    /// The places of `members` that are free.
    free: Vec<u32>,
    owners: Box<[Owner; OWNERS]>,
    capacity: usize,
}

#[derive(Debug)]
struct Member {
    name: u128,
    begin: Begin,
    used: Instant,
    owner: u8,
    /// The neighbors in the list of the owner, by last use.
    newer: u32,
    older: u32,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    newest: u32,
    oldest: u32,
    count: u32,
}

/// A hash that is one already.
#[derive(Debug, Default)]
struct Same(u64);

const SHARDS: usize = 16;

const OWNERS: usize = 64;

/// The most transactions of one service.
const MEMBERS_MAX: usize = 65_536;

/// No place.
const NONE: u32 = u32::MAX;

// === impl Members ===

impl Members {
    /// No transactions. `secret` must be random.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self::with_capacity(secret, MEMBERS_MAX)
    }

    fn with_capacity(secret: [u8; 16], capacity: usize) -> Self {
        let shard = |_| Mutex::new(Shard::new(capacity / SHARDS));
        Self { shards: (0..SHARDS).map(shard).collect(), secret }
    }

    /// The key of a name. `client` are the bytes of the client's network.
    #[must_use]
    pub fn key(&self, name: &[u8], client: &[u8]) -> MemberKey {
        let hash = |it: &[u8]| {
            let mut hasher = SipHasher24::new_with_key(&self.secret);
            hasher.write(it);
            hasher.finish128().as_u128()
        };
        MemberKey { name: hash(name), owner: owner(hash(client)) }
    }

    /// The transaction, which counts as used now; unless `is_live` is false for it, which is given when it was used before.
    /// Then it is forgotten.
    pub fn touch(
        &self,
        key: MemberKey,
        now: Instant,
        is_live: impl FnOnce(Begin, Instant) -> bool,
    ) -> Option<Begin> {
        self.shard(key).touch(key.name, now, is_live)
    }

    /// Begins a transaction, in place of an earlier one with the same key.
    pub fn begin(&self, key: MemberKey, begin: Begin, now: Instant) {
        self.shard(key).begin(key, begin, now);
    }

    /// Forgets all transactions for which `is_live` is false, given when they were used last. Takes time in proportion to
    /// their number, and each lock for a sixteenth of it.
    pub fn retain(&self, is_live: impl Fn(Begin, Instant) -> bool) {
        self.shards.iter().for_each(|it| lock(it).retain(&is_live));
    }

    /// How many transactions `is_counted` is true for, given when they were used last. Takes time in proportion to their
    /// number.
    pub fn count(&self, is_counted: impl Fn(Begin, Instant) -> bool) -> usize {
        let count = |it: &Mutex<Shard>| {
            let shard = lock(it);
            let members = shard.index.values().map(|it| &shard.members[*it as usize]);
            members.filter(|it| is_counted(it.begin, it.used)).count()
        };
        self.shards.iter().map(count).sum()
    }

    fn shard(&self, key: MemberKey) -> MutexGuard<'_, Shard> {
        // Other bits than those that the map uses.
        lock(&self.shards[(key.name >> 64) as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn owner(hash: u128) -> u8 {
    u8::try_from(hash % OWNERS as u128).expect("there are fewer than 256 owners")
}

// === impl Shard ===

impl Shard {
    fn new(capacity: usize) -> Self {
        let none = Owner { newest: NONE, oldest: NONE, count: 0 };
        Self {
            index: HashMap::default(),
            members: Vec::new(),
            free: Vec::new(),
            owners: Box::new([none; OWNERS]),
            capacity,
        }
    }

    fn touch(
        &mut self,
        name: u128,
        now: Instant,
        is_live: impl FnOnce(Begin, Instant) -> bool,
    ) -> Option<Begin> {
        let place = *self.index.get(&name)?;
        let member = &mut self.members[place as usize];
        let begin = member.begin;
        if !is_live(begin, std::mem::replace(&mut member.used, now)) {
            self.remove(place);
            return None;
        }
        self.unlink(place);
        self.link(place);
        Some(begin)
    }

    fn begin(&mut self, key: MemberKey, begin: Begin, now: Instant) {
        let MemberKey { name, owner } = key;
        if let Some(&place) = self.index.get(&name) {
            self.remove(place);
        } else if self.index.len() >= self.capacity {
            self.remove_oldest_of_fullest();
        }
        let member = Member { name, begin, used: now, owner, newer: NONE, older: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.members[place as usize] = member;
                place
            }
            None => {
                self.members.push(member);
                u32::try_from(self.members.len() - 1).expect("a shard has a few thousand places")
            }
        };
        self.index.insert(name, place);
        self.link(place);
    }

    fn retain(&mut self, is_live: impl Fn(Begin, Instant) -> bool) {
        let is_gone = |it: &u32| {
            let member = &self.members[*it as usize];
            !is_live(member.begin, member.used)
        };
        let gone: Vec<u32> = self.index.values().copied().filter(is_gone).collect();
        gone.into_iter().for_each(|it| self.remove(it));
    }

    fn remove_oldest_of_fullest(&mut self) {
        let fullest = self.owners.iter().max_by_key(|it| it.count).map(|it| it.oldest);
        if let Some(oldest) = fullest.filter(|it| *it != NONE) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, place: u32) {
        self.unlink(place);
        self.index.remove(&self.members[place as usize].name);
        self.free.push(place);
    }

    /// Makes a member the newest of its owner.
    fn link(&mut self, place: u32) {
        let owner = &mut self.owners[usize::from(self.members[place as usize].owner)];
        let newest = std::mem::replace(&mut owner.newest, place);
        owner.count += 1;
        if newest == NONE {
            owner.oldest = place;
        } else {
            self.members[newest as usize].newer = place;
        }
        let member = &mut self.members[place as usize];
        (member.older, member.newer) = (newest, NONE);
    }

    fn unlink(&mut self, place: u32) {
        let Member { owner, newer, older, .. } = self.members[place as usize];
        let owner = &mut self.owners[usize::from(owner)];
        owner.count -= 1;
        match newer {
            NONE => owner.newest = older,
            newer => self.members[newer as usize].older = older,
        }
        match older {
            NONE => owner.oldest = newer,
            older => self.members[older as usize].newer = newer,
        }
    }
}

// === impl Same ===

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only keys of 128 bits are hashed, by `write_u128`.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn members(capacity: usize) -> (Members, Instant) {
        (Members::with_capacity([7; 16], capacity), Instant::now())
    }

    fn at(generation: u64) -> Begin {
        Begin { generation: Generation(generation), order: 0, on_candidate: false }
    }

    fn is_known(members: &Members, key: MemberKey, now: Instant) -> bool {
        members.touch(key, now, |_, _| true).is_some()
    }

    #[test]
    fn a_transaction_is_known_by_its_name_for_every_client() {
        let (members, now) = members(1600);
        let later = now + Duration::from_secs(9);
        members.begin(members.key(b"scan-1", b"10.0.0.1"), at(3), now);
        let other_client = members.key(b"scan-1", b"10.9.9.9");
        let used_at = |expected| move |_, used| used == expected;
        assert_eq!(members.touch(other_client, later, used_at(now)), Some(at(3)));
        assert_eq!(members.touch(other_client, later, used_at(later)), Some(at(3)));
        assert!(!is_known(&members, members.key(b"scan-2", b"10.0.0.1"), later));
        members.begin(other_client, at(5), later);
        assert_eq!(members.touch(other_client, later, used_at(later)), Some(at(5)));
        assert_eq!(members.count(|_, _| true), 1);
    }

    #[test]
    fn a_transaction_that_has_lapsed_does_not_come_back() {
        let (members, now) = members(1600);
        let key = members.key(b"scan-1", b"10.0.0.1");
        members.begin(key, at(3), now);
        assert_eq!(members.touch(key, now, |_, _| false), None);
        assert_eq!(members.touch(key, now, |_, _| true), None);
    }

    #[test]
    fn a_client_that_fills_the_table_takes_its_own_places() {
        let (members, now) = members(1600);
        let quiet: Vec<_> = (0..20).map(|it| members.key(&[it], b"quiet")).collect();
        quiet.iter().for_each(|it| members.begin(*it, at(1), now));
        for name in 0..20_000_u32 {
            members.begin(members.key(&name.to_be_bytes(), b"loud"), at(2), now);
        }
        let same_part = members.key(b"", b"quiet").owner == members.key(b"", b"loud").owner;
        assert!(!same_part, "choose other names for the test");
        assert!(members.count(|_, _| true) <= 1600);
        assert!(quiet.iter().all(|it| is_known(&members, *it, now)));
        let newest = members.key(&19_999_u32.to_be_bytes(), b"loud");
        assert!(is_known(&members, newest, now), "the least lately used ones have gone");
        assert!(!is_known(&members, members.key(&0_u32.to_be_bytes(), b"loud"), now));
    }

    #[test]
    fn what_is_not_kept_is_gone_and_its_place_is_used_again() {
        let (members, now) = members(160);
        for name in 0..100_u32 {
            let key = members.key(&name.to_be_bytes(), &name.to_be_bytes());
            members.begin(key, at(u64::from(name % 2)), now);
        }
        members.retain(|begin, _| begin == at(1));
        assert_eq!([0, 1].map(|it| members.count(|begin, _| begin == at(it))), [0, 50]);
        for name in 200..10_000_u32 {
            members.begin(members.key(&name.to_be_bytes(), b"x"), at(2), now);
        }
        let places: usize = members.shards.iter().map(|it| lock(it).members.len()).sum();
        assert!(places <= 160, "{places}");
    }

    /// Against a simple model, with random names, owners and moments.
    #[test]
    fn the_least_lately_used_of_the_fullest_owner_makes_room() {
        let mut random = fastrand::Rng::with_seed(17);
        let mut shard = Shard::new(40);
        let mut model: Vec<(u128, u8)> = Vec::new();
        let now = Instant::now();
        for _ in 0..20_000 {
            let (name, owner) = (u128::from(random.u8(..120)), random.u8(..4));
            let known = model.iter().position(|it| it.0 == name);
            if random.bool() {
                assert_eq!(shard.touch(name, now, |_, _| true).is_some(), known.is_some());
                if let Some(at) = known {
                    let it = model.remove(at);
                    model.push(it);
                }
                continue;
            }
            shard.begin(MemberKey { name, owner }, at(1), now);
            match known {
                Some(at) => drop(model.remove(at)),
                None if model.len() == 40 => {
                    let count = |owner: u8| model.iter().filter(|it| it.1 == owner).count();
                    // The last of several equal ones, as `max_by_key` has it.
                    let fullest = (0..4).max_by_key(|it| count(*it)).expect("four owners");
                    let at = model.iter().position(|it| it.1 == fullest);
                    model.remove(at.expect("the fullest has some"));
                }
                None => {}
            }
            model.push((name, owner));
            let mut names: Vec<u128> = shard.index.keys().copied().collect();
            let mut expected: Vec<u128> = model.iter().map(|it| it.0).collect();
            names.sort_unstable();
            expected.sort_unstable();
            assert_eq!(names, expected);
        }
    }
}
