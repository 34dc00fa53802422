//! The programs that a drill starts as processes.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// A program that a drill starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Program {
    path: PathBuf,
    name: String,
}

impl Program {
    /// The running program, with the name `name`. It is the same program even if its file was replaced meanwhile.
    #[must_use]
    pub fn this(name: &str) -> Self {
        Self { path: "/proc/self/exe".into(), name: name.to_owned() }
    }

    /// The program at a path. A name without `/` is looked up in `PATH` at the start.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { name: path.display().to_string(), path }
    }

    /// The program with a name in the folder of the running program, or else in one of the folders of `PATH`.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let own = env::current_exe().ok();
        find(name, own.as_deref().and_then(Path::parent), env::var_os("PATH").as_deref())
    }

    /// The name in messages and in the list of processes.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The first line that the program prints for `--version`, if it prints one within 2 s.
    pub(super) async fn version(&self) -> Option<String> {
        let mut command = self.command();
        command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null());
        let output = timeout(Duration::from_secs(2), command.output()).await.ok()?.ok()?;
        let line = String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned();
        let is_plain = !line.is_empty() && line.len() <= 100 && !line.contains(char::is_control);
        (output.status.success() && is_plain).then_some(line)
    }

    /// A command in a new process group: the drill handles the signals of the terminal, and stops its processes.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).kill_on_drop(true).process_group(0);
        command
    }
}

fn find(name: &str, beside: Option<&Path>, search: Option<&OsStr>) -> Option<Program> {
    let searched = search.into_iter().flat_map(env::split_paths);
    let folders = beside.map(Path::to_owned).into_iter().chain(searched);
    folders.map(|it| it.join(name)).find(|it| is_executable(it)).map(Program::at)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_in_the_same_folder_comes_before_path() {
        let (beside, other) = (tempfile::tempdir(), tempfile::tempdir());
        let (beside, other) = (beside.expect("a folder"), other.expect("a folder"));
        let path = env::join_paths(["/nowhere".as_ref(), other.path()]).expect("no colon");
        let found = || find("flipgate", Some(beside.path()), Some(&path));
        let write = |folder: &Path, mode: u32| {
            let file = folder.join("flipgate");
            fs::write(&file, "").expect("writes");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our own file");
            Some(Program::at(file))
        };
        assert_eq!(found(), None);
        // A file without permission to execute is not a program.
        write(beside.path(), 0o644);
        assert_eq!(found(), None);
        let in_path = write(other.path(), 0o755);
        assert_eq!(found(), in_path);
        let next_to_us = write(beside.path(), 0o755);
        assert_eq!(found(), next_to_us);
        assert_eq!(find("flipgate", None, None), None);
    }
}
