//! The documentation says what the program does.

mod commands;
mod keys;
mod markdown;
mod tour;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flipgate::config::Config;
use http::StatusCode;
use serde_json::Value;

use self::markdown::Page;
use super::support::Authority;

/// All Rust files below a folder as one text, without their tests.
fn sources(folder: &str) -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let all = fs::read_to_string(&path).expect("UTF-8");
                text.push_str(all.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default());
            }
        }
    }
    let mut text = String::new();
    collect(Path::new(folder), &mut text);
    text
}

/// The words in quotes that follow each `before`, with only blanks between.
fn quoted_behind<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let found = text.split(before).skip(1);
    let quoted = found.filter_map(|it| it.trim_start().strip_prefix('"')?.split('"').next());
    let is_word = |it: &&str| {
        !it.is_empty() && it.chars().all(|it| it.is_ascii_lowercase() || "_-".contains(it))
    };
    quoted.filter(is_word).collect()
}

/// The statuses that follow each `StatusCode::`, with the word that follows in quotes.
fn statuses(text: &str) -> BTreeSet<(u16, &str)> {
    let all = (100..600).filter_map(|it| StatusCode::from_u16(it).ok());
    let all: Vec<_> = all
        .filter_map(|it| {
            Some((it.as_u16(), it.canonical_reason()?.to_uppercase().replace([' ', '-'], "_")))
        })
        .collect();
    let mut found = BTreeSet::new();
    for behind in text.split("StatusCode::").skip(1) {
        let end = behind.find(|it: char| !it.is_ascii_uppercase() && it != '_').unwrap_or(0);
        let code = all.iter().find(|it| it.1 == behind[..end]).map(|it| it.0);
        let word = behind[end..].strip_prefix(',').and_then(|it| it.trim_start().strip_prefix('"'));
        let word = word.and_then(|it| it.split('"').next()).filter(|it| !it.is_empty());
        found.extend(code.zip(word));
    }
    found
}

fn wrong_links(page: &Page) -> Vec<String> {
    let folder = page.path.parent().unwrap_or(Path::new(""));
    let mut wrong = Vec::new();
    for (line, link) in page.links() {
        if link.starts_with("https://") {
            continue;
        }
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
        let target = match file.is_empty() {
            true => Ok(page.text.clone()),
            false => fs::read(&path).map(|it| String::from_utf8_lossy(&it).into_owned()),
        };
        let is_good = target.is_ok_and(|text| {
            anchor.is_empty() || Page { path, text }.anchors().iter().any(|it| it == anchor)
        });
        if !is_good {
            wrong.push(format!("{}: {link}", page.at(line)));
        }
    }
    wrong
}

#[test]
fn every_link_leads_somewhere() {
    let pages = markdown::pages();
    let wrong: Vec<_> = pages.iter().flat_map(wrong_links).collect();
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
    let count: usize = pages.iter().map(|it| it.links().len()).sum();
    assert!(count > 200, "{count}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "# One\n[a](#one) [b](#two) [c](concepts.md#drain) [d](concepts.md#drian) [e](nothing.md)\n";
    let page = Page { path: "docs/src/x.md".into(), text: text.to_owned() };
    let expected = ["#two", "concepts.md#drian", "nothing.md"];
    assert_eq!(wrong_links(&page), expected.map(|it| format!("docs/src/x.md:2: {it}")));
}

#[test]
fn the_summary_has_every_page() {
    let summary = markdown::chapter("SUMMARY");
    let linked: BTreeSet<PathBuf> =
        summary.links().iter().map(|it| Path::new("docs/src").join(it.1)).collect();
    let is_chapter = |it: &PathBuf| it.starts_with("docs") && *it != summary.path;
    let written = markdown::pages().into_iter().map(|it| it.path).filter(is_chapter);
    assert_eq!(linked, written.collect());
}

#[test]
fn every_configuration_is_good() {
    let authority = Authority::new();
    let pair = authority.issue("any", &["localhost"]);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in markdown::pages() {
        let blocks = page.blocks().into_iter().filter(|it| it.language == "toml");
        for block in blocks.filter(|it| it.skip.is_none()) {
            let parts = block.text.split('"').enumerate().map(|(place, it)| {
                let is_file = place % 2 == 1 && it.starts_with("/etc/flipgate/");
                match it.rsplit_once('.') {
                    Some((_, "key")) if is_file => pair.key.display().to_string(),
                    Some((_, "pem")) if is_file => pair.cert.display().to_string(),
                    _ => it.to_owned(),
                }
            });
            let text = parts.collect::<Vec<_>>().join("\"");
            let name = page.at(block.line);
            count += 1;
            if let Err(mistakes) = Config::parse(Path::new(&name), &text) {
                wrong.extend(mistakes.iter().map(ToString::to_string));
            }
        }
    }
    assert!(count > 10, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_and_its_picture_are_small() {
    for (path, most) in [("README.md", 6 * 1024), ("docs/src/images/drill.png", 200 * 1024)] {
        let size = fs::metadata(path).expect("a file").len();
        assert!(size <= most, "{path}: {size} bytes");
    }
}

/// The names in the tables of metrics.md.
fn documented_metrics() -> BTreeSet<String> {
    let page = markdown::chapter("metrics");
    let rows = page.prose().into_iter().filter_map(|it| it.text.strip_prefix("| `flipgate_"));
    rows.filter_map(|it| Some(format!("flipgate_{}", it.split('`').next()?))).collect()
}

#[test]
fn the_page_of_metrics_has_exactly_the_metrics() {
    let code = sources("src/metrics");
    // Where a metric is made, its help follows its name.
    let mut names = BTreeSet::new();
    for behind in code.split('(').filter_map(|it| it.trim_start().strip_prefix('"')) {
        let Some((name, behind)) = behind.split_once('"') else { continue };
        let help = behind.strip_prefix(',').and_then(|it| it.trim_start().strip_prefix('"'));
        let is_name = name.chars().all(|it| it.is_ascii_lowercase() || it == '_');
        if is_name && help.and_then(|it| it.split('"').next()).is_some_and(|it| it.contains(' ')) {
            names.insert(format!("flipgate_{name}"));
        }
    }
    assert!(names.len() > 25 && names.contains("flipgate_endpoint_up"), "{names:?}");
    assert_eq!(documented_metrics(), names, "left: metrics.md; right: src/metrics");
}

#[test]
fn the_page_of_events_has_exactly_the_events() {
    let code = sources("src/control") + &sources("src/upstream");
    let names = code.split("fn name(&self) -> &'static str {").skip(1);
    let names: BTreeSet<&str> = names
        .flat_map(|it| quoted_behind(it.split("\n    }").next().unwrap_or(""), "=>"))
        .collect();
    assert!(names.len() > 12 && names.contains("health_changed"), "{names:?}");
    let page = markdown::chapter("metrics");
    let section = page.text.split("\n## Events\n").nth(1).expect("the events");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|it| it.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<BTreeSet<_>>(), names, "left: metrics.md; right: the code");
}

#[test]
fn every_status_and_error_of_flipgate_has_its_section() {
    let code = sources("src/proxy");
    let found = statuses(&code);
    assert!(found.len() > 20 && found.contains(&(502, "dns_error")), "{found:?}");
    let page = markdown::chapter("troubleshooting");
    let errors: BTreeSet<&str> = found.iter().map(|it| it.1).collect();
    let sections = page.headings_below("Proxy-Status errors").into_iter().collect();
    assert_eq!(errors, sections, "left: src/proxy; right: troubleshooting.md");
    let sections = page.headings_below("By status");
    for (status, _) in found {
        let is_of = |it: &&str| it.split(' ').any(|it| it == status.to_string());
        assert_eq!(sections.iter().filter(|it| is_of(it)).count(), 1, "{status}");
    }
}

#[test]
fn every_problem_of_the_admin_api_has_its_section() {
    let code = sources("src/admin");
    let mut kinds: BTreeSet<&str> = statuses(&code).into_iter().map(|it| it.1).collect();
    kinds.extend(quoted_behind(&code, "kind ="));
    assert!(kinds.len() > 15 && kinds.contains("unauthorized"), "{kinds:?}");
    let sections = markdown::chapter("admin-api");
    let sections: BTreeSet<&str> = sections.headings_below("Problems").into_iter().collect();
    assert_eq!(kinds, sections, "left: src/admin; right: admin-api.md");
}

#[test]
fn every_call_of_the_admin_api_has_its_section() {
    let api: Value = serde_json::from_str(&flipgate::admin::openapi()).expect("JSON");
    let paths = api["paths"].as_object().expect("paths");
    let calls: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().expect("methods");
            methods.keys().map(move |it| format!("{} {path}", it.to_uppercase()))
        })
        .collect();
    let page = markdown::chapter("admin-api");
    let sections: BTreeSet<String> = page
        .headings()
        .into_iter()
        .filter(|it| it.1.contains(" /"))
        .map(|it| it.1.trim_matches('`').to_owned())
        .collect();
    assert_eq!(calls, sections, "left: the description of the API; right: admin-api.md");
}
