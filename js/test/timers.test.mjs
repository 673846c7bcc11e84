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
