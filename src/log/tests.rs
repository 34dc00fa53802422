use std::{
    io::{BufRead, BufReader, PipeReader, Write},
    os::fd::{BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use rustix::io::ioctl_fionbio;
use serde_json::Value;
use tracing_subscriber::{fmt, layer::SubscriberExt};

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn pipe() -> (BufReader<PipeReader>, OwnedFd) {
    let (reader, writer) = io::pipe().expect("a pipe");
    (BufReader::new(reader), writer.into())
}

fn counter() -> IntCounter {
    IntCounter::new("dropped", "lines").expect("a name")
}

fn log(mut queue: &LogQueue, text: &str) {
    queue.write_all(text.as_bytes()).expect("it takes everything");
}

fn next(reader: &mut BufReader<PipeReader>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("lines are UTF-8");
    line
}

/// Fills a pipe with empty lines.
fn fill(writer: &OwnedFd) {
    ioctl_fionbio(writer, true).expect("a pipe can be non-blocking");
    while rustix::io::write(writer, &[b'\n'; 4096]).is_ok() {}
    ioctl_fionbio(writer, false).expect("a pipe can be blocking");
}

/// Logs more than the queue holds while the pipe is full, then reads everything. Returns how many lines
/// were dropped.
fn overflow(mut reader: BufReader<PipeReader>, writer: OwnedFd) -> u64 {
    let queue = LogQueue::start_on(writer, LogFormat::Json, 10_000).expect("a thread");
    let dropped = counter();
    queue.count_with(&dropped);
    let sent = 3000;
    for number in 0..sent {
        log(&queue, &format!("{{\"number\":{number},\"filler\":\"{:60}\"}}\n", ""));
    }
    assert!(dropped.get() > 0);
    assert!(!queue.flush(Duration::from_millis(10)), "the reader is not there");
    let (mut expected, mut reported) = (0, 0);
    while expected < sent {
        let line = next(&mut reader);
        if line == "\n" {
            continue;
        }
        let line: Value = serde_json::from_str(&line).expect("JSON");
        match line.get("dropped").and_then(Value::as_u64) {
            Some(missing) => {
                assert_eq!(line["level"], "WARN");
                reported += missing;
                expected += missing;
            }
            None => {
                assert_eq!(line["number"], expected, "in order, and no gap that is not reported");
                expected += 1;
            }
        }
    }
    assert_eq!(reported, dropped.get());
    assert!(queue.flush(LONG));
    log(&queue, "later\n");
    assert_eq!(next(&mut reader), "later\n");
    dropped.get()
}

#[test]
fn lines_that_do_not_fit_are_counted_and_reported_at_their_place() {
    let (reader, writer) = pipe();
    fill(&writer);
    assert!(overflow(reader, writer) > 1000);
}

#[test]
fn a_non_blocking_descriptor_is_waited_for() {
    let (reader, writer) = pipe();
    fill(&writer);
    ioctl_fionbio(&writer, true).expect("a pipe can be non-blocking");
    assert!(overflow(reader, writer) > 1000);
}

#[test]
fn a_closed_pipe_costs_lines_and_nothing_else() {
    let (reader, writer) = pipe();
    let queue = LogQueue::start_on(writer, LogFormat::Text, 10_000).expect("a thread");
    drop(reader);
    log(&queue, "one\n");
    log(&queue, "two\n");
    assert!(queue.flush(LONG), "lines that cannot be written do not stay");
    let dropped = counter();
    queue.count_with(&dropped);
    assert_eq!(dropped.get(), 2, "also those from before there was a counter");
    log(&queue, "three\n");
    assert!(queue.flush(LONG));
    assert_eq!(dropped.get(), 3);
}

#[test]
fn an_event_is_one_line() {
    let (mut reader, writer) = pipe();
    let queue = LogQueue::start_on(writer, LogFormat::Text, 10_000).expect("a thread");
    let lines = fmt::layer().with_ansi(false).with_writer(queue.clone());
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
        tracing::info!(number = 7, "two\nlines");
        tracing::info!("the next one");
    });
    assert!(next(&mut reader).ends_with("two\\nlines number=7\n"));
    assert!(next(&mut reader).ends_with("the next one\n"));
}

#[test]
fn a_long_line_is_cut_and_stays_valid() {
    let long = "ü".repeat(line::LINE_BYTES_MAX);
    let json = format!("{{\"message\":\"{long}\"}}\n");
    let cut = line::fit(LogFormat::Json, json.as_bytes());
    assert!(cut.len() <= line::LINE_BYTES_MAX);
    let cut: Value = serde_json::from_slice(&cut).expect("JSON");
    assert_eq!(cut["bytes"], json.len() - 1);
    assert!(cut["beginning"].as_str().is_some_and(|it| it.starts_with("{\"message\":\"üü")));

    let text = line::fit(LogFormat::Text, long.as_bytes());
    let text = String::from_utf8_lossy(&text);
    assert!(text.len() <= line::LINE_BYTES_MAX);
    assert!(text.starts_with("üü") && text.ends_with("bytes)\n"), "{text}");
}

#[test]
fn missing_lines_are_reported_in_the_format_of_the_log() {
    let json: Value = serde_json::from_str(&line::dropped(LogFormat::Json, 3)).expect("JSON");
    assert_eq!(json["dropped"], 3);
    assert!(line::dropped(LogFormat::Text, 3).ends_with("dropped=3\n"));
}

#[test]
fn a_panic_is_an_event() {
    let (mut reader, writer) = pipe();
    let queue = LogQueue::start_on(writer, LogFormat::Json, 10_000).expect("a thread");
    let lines = fmt::layer().json().flatten_event(true).with_writer(queue);
    let subscriber = tracing_subscriber::registry().with(lines);
    let before = std::panic::take_hook();
    LogQueue::log_panics();
    let thread = std::thread::Builder::new().name("panicking".to_owned());
    let thread = thread.spawn(|| {
        tracing::subscriber::with_default(subscriber, || panic!("number {}", 7));
    });
    assert!(thread.expect("a thread").join().is_err());
    std::panic::set_hook(before);
    let line: Value = serde_json::from_str(&next(&mut reader)).expect("JSON");
    assert_eq!((&line["level"], &line["thread"]), (&"ERROR".into(), &"panicking".into()));
    assert_eq!(line["payload"], "number 7");
    assert!(line["location"].as_str().is_some_and(|it| it.starts_with("src/log/tests.rs:")));
}

/// A descriptor that panics when it is used for the first time.
struct PanickingOutput(OwnedFd, AtomicBool);

impl AsFd for PanickingOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        assert!(self.1.swap(true, SeqCst), "planted");
        self.0.as_fd()
    }
}

#[test]
fn the_thread_that_writes_survives_a_panic() {
    let (mut reader, writer) = pipe();
    let output = PanickingOutput(writer, AtomicBool::new(false));
    let queue = LogQueue::start_on(output, LogFormat::Text, 10_000).expect("a thread");
    let dropped = counter();
    queue.count_with(&dropped);
    queue.put("one\n");
    assert!(queue.flush(LONG));
    assert_eq!(dropped.get(), 1, "what was being written is lost, and counted");
    queue.put("two\n");
    assert!(next(&mut reader).ends_with("dropped=1\n"));
    assert_eq!(next(&mut reader), "two\n");
}
