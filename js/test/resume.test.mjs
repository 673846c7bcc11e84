// `mcp.resume.v1` against the test vectors of its specification.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

import { parse } from '../src/resume-frame.js';
import { ResumeSession } from '../src/resume-session.js';
import { pass } from './fakes.mjs';

const vectors = JSON.parse(readFileSync(new URL('../../src/layer/resume/vectors.json', import.meta.url)));

test('control frames', () => {
  for (const { text, data, frame, malformed } of vectors.frames) {
    if (data) assert.notEqual(text[0], '@', text);
    else if (malformed) assert.throws(() => parse(text), { name: 'Violation' }, text);
    else assert.deepEqual(parse(text), frame, text);
  }
});

const sessionFrame = (received, resumed) => {
  const session = { session: 's', secret: 'k', received, resumed, window_s: 120, window_bytes: 1 << 20 };
  return `@session ${JSON.stringify(session)}`;
};

/** One side of a session, whose first link is open. What its user and its peer got is collected. */
class Side {
  sent = [];
  received = [];
  closed;

  constructor(windowBytes) {
    this.session = new ResumeSession({ windowBytes });
    this.attach(sessionFrame(0, false));
  }

  attach(frame) {
    this.guard(() => this.session.attach(frame, (text) => this.sent.push(text)));
  }

  guard(action) {
    try { action(); } catch (error) {
      assert.equal(error.name, 'Violation', error.stack);
      this.closed = 1002;
    }
  }

  async step([name, value]) {
    switch (name) {
      case 'send': return this.session.send(value);
      case 'full': return assert.equal(this.session.isFull, value);
      case 'arrives': return this.guard(() => this.session.receive(value) && this.received.push(value));
      case 'passes_ms': return pass(value);
      case 'sent': return assert.deepEqual(this.sent.splice(0), value);
      case 'received': return assert.deepEqual(this.received.splice(0), value);
      case 'lost': return this.session.detach();
      case 'freeze': return assert.equal(parse(this.session.openFrame).open.received, value);
      case 'resumed': return this.attach(sessionFrame(value, true));
      case 'restarted': return this.attach(sessionFrame(0, false));
      case 'closed': return assert.equal(this.closed, value);
      default: throw new Error(`an unknown step: ${name}`);
    }
  }
}

for (const { name, window_bytes: windowBytes, steps } of vectors.scenarios) {
  // A browser cannot send pings, so that it leaves alone who acknowledges nothing.
  const skip = steps.some((step) => 'ponged' in step) && 'needs WebSocket pings';
  test(name, { skip }, async () => {
    const side = new Side(windowBytes);
    for (const [index, step] of steps.entries()) {
      const context = `step ${index}: ${JSON.stringify(step)}`;
      await side.step(Object.entries(step)[0]).catch((error) => { throw new Error(context, { cause: error }); });
    }
  });
}
