//! Markdown, as far as the checks of the documentation need it: headings, links and code blocks.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// A page of the documentation.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A fenced code block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The word behind the fence: `sh`, `toml`, …
    pub(super) language: String,
    pub(super) text: String,
    /// Of its first fence, from 1.
    pub(super) line: usize,
    /// The reason why it is not checked, from a comment `<!-- skip: REASON -->` on the line before.
    pub(super) skip: Option<String>,
}

/// A line outside of code blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prose<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

const FENCE: &str = "```";

/// The README and all pages of the book.
pub(super) fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md")];
    let book = fs::read_dir("docs/src").expect("the book").map(|it| it.expect("an entry").path());
    paths.extend(book.filter(|it| it.extension().is_some_and(|it| it == "md")));
    paths.sort();
    paths.iter().map(|it| page(it)).collect()
}

/// One page of the book, by its name without the extension.
pub(super) fn chapter(name: &str) -> Page {
    page(&Path::new("docs/src").join(name).with_extension("md"))
}

fn page(path: &Path) -> Page {
    let text = fs::read_to_string(path).unwrap_or_else(|it| panic!("{}: {it}", path.display()));
    Page { path: path.to_owned(), text }
}

// === impl Page ===

impl Page {
    /// The name of a line, for messages.
    pub(super) fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// All code blocks.
    pub(super) fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let (mut is_inside, mut before) = (false, "");
        for (place, line) in self.text.lines().enumerate() {
            match line.trim_start().strip_prefix(FENCE) {
                Some(_) if is_inside => is_inside = false,
                Some(language) => {
                    is_inside = true;
                    let skip = before.trim().strip_prefix("<!-- skip: ");
                    let skip = skip.and_then(|it| it.strip_suffix(" -->")).map(str::to_owned);
                    let (language, text) = (language.trim().to_owned(), String::new());
                    blocks.push(Block { language, text, line: place + 1, skip });
                }
                None if is_inside => {
                    let block = blocks.last_mut().expect("a fence was before");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
            before = line;
        }
        assert!(!is_inside, "{}: the last code block does not end", self.path.display());
        blocks
    }

    /// All lines outside of code blocks.
    pub(super) fn prose(&self) -> Vec<Prose<'_>> {
        let mut is_inside = false;
        let mut prose = Vec::new();
        for (place, text) in self.text.lines().enumerate() {
            let is_fence = text.trim_start().starts_with(FENCE);
            is_inside ^= is_fence;
            if !is_fence && !is_inside {
                prose.push(Prose { line: place + 1, text });
            }
        }
        prose
    }

    /// All headings with their levels.
    pub(super) fn headings(&self) -> Vec<(usize, &str)> {
        let heading = |it: Prose<'_>| it.text.find(|it| it != '#').unwrap_or(0);
        let headings = self.prose().into_iter().map(|it| (heading(it), it.text));
        headings
            .filter(|(level, text)| *level > 0 && text[*level..].starts_with(' '))
            .map(|(level, text)| (level, text[level..].trim()))
            .collect()
    }

    /// The headings of a level below the heading `above`, which is one level higher.
    pub(super) fn headings_below(&self, above: &str) -> Vec<&str> {
        let all = self.headings();
        let start = all.iter().position(|it| it.1 == above);
        let start = start.unwrap_or_else(|| panic!("{}: no `{above}`", self.path.display()));
        let level = all[start].0;
        let below = all[start + 1..].iter().take_while(|it| it.0 > level);
        below.filter(|it| it.0 == level + 1).map(|it| it.1).collect()
    }

    /// The code blocks of the section with this heading.
    pub(super) fn blocks_below(&self, heading: &str) -> Vec<Block> {
        let marks: Vec<_> =
            self.prose().into_iter().filter(|it| it.text.starts_with("## ")).collect();
        let at = marks.iter().position(|it| it.text[3..].trim() == heading);
        let at = at.unwrap_or_else(|| panic!("{}: no `{heading}`", self.path.display()));
        let end = marks.get(at + 1).map_or(usize::MAX, |it| it.line);
        let is_in = |it: &Block| (marks[at].line..end).contains(&it.line);
        self.blocks().into_iter().filter(is_in).collect()
    }

    /// The anchors that its headings make, as code hosts and mdBook name them.
    pub(super) fn anchors(&self) -> Vec<String> {
        let mut seen = BTreeMap::<String, usize>::new();
        let anchors = self.headings().into_iter().map(|(_, text)| {
            let slug = slug(text);
            let count = seen.entry(slug.clone()).or_default();
            *count += 1;
            if *count == 1 { slug } else { format!("{slug}-{}", *count - 1) }
        });
        anchors.collect()
    }

    /// The targets of all links and pictures, with their lines.
    pub(super) fn links(&self) -> Vec<(usize, &str)> {
        let mut links = Vec::new();
        for Prose { line, text } in self.prose() {
            links.extend(text.split("](").skip(1).map(|it| {
                let end = it.find(')').unwrap_or_else(|| panic!("{}: a link", self.at(line)));
                (line, &it[..end])
            }));
        }
        links
    }

    /// The code in the prose, between single backticks.
    pub(super) fn code_spans(&self) -> Vec<(usize, &str)> {
        let mut found = Vec::new();
        for Prose { line, text } in self.prose() {
            found.extend(text.split('`').skip(1).step_by(2).map(|code| (line, code)));
        }
        found
    }
}

fn slug(heading: &str) -> String {
    let letters = heading.chars().filter_map(|it| match it {
        ' ' => Some('-'),
        '-' | '_' => Some(it),
        _ if it.is_alphanumeric() => Some(it),
        _ => None,
    });
    letters.flat_map(char::to_lowercase).collect()
}

#[test]
fn a_page_is_read_as_code_hosts_show_it() {
    let text = "# `a.b_c`: One, Two\n\n```sh\n# not a heading [x](y)\n```\n<!-- skip: why -->\n```toml\na = 1\n```\n\
                ## Same\n## Same\n### Below\n[x](y.md#z) and ![p](q.png)\n";
    let page = Page { path: "p.md".into(), text: text.to_owned() };
    assert_eq!(page.anchors(), ["ab_c-one-two", "same", "same-1", "below"]);
    assert_eq!(page.links(), [(13, "y.md#z"), (13, "q.png")]);
    let blocks = page.blocks();
    assert_eq!((&*blocks[0].language, blocks[0].line, &blocks[0].skip), ("sh", 3, &None));
    assert_eq!((&*blocks[1].text, blocks[1].skip.as_deref()), ("a = 1\n", Some("why")));
    assert_eq!(page.headings_below("`a.b_c`: One, Two"), ["Same", "Same"]);
}
