//! The helper: a process of its own, which runs one command and ends everything that the command leaves behind.
//!
//! It is single-minded on purpose: no runtime, no configuration, no log. Its standard input is the connection to Flipgate.

use std::{
    io::{self, BufRead, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use super::{
    CommandReport, CommandSpec,
    output::{KeptOutput, drain},
    processes::{descendants, send},
};

/// The longest command, in bytes of its line.
const SPEC_MAX: u64 = 1024 * 1024;

/// The byte that tells the helper to run the command.
pub(super) const GO: u8 = b'g';

/// From the request to end to the end by force.
const TERM_TIME: Duration = Duration::from_secs(5);

/// How long output is read after the command has ended: what it left behind may keep the pipes open.
const OUTPUT_TIME: Duration = Duration::from_secs(1);

/// How often processes are looked for while they end.
const POLL: Duration = Duration::from_millis(20);

/// The longest time for the end of processes that do not end by force, such as those that wait for a dead disk.
const KILL_TIME: Duration = Duration::from_secs(10);

enum Happened {
    /// The command has ended, or no child is left.
    Ended(Option<(i32, WaitStatus)>),
    /// Flipgate wants it to stop, or is gone.
    Stop,
    /// An output is at its end.
    OutputEnded,
}

/// Runs the helper: reads the command from standard input, waits for the word to go, runs it, and prints a report. Returns
/// the exit code of the process.
#[must_use]
pub fn run_helper() -> u8 {
    match helper() {
        Ok(()) => 0,
        Err(error) => {
            // Flipgate reports that the helper has said nothing.
            let _ = writeln!(io::stderr(), "flipgate {}: {error}", super::HELPER);
            1
        }
    }
}

fn helper() -> io::Result<()> {
    let mut input = io::BufReader::new(io::stdin().take(SPEC_MAX));
    let mut line = String::new();
    input.read_line(&mut line)?;
    let spec: CommandSpec = serde_json::from_str(&line)?;
    let mut go = [0];
    if input.read_exact(&mut go).is_err() || go[0] != GO {
        // Flipgate was killed before it knew of this process, or has thought better of it.
        return Ok(());
    }
    set_child_subreaper(Some(getpid()))?;
    let report = run(&spec);
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &report)?;
    out.write_all(b"\n")?;
    out.flush()
}

fn run(spec: &CommandSpec) -> CommandReport {
    let mut report = CommandReport::default();
    let Some((program, arguments)) = spec.command.split_first() else {
        report.not_started = Some("no program is named".to_owned());
        return report;
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&spec.env).process_group(0);
    command.stdin(Stdio::null());
    // One for both, so that what is printed stays in its order.
    let output = io::pipe().and_then(|(output, input)| {
        command.stdout(input.try_clone()?).stderr(input);
        Ok(output)
    });
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            report.not_started = Some(format!("cannot make a pipe: {error}"));
            return report;
        }
    };
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            report.not_started = Some(format!("cannot run {program}: {error}"));
            return report;
        }
    };
    // The pipe ends with its last writer.
    drop(command);
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let (happened, events) = mpsc::channel();
    let kept = Arc::new(Mutex::new(KeptOutput::new(spec.output_max)));
    read_output(output, Arc::clone(&kept), happened.clone());
    watch_input(happened.clone());
    reap(pid, happened);
    supervise(pid, &events, &mut report);
    report.output = kept.lock().unwrap_or_else(PoisonError::into_inner).output();
    report
}

/// Waits until the command has ended and nothing of it is left.
fn supervise(pid: i32, events: &Receiver<Happened>, report: &mut CommandReport) {
    let own = getpid().as_raw_nonzero().get();
    let mut kill_at: Option<Instant> = None;
    let (mut is_output_open, mut has_ended) = (true, false);
    while !has_ended {
        let happened = match kill_at {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match happened {
            Ok(Happened::Ended(ended)) => {
                has_ended = true;
                if let Some((_, status)) = ended {
                    (report.code, report.signal) =
                        (status.exit_status(), status.terminating_signal());
                }
            }
            Ok(Happened::OutputEnded) => is_output_open = false,
            Ok(Happened::Stop) if kill_at.is_none() => {
                report.stopped = true;
                kill_at = Some(Instant::now() + TERM_TIME);
                descendants(own).into_iter().for_each(|it| send(it, Signal::TERM));
            }
            Ok(Happened::Stop) => {}
            Err(RecvTimeoutError::Timeout) => {
                descendants(own).into_iter().for_each(|it| send(it, Signal::KILL));
                kill_at = Some(Instant::now() + POLL);
            }
            Err(RecvTimeoutError::Disconnected) => has_ended = true,
        }
    }
    // Its own children have ended with it, most likely. What is left was left behind.
    let until = Instant::now() + OUTPUT_TIME;
    while is_output_open && !report.stopped {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Happened::OutputEnded) => is_output_open = false,
            Ok(Happened::Stop) => report.stopped = true,
            Ok(Happened::Ended(_)) => {}
            Err(_) => break,
        }
    }
    report.left_behind = end_all(own, pid);
}

/// Ends all processes below this one. Returns how many there were.
fn end_all(own: i32, command: i32) -> usize {
    let left: Vec<i32> = descendants(own).into_iter().filter(|it| *it != command).collect();
    left.iter().for_each(|it| send(*it, Signal::TERM));
    let began = Instant::now();
    loop {
        let alive = descendants(own);
        let passed = began.elapsed();
        if alive.is_empty() || passed > TERM_TIME + KILL_TIME {
            return left.len();
        }
        if passed > TERM_TIME / 5 {
            alive.into_iter().for_each(|it| send(it, Signal::KILL));
        }
        thread::park_timeout(POLL);
    }
}

fn read_output(output: io::PipeReader, kept: Arc<Mutex<KeptOutput>>, happened: Sender<Happened>) {
    thread::spawn(move || {
        drain(output, |bytes| kept.lock().unwrap_or_else(PoisonError::into_inner).add(bytes));
        let _ = happened.send(Happened::OutputEnded);
    });
}

/// Waits for the end of standard input, which is the connection to Flipgate.
fn watch_input(happened: Sender<Happened>) {
    thread::spawn(move || {
        drain(io::stdin(), |_| {});
        let _ = happened.send(Happened::Stop);
    });
}

/// Waits for all children: the command, and what comes to this process because its parent has ended.
fn reap(command: i32, happened: Sender<Happened>) {
    thread::spawn(move || {
        let is_it = |pid: Pid| pid.as_raw_nonzero().get() == command;
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if is_it(pid) => {
                    let _ = happened.send(Happened::Ended(Some((command, status))));
                }
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => {}
                // There is no child now. One may still come, from a process that ends.
                Err(_) => {
                    let _ = happened.send(Happened::Ended(None));
                    thread::park_timeout(POLL);
                }
            }
        }
    });
}
