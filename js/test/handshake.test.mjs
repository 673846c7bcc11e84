// `initialize` and `notifications/initialized`, over links that are lost between them.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { jsonRpc } from '../mcp-ws.js';
import { failure, pass, sockets } from './fakes.mjs';
import {
  RESUME, answer, initialized, notification, reasons, request, session, started,
} from './helpers.mjs';

const SERVER = { serverInfo: {} };
const INITIALIZED = notification('notifications/initialized');
const methods = ({ sent }) => sent.map((one) => one.method).filter((method) => method !== undefined);
const asked = ({ sent }) => sent.find(({ method }) => method === 'initialize');
const refusal = (id, reason = 'stopping') => ({
  jsonrpc: '2.0', id, error: { code: -32000, message: reason, data: { reason } },
});

/** The next link, to a peer that knows nothing of the session, or in a session as the fields say. */
async function moved({ plain = false, ...fields } = {}) {
  await pass(10_000);
  const socket = sockets.at(-1);
  await socket.open(plain ? 'mcp' : RESUME);
  if (!plain) await socket.receive(session({ secret: 'two', ...fields }));
  return socket;
}

const resumed = (fields) => moved({ resumed: true, ...fields });

test('what follows `initialize` and was not sent any more is sent to the next peer', async () => {
  for (const plain of [true, false]) {
    sockets.length = 0;
    const [made, got, socket] = await started({ plain });
    await made.send(request(0, 'initialize'));
    await socket.receive(answer(0, SERVER));
    socket.readyState = 2;
    await made.send(INITIALIZED);
    await made.send(request(1));
    await socket.lose(1012);
    const next = await moved({ plain });
    await next.receive(answer(asked(next).id, SERVER));
    assert.deepEqual(methods(next), ['initialize', 'notifications/initialized', 'tools/call']);
    await next.receive(answer(1));
    assert.deepEqual([got.messages.map(({ id }) => id), made.state], [[0, 1], 'open']);
    await made.close();
  }
});

test('what follows a repeated `initialize` is sent once, whenever the user sends it', async () => {
  const [made, , socket] = await started({ plain: true });
  await made.send(request(0, 'initialize'));
  await socket.receive(answer(0, SERVER));
  await socket.lose();
  const second = await moved({ plain: true });
  await made.send(INITIALIZED);
  await made.send(request(1));
  await second.lose();
  const third = await moved({ plain: true });
  await third.receive(answer(asked(third).id, SERVER));
  assert.deepEqual(methods(third), ['initialize', 'notifications/initialized', 'tools/call']);
  await made.close();
});

test('what follows `initialize` waits for its answer, on whatever link that comes', async () => {
  for (const isLost of [false, true]) {
    sockets.length = 0;
    const [made, , socket] = await started({ plain: true });
    for (const message of [request(0, 'initialize'), INITIALIZED, request(1)]) await made.send(message);
    assert.deepEqual(methods(socket), ['initialize']);
    if (isLost) await socket.lose();
    const present = isLost ? await moved({ plain: true }) : socket;
    await present.receive(answer(0, SERVER));
    assert.deepEqual(methods(present), ['initialize', 'notifications/initialized', 'tools/call']);
    await made.close();
  }
});

test('what follows a repeated `initialize` survives a link that is closing, and goes first', async () => {
  const [made, got, socket] = await started();
  await initialized(made, socket);
  await socket.lose();
  await made.send(request(1));
  const second = await moved();
  second.readyState = 2;
  await second.receive(answer(asked(second).id, SERVER));
  await second.lose();
  const third = await resumed({ received: 1 });
  assert.deepEqual(methods(third), ['notifications/initialized', 'tools/call']);
  await third.receive(answer(1));
  assert.deepEqual(got.messages.map(({ id }) => id), [0, 1]);
  await made.close();
});

test('a repeated `initialize` that a closing link does not take is sent when the session is resumed', async () => {
  const [made, got, socket] = await started();
  await initialized(made, socket);
  await socket.lose();
  await made.send(request(1));
  await pass(10_000);
  const second = sockets.at(-1);
  await second.open(RESUME);
  second.readyState = 2;
  await second.receive(session({ session: 'new' }));
  assert.equal(asked(second), undefined);
  await second.lose();
  const third = await resumed({ session: 'new' });
  assert.deepEqual([made.state, methods(third)], ['connecting', ['initialize']]);
  await third.receive(answer(asked(third).id, SERVER));
  assert.deepEqual(methods(third), ['initialize', 'notifications/initialized', 'tools/call']);
  assert.deepEqual([made.state, got.errors], ['open', []]);
  await made.close();
});

test('the answer to a repeated `initialize` may come when the session is resumed', async () => {
  const [made, got, socket] = await started();
  await initialized(made, socket);
  await socket.lose();
  const second = await moved();
  const { id } = asked(second);
  await second.lose();
  got.states.length = 0;
  const third = await resumed({ received: 1 });
  assert.deepEqual([got.states, methods(third)], [['connecting'], []]);
  await third.receive(answer(id, SERVER));
  assert.deepEqual([got.states, methods(third)], [['connecting', 'open'], ['notifications/initialized']]);
  await made.close();
});

test('an `initialize` that a stopping server refuses is sent again when its session is resumed', async () => {
  const [made, got, socket] = await started();
  await made.send(request(0, 'initialize'));
  await socket.receive(refusal(0));
  assert.equal(made.state, 'waiting');
  const second = await resumed({ received: 1 });
  assert.deepEqual(methods(second), ['initialize']);
  await second.receive(answer(0, SERVER));
  await made.send(INITIALIZED);
  await second.lose();

  const third = await moved();
  await third.receive(refusal(asked(third).id));
  assert.equal(made.state, 'waiting');
  const fourth = await resumed({ received: 1 });
  assert.deepEqual(methods(fourth), ['initialize']);
  await fourth.receive(answer(asked(fourth).id, SERVER));
  assert.deepEqual([made.state, reasons(got)], ['open', []]);
  await made.close();
});

test('the time for the answer to `initialize` begins anew when the session is resumed', async () => {
  const [made, got, socket] = await started({ heartbeat: Infinity, initializeTimeout: 5000 });
  got.reasons = [];
  made.onstate = ({ reason }) => reason && got.reasons.push(reason);
  await made.send(request(0, 'initialize'));
  await socket.lose(1006, 'cut');
  const second = await resumed({ received: 1 });
  await pass(5000);
  assert.deepEqual(got.reasons.splice(0), ['cut', 'the server does not initialize within 5 s']);
  const third = await resumed({ received: 1 });
  await third.receive(answer(0, SERVER));
  await third.lose(1006, 'cut');

  const fourth = await moved();
  await fourth.lose(1006, 'cut');
  await resumed({ received: 1 });
  await pass(5000);
  assert.deepEqual(got.reasons, ['cut', 'cut', 'the server does not initialize within 5 s']);
  assert.equal(second.closed.length, 0);
  await made.close();
});

test('what follows `initialize` has room, whatever waits for it', async () => {
  const [made, , socket] = await started({ plain: true, queueBytes: 1000 });
  await made.send(request(0, 'initialize'));
  let id = 0;
  const fill = async () => { for (;;) await made.send(request(++id)); };
  assert.match((await failure(fill())).message, /too much waits/);
  await socket.receive(answer(0, SERVER));
  await made.send(INITIALIZED);
  assert.deepEqual(methods(socket).slice(0, 3), ['initialize', 'notifications/initialized', 'tools/call']);
  await made.close();
});

test('a repeated handshake is written as the framing says', async () => {
  const framing = { ...jsonRpc, encode: (message) => ({ enclosed: true, ...message }) };
  const [made, , socket] = await started({ plain: true, framing });
  await initialized(made, socket);
  await socket.lose();
  const next = await moved({ plain: true });
  await next.receive(answer(asked(next).id, SERVER));
  assert.deepEqual(next.sent.map(({ enclosed }) => enclosed), [true, true]);
  await made.close();
});

test('notifications go no further than the session that they were for', async () => {
  const [made, , socket] = await started();
  await initialized(made, socket);
  await socket.lose();
  await made.send(notification('a'));
  const second = await resumed({ received: 2 });
  assert.deepEqual(methods(second), ['a']);
  await second.lose();
  await made.send(notification('b'));
  const third = await moved();
  await third.receive(answer(asked(third).id, SERVER));
  assert.deepEqual(methods(third), ['initialize', 'notifications/initialized']);
  await made.close();
});
