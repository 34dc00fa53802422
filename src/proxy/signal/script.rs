//! The script that reloads a page when another version has become active.

/// As it is written, with comments and indentation.
const SOURCE: &[u8] = include_bytes!("reload.js");

const LENGTH: usize = strip(&mut [0; SOURCE.len()]);

/// As clients get it: without lines that are comments, and without indentation.
pub(super) const SCRIPT: [u8; LENGTH] = {
    let mut stripped = [0; SOURCE.len()];
    strip(&mut stripped);
    let mut script = [0; LENGTH];
    let mut at = 0;
    while at < LENGTH {
        script[at] = stripped[at];
        at += 1;
    }
    script
};

/// The hash of the script for its entity tag: FNV-1a, which a constant can be made with.
pub(super) const HASH: u64 = {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < LENGTH {
        hash = (hash ^ SCRIPT[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
};

/// Writes the source without comments and indentation, and returns its length.
const fn strip(out: &mut [u8; SOURCE.len()]) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < SOURCE.len() {
        while at < SOURCE.len() && SOURCE[at] == b' ' {
            at += 1;
        }
        let is_comment = at + 1 < SOURCE.len() && SOURCE[at] == b'/' && SOURCE[at + 1] == b'/';
        loop {
            if at == SOURCE.len() {
                break;
            }
            let byte = SOURCE[at];
            at += 1;
            if !is_comment {
                out[length] = byte;
                length += 1;
            }
            if byte == b'\n' {
                break;
            }
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_at_most_1536_bytes_without_comments() {
        let script = std::str::from_utf8(&SCRIPT).expect("ASCII");
        assert!(script.is_ascii() && script.len() <= 1536, "{} bytes", script.len());
        let source = std::str::from_utf8(SOURCE).expect("ASCII");
        let lines = source.lines().map(str::trim_start).filter(|it| !it.starts_with("//"));
        let stripped: String = lines.flat_map(|it| [it, "\n"]).collect();
        assert_eq!(script, stripped);
        assert!(source.lines().any(|it| it.trim_start().starts_with("//")), "there are comments");
        assert!(!script.contains("//"), "nothing of a comment is left");
    }
}
