// A clock, a WebSocket and a browser of the tests' own.

import { beforeEach } from 'node:test';

let now = 0;
let timers = new Map();
let lastTimer = 0;
let random = 0.5;

/** The WebSockets that were made, in order. */
export const sockets = [];

/** Those who listen to the browser. */
export const listeners = new Set();

/** The longest delay that a timer takes: a longer one is none, in Node and in browsers. */
const MAX_DELAY = 2 ** 31 - 1;

globalThis.setTimeout = (action, delay, ...args) => {
  timers.set(++lastTimer, { at: now + (delay <= MAX_DELAY ? delay : 1), run: () => action(...args) });
  return lastTimer;
};
globalThis.clearTimeout = (timer) => timers.delete(timer);
globalThis.addEventListener = (type, listener) => listeners.add(listener);
globalThis.removeEventListener = (type, listener) => listeners.delete(listener);
Date.now = () => now;
Math.random = () => random;

beforeEach(() => {
  [now, random, sockets.length] = [0, 0.5, 0];
  timers = new Map();
  listeners.clear();
});

export const setRandom = (value) => (random = value);
export const timerCount = () => timers.size;

/** Lets promises run that can. */
export const settle = () => new Promise(setImmediate);

export async function pass(milliseconds) {
  const end = now + milliseconds;
  for (;;) {
    const [due] = [...timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at);
    if (!due) break;
    timers.delete(due[0]);
    now = due[1].at;
    due[1].run();
    await settle();
  }
  now = end;
}

/** Lets time pass in which nothing runs. Then Node runs the timers that are due, and only then reads what has arrived. */
export async function stall(milliseconds, arrives = () => {}) {
  now += milliseconds;
  for (const [id, { at, run }] of [...timers].sort(([, a], [, b]) => a.at - b.at)) {
    if (at <= now && timers.delete(id)) run();
  }
  arrives();
  await settle();
}

const parsed = (text) => (text[0] === '@' ? text : JSON.parse(text));

export class FakeWebSocket {
  readyState = 0;
  bufferedAmount = 0;
  protocol = '';
  sent = [];

  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    sockets.push(this);
  }

  send(text) {
    this.sent.push(parsed(text));
  }

  close(...args) {
    this.readyState = 2;
    this.closed = args;
  }

  async open(protocol = '') {
    this.protocol = protocol;
    this.readyState = 1;
    this.onopen();
    await settle();
  }

  async receive(message) {
    this.onmessage?.({ data: typeof message === 'string' ? message : JSON.stringify(message) });
    await settle();
  }

  async lose(code = 1006, reason = '') {
    this.readyState = 3;
    this.onclose({ code, reason });
    await settle();
  }
}

/** The error with which a promise ends. */
export const failure = (promise) => promise.then(() => { throw new Error('was answered'); }, (error) => error);
