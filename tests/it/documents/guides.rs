//! The guides: what links to a section of one finds it there, which rustdoc does not check.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use super::anchor;

/// Returns the sections of a page, without those of its snippets.
fn sections(page: &str) -> HashSet<String> {
    let mut in_snippet = false;
    let headings = page.lines().filter_map(|line| {
        in_snippet ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        (!in_snippet && heading.len() < line.len()).then(|| heading.strip_prefix(' '))?
    });
    headings.map(anchor).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md" || extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the start of `text`, as far as an anchor goes.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_');
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn links_to_sections_of_the_guides_lead_there() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&source, &mut all);
    let guide = source.join("guide");
    let pages = all.iter().filter(|path| path.starts_with(&guide));
    let pages: HashMap<_, _> = pages
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap();
            (name, sections(&fs::read_to_string(path).unwrap()))
        })
        .collect();
    let mut followed = 0;
    for path in &all {
        let text = fs::read_to_string(path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_guide = path.starts_with(&guide);
        let within = text.split("](#").skip(1).filter(|_| is_guide);
        let within = within.map(|rest| (name, word(rest)));
        let across = text.split("guide::").skip(1).filter_map(|rest| {
            let page = word(rest);
            Some((page, word(rest[page.len()..].strip_prefix('#')?)))
        });
        for (page, section) in within.chain(across) {
            let is_there = pages.get(page).is_some_and(|sections| sections.contains(section));
            assert!(is_there, "{}: {page}#{section}", path.display());
            followed += 1;
        }
    }
    assert!(followed > 80, "{followed}");
}

#[test]
fn each_task_of_the_cookbook_is_in_its_table() {
    let page = include_str!("../../../src/guide/cookbook.md");
    let (table, tasks) = page.split_once("\n# ").unwrap();
    let listed: HashSet<_> = table.split("](#").skip(1).map(|rest| word(rest).to_owned()).collect();
    assert_eq!(listed, sections(&format!("# {tasks}")));
}
