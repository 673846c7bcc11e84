//! The README and the guides against the sources: they list what the code has, and all of it.

mod guides;
mod observability;
mod readme;
mod troubleshooting;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What stands in a text for something that differs from case to case.
pub const ANY: char = '…';

/// A source file without comments and tests.
pub struct Source {
    pub path: PathBuf,
    /// The code, with each string literal as its number in quotes.
    pub code: String,
    /// The texts of the literals, with `…` for each placeholder.
    pub literals: Vec<String>,
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

    /// Returns what is in the parentheses behind each `call`.
    pub fn inside<'a>(&'a self, call: &'a str) -> impl Iterator<Item = &'a str> {
        self.code.split(call).skip(1).filter_map(|behind| {
            let mut depth = 1;
            let mut inside = behind.split(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                depth == 0
            });
            inside.next()
        })
    }

    /// Returns the last literal of `code`.
    pub fn last_literal(&self, code: &str) -> Option<&str> {
        let number = code.rsplit('"').nth(1)?;
        Some(&*self.literals[number.parse::<usize>().ok()?])
    }

    /// Returns the first literal of `code`.
    pub fn first_literal(&self, code: &str) -> Option<&str> {
        let number = code.split('"').nth(1)?;
        Some(&*self.literals[number.parse::<usize>().ok()?])
    }

    /// Returns the last literal in the parentheses behind each `call`.
    pub fn last_in<'a>(&'a self, call: &'a str) -> impl Iterator<Item = &'a str> {
        self.inside(call).filter_map(|inside| self.last_literal(inside))
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
pub fn is_text_of(listed: &str, literal: &str) -> bool {
    let mut rest = literal;
    for (number, part) in trimmed(listed).split(ANY).enumerate() {
        let is_here = |at: &usize| *at == 0 || number > 0 || listed.starts_with(ANY);
        let Some(at) = rest.find(part).filter(is_here) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || listed.ends_with(ANY)
}

/// Returns the rows of the tables of a `page` that have a column of the name `key`, each cell with
/// the name of its column.
pub fn rows<'a>(page: &'a str, key: &'a str) -> Vec<Vec<(&'a str, &'a str)>> {
    let (mut columns, mut rows) = (None, Vec::new());
    for line in page.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        match &columns {
            _ if cells.len() < 3 => columns = None,
            None => columns = Some(cells),
            Some(_) if cells[1].starts_with("---") => {}
            Some(columns) if columns.contains(&key) => {
                rows.push(columns.iter().copied().zip(cells).collect());
            }
            Some(_) => {}
        }
    }
    rows
}

/// Returns what is in backticks in the column of this name.
pub fn quoted<'a>(row: &[(&str, &'a str)], column: &str) -> Vec<&'a str> {
    let cells = row.iter().filter(|(name, _)| *name == column);
    cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect()
}

/// Returns the anchor of a heading on a page that is made of Markdown, by rustdoc or a forge.
pub fn anchor(heading: &str) -> String {
    let letters = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Returns the folder of this crate and of those around it.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the sources of this crate, and of those around it.
pub fn sources() -> Vec<Source> {
    let crates = fs::read_dir(root().join("crates")).unwrap();
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
