//! Buffers for reading.

use std::{cell::RefCell, rc::Rc};

/// The free buffers of one worker. A few are kept, so that the next read finds one in the cache; the others are freed.
#[derive(Debug, Default)]
pub struct BufferPool {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

/// Bytes that were read and not yet consumed. Dropping it returns the memory to its pool.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Where the unconsumed bytes begin.
    start: usize,
    pool: Rc<BufferPool>,
}

/// The initial size of a buffer: most requests and responses fit.
pub(super) const SMALL: usize = 16 * 1024;

/// The size of a buffer for fast senders: fewer system calls for the same bytes.
pub(super) const LARGE: usize = 128 * 1024;

/// How many buffers of each size are kept.
const SMALL_KEPT: usize = 64;
const LARGE_KEPT: usize = 16;

// === impl BufferPool ===

impl BufferPool {
    /// A buffer of at least this size.
    pub fn take(self: &Rc<Self>, size: usize) -> Buffer {
        let (free, size) = match size {
            0..=SMALL => (&self.small, SMALL),
            _ => (&self.large, size.max(LARGE)),
        };
        let kept = free.borrow_mut().pop();
        let bytes = kept.unwrap_or_else(|| Vec::with_capacity(size));
        Buffer { bytes, start: 0, pool: Rc::clone(self) }
    }

    fn recycle(&self, mut bytes: Vec<u8>) {
        let (free, kept) = match bytes.capacity() {
            SMALL => (&self.small, SMALL_KEPT),
            LARGE => (&self.large, LARGE_KEPT),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < kept {
            bytes.clear();
            free.push(bytes);
        }
    }
}

// === impl Buffer ===

impl Buffer {
    /// The unconsumed bytes.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The unconsumed bytes, to be modified in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Marks the first `count` bytes as consumed.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.start, "more bytes consumed than read");
        self.start += count;
    }

    /// Spare capacity to read more, up to `max` unconsumed bytes in total. `None` if there are that many.
    pub(super) fn reserve(&mut self, max: usize) -> Option<&mut Vec<u8>> {
        if self.unread().len() >= max {
            return None;
        }
        if self.bytes.len() == self.bytes.capacity() {
            if self.start > 0 {
                self.bytes.drain(..self.start);
                self.start = 0;
            } else {
                self.bytes.reserve_exact(LARGE.max(self.bytes.len() * 2) - self.bytes.len());
            }
        }
        Some(&mut self.bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.recycle(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_buffer_is_empty() {
        let buffers = Rc::new(BufferPool::default());
        let mut buffer = buffers.take(SMALL);
        buffer.reserve(SMALL).expect("room").extend_from_slice(b"hello");
        buffer.consume(2);
        assert_eq!(buffer.unread(), b"llo");
        drop(buffer);
        assert_eq!(buffers.small.borrow().len(), 1);
        assert!(buffers.take(SMALL).unread().is_empty() && buffers.take(LARGE).unread().is_empty());
    }

    #[test]
    fn only_a_few_buffers_are_kept() {
        let buffers = Rc::new(BufferPool::default());
        let taken: Vec<_> = (0..2 * SMALL_KEPT).map(|_| buffers.take(SMALL)).collect();
        drop(taken);
        assert_eq!(buffers.small.borrow().len(), SMALL_KEPT);
    }

    #[test]
    fn a_buffer_grows_up_to_its_maximum() {
        let buffers = Rc::new(BufferPool::default());
        let mut buffer = buffers.take(SMALL);
        let fill = |buffer: &mut Buffer, max| {
            let spare = buffer.reserve(max)?;
            let count = spare.capacity() - spare.len();
            spare.extend(std::iter::repeat_n(b'x', count));
            Some(count)
        };
        assert_eq!(fill(&mut buffer, SMALL), Some(SMALL));
        assert_eq!(fill(&mut buffer, SMALL), None);
        buffer.consume(1000);
        assert_eq!(fill(&mut buffer, SMALL), Some(1000), "consumed bytes free capacity");
        assert_eq!(fill(&mut buffer, SMALL + 1), Some(LARGE - SMALL));
        assert_eq!(buffer.unread().len(), LARGE);
    }
}
