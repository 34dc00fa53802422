//! Reads the files of a configuration: never more than a limit, and from a pipe only if the operator names it on the
//! command line.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The most bytes of a configuration, in all of its files.
pub(super) const CONFIG_MAX: usize = 16 << 20;

/// The most bytes of a file with a token.
pub(super) const TOKEN_MAX: usize = 64 << 10;

/// Reads a regular file: a pipe would make a start or a reload wait for its writer.
///
/// # Errors
///
/// If it cannot be read, is no regular file, is longer than `max` bytes, or is not UTF-8.
pub(super) fn read_regular(path: &Path, max: usize) -> io::Result<String> {
    let kind = fs::metadata(path)?.file_type();
    // A folder has an error of its own.
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::other("it is not a regular file"));
    }
    read(path, max)
}

/// Reads a file, or a pipe to its end.
///
/// # Errors
///
/// If it cannot be read, is longer than `max` bytes, or is not UTF-8.
pub(super) fn read(path: &Path, max: usize) -> io::Result<String> {
    read_from(File::open(path)?, max)
}

/// Reads to the end.
///
/// # Errors
///
/// If it cannot be read, is longer than `max` bytes, or is not UTF-8.
pub(super) fn read_from(input: impl Read, max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    input.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        let size =
            if max >= 1 << 20 { format!("{} MiB", max >> 20) } else { format!("{max} bytes") };
        return Err(io::Error::other(format!("it is larger than {size}")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_a_limit_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "four").expect("written");
        assert_eq!(read_regular(&file, 4).expect("a short file"), "four");
        let error = |path: &Path, max| read_regular(path, max).expect_err("refused").to_string();
        assert_eq!(error(&file, 3), "it is larger than 3 bytes");
        assert_eq!(error(Path::new("/dev/zero"), 3), "it is not a regular file");
        assert_eq!(read(Path::new("/dev/null"), 3).expect("no regular file"), "");
        let endless = read(Path::new("/dev/zero"), 1 << 20).expect_err("endless").to_string();
        assert_eq!(endless, "it is larger than 1 MiB");
        fs::write(&file, [0xff]).expect("written");
        assert_eq!(error(&file, 4), "it is not UTF-8");
        assert!(error(folder.path(), 4).contains("directory"));
    }
}
