import { isFinal } from './close-codes.js';

/** The waits before a lost connection is made again, in milliseconds. */
export const RECONNECT = Object.freeze({
  first: 1000, // the upper bound of the first wait, and the lower bound of the later ones
  afterRestart: 10_000, // the upper bound of the first wait after 1012 and 1013
  factor: 1.5, // by which the random part of each further wait grows
  max: 30_000, // the longest wait
  stable: 60_000, // how long a connection that answers nothing has to last, for the next wait to be a first one
  attempts: Infinity, // how many attempts there are since a connection that worked
});

/** The least wait after an error within the server (1011). */
const AFTER_ERROR = 5000;

/**
 * Returns how many milliseconds to wait after a connection that closed with `code`; `null` for ever. The first wait is
 * drawn from up to `first`, so that clients which lost a server together do not return together. Whoever failed waits
 * at least as long as that, so that all have come once before.
 */
export function retryDelay(code, failures, { first, afterRestart, factor, max } = RECONNECT) {
  if (isFinal(code)) return null;
  const isAnnounced = code === 1012 || code === 1013;
  const growth = Math.min(factor ** (failures - 1), Number.MAX_VALUE); // `0 * Infinity` is no number
  const spread = failures ? first * growth : isAnnounced ? afterRestart : first;
  const least = code === 1011 ? Math.min(AFTER_ERROR, max) : failures ? Math.min(first, max) : 0;
  return least + Math.random() * Math.min(spread, max - least);
}
