//! The commands and options that the documents name, against `--help`.

use std::{collections::BTreeMap, fs, path::Path};

use crate::{run, text};

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "crates/mcp-ws/README.md",
    "src/guide/hosts.md",
    "src/guide/alternatives.md",
    "src/guide/troubleshooting.md",
    "ARCHITECTURE.md",
];

/// Options of other programs, and of cargo.
const OF_OTHERS: [&str; 6] = ["--cli", "--features", "--init", "--method", "--path", "--stateful"];

/// The words of `text` that are options.
fn options(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '-';
    let words = text.split(move |c: char| !is_part(c));
    words.filter(|word| word.len() > 3 && word.starts_with("--") && !word.starts_with("---"))
}

#[tokio::test]
async fn what_the_documents_name_is_in_the_help() {
    let mut helps = BTreeMap::new();
    for command in ["serve", "connect", "dial", "tools", "call", "ping"] {
        let output = run(&[command, "--help"]).await;
        assert!(output.status.success(), "{command}");
        helps.insert(command, text(&output.stdout));
    }
    let (mut lines, mut named) = (0, 0);
    for document in DOCUMENTS {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let page = fs::read_to_string(root.join(document)).unwrap();
        // A command line, up to what is another's: the child's, or a comment.
        for rest in page.split("mcp-ws ").skip(1) {
            let line = rest.split(['\n', '`', '#', ',', '|']).next().unwrap();
            let line = line.split(" -- ").next().unwrap();
            let Some(help) = line.split(' ').next().and_then(|command| helps.get(command)) else {
                continue;
            };
            for option in options(line).filter(|option| !OF_OTHERS.contains(option)) {
                assert!(options(help).any(|known| known == option), "{document}: mcp-ws {line}");
            }
            lines += 1;
        }
        // What a sentence names is an option of one of them.
        let quoted = page.split('`').skip(1).step_by(2).filter(|quoted| !quoted.contains("cargo"));
        for option in quoted.flat_map(options).filter(|option| !OF_OTHERS.contains(option)) {
            let is_known = helps.values().any(|help| options(help).any(|known| known == option));
            assert!(is_known || option == "--help", "{document}: {option}");
            named += 1;
        }
    }
    assert!(lines > 20 && named > 20, "{lines} command lines, {named} options");
}
