//! What several benchmarks need: threads that begin together.

use std::{
    hint,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Has each of `threads` threads do `work`, which is given the thread's number, `rounds` times. Returns the
/// time from the first one's beginning to the last one's end.
pub(crate) fn together(threads: usize, rounds: u64, work: impl Fn(usize) + Sync) -> Duration {
    let ready = Barrier::new(threads);
    let times = thread::scope(|scope| {
        let spawn = |number| {
            let (ready, work) = (&ready, &work);
            scope.spawn(move || {
                ready.wait();
                let begin = Instant::now();
                for _ in 0..rounds {
                    work(number);
                }
                (begin, Instant::now())
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let join = |it: thread::ScopedJoinHandle<'_, _>| it.join().expect("work does not panic");
        running.into_iter().map(join).collect::<Vec<(Instant, Instant)>>()
    });
    let begin = times.iter().map(|it| it.0).min();
    let end = times.iter().map(|it| it.1).max();
    begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin)
}

/// The same, while one thread more does `other` over and over.
#[allow(dead_code, reason = "not every benchmark has another thread")]
pub(crate) fn together_beside(
    threads: usize,
    rounds: u64,
    work: impl Fn(usize) + Sync,
    other: impl Fn() + Sync,
) -> Duration {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                other();
                hint::spin_loop();
            }
        });
        let took = together(threads, rounds, work);
        is_over.store(true, Ordering::Relaxed);
        took
    })
}
