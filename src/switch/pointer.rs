//! What the switch needs of an atomic pointer.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// An atomic pointer to an immutable value.
///
/// A trait, so that the model checker can put in one that gives way at every step; the running
/// program has [`ArcSwap`] alone.
///
/// `ArcSwap::load` and not its `Cache`: a cache would let an idle worker keep an old table, and
/// with it the old sides, and `drained` would never come.
pub trait Pointer<T> {
    /// A pointer to `first`.
    fn holding(first: Arc<T>) -> Self;

    /// Shows the current value. The value outlives the call of `look` and no longer.
    fn with<Out>(&self, look: impl FnOnce(&T) -> Out) -> Out;

    /// A reference of one's own to the current value.
    fn load(&self) -> Arc<T>;

    /// Puts `next` where `seen` is, and says whether it was still there.
    fn replace(&self, seen: &Arc<T>, next: Arc<T>) -> bool;
}

impl<T> Pointer<T> for ArcSwap<T> {
    fn holding(first: Arc<T>) -> Self {
        Self::new(first)
    }

    fn with<Out>(&self, look: impl FnOnce(&T) -> Out) -> Out {
        look(&Self::load(self))
    }

    fn load(&self) -> Arc<T> {
        self.load_full()
    }

    fn replace(&self, seen: &Arc<T>, next: Arc<T>) -> bool {
        Arc::ptr_eq(&self.compare_and_swap(seen, next), seen)
    }
}
