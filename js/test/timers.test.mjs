// Times that are long, and timers that are late.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { McpSocket } from '../mcp-ws.js';
import { FakeWebSocket, failure, pass, settle, sockets, stall, timerCount } from './fakes.mjs';
import { answer, reasons, request, started, transport } from './helpers.mjs';

const LONG = 3_000_000_000; // more than a timer takes
const DAY = 86_400_000;

/** The reasons for which a transport loses its connections. */
function losses(made) {
  const lost = [];
  made.onstate = ({ state, reason }) => state === 'waiting' && lost.push(reason);
  return lost;
}

test('a session is taken for lost after an hour, however long the server keeps it', async () => {
  for (const window_s of [2_147_484, 2 ** 60]) {
    sockets.length = 0;
    const reconnect = { first: DAY, max: DAY };
    const [made, got, socket] = await started({ fields: { window_s }, reconnect });
    await made.send(request(1));
    await socket.lose();
    await pass(3_599_999);
    assert.deepEqual(reasons(got), []);
    await pass(1);
    assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
    await made.close();
  }
});

test('a time may be longer than a timer takes, or without end', async () => {
  for (const time of [LONG, Infinity]) {
    sockets.length = 0;
    const options = { connectTimeout: time, initializeTimeout: time, pongTimeout: time };
    const [made, , socket] = await started({ plain: true, ...options });
    const lost = losses(made);
    await made.send(request(0, 'initialize'));
    await pass(DAY);
    assert.deepEqual([lost, socket.sent.at(-1).method], [[], 'ping']);
    await socket.lose();
    await pass(1000);
    await pass(DAY);
    assert.deepEqual([made.state, sockets.length], ['connecting', 2]);
    await made.close();
  }
  sockets.length = 0;
  const [made, , socket] = await started({ plain: true, heartbeat: LONG, reconnect: { first: Infinity, max: Infinity } });
  await pass(DAY);
  assert.deepEqual(socket.sent, []);
  await socket.lose();
  await pass(DAY);
  assert.deepEqual([made.state, sockets.length], ['waiting', 1]);
  await made.close();
  assert.equal(timerCount(), 0);
});

test('a server is asked why it refuses, within whatever time', async () => {
  for (const connectTimeout of [LONG, Infinity]) {
    sockets.length = 0;
    const fetch = async (url, { signal }) => {
      await sleep(20);
      signal?.throwIfAborted();
      return { status: 0 };
    };
    const [made] = transport({ connectTimeout, fetch });
    const start = failure(made.start());
    await settle();
    while (made.state === 'connecting') await sockets.at(-1).lose();
    assert.match((await start).message, /the server is there/);
  }
});

test('the deadline of a call may be longer than a timer takes', async () => {
  for (const deadline of [LONG, Infinity]) {
    sockets.length = 0;
    const mcp = new McpSocket('ws://test/', { WebSocket: FakeWebSocket, fetch: null, deadline, heartbeat: Infinity });
    mcp.connect();
    await settle();
    await sockets[0].open('mcp');
    await sockets[0].receive(answer(1, {}));
    const call = mcp.request('tools/list');
    await pass(DAY);
    await sockets[0].receive(answer(2, { tools: [] }));
    assert.deepEqual(await call, { tools: [] });
    mcp.close();
  }
});
/** Has a message arrive, on a link that is not given up. */
const arrives = (socket, message) => socket.onmessage?.({ data: JSON.stringify(message) });

test('a pong that waits to be read is one', async () => {
  // It is read in the turn in which the timer is late.
  const [made, , socket] = await started({ plain: true });
  const lost = losses(made);
  await pass(15_000);
  const pong = () => arrives(socket, answer(socket.sent.at(-1).id));
  await stall(20_000, pong);
  await pass(14_999);
  assert.deepEqual([made.state, lost], ['open', []]);

  // It takes some turns more, as one that has to be decompressed does.
  await pass(1);
  await stall(20_000);
  for (let turn = 0; turn < 20; turn++) await settle();
  await pass(5);
  pong();
  await pass(14_999);
  assert.deepEqual([made.state, lost], ['open', []]);

  // The timer is on time, and the pong behind it.
  await pass(1);
  await stall(10_000, pong);
  await pass(14_999);
  assert.deepEqual([made.state, lost], ['open', []]);

  // There is none.
  await pass(1);
  await stall(20_000);
  await pass(10_000);
  assert.deepEqual([made.state, lost], ['waiting', ['a ping was not answered']]);
  await made.close();
  assert.equal(timerCount(), 0);
});

test('an answer to `initialize`, to a call or to an upgrade that waits to be read is one', async () => {
  const [made, , socket] = await started({ plain: true, initializeTimeout: 5000, heartbeat: Infinity });
  const lost = losses(made);
  await made.send(request(0, 'initialize'));
  await stall(5000, () => arrives(socket, answer(0, {})));
  await pass(20_000);
  assert.deepEqual(lost, []);
  await socket.lose(1006, 'cut');
  await pass(1000);
  const { onopen } = sockets[1];
  sockets[1].readyState = 1;
  await stall(30_000, onopen);
  assert.deepEqual([made.state, lost], ['connecting', ['cut']]); // it is asked to initialize
  assert.equal(sockets[1].sent[0].method, 'initialize');
  await made.close();

  sockets.length = 0;
  const mcp = new McpSocket('ws://test/', { WebSocket: FakeWebSocket, fetch: null, heartbeat: Infinity });
  mcp.connect();
  await settle();
  await sockets[0].open('mcp');
  await sockets[0].receive(answer(1, {}));
  const call = mcp.request('tools/list');
  await stall(40_000, () => arrives(sockets[0], answer(2, { tools: [] })));
  assert.deepEqual(await call, { tools: [] });
  mcp.close();
});
