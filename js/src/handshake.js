/** The number of connections lost before `initialize` is answered after which no further attempt is made. */
const MAX_ATTEMPTS = 5;

/**
 * The lifecycle of MCP with `initialize`, which is repeated to a peer that knows nothing of it.
 *
 * | state | others wait | |
 * |---|---|---|
 * | none | | no `initialize` was sent: a later lifecycle, or none |
 * | asked | requests | `initialize` waits for its answer |
 * | answered | requests | `notifications/initialized` has to follow |
 * | ready | | |
 * | refused | requests | the user closes, or asks in another way |
 * | repeating | all | the peer is new, and is asked again by the transport itself |
 */
export class Handshake {
  #state = 'none';
  #request; // `initialize` as the user sent it
  #initialized;
  #attempts = 0;

  get state() { return this.#state; }

  /** The id of the `initialize` that the user has sent last. */
  get id() { return this.#request?.id; }

  /** `notifications/initialized` as the user has sent it; none before that. */
  get initialized() { return this.#initialized; }

  /** `true` if a new peer has to be asked by the transport itself. */
  get mustRepeat() { return this.#state === 'answered' || this.#state === 'ready' || this.#state === 'repeating'; }

  /** Returns whether a message has to wait until the peer is initialized. */
  mustWait({ id, method }) {
    if (this.#state === 'repeating') return true;
    if (this.#state === 'none' || this.#state === 'ready') return false;
    return method !== undefined && id !== undefined && method !== 'initialize' && method !== 'ping';
  }

  /** Returns whether others may wait for a message to be sent. */
  isAwaited({ method }) { return method === 'notifications/initialized'; }

  /** Notes a message of this side that was handed to a link. */
  onSent(message) {
    if (message.method === 'initialize') {
      this.#request = message;
      this.#state = 'asked';
    } else if (message.method === 'notifications/initialized' && this.#state === 'answered') {
      this.#state = 'ready';
    }
  }

  /** Notes a message that the user sends. Returns whether it is to be queued: else it follows the answer to come. */
  onQueued(message) {
    if (message.method === 'initialize') {
      this.#initialized = undefined;
      if (this.#state === 'none' || this.#state === 'refused') this.#state = 'asked';
    }
    if (message.method !== 'notifications/initialized') return true;
    this.#initialized = message;
    return this.#state !== 'asked' && this.#state !== 'repeating';
  }

  /** Returns whether a message refuses `initialize`. */
  isRefusal({ id, error }) { return this.#state === 'asked' && id === this.#request?.id && error !== undefined; }

  /** Notes an answer of the peer. Returns whether it is that to `initialize`. */
  onAnswer({ id, result }) {
    if (this.#state !== 'asked' || id !== this.#request?.id) return false;
    this.#attempts = 0;
    this.#state = result === undefined ? 'refused' : 'answered';
    return true;
  }

  /** Notes a lost link. Returns whether so many were lost before the answer that another one will be lost too. */
  onLost() {
    const isAsking = this.#state === 'asked' || this.#state === 'repeating';
    return isAsking && ++this.#attempts >= MAX_ATTEMPTS;
  }

  /** Returns the request that a new peer is to be sent, with this id. */
  repeat(id) {
    this.#state = 'repeating';
    return { ...this.#request, id };
  }

  /** Notes that the new peer has answered. */
  onRepeated() {
    this.#attempts = 0;
    this.#state = 'answered';
  }
}
