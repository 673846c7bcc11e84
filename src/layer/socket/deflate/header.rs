//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455, section 9.1).

/// An element of the list, with its parameters in their order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, Option<String>)>,
}

/// Parses the value of one header line; `None` where it is not such a list.
pub(super) fn parse(value: &[u8]) -> Option<Vec<Extension>> {
    let mut cursor = Cursor(value);
    let mut extensions = Vec::new();
    loop {
        // Empty elements of a list are ignored (RFC 9110, section 5.6.1).
        while cursor.takes(b',') {}
        if cursor.skip_to_end() {
            return Some(extensions);
        }
        let mut extension = Extension { name: cursor.token()?, parameters: Vec::new() };
        while cursor.takes(b';') {
            let name = cursor.token()?;
            let value = match cursor.takes(b'=') {
                true => Some(cursor.value()?),
                false => None,
            };
            extension.parameters.push((name, value));
        }
        extensions.push(extension);
        if !cursor.takes(b',') {
            return cursor.skip_to_end().then_some(extensions);
        }
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn skip_to_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn token(&mut self) -> Option<String> {
        self.skip_space();
        let end = self.0.iter().position(|byte| !is_token(*byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (end > 0).then(|| String::from_utf8_lossy(token).into_owned())
    }

    /// Reads a token, or a token in quotes.
    fn value(&mut self) -> Option<String> {
        if !self.takes(b'"') {
            return self.token();
        }
        let mut value = Vec::new();
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let byte = match byte {
                b'"' => break,
                b'\\' => {
                    let (escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    escaped
                }
                byte => byte,
            };
            // Unquoted, it has to be a token.
            is_token(*byte).then(|| value.push(*byte))?;
        }
        (!value.is_empty()).then(|| String::from_utf8_lossy(&value).into_owned())
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> Option<String> {
        let shown = |extension: Extension| {
            let parameters = extension.parameters.into_iter().map(|(name, value)| match value {
                Some(value) => format!("({name}={value})"),
                None => format!("({name})"),
            });
            extension.name + &parameters.collect::<String>()
        };
        let extensions = parse(value.as_bytes())?;
        Some(extensions.into_iter().map(shown).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_list_is_read_with_its_parameters() {
        for (value, expected) in [
            ("", Some("")),
            ("a", Some("a")),
            (" a ; b ; c = 1 , , d ", Some("a(b)(c=1) d")),
            ("a;b=\"10\"", Some("a(b=10)")),
            ("a;b=\"1\\0\",c", Some("a(b=10) c")),
            ("a;b=1;b=2", Some("a(b=1)(b=2)")),
            ("a;", None),
            ("a;b=", None),
            ("a;b=\"\"", None),
            ("a;b=\"1", None),
            ("a;b=\"1\\", None),
            ("a;b=\"1,2\"", None),
            ("a b", None),
            (";a", None),
            ("a=1", None),
            ("ä", None),
        ] {
            assert_eq!(shown(value).as_deref(), expected, "{value:?}");
        }
    }
}
