//! The thread that writes. No other thread waits for the reader of standard error.

use std::{
    os::fd::{AsFd, BorrowedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    line::{self, LogFormat},
    queue::QueueShared,
};

/// The pause after a descriptor was reported as writable and then was not.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// The pause after a panic, which is a line of its own and may be the cause of the next one.
const AFTER_PANIC: Duration = Duration::from_millis(100);

/// Writes lines for ever. After an error, for example because the reader has closed the pipe, or a panic,
/// the lines of that write are dropped, and the next lines are tried again.
pub(super) fn run(shared: &QueueShared, output: &impl AsFd, format: LogFormat) {
    let mut text = Vec::new();
    // Dropped lines that are not reported yet.
    let mut lost = 0;
    let mut may_report = true;
    loop {
        let batch = shared.take(may_report);
        let mut reported = lost;
        text.clear();
        for line in &batch.lines {
            report(&mut text, format, std::mem::take(&mut lost) + line.lost_before);
            reported += line.lost_before;
            text.extend_from_slice(&line.text);
        }
        report(&mut text, format, std::mem::take(&mut lost) + batch.lost_after);
        reported += batch.lost_after;
        let write = AssertUnwindSafe(|| write_all(output.as_fd(), &text).is_ok());
        may_report = catch_unwind(write).unwrap_or_else(|_| {
            // Blocking is fine: no other thread waits for this one.
            std::thread::park_timeout(AFTER_PANIC);
            false
        });
        if !may_report {
            lost = reported + batch.lines.len() as u64;
        }
        shared.done(&batch, may_report);
    }
}

fn report(text: &mut Vec<u8>, format: LogFormat, lost: u64) {
    if lost > 0 {
        text.extend_from_slice(line::dropped(format, lost).as_bytes());
    }
}

/// Waits as long as necessary, also if the descriptor is non-blocking: another process that shares it may
/// have set that.
fn write_all(output: BorrowedFd<'_>, mut text: &[u8]) -> Result<(), Errno> {
    let mut was_full = false;
    while !text.is_empty() {
        match rustix::io::write(output, text) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                text = &text[count..];
                was_full = false;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                wait_until_writable(output, was_full);
                was_full = true;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_until_writable(output: BorrowedFd<'_>, has_waited: bool) {
    // Errors of `poll` need no handling: the next write reports what is wrong.
    if has_waited {
        let _ = poll(&mut [], Some(&PAUSE));
    }
    let _ = poll(&mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)], None);
}
