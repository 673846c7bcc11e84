import { Aliases } from './aliases.js';
import { RPC } from './errors.js';

/** Requests that may be sent again to a peer that knows nothing of them. */
const REPEATABLE = new Set(['initialize', 'server/discover', 'subscriptions/listen']);

/** The most requests of the peer that are taken and not answered yet. */
const MAX_INBOUND = 1024;

/** Returns the error that ends a request in place of an answer; `reason` says what became of it. */
export const localError = (id, reason, message, code = RPC.CONNECTION) => ({
  jsonrpc: '2.0', id, error: { code, message, data: { reason } },
});

/**
 * The requests of both sides that have no answer yet. One of this side is `waiting` until it is handed to a link, and
 * `sent` from then on; it is ended once, by `end`.
 */
export class Requests {
  #own = new Map(); // id → { entry, state }
  #inbound = new Map(); // alias → id
  #aliases = new Aliases();
  #sent = 0;

  /** The number of own requests that were sent and have no answer. */
  get sent() { return this.#sent; }

  has(id) { return this.#own.has(id); }

  /** Returns `waiting` or `sent`; `undefined` if there is no such request. */
  state(id) { return this.#own.get(id)?.state; }

  add(id, entry) { this.#own.set(id, { entry, state: 'waiting' }); }

  /** Notes that a request was handed to a link. */
  setSent(id) {
    const request = this.#own.get(id);
    if (request?.state !== 'waiting') return;
    request.state = 'sent';
    this.#sent++;
  }

  /** Returns whether a request without an answer has ended so. */
  end(id) {
    const request = this.#own.get(id);
    if (!request) return false;
    this.#own.delete(id);
    if (request.state === 'sent') this.#sent--;
    return true;
  }

  /** Returns the ids of what was sent and gets no answer any more if the peer has forgotten it. */
  lost() {
    const isLost = ([, { entry, state }]) => state === 'sent' && !REPEATABLE.has(entry.message.method);
    return [...this.#own].filter(isLost).map(([id]) => id);
  }

  /** Returns the entries of what was sent and can be sent again to a peer that has forgotten it: they wait anew. */
  again() {
    const isAgain = ([, { entry, state }]) => state === 'sent' && REPEATABLE.has(entry.message.method);
    return [...this.#own].filter(isAgain).map(([id]) => this.wait(id));
  }

  /** Returns the ids, numbers and sizes of the requests that were sent. */
  inFlight() {
    const sent = [...this.#own].filter(([, { state }]) => state === 'sent');
    return sent.map(([id, { entry: { number, bytes } }]) => ({ id, number, bytes }));
  }

  /** Returns the entry of a request, if there is one. */
  entry(id) { return this.#own.get(id)?.entry; }

  /** Returns the entry of a request that was sent, and waits anew. */
  wait(id) {
    const request = this.#own.get(id);
    request.state = 'waiting';
    this.#sent--;
    return request.entry;
  }

  /** Returns the ids of all requests of this side, with their states. */
  all() { return [...this.#own].map(([id, { state }]) => [id, state]); }

  /** Returns whether the peer has a request with this id. */
  isInFlight(id) { return this.#inbound.has(this.#aliases.of(id)); }

  /** Takes a request of the peer. Returns it as it is handed on; `undefined` if it is not taken. */
  accept(request) {
    const taken = this.#aliases.inward(request);
    if (this.#inbound.has(taken.id) || this.#inbound.size >= MAX_INBOUND) return undefined;
    this.#inbound.set(taken.id, request.id);
    return taken;
  }

  /** Ends the request that the peer cancels. Returns the cancellation as it is handed on. */
  cancel(message) {
    const requestId = this.#aliases.of(message.params?.requestId);
    this.#inbound.delete(requestId);
    return { ...message, params: { ...message.params, requestId } };
  }

  /** Ends a request of the peer by its answer. Returns its id; `undefined` if nobody waits for the answer. */
  answer(alias) {
    const id = this.#inbound.get(alias);
    this.#inbound.delete(alias);
    return id;
  }

  /** Returns the progress token that the peer has given; `undefined` if it is one of a former peer. */
  token(alias) { return this.#aliases.resolve(alias); }

  /** Begins with another peer. Returns the ids of the requests that the former one takes with it. */
  dropInbound() {
    const ids = [...this.#inbound.keys()];
    this.#inbound.clear();
    this.#aliases.onNewPeer();
    return ids;
  }
}
