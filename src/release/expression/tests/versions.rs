//! Versions compare by their numbers.

use super::*;

#[test]
fn versions_compare_by_their_numbers() {
    for source in [
        "version(new.version) > version(old.version)",
        "version('8.10.0') >= version('8.9.0') && version('8.9.0') <= version('8.10.0')",
        "version('8.0') == version('8.0.0') && !(version('8.0') != version('8.0.0'))",
        "version('8.0.0-rc1') < version('8.0.0') && version('v8.0') == version('8')",
        "version('8.0') != version('8.1')",
        "version(new.version) in [version('8.10')]",
        "['8.9', '8.10'].map(it, version(it))[1] == version('8.10.0')",
        "['8.9', '8.10'].all(it, version(it) >= version('8.9'))",
        // Texts compare by their letters.
        "'8.9.0' > '8.10.0'",
    ] {
        assert_eq!(evaluate(source), Ok(true), "{source}");
    }
}

#[test]
fn what_is_not_a_version_is_an_error_that_names_it() {
    for (source, error) in [
        ("version('8.x') > version('8')", r#""8.x" is not a version such as 8.10.0"#),
        ("version('') == version('8')", r#""" is not a version such as 8.10.0"#),
        ("version(new.ratio) > version('1')", "version() takes a string, got double"),
        ("version(new.schema) > version('1')", "version() takes a string, got int"),
        ("version(new.nothing) > version('1')", "version() takes a string, got null"),
        // A forgotten `version`.
        ("version('8.10') > '8.9'", "cannot apply > to version and string"),
        ("'8.9' < version('8.10')", "cannot apply < to string and version"),
        ("version('8.10') == '8.10'", "cannot apply == to version and string"),
        ("new.version == version('8.10')", "cannot apply == to string and version"),
        ("version('8.10') != new.version", "cannot apply == to version and string"),
    ] {
        assert_eq!(evaluate(source), Err(error.to_owned()), "{source}");
    }
}
