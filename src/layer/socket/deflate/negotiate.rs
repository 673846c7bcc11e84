//! [`Agreement`]: offers, answers and what follows from them (RFC 7692, sections 5 and 7.1).

use super::{
    super::side::Side,
    Config,
    header::{Extension, parse},
};

const NAME: &str = "permessage-deflate";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

/// The window where nothing else is said: 32 KiB.
const MAX_BITS: u8 = 15;

/// The smallest window that can be compressed with. RFC 7692 has 8 too, zlib does not.
const MIN_BITS: u8 = 9;

/// Agreement to use permessage-deflate on a connection, with its parameters.
///
/// [`connect()`](crate::connect()) and the server come to it by themselves. For a handshake of
/// your own there are [`Config::offer`], [`Config::answer`] and [`Config::confirm`], and then
/// [`Socket::deflating`](super::super::Socket::deflating).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    pub(super) config: Config,
    client: Half,
    server: Half,
}

/// Parameters of one direction, named for the side that compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Half {
    pub(super) takeover: bool,
    pub(super) bits: u8,
}

impl Half {
    /// Returns the window to compress with, if there is one.
    pub(super) fn window(self) -> Option<u8> {
        (self.bits >= MIN_BITS).then_some(self.bits)
    }
}

impl Agreement {
    pub(super) fn outbound(&self, side: Side) -> Half {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    pub(super) fn inbound(&self, side: Side) -> Half {
        match side {
            Side::Client => self.server,
            Side::Server => self.client,
        }
    }
}

impl Config {
    /// Returns the value of `Sec-WebSocket-Extensions` by which a client offers this.
    #[must_use]
    pub fn offer(&self) -> &'static str {
        match self.context_takeover {
            true => "permessage-deflate; client_max_window_bits",
            false => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 client_max_window_bits"
            }
        }
    }

    /// Returns the first of a client's `offers` that can be accepted, with the answer; `None` for
    /// no answer. `offers` are the values of its `Sec-WebSocket-Extensions`, one or more. An offer
    /// that is not valid, or has an unknown parameter, is declined.
    #[must_use]
    pub fn answer<'a>(
        &self,
        offers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<(Agreement, String)> {
        offers.into_iter().filter_map(parse).flatten().find_map(|offer| self.accept(&offer))
    }

    fn accept(&self, offer: &Extension) -> Option<(Agreement, String)> {
        let offered = Parameters::read(offer).ok()?;
        let bits = match offered.server_bits {
            None => MAX_BITS,
            Some(Some(bits)) if bits >= MIN_BITS => bits,
            Some(_) => return None,
        };
        let takeover = |declined: bool| self.context_takeover && !declined;
        let agreement = Agreement {
            config: *self,
            client: Half { takeover: takeover(offered.client_no_takeover), bits: MAX_BITS },
            server: Half { takeover: takeover(offered.server_no_takeover), bits },
        };
        let mut answer = NAME.to_owned();
        for (half, parameter) in
            [(agreement.server, SERVER_NO_TAKEOVER), (agreement.client, CLIENT_NO_TAKEOVER)]
        {
            if !half.takeover {
                answer = answer + "; " + parameter;
            }
        }
        if offered.server_bits.is_some() {
            answer += &format!("; {SERVER_BITS}={bits}");
        }
        Some((agreement, answer))
    }

    /// Returns what a server has agreed to that was [offered](Self::offer) this; `None` if nothing.
    /// `answers` are the values of its `Sec-WebSocket-Extensions`, one or more.
    ///
    /// # Errors
    /// The fault of an answer that does not fit the offer. The connection has to be given up.
    pub fn confirm<'a>(
        &self,
        answers: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Agreement>, String> {
        let mut chosen = Vec::new();
        for answer in answers {
            chosen.extend(parse(answer).ok_or("malformed")?);
        }
        let answer = match chosen.as_slice() {
            [] => return Ok(None),
            [answer] if answer.name == NAME => Parameters::read(answer)?,
            [answer] => return Err(format!("{}, which was not offered", answer.name)),
            _ => return Err("more than one extension, where one was offered".into()),
        };
        if !self.context_takeover && !answer.server_no_takeover {
            return Err(format!("{NAME} without {SERVER_NO_TAKEOVER}, which was asked for"));
        }
        let bits = |name, bits: Option<Option<u8>>| match bits {
            None => Ok(MAX_BITS),
            Some(Some(bits)) => Ok(bits),
            Some(None) => Err(format!("{NAME} with {name} without a value")),
        };
        Ok(Some(Agreement {
            config: *self,
            client: Half {
                takeover: self.context_takeover && !answer.client_no_takeover,
                bits: bits(CLIENT_BITS, answer.client_bits)?,
            },
            server: Half {
                takeover: !answer.server_no_takeover,
                bits: bits(SERVER_BITS, answer.server_bits)?,
            },
        }))
    }
}

/// The parameters of an offer or of an answer.
#[derive(Debug, Default)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<Option<u8>>,
    client_bits: Option<Option<u8>>,
}

impl Parameters {
    fn read(extension: &Extension) -> Result<Self, String> {
        if extension.name != NAME {
            return Err(format!("{} is not {NAME}", extension.name));
        }
        let mut parameters = Self::default();
        for (name, value) in &extension.parameters {
            let value = value.as_deref();
            let invalid = || format!("{NAME} with an invalid {name}");
            let is_new = match name.as_str() {
                SERVER_NO_TAKEOVER | CLIENT_NO_TAKEOVER if value.is_some() => return Err(invalid()),
                SERVER_NO_TAKEOVER => !std::mem::replace(&mut parameters.server_no_takeover, true),
                CLIENT_NO_TAKEOVER => !std::mem::replace(&mut parameters.client_no_takeover, true),
                SERVER_BITS | CLIENT_BITS => {
                    let bits = match value {
                        Some(value) => Some(bits(value).ok_or_else(invalid)?),
                        None => None,
                    };
                    let place = match name.as_str() {
                        SERVER_BITS => &mut parameters.server_bits,
                        _ => &mut parameters.client_bits,
                    };
                    place.replace(bits).is_none()
                }
                _ => return Err(format!("{NAME} with the unknown parameter {name}")),
            };
            if !is_new {
                return Err(format!("{NAME} with {name} more than once"));
            }
        }
        Ok(parameters)
    }
}

/// Parses a number from 8 to 15, without leading zeros.
fn bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        _ => value.parse().ok().filter(|bits| (10..=MAX_BITS).contains(bits) && value.len() == 2),
    }
}
