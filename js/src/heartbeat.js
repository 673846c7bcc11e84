import { Timeout, after } from './timer.js';

/**
 * Pings the server when nothing has arrived for some time. Browsers cannot send the pings of RFC 6455, so these are
 * messages.
 *
 * | state | `arrived` | time passes |
 * |---|---|---|
 * | stopped | | |
 * | quiet | quiet | after `interval` pinged |
 * | pinged | quiet | after `timeout`, if nothing waits to be read: stopped, and `onDead` |
 */
export class Heartbeat {
  #state = 'stopped';
  #timer;
  #pong = new Timeout();
  #options;

  constructor({ interval, timeout, ping, onDead }) {
    this.#options = { interval, timeout, ping, onDead };
  }

  start() { this.#quiet(this.#options.interval); }

  /** Notes that something has arrived; whatever it is, the server is there. */
  arrived() { if (this.#state !== 'stopped') this.#quiet(this.#options.interval); }

  /** Pings at once, unless there are to be no pings. */
  ping() { if (this.#state === 'quiet' && this.#options.interval < Infinity) this.#quiet(0); }

  stop() {
    clearTimeout(this.#timer);
    this.#pong.stop();
    this.#state = 'stopped';
  }

  #quiet(interval) {
    this.stop();
    this.#state = 'quiet';
    this.#timer = after(interval, () => this.#ping());
  }

  #ping() {
    const { ping, timeout, onDead } = this.#options;
    this.#state = 'pinged';
    this.#pong.start(timeout, () => {
      this.stop();
      onDead();
    });
    ping();
  }
}
