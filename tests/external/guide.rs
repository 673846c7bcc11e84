//! The files that the guides show.

/// The only block of this language in the deployment guide.
pub fn block(language: &str) -> String {
    block_of(include_str!("../../src/guide/deployment.md"), language)
}

/// The only block of this language in `guide`.
pub fn block_of(guide: &str, language: &str) -> String {
    let fence = format!("\n```{language}\n");
    let mut blocks = guide.split(&fence).skip(1);
    let block = blocks.next().unwrap().split_once("\n```\n").unwrap().0.to_owned() + "\n";
    assert_eq!(blocks.next(), None, "one block of {language}");
    block
}

/// Replaces what must be there.
pub fn replace(text: &str, what: &str, by: &str) -> String {
    assert!(text.contains(what), "{what:?} is not in the configuration");
    text.replace(what, by)
}
