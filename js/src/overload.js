/** Milliseconds from a refusal to the first probe, and the most that doubling makes of it. */
const FIRST_PROBE = 100;
const LAST_PROBE = 5000;

/** Milliseconds without an answer after which refusals are passed on. */
const REFUSAL_TIMEOUT = 60_000;

/**
 * A peer that refuses requests because it has too many, and has executed none of those. It may have more than have no
 * answer: those that were cancelled count until their handlers have ended.
 *
 * | state | a refusal | an answer | the timer |
 * |---|---|---|---|
 * | none | the request waits: limited | | |
 * | limited | the request waits, and all others | one more may be sent | one more is sent, and the time doubles; where none waits: none |
 * | … 60 s after the last answer | | | all are sent: disbelieved |
 * | disbelieved | is passed on | none | |
 *
 * A link that is lost stops the timer; the same peer on the next link starts it anew, another peer is none of these.
 */
export class Overload {
  #state = 'none';
  #room = 0; // requests that may be sent now
  #answeredAt = 0; // the moment of the last answer, or of the first refusal
  #interval = 0;
  #trend = 'silent'; // what the peer has done since the last probe: silent, answers or refuses
  #timer;
  #handlers;

  /** `handlers`: `hasWaiting()` says whether requests wait, `flush()` sends those that may be sent. */
  constructor(handlers) {
    this.#handlers = handlers;
  }

  /** `true` if no request may be sent now. */
  get holdsBack() { return this.#state === 'limited' && this.#room === 0; }

  /** Notes that a request was sent. */
  onSent() { this.#room = Math.max(0, this.#room - 1); }

  /** Notes an answer that is no such refusal. */
  onAnswered() {
    if (this.#state === 'disbelieved') this.#state = 'none';
    if (this.#state !== 'limited') return;
    this.#room++;
    this.#answeredAt = Date.now();
    if (this.#trend === 'silent') this.#trend = 'answers';
  }

  /** Notes a refusal. Returns whether the request is to wait; else the refusal is to be passed on. */
  onRefused() {
    if (this.#state === 'disbelieved') return false;
    if (this.#state === 'none') this.#limit();
    this.#room = 0; // what earlier answers have made was taken by others
    this.#trend = 'refuses';
    return true;
  }

  /** Notes that the link is lost. */
  onDown() {
    clearTimeout(this.#timer);
    if (this.#state === 'disbelieved') this.#state = 'none';
  }

  /** Notes the next link, to the same peer if the session is resumed. */
  onUp(isResumed) {
    if (!isResumed) this.#state = 'none';
    else if (this.#state === 'limited') this.#limit();
  }

  #limit() {
    [this.#state, this.#room, this.#trend] = ['limited', 0, 'silent'];
    this.#answeredAt = Date.now();
    this.#interval = FIRST_PROBE;
    this.#timer = setTimeout(() => this.#probe(), FIRST_PROBE);
  }

  #probe() {
    const left = this.#answeredAt + REFUSAL_TIMEOUT - Date.now();
    if (!this.#handlers.hasWaiting()) this.#state = 'none';
    else if (left <= 0) this.#state = 'disbelieved';
    else {
      this.#interval = this.#trend === 'answers' ? FIRST_PROBE : Math.min(LAST_PROBE, this.#interval * 2);
      this.#trend = 'silent';
      this.#room = Math.max(1, this.#room);
      this.#timer = setTimeout(() => this.#probe(), Math.min(left, this.#interval));
    }
    this.#handlers.flush();
  }
}
