import { ConnectionError, final } from './errors.js';
import { abortAfter } from './timer.js';

const WHY = {
  401: 'the server asks for a token', 403: 'the server refuses this page, or this token',
  404: 'there is nothing at this address', 410: 'what was at this address is gone',
};

const FULL = new Set([408, 425, 429]);

/** The number of refused upgrades in a row after which no further attempt is made. */
const MOST_REFUSALS = 3;

/** Returns what a status says to a client with or without a token, if it is one that will not change by itself. */
const explain = (status, token) =>
  status === 401 && token ? 'the server does not accept this token' : WHY[status];

/** Returns the error of an attempt that was refused with a known status; a renewed token may help against a 401. */
export function refused(status, { token, mayRenew }) {
  const why = explain(status, token);
  if (!why) return new ConnectionError(`the server refuses the connection with status ${status}`);
  return status === 401 && mayRenew ? new ConnectionError(why) : final(why);
}

/** Returns whether a server that refused with this status may accept another offer of subprotocols. */
export const mayAcceptAnother = (status) => !WHY[status] && !FULL.has(status) && status < 500;

/**
 * Asks a server by HTTP why it does not upgrade, as far as that can be known: a browser tells a refusal no different
 * from a server that is not there. Some answers mean the same for an upgrade; others only mean that the server is
 * there, which is final unless it has let this client in before and may be full.
 */
export class Inquiry {
  #fetch;
  #timeout;
  #refusals = 0;

  constructor({ fetch, connectTimeout }) {
    this.#fetch = fetch;
    this.#timeout = connectTimeout;
  }

  /** Begins to count anew. */
  reset() { this.#refusals = 0; }

  /** Returns the status with which the server answers a plain request; `undefined` if it cannot be reached. */
  async status(url, token) {
    if (!this.#fetch) return undefined;
    try {
      const here = globalThis.location;
      const http = new URL(url, here?.href);
      http.protocol = http.protocol.replace('ws', 'http');
      const isOwn = http.origin === here?.origin || here === undefined;
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const signal = abortAfter(this.#timeout);
      // Fetch sends no request of the mode `no-cors` that does not follow redirects.
      const how = isOwn ? { headers, redirect: 'manual' } : { mode: 'no-cors', redirect: 'follow' };
      return (await this.#fetch(http, { cache: 'no-store', signal, ...how })).status;
    } catch {
      return undefined;
    }
  }

  /** Returns why no further attempt can help; `undefined` as long as one may. */
  verdict(status, { token, hasOpened }) {
    if (status === undefined || status >= 500 || FULL.has(status)) this.#refusals = 0;
    else if (++this.#refusals >= MOST_REFUSALS && (!hasOpened || WHY[status])) return describe(status, token);
    return undefined;
  }
}

/** Returns why a server that answers with this status opens no WebSocket. */
export function describe(status, token) {
  const perhaps = token ? 'perhaps the token is wrong' : 'perhaps it asks for a token';
  const orElse = 'or it takes no connection from this page, or not at this address';
  return explain(status, token) ?? `the server is there, but opens no WebSocket: ${perhaps}, ${orElse}`;
}
