//! The guide `troubleshooting` against the sources: its texts are those that the code has, and it has
//! all errors and warnings.

use std::{
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = include_str!("../../src/guide/troubleshooting.md");

/// Texts that only those see who write layers of their own.
const FOR_LAYERS: [&str; 1] = ["not 1 to 128 unreserved characters"];

/// What stands in a text for something that differs from case to case.
const ANY: char = '…';

/// A source file without comments and tests.
struct Source {
    path: PathBuf,
    /// The code, with each string literal as its number in quotes.
    code: String,
    /// The texts of the literals, with `…` for each placeholder.
    literals: Vec<String>,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        let mut source = Self { path, code: String::new(), literals: Vec::new() };
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            rest = if rest.starts_with("//") {
                &rest[rest.find('\n').unwrap_or(rest.len())..]
            } else if first == '"' {
                source.literal(rest)
            } else if let Some(raw) = raw_string(rest).filter(|_| !source.ends_in_a_word()) {
                source.push(&rest[raw.0..raw.1]);
                &rest[raw.1 + raw.0 - 1..]
            } else if first == '\'' {
                &rest[character(rest)..]
            } else {
                source.code.push(first);
                &rest[first.len_utf8()..]
            };
        }
        source
    }

    fn ends_in_a_word(&self) -> bool {
        self.code.ends_with(|last: char| last.is_alphanumeric() || last == '_')
    }

    /// Reads the literal at the beginning of `text`, and returns what is behind it.
    fn literal<'a>(&mut self, text: &'a str) -> &'a str {
        let (mut literal, mut chars) = (String::new(), text[1..].chars());
        loop {
            match chars.next().unwrap() {
                '"' => break,
                '\\' => match chars.next().unwrap() {
                    // A literal that goes on in the next line.
                    '\n' => chars = chars.as_str().trim_start().chars(),
                    'n' => literal.push('\n'),
                    escaped => literal.push(escaped),
                },
                other => literal.push(other),
            }
        }
        self.push(&literal);
        chars.as_str()
    }

    fn push(&mut self, literal: &str) {
        let (mut text, mut rest) = (String::new(), literal);
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            match after.split_once('}') {
                Some((_, after)) => {
                    text.push(ANY);
                    rest = after;
                }
                None => rest = after,
            }
        }
        self.code.push_str(&format!("\"{}\"", self.literals.len()));
        self.literals.push(trimmed(&(text + rest)).to_owned());
    }

    /// Returns the last literal in the parentheses behind each `call`.
    fn last_in<'a>(&'a self, call: &'a str) -> impl Iterator<Item = &'a str> {
        self.code.split(call).skip(1).filter_map(|behind| {
            let mut depth = 1;
            let mut inside = behind.split(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            let number = inside.next()?.rsplit('"').nth(1)?;
            Some(&*self.literals[number.parse::<usize>().ok()?])
        })
    }
}

/// Returns where the contents of a raw string at the beginning of `text` begin and end.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let hashes = text.strip_prefix('r')?.split('"').next()?;
    if !hashes.bytes().all(|byte| byte == b'#')
        || text.as_bytes().get(1 + hashes.len()) != Some(&b'"')
    {
        return None;
    }
    let begin = hashes.len() + 2;
    let end = text[begin..].find(&format!("\"{hashes}"))?;
    Some((begin, begin + end))
}

/// Returns the length of the character, or of the quote of the lifetime, at the beginning of `text`.
fn character(text: &str) -> usize {
    let inside = &text[1..];
    let first = inside.chars().next().map_or(0, char::len_utf8);
    match inside.strip_prefix('\\') {
        Some(escaped) => 3 + escaped[1..].find('\'').unwrap() + 1,
        None if inside[first..].starts_with('\'') => first + 2,
        None => 1,
    }
}

/// Returns `text` without the placeholders and punctuation at its ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches([ANY, ' ', ':', ';', ',', '(', ')'])
}

/// Returns `true` if the `listed` text is that of a `literal`, with anything in place of each `…`.
fn is_text_of(listed: &str, literal: &str) -> bool {
    let mut rest = literal;
    for (number, part) in trimmed(listed).split(ANY).enumerate() {
        let is_here = |at: &usize| *at == 0 || number > 0 || listed.starts_with(ANY);
        let Some(at) = rest.find(part).filter(is_here) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || listed.ends_with(ANY)
}

/// Returns the texts that the page lists: what is in the columns `text` of its tables.
fn listed() -> Vec<&'static str> {
    let (mut column, mut listed) = (None, Vec::new());
    for line in PAGE.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if cells.len() < 3 {
            column = None;
        } else if column.is_none() {
            column = Some(cells.iter().position(|cell| *cell == "text"));
        } else if let Some(Some(column)) = column {
            listed.extend(cells[column].split('`').skip(1).step_by(2));
        }
    }
    listed
}

/// The folder of this crate and of those around it.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The sources of this crate, and of those around it.
fn sources() -> Vec<Source> {
    let crates = fs::read_dir(root().join("crates")).into_iter().flatten();
    let mut folders: Vec<_> = crates.map(|entry| entry.unwrap().path().join("src")).collect();
    folders.push(root().join("src"));
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
                sources.push(Source::read(path));
            }
        }
    }
    sources
}

#[test]
fn every_text_of_the_page_is_in_the_sources() {
    let (listed, sources) = (listed(), sources());
    assert!(listed.len() > 200, "{} texts", listed.len());
    if !root().join("crates").is_dir() {
        // The package is without the crates around it, whose texts are listed too.
        return;
    }
    let is_in_the_sources = |listed: &&str| {
        let mut literals = sources.iter().flat_map(|source| &source.literals);
        literals.any(|literal| is_text_of(listed, literal))
    };
    let lost: Vec<_> = listed.iter().filter(|listed| !is_in_the_sources(listed)).collect();
    assert!(
        lost.is_empty(),
        "src/guide/troubleshooting.md has texts that the code has not: {lost:#?}"
    );
}

#[test]
fn no_error_and_no_warning_is_missing_on_the_page() {
    let listed = listed();
    let mut missing = Vec::new();
    for source in sources() {
        let calls = ["#[error(", "tracing::warn!(", "tracing::error!(", "CloseReason::new("];
        for text in calls.iter().flat_map(|call| source.last_in(call)) {
            let is_listed = listed.iter().any(|listed| is_text_of(listed, text));
            if !is_listed && !text.is_empty() && !FOR_LAYERS.contains(&text) {
                missing.push(format!("{}: {text}", source.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "src/guide/troubleshooting.md lacks: {missing:#?}");
}
