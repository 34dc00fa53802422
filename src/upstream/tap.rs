//! A tap on the requests of a pool: copies of their heads, for a gate that compares two versions.
//!
//! A tap is closed unless such a gate runs. A worker never waits for it: a copy that does not fit into the queue is
//! dropped and counted. What is copied is decided by the caller; this file does not know what a request is.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use crate::model::PathPrefix;

/// The most copies in the queue.
const QUEUE_MAX: usize = 64;

/// The most bytes of all copies in the queue.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// Copies the requests of a pool while it is open.
#[derive(Debug, Default)]
pub struct Tap {
    /// Whether there is a queue. Every request reads it.
    is_open: AtomicBool,
    queue: ArcSwapOption<TapQueue>,
}

/// Which requests are copied.
#[derive(Clone, Debug)]
pub struct TapSettings {
    /// Percent of the requests, 1 to 100.
    pub share: u8,
    /// Whether requests with credentials are copied.
    pub credentials: bool,
    /// Paths that are not copied.
    pub exclude: Vec<PathPrefix>,
}

/// Why a request is not copied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotCopied {
    /// It has credentials.
    Credentials,
    /// It has a `Range`.
    Range,
    /// It is conditional.
    Conditional,
    /// It has a body, or asks for another protocol.
    Body,
    /// Its path is excluded.
    Excluded,
    /// The queue was full.
    Dropped,
}

/// The queue of an open tap, for the workers.
#[derive(Debug)]
pub struct TapQueue {
    settings: TapSettings,
    sender: mpsc::Sender<Box<[u8]>>,
    bytes: AtomicUsize,
    copied: AtomicU64,
    not_copied: [AtomicU64; NotCopied::ALL.len()],
}

/// Keeps a tap open, and receives the copies. Dropping it closes the tap and frees the queue.
#[derive(Debug)]
pub struct OpenTap {
    tap: Arc<Tap>,
    queue: Arc<TapQueue>,
    receiver: mpsc::Receiver<Box<[u8]>>,
}

// === impl NotCopied ===

impl NotCopied {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Credentials,
        Self::Range,
        Self::Conditional,
        Self::Body,
        Self::Excluded,
        Self::Dropped,
    ];
}

// === impl Tap ===

impl Tap {
    /// Whether requests are to be copied.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Relaxed)
    }

    /// The queue; `None` if the tap is closed.
    #[must_use]
    pub fn queue(&self) -> Option<Arc<TapQueue>> {
        self.queue.load_full()
    }

    /// Opens the tap. `None` if it is open: its copies have one receiver.
    #[must_use]
    pub fn open(self: &Arc<Self>, settings: TapSettings) -> Option<OpenTap> {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let queue = Arc::new(TapQueue {
            settings,
            sender,
            bytes: AtomicUsize::new(0),
            copied: AtomicU64::new(0),
            not_copied: Default::default(),
        });
        let closed = None::<Arc<TapQueue>>;
        let before = self.queue.compare_and_swap(&closed, Some(Arc::clone(&queue)));
        if before.is_some() {
            return None;
        }
        self.is_open.store(true, Relaxed);
        Some(OpenTap { tap: Arc::clone(self), queue, receiver })
    }
}

// === impl TapQueue ===

impl TapQueue {
    /// Which requests are copied.
    #[must_use]
    pub fn settings(&self) -> &TapSettings {
        &self.settings
    }

    /// Adds a copy of a request head. Never waits: if the queue is full, the copy is dropped and counted.
    pub fn push(&self, head: &[u8]) {
        if self.bytes.fetch_add(head.len(), Relaxed) + head.len() > QUEUE_BYTES_MAX {
            self.bytes.fetch_sub(head.len(), Relaxed);
            return self.skip(NotCopied::Dropped);
        }
        // Reserved first: without a place, there is no copy of the bytes.
        match self.sender.try_reserve() {
            Ok(place) => {
                self.copied.fetch_add(1, Relaxed);
                place.send(head.into());
            }
            Err(_) => {
                self.bytes.fetch_sub(head.len(), Relaxed);
                self.skip(NotCopied::Dropped);
            }
        }
    }

    /// Counts a request that is not copied.
    pub fn skip(&self, why: NotCopied) {
        self.not_copied[why as usize].fetch_add(1, Relaxed);
    }
}

// === impl OpenTap ===

impl OpenTap {
    /// The next copy. Waits for it. Cancel-safe: no copy is lost.
    pub async fn next(&mut self) -> Box<[u8]> {
        let head = self.receiver.recv().await.expect("this tap has a sender");
        self.queue.bytes.fetch_sub(head.len(), Relaxed);
        head
    }

    /// Copies so far, also those that wait in the queue.
    #[must_use]
    pub fn copied(&self) -> u64 {
        self.queue.copied.load(Relaxed)
    }

    /// Copies in the queue.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.receiver.len()
    }

    /// How many requests were not copied for this reason.
    #[must_use]
    pub fn not_copied(&self, why: NotCopied) -> u64 {
        self.queue.not_copied[why as usize].load(Relaxed)
    }

    /// Stops copying. The copies in the queue stay.
    pub fn close(&self) {
        self.tap.is_open.store(false, Relaxed);
    }
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        self.close();
        // The last: another gate may open the tap from here on.
        self.tap.queue.store(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TapSettings {
        TapSettings { share: 100, credentials: false, exclude: Vec::new() }
    }

    #[test]
    fn the_reasons_are_in_the_order_of_their_numbers() {
        assert!(NotCopied::ALL.iter().enumerate().all(|(number, it)| *it as usize == number));
    }

    #[tokio::test]
    async fn a_tap_has_one_receiver_and_closes_with_it() {
        let tap = Arc::new(Tap::default());
        assert!(!tap.is_open() && tap.queue().is_none());
        let mut open = tap.open(settings()).expect("it was closed");
        assert!(tap.is_open() && tap.open(settings()).is_none(), "one at a time");
        let queue = tap.queue().expect("open");
        queue.push(b"one");
        assert_eq!((&*open.next().await, open.copied()), (&b"one"[..], 1));
        drop(open);
        assert!(!tap.is_open() && tap.queue().is_none());
        // A worker that had the queue before the end.
        queue.push(b"two");
        assert_eq!(queue.bytes.load(Relaxed), 0);
        assert_eq!(Arc::strong_count(&queue), 1, "nothing else keeps it");
        assert!(tap.open(settings()).is_some(), "it can be opened again");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_by_number_and_by_bytes() {
        let tap = Arc::new(Tap::default());
        let mut open = tap.open(settings()).expect("it was closed");
        let queue = tap.queue().expect("open");
        (0..QUEUE_MAX + 3).for_each(|_| queue.push(b"head"));
        assert_eq!((open.queued(), open.not_copied(NotCopied::Dropped)), (QUEUE_MAX, 3));
        open.next().await;
        queue.push(b"head");
        assert_eq!(open.copied(), QUEUE_MAX as u64 + 1, "there was a free place");
        for _ in 0..QUEUE_MAX {
            open.next().await;
        }
        assert_eq!(queue.bytes.load(Relaxed), 0);
        let large = vec![b'x'; QUEUE_BYTES_MAX / 2];
        (0..3).for_each(|_| queue.push(&large));
        assert_eq!((open.queued(), open.not_copied(NotCopied::Dropped)), (2, 4));
    }
}
