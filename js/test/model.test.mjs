// `WebSocketTransport` against a server that resumes, over links that are cut anywhere, at random. Each request ends
// exactly once, and as it says; while the session lives, each is executed once and what the server tells comes in order.
// Some clients begin with `initialize`: then each session does, and nothing is asked before it is done.
//
//     MCP_WS_SEEDS=10000 node --test test/model.test.mjs

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { WebSocketTransport } from '../mcp-ws.js';
import { parse } from '../src/resume-frame.js';
import { FakeWebSocket, pass, settle, sockets } from './fakes.mjs';

const SEEDS = Number(process.env.MCP_WS_SEEDS ?? 200);

const GIVEN_UP = 'the connection is lost whenever the server is to initialize';

/** Numbers drawn from a seed (mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound;
  };
}

/** The server's half of a session, and its service. */
class Server {
  executed = new Map(); // id → how often, in all sessions
  told = 0; // notifications, in all sessions
  sessions = 0;
  #socket;
  #isOpen = false;
  #isClosing = false;
  #read = 0;
  #outgoing = [];

  constructor(draw, hasHandshake) {
    this.draw = draw;
    this.hasHandshake = hasHandshake;
    this.forget();
  }

  /** Forgets the session. */
  forget() {
    Object.assign(this, { id: undefined, kept: [], acked: 0, received: 0, pending: [], steps: [] });
  }

  /** Takes a new link. */
  accept(socket) {
    this.#socket = socket;
    this.#read = 0;
    this.#isOpen = false; // until there is an `@open`
  }

  /** Reads up to so many messages of what the client has sent. */
  read(count) {
    if (!this.#socket || this.#socket.readyState === 2) return; // the client has left
    for (const message of this.#socket.sent.slice(this.#read, this.#read + count)) {
      this.#read++;
      if (typeof message === 'string') this.#control(parse(message));
      else this.#data(message);
    }
  }

  #control({ open, ack }) {
    if (ack !== undefined) return this.#acknowledged(ack);
    const resumed = this.id !== undefined && open.session === this.id;
    if (!resumed) {
      this.forget();
      this.id = `s${++this.sessions}`;
    }
    const { id: session, received } = this;
    this.#isOpen = true;
    this.#write(`@session ${JSON.stringify({ session, secret: 'k', received, resumed, window_s: 3600, window_bytes: 1 << 20, max_inbound: 8 })}`);
    if (!resumed) return;
    this.#acknowledged(open.received);
    for (const text of this.kept) this.#write(text);
  }

  #acknowledged(number) {
    assert.ok(number >= this.acked && number <= this.acked + this.kept.length, 'a count of the client');
    this.kept.splice(0, number - this.acked);
    this.acked = number;
  }

  #data({ id, method }) {
    this.received++;
    if (method === 'initialize' || method === 'notifications/initialized') this.steps.push(method);
    else if (this.hasHandshake) assert.deepEqual(this.steps, ['initialize', 'notifications/initialized'], `before ${method}`);
    if (id === undefined) return;
    assert.ok(this.pending.length < 9, 'more requests than it takes'); // and a ping
    if (method === 'tools/call') this.executed.set(id, (this.executed.get(id) ?? 0) + 1);
    this.pending.push(id);
  }

  /** Answers one of the requests, says something by itself, or acknowledges. */
  act() {
    if (this.id === undefined) return;
    const what = this.draw(4);
    if (what === 0) this.#send({ jsonrpc: '2.0', method: 'notifications/message', params: { session: this.id, number: ++this.told } });
    else if (what === 1) this.#write(`@ack ${this.received}`);
    else if (this.pending.length) {
      const [id] = this.pending.splice(this.draw(this.pending.length), 1);
      this.#send({ jsonrpc: '2.0', id, result: { id } });
    }
  }

  #send(message) {
    const text = JSON.stringify(message);
    this.kept.push(text);
    this.#write(text);
  }

  #write(text) { if (this.#isOpen) this.#outgoing.push(text); }

  /** Lets up to so many messages arrive at the client. */
  async deliver(count) {
    for (const text of this.#outgoing.splice(0, count)) await this.#socket.receive(text);
  }

  /** Begins to close the link: the client sends nothing more on it. */
  close() {
    if (this.#socket?.readyState === 1) [this.#socket.readyState, this.#isClosing] = [2, true];
  }

  /** Cuts the link: what is under way is lost. */
  async cut(code) {
    const socket = this.#socket;
    const isThere = socket?.readyState === 1 || this.#isClosing;
    this.#socket = undefined;
    this.#isOpen = this.#isClosing = false;
    this.#outgoing = [];
    if (isThere) await socket.lose(code);
  }
}

async function play(seed) {
  const draw = random(seed);
  const hasHandshake = seed % 3 === 0;
  const server = new Server(draw, hasHandshake);
  const mayForget = seed % 2 === 1;
  const options = { WebSocket: FakeWebSocket, fetch: null, retryFirst: true, heartbeat: Infinity };
  const transport = new WebSocketTransport('ws://test/', options);
  let initialized = 0;
  const ends = new Map(); // id → messages
  const notes = [];
  transport.onmessage = (message) => {
    if (message.id === 'initialize') {
      if (transport.state === 'closed') return; // it has ended with an error
      assert.deepEqual([message.error, initialized++], [undefined, 0]);
      transport.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
    } else if (message.method === undefined) ends.set(message.id, [...(ends.get(message.id) ?? []), message]);
    else if (message.method === 'notifications/message') notes.push(message.params);
  };
  const errors = [];
  transport.onerror = (error) => errors.push(error);
  transport.start();
  await settle();

  if (hasHandshake) await transport.send({ jsonrpc: '2.0', id: 'initialize', method: 'initialize', params: {} });
  let asked = 0;
  // Five links in a row may be lost before there is an answer to `initialize`.
  const isGivenUp = () => hasHandshake && transport.state === 'closed';
  const check = () => assert.deepEqual(errors.map(({ message }) => message), isGivenUp() ? [GIVEN_UP] : []);
  const step = async () => {
    check();
    if (isGivenUp()) return;
    const socket = sockets.at(-1);
    if (socket.readyState === 0) {
      await socket.open('mcp.resume.v1');
      server.accept(socket);
    } else if (transport.state === 'waiting') await pass(1 + draw(2000));
    switch (draw(10)) {
      case 0: case 1: case 2: return transport.send({ jsonrpc: '2.0', id: asked++, method: 'tools/call' });
      case 3: case 4: return server.read(1 + draw(5));
      case 5: return server.act();
      case 6: return server.deliver(1 + draw(5));
      case 7: return [() => server.close(), () => server.cut(1006), () => {}][draw(3)]();
      case 8: return mayForget && draw(8) === 0 ? server.forget() || server.cut(1006) : undefined;
      default: return pass(draw(1500));
    }
  };
  for (let count = 0; count < 150; count++) await step();
  // And then nothing goes wrong any more, but for a link that is closing.
  if (sockets.at(-1).readyState === 2) await server.cut(1006);
  for (let count = 0; count < 3000 && ends.size < asked; count++) {
    const socket = sockets.at(-1);
    if (transport.state === 'waiting') await pass(2000);
    else if (socket.readyState === 0) {
      await socket.open('mcp.resume.v1');
      server.accept(socket);
    }
    server.read(100);
    for (let acts = 0; acts < 4; acts++) server.act();
    await server.deliver(100);
  }

  await settle();
  check();
  assert.equal(ends.size, asked, 'a request has no end');
  for (const [id, messages] of ends) {
    assert.equal(messages.length, 1, `request ${id} has ended ${messages.length} times`);
    const [{ result, error }] = messages;
    const runs = server.executed.get(id) ?? 0;
    if (result || !(mayForget || isGivenUp())) assert.deepEqual([result?.id, runs], [id, 1]);
    else assert.ok(error.data.reason === 'outcome_unknown' ? runs <= 1 : runs === 0, JSON.stringify(error));
  }
  for (const [index, { number, session }] of notes.entries()) {
    const before = notes[index - 1];
    if (before?.session === session) assert.equal(number, before.number + 1, 'a notification is lost, doubled or late');
  }
  await transport.close();
  await pass(0);
  sockets.length = 0;
}

test(`${SEEDS} sessions over links that are cut at random`, async () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    await play(seed).catch((error) => { throw new Error(`seed ${seed}: ${error.message}`, { cause: error }); });
  }
});
