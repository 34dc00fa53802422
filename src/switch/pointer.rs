//! The atomic pointer that the switch needs.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// An atomic pointer to an immutable value.
///
/// A trait, so that the model checker can use one that yields at every step; the program uses only [`ArcSwap`].
///
/// `ArcSwap::load` and not its `Cache`: with a cache an idle worker would keep an old table with its sides, which would
/// never be drained.
pub trait Pointer<T> {
    /// A pointer to `first`.
    fn holding(first: Arc<T>) -> Self;

    /// Calls `look` with the current value, which is kept alive until `look` returns.
    fn with<Out>(&self, look: impl FnOnce(&T) -> Out) -> Out;

    /// A reference to the current value.
    fn load(&self) -> Arc<T>;

    /// Replaces the value by `next` if it is still `seen`. Returns whether it was.
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
