//! Subprotocol offers, and what the client learns from the server's responses to them.

use std::sync::{Mutex, PoisonError};

use http::{
    HeaderValue, Response,
    header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL},
};
use hyper::body::Incoming;
use tokio::time::{Duration, Instant};

use super::refusal::is_cut;
use crate::{
    error::HandshakeError,
    framing::session_id::SessionIdCell,
    handshake::{
        extensions::WsExtensions,
        headers::{SESSION, SUBPROTOCOL, accept_key, is_websocket},
    },
    layer::{
        resume::{frame::SUBPROTOCOL as RESUME, secret::SessionId},
        socket,
    },
};

/// Time after which a server that refused the whole offer is offered it again.
const RETRY_WHOLE_AFTER: Duration = Duration::from_secs(600);

/// Index of the whole offer.
const WHOLE: usize = 0;

/// Returns the subprotocol that asks for the session with this id, if there is one.
pub(super) fn session(name: &SessionIdCell) -> Option<String> {
    let id = SessionId::try_from(name.get()?.to_string()).ok()?;
    Some(format!("{SESSION}{}", id.as_str()))
}

/// Offers of one client, ordered by the results of earlier handshakes.
///
/// Servers in the field differ: some refuse a handshake that offers more than they know, and some
/// drop it. A refusal is a response, and is remembered for a while. A dropped handshake is most
/// likely a lost connection, so what it teaches does not outlive the connection made next.
#[derive(Debug, Default)]
pub(super) struct Offers(Mutex<Learned>);

/// Outcome of the earlier handshakes, and the offers that follow from it.
///
/// | | offered first | a handshake of that offer is cut |
/// |---|---|---|
/// | `Nothing` | the whole offer, and once more if that is cut | the next smaller offer is made |
/// | `Whole` | the whole offer | the attempt has failed |
/// | `Refused`, for less than [`RETRY_WHOLE_AFTER`] | the one that was taken | the attempt has failed |
/// | `Refused` before that, `Cut` | the whole offer | the one that was taken is made |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Learned {
    #[default]
    Nothing,
    /// The server accepted the whole offer.
    Whole,
    /// The server refused the whole offer by a response, and accepted the one with this index.
    Refused { taken: usize, at: Instant },
    /// The handshakes of the whole offer were cut; the one with this index was accepted.
    Cut { taken: usize },
}

/// Failure of the whole offer within one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failed {
    Refused,
    Cut,
}

/// An offer to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    number: usize,
    pub(super) subprotocols: Vec<String>,
    /// `true` if the next offer is sent when the handshake of this one is cut.
    yields_to_cut: bool,
    /// `true` for the second attempt of the whole offer, made after the first was cut.
    repeats: bool,
}

impl Offer {
    /// Returns `true` if this offer is to be sent after the whole one has failed as `whole` says.
    pub(super) fn is_due(&self, whole: Option<Failed>) -> bool {
        !self.repeats || whole == Some(Failed::Cut)
    }

    /// Classifies the error of this offer; `None` if it is not to be followed by the next offer.
    pub(super) fn failed(&self, error: &HandshakeError) -> Option<Failed> {
        if self.yields_to_cut && is_cut(error) {
            Some(Failed::Cut)
        } else {
            may_concern_offer(error, &self.subprotocols).then_some(Failed::Refused)
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.number == WHOLE
    }
}

impl Offers {
    /// Returns the offers to send in turn: `all`, then smaller ones.
    pub(super) fn in_order(&self, all: &[String]) -> Vec<Offer> {
        let without = all.iter().filter(|offered| *offered != RESUME).cloned().collect();
        let offers = [all.to_vec(), without, vec![SUBPROTOCOL.to_owned()], Vec::new()];
        let offers = offers.into_iter().enumerate().map(|(number, subprotocols)| Offer {
            number,
            subprotocols,
            yields_to_cut: true,
            repeats: false,
        });
        let mut offers: Vec<_> = offers.collect();
        offers.dedup_by(|next, before| next.subprotocols == before.subprotocols);
        let mut first = |number, yields_to_cut| {
            if let Some(at) = offers.iter().position(|offer| offer.number == number) {
                offers[..=at].rotate_right(1);
                offers[0].yields_to_cut = yields_to_cut;
            }
        };
        match self.learned() {
            Learned::Nothing => {
                let subprotocols = all.to_vec();
                let whole =
                    Offer { number: WHOLE, subprotocols, yields_to_cut: true, repeats: true };
                offers.insert(1, whole);
            }
            Learned::Whole => first(WHOLE, false),
            Learned::Refused { taken, at } if at.elapsed() < RETRY_WHOLE_AFTER => {
                first(taken, false)
            }
            Learned::Refused { taken, .. } | Learned::Cut { taken } => {
                first(taken, false);
                first(WHOLE, true);
            }
        }
        offers
    }

    /// Records that the server accepted `offer`, after the whole one failed as `whole` says.
    pub(super) fn record_accepted(&self, offer: &Offer, whole: Option<Failed>) {
        let taken = offer.number;
        let learned = match whole {
            _ if taken == WHOLE => Learned::Whole,
            Some(Failed::Refused) => Learned::Refused { taken, at: Instant::now() },
            Some(Failed::Cut) => Learned::Cut { taken },
            None => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = learned;
    }

    fn learned(&self) -> Learned {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the error may be due to the subprotocols offered. Statuses that have a meaning
/// of their own (401, 403, 404, …) never are.
fn may_concern_offer(error: &HandshakeError, offer: &[String]) -> bool {
    match error {
        HandshakeError::Refused(refusal) => {
            refusal.status.is_client_error()
                && !matches!(
                    refusal.status.as_u16(),
                    401 | 403 | 404 | 405 | 407 | 408 | 410 | 413 | 414 | 425 | 429 | 431
                )
        }
        HandshakeError::Subprotocol(_) => offers_to_resume(offer),
        _ => false,
    }
}

fn offers_to_resume(offer: &[String]) -> bool {
    offer.iter().any(|offered| offered == RESUME)
}

/// Checks the server's part of the handshake (RFC 6455, section 4.1, items 2 to 6). Tolerates that
/// it ignores the subprotocols, answers `mcp` unasked, or returns the whole offer, if that is not
/// also one to resume: by that it would say that it does.
pub(super) fn check(
    response: &Response<Incoming>,
    offer: &[String],
    config: &socket::Config,
    key: &str,
) -> Result<(Option<String>, WsExtensions), HandshakeError> {
    let headers = response.headers();
    let not = |what: &str| Err(HandshakeError::NotWebSocket(what.into()));
    if !is_websocket(headers) {
        return not(
            "101 without an upgrade to websocket; does a proxy on the way pass WebSockets on?",
        );
    }
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accept != Some(accept_key(key.as_bytes()).as_bytes()) {
        return not("Sec-WebSocket-Accept does not answer the key: a cached or made-up answer");
    }
    let extensions = WsExtensions::chosen(config, headers).map_err(HandshakeError::NotWebSocket)?;
    let subprotocol = headers.get(SEC_WEBSOCKET_PROTOCOL);
    Ok((subprotocol.map(|chosen| chosen_of(offer, chosen)).transpose()?.flatten(), extensions))
}

/// Returns the subprotocol that was chosen, if it may be.
fn chosen_of(offer: &[String], chosen: &HeaderValue) -> Result<Option<String>, HandshakeError> {
    let chosen = String::from_utf8_lossy(chosen.as_bytes());
    let chosen = chosen.trim();
    if chosen == SUBPROTOCOL || offer.iter().any(|offered| offered == chosen) {
        Ok(Some(chosen.to_owned()))
    } else if !offers_to_resume(offer) && chosen.split(',').map(str::trim).eq(offer) {
        Ok(offer.first().cloned())
    } else {
        let shown = offer.iter().fold(chosen.to_owned(), |chosen, offered| {
            chosen.replace(offered.as_str(), shown(offered))
        });
        Err(HandshakeError::Subprotocol(shown))
    }
}

/// Returns the subprotocol, unless it may be a token.
pub(super) fn shown(subprotocol: &str) -> &str {
    let public =
        [SUBPROTOCOL, RESUME].contains(&subprotocol) || subprotocol.starts_with("mcp.version.");
    if public { subprotocol } else { "…" }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Returns the offers sent while the handshakes fail with `fails`, the last of which is
    /// accepted.
    fn made(offers: &Offers, fails: &[HandshakeError]) -> Vec<String> {
        let all = ["mcp", RESUME, "own"].map(str::to_owned);
        let (mut made, mut whole) = (Vec::new(), None);
        let mut fails = fails.iter();
        for offer in offers.in_order(&all) {
            if !offer.is_due(whole) {
                continue;
            }
            made.push(offer.subprotocols.join(" "));
            let Some(error) = fails.next() else {
                offers.record_accepted(&offer, whole);
                return made;
            };
            let Some(failed) = offer.failed(error) else { return made };
            if offer.is_whole() {
                whole = Some(failed);
            }
        }
        made
    }

    fn cut() -> HandshakeError {
        super::super::refusal::cut("closed")
    }

    fn refused() -> HandshakeError {
        let refusal = crate::error::Refusal::new(http::StatusCode::BAD_REQUEST, "");
        HandshakeError::Refused(Box::new(refusal))
    }

    const ALL: &str = "mcp mcp.resume.v1 own";

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_a_while() {
        let offers = Offers::default();
        assert_eq!(made(&offers, &[refused(), refused()]), [ALL, "mcp own", "mcp"]);
        advance(RETRY_WHOLE_AFTER - Duration::from_secs(1)).await;
        assert_eq!(made(&offers, &[]), ["mcp"]);
        // A lost connection says nothing of the offer.
        assert_eq!(made(&offers, &[cut()]), ["mcp"]);
        advance(Duration::from_secs(1)).await;
        assert_eq!(made(&offers, &[refused()]), [ALL, "mcp"]);
        assert_eq!(made(&offers, &[]), ["mcp"]);
        advance(RETRY_WHOLE_AFTER).await;
        assert_eq!(made(&offers, &[]), [ALL]);
        assert_eq!(made(&offers, &[cut()]), [ALL]);
    }

    #[test]
    fn a_cut_handshake_teaches_nothing_that_lasts() {
        let offers = Offers::default();
        assert_eq!(made(&offers, &[cut()]), [ALL, ALL]);
        let offers = Offers::default();
        assert_eq!(made(&offers, &[cut(), cut(), cut()]), [ALL, ALL, "mcp own", "mcp"]);
        assert_eq!(made(&offers, &[cut()]), [ALL, "mcp"]);
        assert_eq!(made(&offers, &[cut(), cut()]), [ALL, "mcp"]);
        assert_eq!(made(&offers, &[]), [ALL]);
        assert_eq!(made(&offers, &[cut()]), [ALL]);
    }

    #[test]
    fn where_all_are_cut_nothing_is_learned() {
        let offers = Offers::default();
        let all = [ALL, ALL, "mcp own", "mcp", ""];
        assert_eq!(made(&offers, &[cut(), cut(), cut(), cut(), cut()]), all);
        assert_eq!(made(&offers, &[]), [ALL]);
    }
}
