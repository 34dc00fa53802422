//! Processes as `/proc` shows them.

use std::{collections::HashMap, fs};

use rustix::process::{Pid, Signal, kill_process};

use crate::rollout::event::ChildId;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ProcessStat {
    pub(super) parent: i32,
    /// In clock ticks since the system was booted.
    pub(super) started: u64,
    /// Whether it has ended, and its parent has not noticed yet.
    pub(super) is_zombie: bool,
}

/// What is known of a process; `None` if there is none with this number.
pub(super) fn stat(pid: i32) -> Option<ProcessStat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<ProcessStat> {
    // The name is in parentheses, and may have parentheses and blanks.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The identity of a process that runs now.
pub(super) fn identity(pid: i32) -> Option<ChildId> {
    Some(ChildId { pid, started: stat(pid)?.started, boot: boot()? })
}

/// Whether this process is there and has not ended.
pub(super) fn is_alive(child: &ChildId) -> bool {
    boot().as_ref() == Some(&child.boot)
        && stat(child.pid).is_some_and(|it| it.started == child.started && !it.is_zombie)
}

/// The number of this boot of the system.
fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// The processes below this one that have not ended, the nearest first.
pub(super) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok()) {
        if let Some(it) = stat(pid) {
            children.entry(it.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            if stat(child).is_some_and(|it| !it.is_zombie) {
                found.push(child);
            }
            open.push(child);
        }
    }
    found
}

/// The processes with this variable in their environment that have not ended, but for this one.
pub(super) fn with_variable(name: &str, value: &str) -> Vec<i32> {
    let wanted = format!("{name}={value}");
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let has_it = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|it| *it == 0).any(|it| it == wanted.as_bytes())
    };
    let is_there = |pid: &i32| stat(*pid).is_some_and(|it| !it.is_zombie);
    pids.filter(|it| *it != own && has_it(it) && is_there(it)).collect()
}

/// Sends a signal. A process that has ended is none to send it to.
pub(super) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_may_look_like_fields() {
        let rest = "S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        for name in ["sh", "a b", "x) Z 1 (y", ""] {
            let found = parse(&format!("12 ({name}) {rest}"));
            let expected = ProcessStat { parent: 7, started: 4242, is_zombie: false };
            assert_eq!(found, Some(expected), "{name}");
        }
        assert!(parse("12 (sh) Z 7").is_none());
        assert!(parse("").is_none());
    }

    #[test]
    fn a_process_is_known_by_its_start_and_not_by_its_number_alone() {
        let own = identity(i32::try_from(std::process::id()).expect("a number")).expect("it runs");
        assert!(is_alive(&own));
        assert!(!is_alive(&ChildId { started: own.started + 1, ..own.clone() }));
        assert!(!is_alive(&ChildId { boot: "another".to_owned(), ..own }));
    }
}
