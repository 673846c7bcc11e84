/** The longest time of a timer in milliseconds, 24.8 days: a longer one is taken for none. */
const MAX_TIMER = 2 ** 31 - 1;

/** Runs `action` after some milliseconds, as far as a timer goes; never after `Infinity`. */
export function after(milliseconds, action) {
  return milliseconds < Infinity ? setTimeout(action, Math.min(milliseconds, MAX_TIMER)) : undefined;
}

/** Returns a signal that is aborted after some milliseconds, where there are such signals. */
export function abortAfter(milliseconds) {
  return milliseconds < Infinity ? globalThis.AbortSignal?.timeout?.(Math.min(milliseconds, MAX_TIMER)) : undefined;
}
