//! The modules of a crate, read from its source, and which of them uses which.

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, is_name, take_tests_away, tokens};

/// A module's place in its crate; the root is empty.
type ModulePath = Vec<String>;

/// One file names an item that another file defines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Use {
    /// The module with the file that names the item.
    pub(super) user: ModulePath,
    pub(super) user_file: String,
    /// The first line that does.
    pub(super) line: usize,
    /// The module with the file that defines it.
    pub(super) used: ModulePath,
    pub(super) used_file: String,
}

/// The modules of one crate.
#[derive(Default)]
pub(super) struct Modules(BTreeMap<ModulePath, Module>);

#[derive(Default)]
struct Module {
    file: String,
    /// The module that the file is for; not this one if this one is inline.
    file_module: ModulePath,
    /// What each name leads to that a `use` brings into the module.
    imports: Imports,
    /// Paths that the module's code names, each with its line.
    named: Vec<(usize, ModulePath)>,
}

/// Where each name leads that a `use` brings in.
type Imports = BTreeMap<String, ModulePath>;

/// One path of a `use` tree.
struct Leaf<'a> {
    line: usize,
    words: Vec<&'a str>,
    /// The name that it brings in.
    name: &'a str,
}

/// Re-exports that are followed from one name to its definition.
const REEXPORTS_MAX: usize = 16;

// === impl Use ===

impl Use {
    /// The closest module that both are in, unless that is one of the two.
    pub(super) fn common_parent(&self) -> Option<&[String]> {
        let length = self.user.iter().zip(&self.used).take_while(|(a, b)| a == b).count();
        (length < self.user.len().min(self.used.len())).then(|| &self.user[..length])
    }
}

// === impl Modules ===

impl Modules {
    /// Reads the files of a crate with its root in `folder`, given each file's path and text. Files that
    /// are only there for tests are left out.
    pub(super) fn of(folder: &str, files: &[(String, String)]) -> Self {
        let (mut modules, mut of_tests) = (Self::default(), BTreeSet::new());
        let mut sources = Vec::new();
        for (file, text) in files {
            let Some(path) = module_path(folder, file) else { continue };
            let mut code = tokens(text);
            let tests = take_tests_away(&mut code).into_iter();
            of_tests.extend(tests.map(|it| [&path[..], &[it]].concat()));
            sources.push((path, file, code));
        }
        sources.retain(|(path, ..)| !(1..=path.len()).any(|it| of_tests.contains(&path[..it])));
        let blocks = sources.iter().flat_map(|(path, file, code)| {
            blocks(path, code).into_iter().map(move |(module, code)| (module, path, *file, code))
        });
        let blocks: Vec<_> = blocks.collect();
        // Whether a word is the name of a module is known when all of them are.
        for (module, file_module, file, _) in &blocks {
            let module = modules.0.entry(module.clone()).or_default();
            module.file.clone_from(file);
            module.file_module.clone_from(file_module);
        }
        for (module, _, _, code) in &blocks {
            let (imports, named) = modules.read(module, code);
            let module = modules.0.entry(module.clone()).or_default();
            (module.imports, module.named) = (imports, named);
        }
        modules
    }

    /// The imports of a module with this code, and the paths that it names.
    fn read(&self, module: &ModulePath, code: &[Token<'_>]) -> (Imports, Vec<(usize, ModulePath)>) {
        let (mut imports, mut named) = (Imports::new(), Vec::new());
        let (mut reexported, mut left) = (Vec::new(), Vec::new());
        let mut place = 0;
        while place < code.len() {
            let text_at = |place: usize| code.get(place).map(|it: &Token<'_>| it.text);
            // `use<'a>` says what a type captures.
            if code[place].text != "use" || text_at(place + 1) == Some("<") {
                left.push(code[place]);
                place += 1;
                continue;
            }
            let is_public = place > 0 && matches!(code[place - 1].text, "pub" | ")");
            let end = (place..code.len()).find(|it| code[*it].text == ";").unwrap_or(code.len());
            for Leaf { line, words, name } in leaves(&code[place + 1..end]) {
                let Some(target) = self.absolute(module, &words) else { continue };
                imports.insert(name.to_owned(), target.clone());
                match is_public {
                    true => reexported.push((name, line, target)),
                    false => named.push((line, target)),
                }
            }
            place = end;
        }
        for (name, line, target) in reexported {
            if left.iter().any(|it| it.text == name) {
                named.push((line, target));
            }
        }
        let paths = paths(&left).into_iter();
        named.extend(paths.filter_map(|(line, it)| Some((line, self.absolute(module, &it)?))));
        (imports, named)
    }

    /// The path from the root of what a module means by these words, if that is in this crate.
    fn absolute(&self, module: &ModulePath, words: &[&str]) -> Option<ModulePath> {
        let (first, rest) = words.split_first()?;
        let mut path = match *first {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(1)?].to_vec(),
            child => {
                let path = [&module[..], &[child.to_owned()]].concat();
                self.0.contains_key(&path).then_some(path)?
            }
        };
        for word in rest {
            match *word {
                "super" => drop(path.pop()?),
                "self" | "*" => {}
                word => path.push(word.to_owned()),
            }
        }
        Some(path)
    }

    /// The module that defines what is at this path.
    fn definition(&self, mut path: ModulePath) -> Option<&Module> {
        for _ in 0..REEXPORTS_MAX {
            let known = (0..=path.len()).rev().find(|it| self.0.contains_key(&path[..*it]))?;
            let module = &self.0[&path[..known]];
            let Some(target) = path.get(known).and_then(|it| module.imports.get(it)) else {
                return Some(module);
            };
            path = [&target[..], &path[known + 1..]].concat();
        }
        None
    }

    /// Which file uses which, each pair once.
    pub(super) fn uses(&self) -> Vec<Use> {
        let mut uses: BTreeMap<(&str, &str), Use> = BTreeMap::new();
        for module in self.0.values() {
            for (line, path) in &module.named {
                let used = self.definition(path.clone()).filter(|it| it.file != module.file);
                let Some(used) = used else { continue };
                let first = uses.entry((&module.file, &used.file)).or_insert_with(|| Use {
                    user: module.file_module.clone(),
                    user_file: module.file.clone(),
                    line: *line,
                    used: used.file_module.clone(),
                    used_file: used.file.clone(),
                });
                first.line = first.line.min(*line);
            }
        }
        uses.into_values().collect()
    }
}

/// The place of a file's module in its crate.
fn module_path(folder: &str, file: &str) -> Option<ModulePath> {
    let inside = file.strip_prefix(folder)?.trim_start_matches('/').strip_suffix(".rs")?;
    let mut path: ModulePath = inside.split('/').map(ToOwned::to_owned).collect();
    if path.last().is_some_and(|it| matches!(&**it, "mod" | "lib")) {
        path.pop();
    }
    Some(path)
}

/// The code of a file's module, and that of each inline module.
fn blocks<'a>(file: &ModulePath, code: &[Token<'a>]) -> Vec<(ModulePath, Vec<Token<'a>>)> {
    let mut done = Vec::new();
    let mut outer = Vec::new();
    let mut inner = (file.clone(), Vec::new(), 0);
    let (mut place, mut depth) = (0, 0_usize);
    while let Some(token) = code.get(place) {
        let (path, kept, begin) = &mut inner;
        match (token.text, &code[place + 1..]) {
            ("mod", [name, brace, ..]) if brace.text == "{" => {
                depth += 1;
                let path = [&path[..], &[name.text.to_owned()]].concat();
                outer.push(std::mem::replace(&mut inner, (path, Vec::new(), depth)));
                place += 2;
            }
            ("}", _) if depth == *begin && !outer.is_empty() => {
                depth -= 1;
                let next = outer.pop().expect("there is an outer one");
                let (path, code, _) = std::mem::replace(&mut inner, next);
                done.push((path, code));
            }
            (text, _) => {
                match text {
                    "{" => depth += 1,
                    "}" => depth = depth.saturating_sub(1),
                    _ => {}
                }
                kept.push(*token);
            }
        }
        place += 1;
    }
    done.push((inner.0, inner.1));
    done
}

/// Every path of a `use` tree.
fn leaves<'a>(tree: &[Token<'a>]) -> Vec<Leaf<'a>> {
    let mut found = Vec::new();
    // For each open brace, how many words are before it.
    let (mut open, mut words, mut line) = (Vec::new(), Vec::new(), 0);
    let mut alias = None;
    let mut place = 0;
    while place <= tree.len() {
        match tree.get(place).map_or(",", |it| it.text) {
            "::" => {}
            "{" => open.push(words.len()),
            text @ ("," | "}") => {
                let kept = open.last().copied().unwrap_or_default();
                if let [.., last] = words[kept..] {
                    let module = words.iter().rev().nth(1).copied();
                    let own = if last == "self" { module } else { None };
                    let name = alias.take().or(own).unwrap_or(last);
                    found.push(Leaf { line, words: words.clone(), name });
                }
                words.truncate(kept);
                if text == "}" {
                    open.pop();
                    // What was before the brace has been used.
                    words.truncate(open.last().copied().unwrap_or_default());
                }
            }
            "as" => {
                alias = tree.get(place + 1).map(|it| it.text);
                place += 1;
            }
            word => {
                line = tree[place].line;
                words.push(word);
            }
        }
        place += 1;
    }
    found
}

/// Every path of two words and more in code.
fn paths<'a>(code: &[Token<'a>]) -> Vec<(usize, Vec<&'a str>)> {
    let mut found = Vec::new();
    let mut place = 0;
    while place < code.len() {
        let mut words = Vec::new();
        let begin = place;
        if is_name(code[place].text) && (place == 0 || code[place - 1].text != "::") {
            words.push(code[place].text);
            while code.get(place + 1).is_some_and(|it| it.text == "::")
                && code.get(place + 2).is_some_and(|it| is_name(it.text))
            {
                words.push(code[place + 2].text);
                place += 2;
            }
        }
        if words.len() > 1 {
            found.push((code[begin].line, words));
        }
        place += 1;
    }
    found
}
