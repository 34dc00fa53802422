//! Does every command line of the documentation name commands and options that there are?

use std::collections::{BTreeMap, BTreeSet};

use super::{super::support::process::run, markdown};

/// What the command line knows.
struct Known {
    /// Each command with its options, also those that all have; below `""` the options without a command.
    commands: BTreeMap<String, BTreeSet<String>>,
}

/// The options that a help text has: the words at the beginning of a line that begin with `-`.
fn options(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|it| it.starts_with('-'));
    let words =
        lines.flat_map(|it| it.split([' ', ',', '=']).take_while(|it| !it.starts_with('<')));
    words.filter(|it| it.starts_with('-')).map(str::to_owned).collect()
}

fn help(arguments: &[&str]) -> String {
    let output = run(&[arguments, &["--help"]].concat());
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|it| it.starts_with("  "));
    // A line with more blanks goes on with the text of the command before.
    let lines = lines.filter(|it| !it.starts_with("   "));
    lines.filter_map(|it| it.split_whitespace().next()).map(str::to_owned).collect()
}

impl Known {
    fn of_program() -> Self {
        let top = help(&[]);
        let mut commands = BTreeMap::from([(String::new(), options(&top))]);
        for command in listed(&top).into_iter().filter(|it| it != "help") {
            let text = help(&[&command]);
            for inner in listed(&text).into_iter().filter(|it| it != "help") {
                commands.insert(format!("{command} {inner}"), options(&help(&[&command, &inner])));
            }
            commands.insert(command, options(&text));
        }
        Self { commands }
    }

    /// The mistake in the words behind `flipgate`, if there is one.
    fn wrong(&self, words: &[&str]) -> Option<String> {
        let mut words = words.iter().copied().peekable();
        let mut command = String::new();
        // A placeholder stands for any command.
        if words.peek().is_some_and(|it| it.chars().all(|it| it.is_ascii_uppercase())) {
            return None;
        }
        while let Some(word) = words.next_if(|it| !it.starts_with('-')) {
            let longer = format!("{command} {word}").trim_start().to_owned();
            if !self.commands.contains_key(&longer) {
                match command.is_empty() {
                    true => return Some(format!("`{word}` is not a command")),
                    false => break,
                }
            }
            command = longer;
        }
        let known = &self.commands[&command];
        let option = |it: &str| it.split('=').next().unwrap_or(it).to_owned();
        let mut used = words.filter(|it| it.starts_with('-') && *it != "-").map(option);
        used.find(|it| !known.contains(it)).map(|it| format!("`{command}` has no option `{it}`"))
    }
}

/// Whether a word ends the arguments of a command.
fn is_end(word: &str) -> bool {
    matches!(word, "|" | "||" | "&&" | "&" | ";")
        || word.starts_with(['>', '#'])
        || word.starts_with("2>")
}

/// The uses of the program in a shell script: the words behind its name, up to the end of the command.
fn uses(script: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for line in script.lines().filter(|it| !it.trim_start().starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        for (place, word) in words.iter().enumerate() {
            // As in `status=$(flipgate status)`.
            let is_name = word.rsplit(['(', '=']).next() == Some("flipgate");
            // As in `docker build -t flipgate .`, or `docker compose exec flipgate flipgate status`.
            let is_other = place > 0 && words[place - 1].starts_with('-')
                || words.get(place + 1) == Some(&"flipgate");
            if !is_name || is_other {
                continue;
            }
            let mut arguments = Vec::new();
            for word in words[place + 1..].iter().take_while(|it| !is_end(it)) {
                let bare = word.trim_end_matches([')', ';']);
                arguments.push(bare);
                if bare.len() < word.len() {
                    break;
                }
            }
            if !arguments.is_empty() {
                found.push(arguments);
            }
        }
    }
    found
}

#[test]
fn every_command_line_is_one_that_there_is() {
    let known = Known::of_program();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in markdown::pages() {
        let blocks =
            page.blocks().into_iter().filter(|it| it.language == "sh" && it.skip.is_none());
        let mut scripts: Vec<_> =
            blocks.map(|it| (it.line, it.text.replace("\\\n", " "))).collect();
        let spans = page.code_spans().into_iter().filter(|it| it.1.starts_with("flipgate "));
        scripts.extend(spans.map(|(line, code)| (line, code.to_owned())));
        for (line, script) in &scripts {
            for words in uses(script) {
                count += 1;
                let what = known.wrong(&words);
                wrong.extend(what.map(|it| format!("{}: {it}", page.at(*line))));
            }
        }
    }
    assert!(count > 50, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_command_line_that_is_wrong_is_found() {
    let known = Known::of_program();
    for (script, good) in [
        ("flipgate status --json | jq .", true),
        ("x=$(flipgate status --json)", true),
        ("flipgate state show --config x && echo --nothing", true),
        ("docker exec edge flipgate status", true),
        ("flipgate statsu", false),
        ("flipgate status --jsno", false),
        ("x=$(flipgate status --jsno)", false),
        ("true && flipgate promote web=green --wait-darin 30s", false),
    ] {
        let uses = uses(script);
        assert_eq!(uses.len(), 1, "{script}");
        assert_eq!(known.wrong(&uses[0]).is_none(), good, "{script}");
    }
}

#[test]
fn the_page_of_the_command_line_has_exactly_the_commands() {
    let known = Known::of_program();
    let commands: BTreeSet<&str> = known.commands.keys().map(String::as_str).collect();
    // A group has other commands, and no output of its own.
    let is_group = |it: &&str| {
        let has_commands = known.commands.keys().any(|other| other.starts_with(&format!("{it} ")));
        has_commands && !known.commands[*it].contains("--output")
    };
    let expected: BTreeSet<&str> =
        commands.iter().copied().filter(|it| !it.is_empty() && !is_group(it)).collect();
    let page = markdown::chapter("command-line");
    let headings = page.headings().into_iter().filter_map(|it| it.1.strip_prefix("flipgate "));
    let documented: BTreeSet<&str> = headings.collect();
    assert_eq!(documented, expected);
}
