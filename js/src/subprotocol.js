/** The subprotocol of sessions that outlive their connections. */
export const RESUME = 'mcp.resume.v1';

/** Returns whether a browser can offer `text` as a subprotocol: a token of RFC 9110, section 5.6.2. */
export const isSubprotocol = (text) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text);

/** Returns the subprotocol that carries a token: as it is where that can be, and else in base64url. */
export function authSubprotocol(token) {
  if (isSubprotocol(token)) return `mcp.auth.${token}`;
  const binary = String.fromCharCode(...new TextEncoder().encode(token));
  const base64url = btoa(binary).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
  return `mcp.auth-base64url.${base64url}`;
}

/**
 * Lists of subprotocols to be offered one after the other, until a server accepts one; then that one alone. A lesser one
 * has to be accepted twice: a server that has just started may have refused the first for another reason.
 */
export class Offers {
  #lists;
  #latest;
  #accepted;
  #losses = 0;

  /** A resume session needs `mcp.resume.v1`; servers that refuse unknown subprotocols know `mcp`, or none. */
  constructor(protocols, { resume }) {
    this.#lists = resume ? [[...protocols, RESUME]] : [];
    this.#lists.push([...protocols]);
    if (protocols.length) this.#lists.push([]);
  }

  /** Returns what to offer in the next attempt. A browser takes no connection on which no offer was chosen. */
  next(token) {
    const lists = this.#accepted ? [this.#accepted] : this.#lists;
    if (!token) return lists.map((offers) => [offers, offers]);
    const withToken = lists.filter((offers) => offers.length || lists.length === 1);
    return withToken.map((offers) => [offers, [...(offers.length ? offers : ['mcp']), authSubprotocol(token)]]);
  }

  /** Notes that a server has accepted `offers`. */
  accept(offers) {
    if (offers === this.#lists[0] || offers === this.#latest) this.#accepted = offers;
    this.#latest = offers;
    this.#losses = 0;
  }

  /** Notes that an attempt has failed. After several in a row, another server may be there, which wants another offer. */
  fail() {
    if (++this.#losses >= 4) this.#accepted = undefined;
  }
}
