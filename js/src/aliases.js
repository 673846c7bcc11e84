const MARK = '\u2032';

/**
 * The ids and progress tokens of the present peer's requests, as their handlers know them. Those of a former peer may
 * still run, and what they send would be taken for the answer to a new request with the same id.
 */
export class Aliases {
  #formerPeers = 0;

  /** Begins with another peer. */
  onNewPeer() { this.#formerPeers++; }

  /** Returns the alias of an id or a token. The first peer needs none, but for what looks like one. */
  of(id) {
    const isPlain = this.#formerPeers === 0 && !(typeof id === 'string' && id.includes(MARK));
    return isPlain || id === undefined ? id : `${JSON.stringify(id)}${MARK}${this.#formerPeers}`;
  }

  /** Returns the token with this alias; `undefined` if it is one of a former peer. */
  resolve(alias) {
    const [, token, formerPeers] = /^([^]+)\u2032(\d+)$/.exec(alias) ?? [];
    if (token === undefined) return this.#formerPeers === 0 ? alias : undefined;
    if (Number(formerPeers) !== this.#formerPeers) return undefined;
    try { return JSON.parse(token); } catch { return undefined; }
  }

  /** Returns a request as it is handed to its handler. */
  inward(request) {
    const id = this.of(request.id);
    const { params } = request;
    const token = params?._meta?.progressToken;
    if (token === undefined) return { ...request, id };
    return { ...request, id, params: { ...params, _meta: { ...params._meta, progressToken: this.of(token) } } };
  }
}
