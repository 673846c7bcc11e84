// `WebSocketTransport`, with a clock and a WebSocket of the tests' own.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { McpSocket, WebSocketTransport, jsonRpc } from '../mcp-ws.js';
import { FakeWebSocket, failure, listeners, pass, settle, sockets, timerCount } from './fakes.mjs';
import {
  RESUME, answer, initialized, notification, reasons, request, resumed, session, started, transport,
} from './helpers.mjs';

test('without a WebSocket it says what to do', () => {
  const { WebSocket } = globalThis;
  delete globalThis.WebSocket;
  assert.throws(() => new WebSocketTransport('ws://test/'), /pass one as the option `WebSocket`/);
  globalThis.WebSocket = WebSocket;
});

test('an option that is undefined has its default', async () => {
  const waits = [];
  const reconnect = { first: undefined, afterRestart: undefined, factor: undefined, max: undefined, stable: undefined, attempts: undefined };
  const [made, , socket] = await started({ plain: true, reconnect, heartbeat: undefined, queueBytes: undefined });
  made.onstate = ({ state, retryIn }) => state === 'waiting' && waits.push(retryIn);
  await socket.lose();
  for (let lost = 0; lost < 2; lost++) {
    await pass(waits.at(-1));
    await sockets.at(-1).open('mcp');
    await sockets.at(-1).lose();
  }
  assert.deepEqual(waits, [500, 1500, 1750]);
  await made.close();
  transport({ reconnect: undefined });
});

test('a number that can be none is refused at once', () => {
  const make = (options) => () => new WebSocketTransport('ws://test/', { WebSocket: FakeWebSocket, ...options });
  for (const value of [NaN, -1, '5', null]) {
    const kind = { name: 'RangeError', message: /from 0 on/ };
    for (const name of ['first', 'afterRestart', 'factor', 'max', 'stable', 'attempts']) {
      assert.throws(make({ reconnect: { [name]: value } }), { ...kind, message: new RegExp(`reconnect.${name}.*from 0 on`) });
    }
    for (const name of ['queueBytes', 'connectTimeout', 'initializeTimeout', 'heartbeat', 'pongTimeout']) {
      assert.throws(make({ [name]: value }), { ...kind, message: new RegExp(`${name}.*from 0 on`) });
    }
    for (const options of [{ deadline: value }, { heartbeat: value }, { reconnect: { max: value } }]) {
      assert.throws(() => new McpSocket('ws://test/', options), kind);
    }
  }
  make({ heartbeat: Infinity, reconnect: { attempts: Infinity, first: 0 } })();
});

test('offers are made one after the other, and what was accepted is remembered', async () => {
  const [made] = transport();
  const start = made.start();
  const all = [['mcp', RESUME], ['mcp'], []];
  let open;
  const offers = () => {
    open = sockets.at(-1);
    return sockets.splice(0).map(({ protocols }) => protocols);
  };
  const attempt = async () => {
    await settle();
    for (let refused = 0; refused < 2; refused++) await sockets.at(-1).lose();
    await sockets.at(-1).open();
  };
  await attempt();
  await start;
  assert.deepEqual(offers(), all);
  for (const expected of [all, [[]]]) {
    await open.lose();
    made.reconnect();
    await settle();
    if (expected === all) await attempt();
    else await sockets[0].open();
    assert.deepEqual(offers(), expected);
  }
  await made.close();
});

test('a first attempt that fails rejects, and says why', async () => {
  const [made, got] = transport({ resume: false, fetch: async () => ({ status: 404 }) });
  const start = failure(made.start());
  await settle();
  for (const socket of [0, 1]) await sockets[socket].lose();
  assert.equal((await start).message, 'there is nothing at this address');
  await settle();
  assert.deepEqual([got.closed, sockets.length], [1, 2]);
  assert.equal((await failure(made.send(request(1)))).reason, 'not_sent');
  assert.match((await failure(made.start())).message, /started before/);
});

test('a refusal whose status is known is told at once, and a token is renewed once', async () => {
  const tokens = ['old', 'new', 'newer'];
  const [made] = transport({ token: () => tokens.shift(), retryFirst: true });
  const start = failure(made.start());
  const refuse = async (socket) => {
    socket.onerror({ message: 'Unexpected server response: 401' });
    await socket.lose();
  };
  await settle();
  await refuse(sockets[0]);
  assert.equal(made.state, 'waiting');
  await pass(1000);
  assert.ok(sockets[1].protocols.includes('mcp.auth.new'));
  await refuse(sockets[1]);
  assert.equal((await start).message, 'the server does not accept this token');
  assert.deepEqual([made.state, sockets.length], ['closed', 2]);
});

test('what a lost link took is sent again on the next one, and nothing twice', async () => {
  const [made, got, socket] = await started();
  for (const id of [1, 2, 3]) await made.send(request(id));
  await socket.receive(answer(1));
  await socket.lose();
  assert.equal(made.state, 'waiting');
  await made.send(request(4));
  const next = await resumed({ received: 2, secret: 'two' });
  assert.equal(next.sent[0], '@open {"session":"s","secret":"one","received":1}');
  assert.deepEqual(next.sent.slice(1).map((one) => one.id ?? one), [3, '@ack 1', 4]);
  for (const id of [2, 3, 4, 4, 1]) await next.receive(answer(id));
  assert.deepEqual(got.messages.map(({ id }) => id), [1, 2, 3, 4]);
  assert.deepEqual(got.errors, []);
  await made.close();
});

test('a session that is gone ends what was sent, and what waits goes to the next', async () => {
  const [made, got, socket] = await started();
  await initialized(made, socket);
  await made.send(request(1));
  await socket.receive({ jsonrpc: '2.0', id: 'roots', method: 'roots/list' });
  await socket.lose();
  await made.send(request(2));
  await made.send(notification('notifications/roots/list_changed'));
  await pass(1000);
  const next = sockets.at(-1);
  await next.open(RESUME);
  await next.receive(session({ secret: 'two' }));
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
  assert.deepEqual(got.messages.at(-1).params.requestId, 'roots');
  const [, repeated] = next.sent;
  assert.equal(repeated.method, 'initialize');
  await made.send(request(3));
  assert.equal(next.sent.length, 2);
  await made.send(answer('roots')); // for whom nobody waits
  await next.receive(answer(repeated.id, { serverInfo: {} }));
  assert.deepEqual(next.sent.slice(2).map(({ method }) => method), ['notifications/initialized', 'tools/call', 'tools/call']);
  await next.receive(answer(2));
  assert.deepEqual(got.messages.filter(({ result }) => result).map(({ id }) => id), [0, 2]);
  await made.close();
});

test('an answer to a former peer is none to another one that uses the id again', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  const asks = (id, progressToken) => ({ ...request(id, 'roots/list'), params: { _meta: { progressToken, more: 1 } } });
  const progress = (progressToken) => notification('notifications/progress', { progressToken, progress: 1 });
  for (const id of [0, 's', '"s"\u20321']) await socket.receive(asks(id, id));
  const former = got.messages.slice(-3);
  assert.deepEqual(former.slice(0, 2), [asks(0, 0), asks('s', 's')]);
  await made.send(progress(former[2].params._meta.progressToken));
  await made.send(answer(former[2].id));
  assert.deepEqual(socket.sent.map(({ id, params }) => id ?? params.progressToken), ['"s"\u20321', '"s"\u20321']);

  await socket.lose();
  await pass(1000);
  const next = sockets.at(-1);
  await next.open('mcp');
  await next.receive(answer(next.sent[0].id, { serverInfo: {} }));
  next.sent.length = 0;
  for (const id of [0, '0', 's']) await next.receive(asks(id, id));
  const present = got.messages.slice(-3);
  assert.ok(present.every(({ id }) => former.every((one) => one.id !== id)));
  assert.deepEqual(present.map(({ method, params }) => [method, params._meta.more]), Array(3).fill(['roots/list', 1]));
  for (const { id, params } of former) {
    await made.send(progress(params._meta.progressToken));
    await made.send(answer(id));
  }
  assert.deepEqual(next.sent, []);
  await made.send(progress(present[0].params._meta.progressToken));
  for (const { id } of present.slice(0, 2)) await made.send(answer(id));
  assert.deepEqual(next.sent, [progress(0), answer(0), answer('0')]);
  await next.receive(notification('notifications/cancelled', { requestId: 's', reason: 'enough' }));
  assert.deepEqual(got.messages.at(-1).params, { requestId: present[2].id, reason: 'enough' });
  await made.send(answer(present[2].id));
  assert.equal(next.sent.length, 3);
  await made.close();
});

test('without the extension a lost link ends what was sent at once', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  await made.send(request(1));
  await socket.lose();
  await settle();
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
  await pass(1000);
  await sockets[1].open('mcp');
  assert.deepEqual(sockets[1].sent.map(({ method }) => method), ['initialize']);
  await sockets[1].receive({ jsonrpc: '2.0', id: sockets[1].sent[0].id, error: { code: -32602, message: 'no' } });
  await settle();
  assert.deepEqual([made.state, got.closed], ['closed', 1]);
  assert.deepEqual(got.errors, ['the server refuses to initialize: no']);
});

test('what a stopping server refuses is sent to the next one', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (const id of [1, 2]) await made.send(request(id));
  await socket.receive({ jsonrpc: '2.0', id: 2, error: { code: -32000, message: 'stopping', data: { reason: 'stopping' } } });
  await made.send(request(3));
  await socket.receive(answer(1));
  assert.deepEqual(socket.sent.map(({ id }) => id), [1, 2]);
  await socket.lose(1012);
  await pass(10_000);
  await sockets[1].open('mcp');
  assert.deepEqual(sockets[1].sent.map(({ id }) => id), [2, 3]);
  for (const id of [3, 2]) await sockets[1].receive(answer(id));
  assert.deepEqual(got.messages.map(({ id, error }) => [id, error]), [[1, undefined], [3, undefined], [2, undefined]]);
  await made.close();
});

test('a subscription is repeated to a new peer, and a first `initialize` is asked again', async () => {
  const [made, got, socket] = await started({ plain: true });
  await made.send(request(1, 'subscriptions/listen'));
  await made.send(request(2, 'initialize'));
  await made.send(request(3));
  await socket.lose();
  await pass(1000);
  assert.deepEqual(reasons(got), []);
  await sockets[1].open('mcp');
  assert.deepEqual(sockets[1].sent.map(({ id }) => id), [2]);
  await sockets[1].receive(answer(2));
  await made.send(notification('notifications/initialized'));
  assert.deepEqual(sockets[1].sent.slice(1).map(({ id }) => id), [undefined, 1, 3]);
  await made.close();
});

test('a server that is lost whenever it is to initialize is given up', async () => {
  const [made, got] = await started({ plain: true });
  await made.send(request(0, 'initialize'));
  for (let lost = 0; lost < 5; lost++) {
    await sockets.at(-1).lose();
    if (lost === 4) break;
    made.reconnect();
    await settle();
    await sockets.at(-1).open('mcp');
  }
  assert.equal(made.state, 'closed');
  await settle();
  assert.deepEqual(reasons(got), [[0, 'outcome_unknown']]);
});

/** Waits for the next attempt, which fails. */
async function fails(made) {
  await pass(10_000);
  while (made.state === 'connecting') await sockets.at(-1).lose();
}

/** Waits for the next attempt, which makes a connection. */
async function connects() {
  await pass(10_000);
  await sockets.at(-1).open('mcp');
  return sockets.at(-1);
}

test('attempts are counted since the last connection that worked', async () => {
  const options = { plain: true, heartbeat: Infinity, initializeTimeout: Infinity, reconnect: { attempts: 2 } };
  const [made, got, first] = await started(options);
  const executes = async (socket, id) => {
    await made.send(request(id));
    await socket.receive(answer(id));
  };
  await executes(first, 1);
  await first.lose();

  // One that was made and did nothing counts like one that failed; the other works.
  await fails(made);
  const second = await connects();
  await executes(second, 2);
  await second.lose();
  await (await connects()).lose();
  const third = await connects();
  await pass(60_000);
  await third.lose();

  await fails(made);
  assert.deepEqual([made.state, got.closed], ['waiting', 0]);
  await (await connects()).lose(1006, 'enough');
  await settle();
  assert.deepEqual([made.state, got.closed, got.errors], ['closed', 1, ['enough']]);
  await pass(60_000);
  assert.equal(made.state, 'closed');
});

test('the first connection is no attempt to reconnect', async () => {
  const [, got, socket] = await started({ plain: true, reconnect: { attempts: 0 } });
  await socket.lose();
  await settle();
  assert.equal(got.closed, 1);

  const [made] = transport({ retryFirst: true, resume: false, reconnect: { attempts: 1 } });
  const start = failure(made.start());
  await settle();
  while (made.state === 'connecting') await sockets.at(-1).lose();
  assert.equal(made.state, 'waiting');
  await fails(made);
  assert.equal(made.state, 'closed');
  await start;
});

test('calls end when the server no longer keeps the session', async () => {
  const [made, got, socket] = await started({ fields: { window_s: 5 }, reconnect: { first: 60_000, max: 60_000 } });
  await made.send(request(1));
  await socket.lose();
  await made.send(request(2));
  await pass(4999);
  assert.deepEqual(reasons(got), []);
  await pass(1);
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
  made.reconnect();
  await settle();
  await sockets.at(-1).open(RESUME);
  await sockets.at(-1).receive(session({ resumed: true, received: 1 }));
  await sockets.at(-1).receive(answer(1)); // which has ended
  await sockets.at(-1).receive(answer(2));
  assert.deepEqual(got.messages.map(({ id }) => id), [1, 2]);
  await made.close();
});

test('a message that cannot be sent is an error for that message alone', async () => {
  const [made, got, socket] = await started({ fields: { max_message: 2000 }, queueBytes: 2400 });
  const large = { ...request(1), params: { text: 'x'.repeat(2000) } };
  assert.match((await failure(made.send(large))).message, /2,?\d{3} bytes are more than the 2000/);
  assert.equal((await failure(made.send({ ...request(2), params: { n: 1n } }))).name, 'TypeError');
  await made.send(request(3));
  assert.match((await failure(made.send(request(3)))).message, /the id 3 already/);
  await socket.receive({ jsonrpc: '2.0', id: 'a', method: 'roots/list' });
  await failure(made.send({ ...answer('a'), result: { text: 'x'.repeat(2000) } }));
  assert.deepEqual([socket.sent.at(-1).id, socket.sent.at(-1).error.code], ['a', -32603]);
  await socket.lose();
  for (let id = 10; id < 50; id++) await made.send(request(id));
  assert.match((await failure(made.send(request(50)))).message, /too much waits/);
  assert.deepEqual(got.errors, []);
  await made.close();
  await settle();
  assert.deepEqual(reasons(got).slice(0, 2), [[3, 'outcome_unknown'], [10, 'not_sent']]);
  assert.equal(reasons(got).length, 41);
});

const asks = (id) => ({ jsonrpc: '2.0', id, method: 'roots/list' });
const errors = ({ sent }) => sent.filter(({ error }) => error).map(({ id, error }) => [id, error.code]);

test('an answer that cannot be sent is an error to whoever asked', async () => {
  const [made, got, socket] = await started({ queueBytes: 2000 });
  const circular = {};
  circular.self = circular;
  for (const [id, result] of [[0, { n: 1n }], [1, circular], [2, { toJSON() { throw new Error('mine'); } }]]) {
    await socket.receive(asks(id));
    await failure(made.send({ ...answer(id), result }));
    assert.deepEqual(errors(socket).at(-1), [id, -32603]);
    await made.send(answer(id)); // which has ended
    await socket.receive(asks(id));
    await made.send(answer(id));
    assert.deepEqual(socket.sent.at(-1), answer(id));
  }

  // While the server acknowledges nothing.
  for (const id of [10, 11]) await socket.receive(asks(id));
  for (let n = 0; n < 2; n++) await made.send(notification('x', { text: 'x'.repeat(600_000) }));
  await made.send(notification('x', { text: 'x'.repeat(1900) }));
  assert.match((await failure(made.send({ ...answer(10), result: { text: 'x'.repeat(200) } }))).message, /too much waits/);
  await failure(made.send({ ...answer(11), result: { n: 1n } }));
  await socket.receive('@ack 8');
  assert.deepEqual(errors(socket).slice(-2), [[10, -32603], [11, -32603]]);
  assert.deepEqual(got.errors, []);
  await made.close();
});

test('requests that are refused while nothing can be sent are refused later', async () => {
  const [made, got, socket] = await started();
  for (let n = 0; n < 2; n++) await made.send(notification('x', { text: 'x'.repeat(600_000) }));
  for (let id = 0; id < 1026; id++) await socket.receive(asks(id));
  assert.deepEqual([got.messages.length, errors(socket)], [1024, []]);
  await socket.receive('@ack 2');
  assert.deepEqual(errors(socket), [[1024, -32000], [1025, -32000]]);
  await made.close();
});

test('errors that wait for a server that reads nothing are bounded', async () => {
  const [made, , socket] = await started({ plain: true, queueBytes: 1000 });
  socket.bufferedAmount = 2 << 20;
  await made.send(notification('x', { text: 'x'.repeat(1000) }));
  for (let id = 0; id < 1000; id++) {
    await socket.receive(asks(`${id} ${'x'.repeat(2000)}`));
    await failure(made.send({ ...answer(`${id} ${'x'.repeat(2000)}`), result: { n: 1n } }));
  }
  socket.bufferedAmount = 0;
  await pass(20);
  assert.ok(errors(socket).length > 450 && errors(socket).length < 550, errors(socket).length);
  await made.close();
});

test('a server is sent no more requests than it takes, and no more than its window', async () => {
  const [made, , socket] = await started({ fields: { max_inbound: 2 } });
  for (const id of [1, 2, 3, 4]) await made.send(request(id));
  await made.send(notification('notifications/cancelled', { requestId: 3 }));
  await made.send(notification('notifications/roots/list_changed'));
  const ids = () => socket.sent.slice(1).map(({ id, method }) => id ?? method);
  assert.deepEqual(ids(), [1, 2, 'notifications/roots/list_changed']);
  await socket.receive(answer(1));
  assert.deepEqual(ids().slice(3), [4]);
  socket.sent.length = 0;
  for (let n = 0; n < 3; n++) await made.send(notification('x', { text: 'x'.repeat(600_000) }));
  assert.equal(socket.sent.length, 2);
  await socket.receive('@ack 5');
  assert.equal(socket.sent.length, 3);
  await made.close();
});

test('a full WebSocket is waited for', async () => {
  const [made, , socket] = await started({ plain: true });
  socket.bufferedAmount = 2 << 20;
  await made.send(request(1));
  await pass(100);
  assert.equal(socket.sent.length, 0);
  socket.bufferedAmount = 0;
  await pass(20);
  assert.equal(socket.sent.length, 1);
  await made.close();
});

test('what breaks the rules of the extension ends the session', async () => {
  const [made, got, socket] = await started();
  await made.send(request(1));
  await socket.receive('@ack 7');
  await settle();
  assert.equal(socket.closed[0], 1002);
  assert.match(socket.closed[1], /^resume:/);
  assert.deepEqual([made.state, got.closed, reasons(got)], ['closed', 1, [[1, 'outcome_unknown']]]);
});

test('where no such code can be sent, the session ends with 1000', async () => {
  class Browser extends FakeWebSocket {
    close(code = 1000, reason) {
      if (code !== 1000 && code < 3000) throw new Error('InvalidAccessError');
      super.close(code, reason);
    }
  }
  const [, , socket] = await started({ WebSocket: Browser });
  await socket.receive('@hello');
  assert.equal(socket.closed[0], 1000);
  assert.match(socket.closed[1], /^resume:/);
});

test('what arrives together is handed over one after the other, and nothing is lost', async () => {
  const [made] = transport();
  const order = [];
  made.onmessage = ({ method }) => {
    order.push(method);
    Promise.resolve().then(() => order.push(`${method}, later`));
  };
  const start = made.start();
  await settle();
  const [socket] = sockets;
  [socket.readyState, socket.protocol] = [1, RESUME];
  socket.onopen();
  socket.onmessage({ data: session() });
  socket.onmessage({ data: JSON.stringify(notification('a')) });
  socket.onmessage({ data: JSON.stringify(notification('b')) });
  await start;
  await settle();
  assert.deepEqual(order, ['a', 'a, later', 'b', 'b, later']);
  await made.close();
});

test('a close code that another attempt cannot help is final', async () => {
  for (const code of [1000, 1002, 1003, 1007, 1008, 1010, 4401, 4403, 4409]) {
    sockets.length = 0;
    const [made, got, socket] = await started();
    await made.send(request(1));
    await socket.lose(code);
    await settle();
    assert.deepEqual([made.state, got.closed, reasons(got)], ['closed', 1, [[1, 'outcome_unknown']]], String(code));
  }
  for (const code of [1009, 4410]) {
    sockets.length = 0;
    const [made, got, socket] = await started();
    await made.send(request(1));
    await socket.lose(code);
    assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]); // the session is over, and not the transport
    await pass(1000);
    await sockets[1].open(RESUME);
    assert.equal(sockets[1].sent[0], '@open {}');
    await made.close();
  }
});

test('what cannot be read ends its call, or is reported', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (const id of [1, 2, 3]) await made.send(request(id));
  await socket.receive({ jsonrpc: '2.0', id: 1, result: 7 });
  await socket.receive({ jsonrpc: '2.0', id: 2, error: 'no' });
  for (const text of ['{', '[]', 'null', '{"id":null}']) await socket.receive(text);
  await socket.receive(`\ufeff${JSON.stringify(answer(3))}\n`);
  assert.deepEqual(reasons(got), [[1, 'unreadable'], [2, 'unreadable']]);
  assert.equal(got.messages.at(-1).id, 3);
  assert.equal(got.errors.length, 4);
  await made.close();
});

test('an error of the user of the transport is theirs', async () => {
  const [made, got, socket] = await started({ plain: true });
  const fail = () => { throw new Error('mine'); };
  made.onmessage = fail;
  await socket.receive(notification('x'));
  assert.deepEqual([made.state, got.errors.splice(0)], ['open', ['mine']]);
  made.onmessage = ({ id }) => got.messages.push({ id });
  made.onwire = fail;
  made.onclose = fail;
  made.onstate = fail;
  made.onerror = ({ message }) => {
    got.errors.push(message);
    fail();
  };
  await made.send(request(1));
  await socket.lose();
  await pass(1000);
  await sockets[1].open('mcp');
  await made.send(request(2));
  await sockets[1].receive(answer(2));
  assert.deepEqual([made.state, got.messages.map(({ id }) => id)], ['open', [1, 2]]);
  await made.close();
  await settle();
  assert.deepEqual([made.state, sockets[1].closed], ['closed', [1000]]);
  assert.deepEqual(got.errors, Array(got.errors.length).fill('mine'));
});

test('a framing that fails to decode a message breaks nothing else', async () => {
  const decode = (value) => {
    if (value.method === 'odd') throw new Error('odd');
    return jsonRpc.decode(value);
  };
  const [made, got, socket] = await started({ plain: true, framing: { ...jsonRpc, decode } });
  await made.send(request(1));
  await socket.receive(notification('odd'));
  await socket.receive(answer(1));
  assert.deepEqual([made.state, got.errors, got.messages], ['open', ['odd'], [answer(1)]]);
  await made.close();
});

test('an error of the user at the first state does not keep the transport from starting', async () => {
  const [made, got] = transport({ retryFirst: true });
  made.onstate = () => { throw new Error('mine'); };
  const start = made.start();
  await settle();
  await sockets[0].open('mcp');
  await start;
  assert.deepEqual([made.state, got.errors], ['open', ['mine', 'mine']]);
  await made.close();
});

test('what is the transport\'s own is told apart on the wire, within a session too', async () => {
  for (const plain of [true, false]) {
    sockets.length = 0;
    const [made, , socket] = await started({ plain });
    await initialized(made, socket);
    const seen = [];
    made.onwire = ({ direction, text, isOwn }) => direction === 'out' && seen.push([/"method":"([^"]+)"/.exec(text)?.[1] ?? text.split(' ')[0], isOwn]);
    await made.send(request(1));
    await pass(15_000);
    await socket.lose(4410);
    await pass(10_000);
    const next = sockets.at(-1);
    await next.open(plain ? 'mcp' : RESUME);
    if (!plain) await next.receive(session());
    await next.receive(answer(next.sent.at(-1).id, { serverInfo: {} }));
    await made.send(request(2));
    const data = seen.filter(([name]) => name[0] !== '@');
    assert.deepEqual(data, [['tools/call', false], ['ping', true], ['initialize', true], ['notifications/initialized', true], ['tools/call', false]]);
    assert.ok(seen.filter(([name]) => name[0] === '@').every(([, isOwn]) => isOwn));
    await made.close();
  }
});

test('binary messages are data, whatever they begin with', async () => {
  const [made, got, socket] = await started();
  socket.onmessage({ data: new TextEncoder().encode(JSON.stringify(notification('x'))).buffer });
  socket.onmessage({ data: new TextEncoder().encode('@ack 99').buffer });
  await settle();
  assert.deepEqual([made.state, got.messages.length, got.errors.length], ['open', 1, 1]);
  await made.close();
});

test('a peer may not ask for more than is taken', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (let id = 0; id < 1025; id++) socket.onmessage({ data: JSON.stringify(request(id, 'ping')) });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(got.messages.length, 1024);
  assert.deepEqual([socket.sent[0].id, socket.sent[0].error.data.reason], [1024, 'too_many_requests']);
  await socket.receive(request(7, 'ping'));
  assert.deepEqual([socket.sent[1].id, socket.sent[1].error.code], [7, -32600]); // it is in flight already
  await made.send(answer(7));
  assert.deepEqual(socket.sent[2], answer(7));
  await made.close();
});

test('who is told of what goes over the wire may close', async () => {
  const [made, got, socket] = await started();
  await socket.lose();
  made.onwire = ({ text }) => text?.startsWith('@ack') && made.close();
  await resumed();
  await settle();
  assert.equal(made.state, 'closed');
  assert.equal(got.states.at(-1), 'closed');
  await made.send(request(7)).catch(() => {});
  assert.equal(timerCount(), 0);
});

test('without pings there is none when the network is back either', async () => {
  const [made, , socket] = await started({ plain: true, heartbeat: Infinity });
  listeners.forEach((online) => online());
  await pass(60_000);
  assert.deepEqual([socket.sent, made.state], [[], 'open']);
  await made.close();
});
