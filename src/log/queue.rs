//! The lines that are not written yet.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::IntCounter;

/// The state that the threads that log share with the thread that writes.
#[derive(Debug)]
pub(super) struct QueueShared {
    state: Mutex<QueueLines>,
    /// There is something to write.
    has_more: Condvar,
    /// Everything is written.
    is_done: Condvar,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct QueueLines {
    lines: VecDeque<LogLine>,
    /// Bytes of the queued lines and of those that are being written.
    bytes: usize,
    /// Lines that were dropped since the last one here.
    lost_after: u64,
    is_writing: bool,
    /// Lines that were dropped before there was a counter.
    dropped: u64,
    counter: Option<IntCounter>,
}

/// One line, and how many were dropped between it and the one before.
#[derive(Debug)]
pub(super) struct LogLine {
    pub(super) lost_before: u64,
    pub(super) text: Box<[u8]>,
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub(super) struct LogBatch {
    pub(super) lines: Vec<LogLine>,
    pub(super) lost_after: u64,
    bytes: usize,
}

/// A pipe takes up to this many bytes (`PIPE_BUF`) in one piece, so the lines of several processes that
/// share a pipe do not mix. A longer line is a batch of its own.
const BATCH_BYTES: usize = 4096;

/// What a line costs besides its text, so that short lines are bounded too.
const LINE_COST: usize = size_of::<LogLine>();

// === impl QueueShared ===

impl QueueShared {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            has_more: Condvar::new(),
            is_done: Condvar::new(),
            bytes_max,
        }
    }

    /// Takes a line, or drops and counts it if there is no room.
    pub(super) fn push(&self, text: &[u8]) {
        let text: Box<[u8]> = text.into();
        let cost = text.len() + LINE_COST;
        let mut state = self.lock();
        if state.bytes + cost > self.bytes_max {
            state.lost_after += 1;
            state.count(1);
            return;
        }
        let lost_before = std::mem::take(&mut state.lost_after);
        state.bytes += cost;
        state.lines.push_back(LogLine { lost_before, text });
        drop(state);
        self.has_more.notify_one();
    }

    /// Waits for lines. With `may_report`, dropped lines alone end the wait too. Without it, they are
    /// reported before the next line: after an error, the writer must not try again and again.
    pub(super) fn take(&self, may_report: bool) -> LogBatch {
        let mut state = self.lock();
        while state.lines.is_empty() && !(may_report && state.lost_after > 0) {
            state.is_writing = false;
            self.is_done.notify_all();
            state = self.has_more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        let (mut batch, mut length) = (LogBatch::default(), 0);
        while let Some(line) = state.lines.pop_front_if(|it| {
            length += it.text.len();
            length == it.text.len() || length <= BATCH_BYTES
        }) {
            batch.bytes += line.text.len() + LINE_COST;
            batch.lines.push(line);
        }
        if state.lines.is_empty() {
            // Give back the memory of a burst.
            state.lines.shrink_to(BATCH_BYTES / LINE_COST);
            if may_report {
                batch.lost_after = std::mem::take(&mut state.lost_after);
            }
        }
        batch
    }

    /// Frees the room that a batch has taken. `was_written` is `false` if its lines are lost.
    pub(super) fn done(&self, batch: &LogBatch, was_written: bool) {
        let mut state = self.lock();
        state.bytes -= batch.bytes;
        if !was_written {
            state.count(batch.lines.len() as u64);
        }
    }

    pub(super) fn count_with(&self, counter: &IntCounter) {
        let mut state = self.lock();
        counter.inc_by(std::mem::take(&mut state.dropped));
        state.counter = Some(counter.clone());
    }

    pub(super) fn flush(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.is_writing || !state.lines.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.is_done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, QueueLines> {
        // No code that holds the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl QueueLines ===

impl QueueLines {
    fn count(&mut self, lines: u64) {
        match &self.counter {
            Some(counter) => counter.inc_by(lines),
            None => self.dropped += lines,
        }
    }
}
