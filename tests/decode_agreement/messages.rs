use crate::mutate::{self, Json, Rng};

/// Messages made of examples, by mutation.
pub(crate) struct Messages {
    examples: Vec<Json>,
    pub(crate) rng: Rng,
}

impl Messages {
    pub(crate) fn of(examples: &[&str], seed: u64) -> Self {
        Self { examples: examples.iter().map(|text| Json::parse(text)).collect(), rng: Rng(seed) }
    }

    /// The next message: an example as it is, or with one or a few mutations.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let Self { examples, rng } = self;
        let mut message = examples[rng.below(examples.len())].clone();
        for _ in 0..rng.below(4) {
            let other = rng.below(examples.len());
            mutate::mutate(&mut message, &examples[other], rng);
        }
        let mut text = String::new();
        message.print(&mut text);
        let mut bytes = text.into_bytes();
        if rng.below(8) == 0 && !bytes.is_empty() {
            mutate::damage(&mut bytes, rng);
        }
        bytes
    }
}

/// Returns the number of messages to try: `MCP_WS_CASES`, or what a debug build can do in a few
/// seconds.
pub(crate) fn cases(default: usize) -> usize {
    std::env::var("MCP_WS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(default)
}
