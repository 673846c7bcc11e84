//! The subprotocols that are offered, and what the server makes of them.

use std::io;

use http::{
    HeaderValue, Response,
    header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL},
};
use hyper::body::Incoming;

use crate::{
    error::HandshakeError,
    extensions::Extensions,
    framing::SessionName,
    layer::{
        resume::{SUBPROTOCOL as RESUME, SessionId},
        socket,
    },
    upgrade::{SESSION, SUBPROTOCOL, accept_key, is_websocket},
};

/// The number of no offer.
pub(super) const NONE: usize = usize::MAX;

/// What is offered to come back to the session of this name, if that can be.
pub(super) fn session(name: &SessionName) -> Option<String> {
    let id = SessionId::try_from(name.get()?.to_string()).ok()?;
    Some(format!("{SESSION}{}", id.as_str()))
}

/// The offers to make one after the other, with their numbers, and first the one that was `taken`: no
/// one offer suits every server in the field.
pub(super) fn in_turn(all: &[String], taken: usize) -> Vec<(usize, Vec<String>)> {
    let without = all.iter().filter(|offered| *offered != RESUME).cloned().collect();
    let offers = [all.to_vec(), without, vec![SUBPROTOCOL.to_owned()], Vec::new()];
    let mut offers: Vec<_> = offers.into_iter().enumerate().collect();
    offers.dedup_by(|(_, next), (_, before)| next == before);
    offers.sort_by_key(|(number, _)| *number != taken);
    offers
}

/// Whether a server that answers so may only dislike the subprotocols offered. Statuses that have a
/// meaning of their own are taken at their word. If they were `taken` before, a connection that is
/// dropped is just that.
pub(super) fn may_be_the_offer(error: &HandshakeError, offer: &[String], taken: bool) -> bool {
    match error {
        HandshakeError::Refused(refusal) => {
            refusal.status.is_client_error()
                && !matches!(
                    refusal.status.as_u16(),
                    401 | 403 | 404 | 405 | 407 | 408 | 410 | 413 | 414 | 425 | 429 | 431
                )
        }
        HandshakeError::Connect(error) => error.kind() == io::ErrorKind::UnexpectedEof && !taken,
        HandshakeError::Subprotocol(_) => offers_to_resume(offer),
        _ => false,
    }
}

fn offers_to_resume(offer: &[String]) -> bool {
    offer.iter().any(|offered| offered == RESUME)
}

/// Checks the server's part of the handshake (RFC 6455, section 4.1, items 2 to 6), but tolerates
/// that it ignores the subprotocols, answers `mcp` unasked, or returns the whole offer, if that is
/// not also one to resume: by that it would say that it does.
pub(super) fn check(
    response: &Response<Incoming>,
    offer: &[String],
    config: &socket::Config,
    key: &str,
) -> Result<(Option<String>, Extensions), HandshakeError> {
    let headers = response.headers();
    let not = |what: &str| Err(HandshakeError::NotWebSocket(what.into()));
    if !is_websocket(headers) {
        return not("101 without an upgrade to websocket");
    }
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accept != Some(accept_key(key.as_bytes()).as_bytes()) {
        return not("Sec-WebSocket-Accept does not answer the key");
    }
    let extensions = Extensions::chosen(config, headers).map_err(HandshakeError::NotWebSocket)?;
    let subprotocol = headers.get(SEC_WEBSOCKET_PROTOCOL);
    Ok((subprotocol.map(|chosen| chosen_of(offer, chosen)).transpose()?.flatten(), extensions))
}

/// The subprotocol that was chosen, if it may be.
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

/// The subprotocol, unless it may be a token.
pub(super) fn shown(subprotocol: &str) -> &str {
    let public =
        [SUBPROTOCOL, RESUME].contains(&subprotocol) || subprotocol.starts_with("mcp.version.");
    if public { subprotocol } else { "…" }
}
