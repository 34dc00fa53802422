//! A sorted map with versions that share unchanged entries.

use std::{borrow::Borrow, fmt, ops::Index, sync::Arc};

/// A sorted map that is cheap to clone. A version and the one before it share what did not change, so a change of one
/// of ten thousand entries copies a few hundred pointers, and versions are compared by their differences. The entries
/// near a change are cloned, so large values belong behind an [`Arc`].
// Not a crate: imbl 7.0.2 is unsound (double free in `Vector::retain`), and rpds 1.2 cannot compare two versions. Two
// levels are enough for the services of one proxy.
pub struct VersionedMap<K, V> {
    /// Sorted; each has 1 to [`NODE_MAX`] entries.
    nodes: Arc<Vec<MapNode<K, V>>>,
    len: usize,
}

type MapNode<K, V> = Arc<Vec<(K, V)>>;

/// A difference between two versions of a map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Difference<'a, K, V> {
    /// The later version has a new entry.
    Added(&'a K, &'a V),
    /// Both have the entry, with different values; the earlier value comes first.
    Changed(&'a K, &'a V, &'a V),
    /// The later version does not have the entry any more.
    Removed(&'a K, &'a V),
}

/// The maximum of entries in a node.
const NODE_MAX: usize = 128;

// === impl VersionedMap ===

impl<K: Ord + Clone, V: Clone> VersionedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let node = self.nodes.get(self.node_of(key))?;
        let index = node.binary_search_by(|it| it.0.borrow().cmp(key)).ok()?;
        Some(&node[index].1)
    }

    /// Whether the map has a key.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Sets the value of a key, and returns the previous one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.node_of(&key);
        let nodes = Arc::make_mut(&mut self.nodes);
        let Some(node) = nodes.get_mut(at) else {
            nodes.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let node = Arc::make_mut(node);
        match node.binary_search_by(|it| it.0.cmp(&key)) {
            Ok(index) => Some(std::mem::replace(&mut node[index].1, value)),
            Err(index) => {
                node.insert(index, (key, value));
                self.len += 1;
                if node.len() > NODE_MAX {
                    // An insert at the end keeps the node full, so that a map filled in order has full nodes.
                    let is_last = index + 1 == node.len();
                    let rest = node.split_off(if is_last { NODE_MAX } else { NODE_MAX / 2 });
                    nodes.insert(at + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Removes a key, and returns its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.node_of(key);
        let index = self.nodes.get(at)?.binary_search_by(|it| it.0.borrow().cmp(key)).ok()?;
        let nodes = Arc::make_mut(&mut self.nodes);
        let node = Arc::make_mut(&mut nodes[at]);
        let (_, value) = node.remove(index);
        if node.is_empty() {
            nodes.remove(at);
        }
        self.len -= 1;
        Some(value)
    }

    /// The node that has the key, or would have it.
    fn node_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let later = self.nodes.partition_point(|it| it[0].0.borrow() <= key);
        later.saturating_sub(1)
    }
}

impl<K, V> VersionedMap<K, V> {
    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.nodes.iter().flat_map(|it| it.iter()).map(|(key, value)| (key, value))
    }

    /// The entry with the greatest key.
    #[must_use]
    pub fn last(&self) -> Option<(&K, &V)> {
        self.nodes.last()?.last().map(|(key, value)| (key, value))
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|it| it.0)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|it| it.1)
    }

    /// Whether both are the same version; does not compare entries.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.nodes, &other.nodes)
    }
}

impl<K: Ord, V: PartialEq> VersionedMap<K, V> {
    /// The differences of `later`, by key. Shared nodes are skipped.
    #[must_use]
    pub fn differences<'a>(&'a self, later: &'a Self) -> Vec<Difference<'a, K, V>> {
        let mut found = Vec::new();
        let (mut old, mut new) = (Cursor::at(self), Cursor::at(later));
        loop {
            while old.skips_with(&new) {
                (old.node, new.node) = (old.node + 1, new.node + 1);
            }
            match (old.entry(), new.entry()) {
                (None, None) => return found,
                (Some((key, value)), None) => {
                    found.push(Difference::Removed(key, value));
                    old.advance();
                }
                (None, Some((key, value))) => {
                    found.push(Difference::Added(key, value));
                    new.advance();
                }
                (Some((old_key, old_value)), Some((new_key, new_value))) => {
                    let order = old_key.cmp(new_key);
                    if order.is_lt() {
                        found.push(Difference::Removed(old_key, old_value));
                    } else if order.is_gt() {
                        found.push(Difference::Added(new_key, new_value));
                    } else if old_value != new_value {
                        found.push(Difference::Changed(new_key, old_value, new_value));
                    }
                    if order.is_le() {
                        old.advance();
                    }
                    if order.is_ge() {
                        new.advance();
                    }
                }
            }
        }
    }
}

/// A position in a map.
struct Cursor<'a, K, V> {
    nodes: &'a [MapNode<K, V>],
    node: usize,
    index: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn at(map: &'a VersionedMap<K, V>) -> Self {
        Self { nodes: &map.nodes, node: 0, index: 0 }
    }

    /// Whether both are at the beginning of a shared node.
    fn skips_with(&self, other: &Self) -> bool {
        let node = |it: &Self| it.nodes.get(it.node).filter(|_| it.index == 0).map(Arc::as_ptr);
        node(self).is_some() && node(self) == node(other)
    }

    fn entry(&self) -> Option<(&'a K, &'a V)> {
        self.nodes.get(self.node).map(|it| (&it[self.index].0, &it[self.index].1))
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.nodes.get(self.node).is_some_and(|it| self.index == it.len()) {
            (self.node, self.index) = (self.node + 1, 0);
        }
    }
}

impl<K, V> Default for VersionedMap<K, V> {
    fn default() -> Self {
        Self { nodes: Arc::default(), len: 0 }
    }
}

impl<K, V> Clone for VersionedMap<K, V> {
    fn clone(&self) -> Self {
        Self { nodes: Arc::clone(&self.nodes), len: self.len }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for VersionedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_version(other) || self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for VersionedMap<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for VersionedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for VersionedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord + Clone + Borrow<Q>, Q: Ord + ?Sized, V: Clone> Index<&Q> for VersionedMap<K, V> {
    type Output = V;

    /// # Panics
    ///
    /// If the key does not exist.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key exists")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Random changes compared with a standard map, with every version kept.
    #[test]
    fn it_behaves_like_a_btree_map_and_finds_all_differences() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut map, mut known) = (VersionedMap::default(), BTreeMap::new());
        let mut versions = vec![(map.clone(), known.clone())];
        for _ in 0..4000 {
            let key = random.u32(..1000);
            match random.u8(..4) {
                0 => assert_eq!(map.remove(&key), known.remove(&key), "seed {seed}"),
                _ => {
                    let value = random.u8(..3);
                    assert_eq!(map.insert(key, value), known.insert(key, value), "seed {seed}");
                }
            }
            if random.u8(..20) == 0 {
                versions.push((map.clone(), known.clone()));
            }
        }
        for (map, known) in &versions {
            assert_eq!(map.len(), known.len(), "seed {seed}");
            assert!(map.iter().eq(known.iter()), "seed {seed}");
            assert!(map.nodes.iter().all(|it| (1..=NODE_MAX).contains(&it.len())));
            for key in 0..1000 {
                assert_eq!(map.get(&key), known.get(&key), "seed {seed}");
            }
        }
        for pair in versions.windows(2).chain([&[versions[0].clone(), versions[99].clone()][..]]) {
            let [(old, known_old), (new, known_new)] = pair else { panic!("two") };
            let found = old.differences(new);
            let mut expected = Vec::new();
            for key in 0..1000_u32 {
                match (known_old.get_key_value(&key), known_new.get_key_value(&key)) {
                    (None, Some((key, new))) => expected.push(Difference::Added(key, new)),
                    (Some((key, old)), None) => expected.push(Difference::Removed(key, old)),
                    (Some((key, old)), Some((_, new))) if old != new => {
                        expected.push(Difference::Changed(key, old, new));
                    }
                    _ => {}
                }
            }
            assert_eq!(found, expected, "seed {seed}");
        }
    }

    #[test]
    fn a_change_shares_the_other_nodes() {
        let map: VersionedMap<u32, u32> = (0..10_000).map(|it| (it, 0)).collect();
        let mut later = map.clone();
        assert!(map.is_same_version(&later));
        later.insert(5000, 1);
        let shared = map.nodes.iter().zip(&*later.nodes).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), map.nodes.len() - 1);
        assert_eq!(
            map.nodes.len(),
            10_000_usize.div_ceil(NODE_MAX),
            "filled in order, nodes are full"
        );
    }
}
