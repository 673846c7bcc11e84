/** The longest time of a timer in milliseconds, 24.8 days: a longer one is taken for none. */
const MAX_TIMER = 2 ** 31 - 1;

/** Runs `action` after some milliseconds, as far as a timer goes; never after `Infinity`. */
export function after(milliseconds, action) {
  return milliseconds === Infinity ? undefined : setTimeout(action, Math.min(milliseconds, MAX_TIMER));
}

/** Returns a signal that is aborted after some milliseconds, where there are such signals. */
export function abortAfter(milliseconds) {
  return milliseconds < Infinity ? globalThis.AbortSignal?.timeout?.(Math.min(milliseconds, MAX_TIMER)) : undefined;
}

/**
 * The time that a peer has to do something. A timer that runs out may come before what has arrived is read: Node runs
 * timers first, and after the event loop stood still the answer may be there for long.
 *
 * | state | ends by |
 * |---|---|
 * | stopped | `start`: running |
 * | running | time: reading; `stop` |
 * | reading, for a turn of I/O, as long again as the timer was late, and one more turn | `onOver`: stopped; `stop` |
 */
export class Timeout {
  #timer;
  #runs = 0; // so that a turn of I/O that was begun earlier ends nothing

  start(milliseconds, onOver) {
    this.stop();
    const due = Date.now() + milliseconds;
    this.#timer = after(milliseconds, () => {
      const late = Math.min(milliseconds, Math.max(0, Date.now() - due));
      this.#afterReading(() => {
        this.#timer = after(late, () => this.#afterReading(onOver));
      });
    });
  }

  stop() {
    clearTimeout(this.#timer);
    this.#runs++;
  }

  #afterReading(action) {
    const { setImmediate = (run) => setTimeout(run, 0) } = globalThis;
    const run = this.#runs;
    setImmediate(() => run === this.#runs && action());
  }
}
