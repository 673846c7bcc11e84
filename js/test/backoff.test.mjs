// The waits between two connections.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { retryDelay } from '../mcp-ws.js';
import { setRandom } from './fakes.mjs';

test('waits are drawn from the whole of a range that grows', () => {
  const range = (code, failures) =>
    [0, 0.999999].map((drawn) => {
      setRandom(drawn);
      return Math.round(retryDelay(code, failures));
    });
  assert.deepEqual(range(1006, 0), [0, 1000]);
  assert.deepEqual(range(1006, 1), [1000, 2000]);
  assert.deepEqual(range(1006, 2), [1000, 2500]);
  assert.deepEqual(range(1006, 3), [1000, 3250]);
  assert.deepEqual(range(1006, 1000), [1000, 30_000]);
  assert.deepEqual(range(1012, 0), [0, 10_000]);
  assert.deepEqual(range(1011, 0), [5000, 6000]);
  assert.deepEqual(range(1011, 1000), [5000, 30_000]);
  const none = { first: 0, afterRestart: 10_000, factor: 1.5, max: 30_000 };
  assert.equal(retryDelay(1006, 5000, none), 0); // no NaN, which is no wait at all
});
