import { retryDelay } from './backoff.js';
import { closeName } from './close-codes.js';
import { ConnectionError } from './errors.js';
import { Timeout, after } from './timer.js';

/**
 * One link after the other.
 *
 * | state | begins with | ends with |
 * |---|---|---|
 * | closed | | `start` |
 * | connecting | `start`, `retry`, the end of a wait | a link: open; a failure: waiting, or closed for good |
 * | open | a link | its loss: waiting, or closed for good |
 * | waiting | a loss, a failure | time, or `retry`: connecting |
 */
export class Reconnect {
  state = 'closed';
  #dialer;
  #options;
  #handlers;
  #link;
  #timer; // of the wait
  #timeout = new Timeout(); // of the attempt
  #attempt = new AbortController(); // what an earlier one still brings is dropped
  #failures = 0; // since a connection that worked
  #openedAt = 0;
  #works = false;
  #hasOpened = false;

  /**
   * `handlers`: `session()` to be resumed, `up(opened)` for each link, `message(text, isBinary)`, `giveUp()` for why a
   * lost link is the last one, `down(end)` for each loss, `became(state, end)`, `online()`.
   */
  constructor(dialer, options, handlers) {
    this.#dialer = dialer;
    this.#options = options;
    this.#handlers = handlers;
  }

  get link() { return this.#link; }
  get hasOpened() { return this.#hasOpened; }

  start() {
    globalThis.addEventListener?.('online', this.#online);
    this.#dial();
  }

  /** Makes the next attempt at once. */
  retry() { if (this.state === 'waiting') this.#dial(); }

  /** Notes that the connection has carried an answer. */
  setWorks() { this.#works = true; }

  /** Gives the present link up. */
  lose(code, reason, options) {
    if (this.state !== 'closed') this.#lost({ code, reason, ...options });
  }

  #online = () => {
    if (this.state === 'open') this.#handlers.online();
    else this.retry();
  };

  async #dial() {
    const { connectTimeout } = this.#options;
    const attempt = this.#begin();
    const late = new ConnectionError(`no connection within ${connectTimeout / 1000} s`);
    this.#timeout.start(connectTimeout, () => this.#failed(attempt, late));
    this.#become('connecting');
    try {
      const opened = await this.#dialer.dial(this.#failures, this.#handlers.session(), attempt.signal);
      if (attempt !== this.#attempt) return opened.link.close();
      this.#timeout.stop();
      this.#onLink(attempt, opened);
    } catch (error) {
      this.#failed(attempt, error);
    }
  }

  #onLink(attempt, { link, ...opened }) {
    const isFirst = !this.#hasOpened;
    this.#link = link;
    this.#hasOpened = true;
    this.#works = false;
    this.#openedAt = Date.now();
    this.state = 'open';
    this.#handlers.up({ isFirst, ...opened });
    if (attempt !== this.#attempt) return;
    link.read({
      message: (text, isBinary) => this.#handlers.message(text, isBinary),
      close: ({ code, reason }) => attempt === this.#attempt && this.#lost({ code, reason }),
    });
  }

  async #failed(attempt, error) {
    if (attempt !== this.#attempt) return;
    const isOnly = !this.#options.mayRetry(this.#hasOpened);
    const { words } = isOnly && error.upgrade && !error.final ? await this.#dialer.whyNot() : {};
    if (attempt !== this.#attempt) return;
    const code = error.name === 'Violation' ? 1002 : (error.code ?? 1006);
    this.#lost({ code, reason: words ?? error.message, isFinal: error.final });
    if (error.upgrade && this.state === 'waiting') this.#inquire();
  }

  /** Asks why the upgrade was refused, unless there has been another attempt since. */
  async #inquire() {
    const attempt = this.#attempt;
    const { verdict } = await this.#dialer.whyNot();
    if (attempt !== this.#attempt || this.state !== 'waiting') return;
    const why = verdict(this.#hasOpened);
    if (why) this.#lost({ code: 1006, reason: why, isFinal: true });
  }

  #lost({ code, reason, isFinal = false }) {
    this.#begin();
    this.#link?.close(code === 1000 || code === 1002 ? code : undefined, code === 1002 ? reason : undefined);
    this.#link = undefined;
    const { reconnect } = this.#options;
    const wasOpen = this.state === 'open';
    if (wasOpen && (this.#works || Date.now() - this.#openedAt >= reconnect.stable)) this.#failures = 0;
    const whyLast = wasOpen ? this.#handlers.giveUp() : undefined;
    const isLast = isFinal || whyLast || this.#failures >= reconnect.attempts || !this.#options.mayRetry(this.#hasOpened);
    const retryIn = isLast ? null : retryDelay(code, this.#failures++, reconnect);
    const end = { code, codeName: closeName(code), reason: whyLast ?? reason, retryIn };
    if (retryIn === null) globalThis.removeEventListener?.('online', this.#online);
    else this.#timer = after(retryIn, () => this.#dial());
    this.state = retryIn === null ? 'closed' : 'waiting';
    this.#handlers.down(end);
    this.#handlers.became(this.state, end);
  }

  /** Begins another attempt, or a wait: nothing that belongs to an earlier one counts any more. */
  #begin() {
    clearTimeout(this.#timer);
    this.#timeout.stop();
    this.#attempt.abort(new ConnectionError('given up'));
    return (this.#attempt = new AbortController());
  }

  #become(state) {
    this.state = state;
    this.#handlers.became(state);
  }
}
