// `McpSocket`, with a clock and a WebSocket of the tests' own.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { CLOSE_CODES, McpSocket, envelope, final, isSubprotocol, jsonRpc } from '../mcp-ws.js';
import { FakeWebSocket, failure, listeners, pass, setRandom, settle, sockets, timerCount } from './fakes.mjs';

/** A socket that has been told to connect, and its events. */
async function dialled(options, url = 'ws://test/') {
  const fetch = async () => Promise.reject(new TypeError('Failed to fetch')); // the server is away
  const mcp = new McpSocket(url, { framing: envelope, WebSocket: FakeWebSocket, fetch, ...options });
  const events = [];
  for (const type of ['state', 'message', 'notification']) mcp.addEventListener(type, (event) => events.push(event));
  mcp.connect();
  await settle();
  return [mcp, events];
}

async function opened(options) {
  const [mcp, events] = await dialled(options);
  await sockets[0].open();
  return [mcp, sockets[0], events];
}

const respond = ({ requestId }, result) => ({ type: 'mcp_response', result, requestId });

test('answers find their calls in whatever order they come', async () => {
  const [mcp, socket] = await opened();
  const calls = ['add', 'subtract', 'divide'].map((method) => mcp.request(method, { a: 1, b: 0 }));
  const refused = failure(calls[2]);
  const [add, subtract, divide] = socket.sent;
  assert.deepEqual(add.request, { method: 'add', params: { a: 1, b: 0 } });
  await socket.receive({ type: 'error', error: { code: -32000, message: 'by zero' }, requestId: divide.requestId });
  await socket.receive(respond(subtract, 'subtracted'));
  await socket.receive(respond({ requestId: 'nobody' }, 'lost'));
  await socket.receive(respond(add, 'added'));
  await socket.receive(respond(add, 'added twice'));
  const { reason, code, message } = await refused;
  assert.deepEqual([reason, code, message], ['refused', -32000, 'by zero']);
  assert.deepEqual(await Promise.all(calls.slice(0, 2)), ['added', 'subtracted']);
});

test('a call has a deadline, whether it was sent or not', async () => {
  const [mcp, events] = await dialled({ connectTimeout: 100_000 });
  const waiting = failure(mcp.request('add'));
  await pass(30_000);
  assert.equal((await waiting).reason, 'not_sent');
  await sockets[0].open();
  assert.deepEqual(sockets[0].sent, []);
  const sent = failure(mcp.request('add', {}, { deadline: 5000 }));
  await pass(4999);
  await sockets[0].receive({ type: 'notification', payload: { method: 'notifications/progress', params: {} } });
  assert.equal(events.at(-1).method, 'notifications/progress');
  await pass(1);
  assert.equal((await sent).reason, 'outcome_unknown');
  await sockets[0].receive(respond(sockets[0].sent[0], 'too late'));
  assert.equal(mcp.state, 'open');
});

test('a lost connection ends what was sent, and the next one sends what was not', async () => {
  const [mcp, socket, events] = await opened();
  const lost = failure(mcp.request('add', { a: 1 }));
  await socket.lose();
  const { reason, message } = await lost;
  assert.deepEqual([reason, message], ['outcome_unknown', 'connection lost: abnormal closure']);
  const { state, code, codeName, retryIn } = events.at(-1);
  assert.deepEqual([state, code, codeName, retryIn], ['waiting', 1006, 'abnormal closure', 500]);
  const waiting = mcp.request('add', { a: 2 });
  await pass(499);
  assert.equal(sockets.length, 1);
  await pass(1);
  await sockets[1].lose();
  await pass(1500);
  await sockets[2].open();
  assert.deepEqual(sockets[2].sent.map(({ request }) => request.params), [{ a: 2 }]);
  await sockets[2].receive(respond(sockets[2].sent[0], 'answered'));
  assert.equal(await waiting, 'answered');
});

test('what is called as soon as there is a connection is sent once', async () => {
  const [mcp] = await dialled();
  mcp.addEventListener('state', ({ state }) => state === 'open' && mcp.request('history'));
  await sockets[0].open();
  assert.equal(sockets[0].sent.length, 1);
});

test('what could not be sent any more waits for the next connection', async () => {
  const [mcp, socket, events] = await opened();
  const heard = events.length;
  socket.readyState = 2;
  listeners.forEach((online) => online());
  await pass(0);
  mcp.request('add');
  assert.equal((await failure(mcp.request('add', { a: 1n }))).name, 'TypeError');
  assert.equal(events.length, heard);
  await socket.lose();
  await pass(500);
  await sockets[1].open();
  assert.deepEqual([socket.sent.length, sockets[1].sent.length], [0, 1]);
});

test('closing ends every call, and nothing comes after it', async () => {
  const [mcp, socket, events] = await opened();
  const sent = failure(mcp.request('add'));
  mcp.close();
  assert.deepEqual(socket.closed, [1000]);
  assert.equal((await sent).reason, 'outcome_unknown');
  assert.equal((await failure(mcp.request('add'))).reason, 'not_sent');
  await pass(120_000);
  assert.deepEqual([sockets.length, timerCount(), mcp.state], [1, 0, 'closed']);

  mcp.connect();
  await settle();
  await sockets[1].lose();
  assert.equal(events.at(-1).retryIn, 500);
  const unsent = failure(mcp.request('add'));
  mcp.close();
  assert.equal((await unsent).reason, 'not_sent');
});

test('some close codes are final', async () => {
  for (const code of Object.keys(CLOSE_CODES).map(Number)) {
    sockets.length = 0;
    const [mcp, socket, events] = await opened();
    const call = failure(mcp.request('add'));
    await socket.lose(code);
    const final = [1000, 1002, 1003, 1007, 1008, 1010, 4401, 4403, 4409].includes(code);
    assert.equal(events.at(-1).state, final ? 'closed' : 'waiting', String(code));
    assert.equal((await call).reason, 'outcome_unknown');
    mcp.close();
  }
});

test('waits grow until a connection lasts', async () => {
  const [mcp, socket, events] = await opened();
  setRandom(0);
  await socket.lose();
  await pass(0);
  await sockets[1].lose();
  assert.equal(events.at(-1).retryIn, 1000);
  mcp.reconnect();
  await settle();
  await sockets[2].open();
  await sockets[2].lose();
  assert.equal(events.at(-1).retryIn, 1000);
  await pass(1000);
  await sockets[3].open();
  for (let i = 0; i < 6; i++) {
    await pass(10_000);
    await sockets[3].receive({ type: 'pong' });
  }
  await sockets[3].lose();
  assert.equal(events.at(-1).retryIn, 0);
});

test('silence is answered by a ping, and no answer to that by another connection', async () => {
  const [mcp, socket, events] = await opened();
  await pass(15_000);
  assert.equal(socket.sent.length, 1);
  await socket.receive({ type: 'pong' });
  await pass(14_000);
  await socket.receive(respond({}, 'anything'));
  await pass(14_999);
  assert.equal(socket.sent.length, 1);
  await pass(1);
  assert.deepEqual(socket.sent.map(({ type }) => type), ['ping', 'ping']);
  await socket.receive({ type: 'pong' });
  await pass(15_000 + 9999);
  assert.equal(mcp.state, 'open');
  const call = failure(mcp.request('add'));
  await pass(1);
  assert.equal(mcp.state, 'waiting');
  assert.equal(events.at(-1).reason, 'a ping was not answered');
  assert.equal((await call).reason, 'outcome_unknown');
  assert.deepEqual(socket.closed, []);
  await pass(500);
  assert.equal(sockets.length, 2);
  const heard = events.length;
  await socket.lose(); // which the browser finds out now
  await socket.receive(respond({}, 'late'));
  assert.equal(events.length, heard);
});

test('a network that is back is tried at once', async () => {
  const [mcp, socket] = await opened();
  const [online] = listeners;
  await socket.lose();
  online();
  await settle();
  assert.equal(sockets.length, 2);
  online();
  await sockets[1].open();
  online();
  await pass(0);
  assert.deepEqual(sockets[1].sent.map(({ type }) => type), ['ping']);
  mcp.close();
  assert.deepEqual([sockets.length, listeners.size], [2, 0]);
});

test('each attempt asks for the address, and none lasts for ever', async () => {
  const asked = [];
  const url = async (failures) => {
    asked.push(failures);
    if (asked.length === 2) throw new Error('no agent');
    return `ws://test/${asked.length}`;
  };
  const [, events] = await dialled({}, url);
  await pass(20_000);
  assert.equal(events.at(-1).reason, 'no connection within 20 s');
  await pass(500);
  assert.equal(events.at(-1).reason, 'no agent');
  await pass(events.at(-1).retryIn);
  assert.deepEqual(asked, [0, 1, 2]);
  assert.deepEqual(sockets.map((socket) => socket.url), ['ws://test/1', 'ws://test/3']);
});

test('an address that comes too late is not used', async () => {
  const answers = [];
  const [mcp] = await dialled({}, () => new Promise((answer) => answers.push(answer)));
  await pass(20_500);
  answers[1]('ws://test/second');
  answers[0]('ws://test/first');
  await settle();
  assert.deepEqual(sockets.map((socket) => socket.url), ['ws://test/second']);
  mcp.close();
});

test('MCP begins with its handshake, and calls wait for that', async () => {
  const [mcp] = await dialled({ framing: jsonRpc });
  const [socket] = sockets;
  assert.deepEqual(socket.protocols, ['mcp', 'mcp.resume.v1']);
  await socket.open();
  const call = mcp.callTool('add', { a: 5, b: 3 });
  assert.deepEqual(socket.sent.map(({ method }) => method), ['initialize']);
  const answer = (result, request = socket.sent.at(-1)) => socket.receive({ jsonrpc: '2.0', id: request.id, result });
  await answer({ protocolVersion: '2025-11-25', capabilities: {}, serverInfo: {} });
  assert.deepEqual(socket.sent.slice(1).map(({ method }) => method), ['notifications/initialized', 'tools/call']);
  assert.deepEqual(socket.sent[2].params, { name: 'add', arguments: { a: 5, b: 3 } });
  await answer({ content: [], structuredContent: { result: 8 } });
  assert.deepEqual(await call, { result: 8 });

  const failed = failure(mcp.callTool('divide', { a: 1, b: 0 }));
  await answer({ content: [{ type: 'text', text: 'division by zero' }], isError: true });
  assert.equal((await failed).message, 'division by zero');

  const tools = mcp.listTools();
  await answer({ tools: ['add'], nextCursor: 'more' });
  assert.deepEqual(socket.sent.at(-1).params, { cursor: 'more' });
  await answer({ tools: ['sum'] });
  assert.deepEqual(await tools, ['add', 'sum']);

  await socket.receive({ jsonrpc: '2.0', id: 'p', method: 'ping' });
  assert.deepEqual(socket.sent.at(-1), { jsonrpc: '2.0', id: 'p', result: {} });
  await socket.receive({ jsonrpc: '2.0', id: 0, method: 'roots/list' });
  assert.equal(socket.sent.at(-1).error.code, -32601);
});

test('what makes no sense is shown, and does no harm', async () => {
  const [mcp, socket, events] = await opened();
  const call = mcp.request('add');
  const types = ['{"type":"error"}', '{"type":"mcp_response"}', '{"type":"notification"}', '{"type":"x"}'];
  const fields = ['{"type":"error","error":{}}', '{"type":"error","error":null}', '{"type":"notification","payload":null}'];
  const nonsense = ['', '{', 'null', '[]', '7', '"x"', '{}', ...types, ...fields];
  for (const text of nonsense) await socket.receive(text);
  assert.deepEqual(events.filter(({ direction }) => direction === 'in').map(({ text }) => text), nonsense);
  await socket.receive(respond(socket.sent[0], null));
  assert.equal(await call, null);
});

test('a token goes out as a subprotocol, beside one that the server can choose', async () => {
  await dialled({ token: 's3cr3t' });
  assert.deepEqual(sockets[0].protocols, ['mcp', 'mcp.auth.s3cr3t']);
  await dialled({ token: 's3cr3t', framing: jsonRpc });
  assert.deepEqual(sockets[1].protocols, ['mcp', 'mcp.resume.v1', 'mcp.auth.s3cr3t']);
  await dialled({ token: async () => 'näive/=', framing: jsonRpc, resume: false });
  assert.deepEqual(sockets[2].protocols, ['mcp', 'mcp.auth-base64url.bsOkaXZlLz0']);
  await dialled();
  assert.deepEqual(sockets[3].protocols, []);
  assert.ok(isSubprotocol("!#$%&'*+-.^_`|~aZ9"));
  for (const text of ['', 'a b', 'a/b', 'a=', 'ä', 'a,b', 'a"b', 'a\n']) assert.ok(!isSubprotocol(text), text);
});

test('a token may be the first message, which nobody is shown', async () => {
  const [other, events] = await dialled({ token: 'a/b=', inBand: true, framing: jsonRpc });
  const [socket] = sockets;
  assert.deepEqual(socket.protocols, ['mcp', 'mcp.resume.v1']);
  await socket.open();
  assert.deepEqual([socket.sent[0].method, socket.sent[0].params], ['authenticate', { token: 'a/b=' }]);
  await socket.receive({ jsonrpc: '2.0', id: socket.sent[0].id, result: { authenticated: true } });
  await settle();
  assert.equal(socket.sent[1].method, 'initialize');
  assert.ok(!JSON.stringify(events.map(({ text, message }) => [text, message])).includes('a/b'));
  other.close();

  const [wrong, seen] = await dialled({ token: 'wrong', inBand: true, framing: jsonRpc });
  await sockets[1].open();
  const error = { code: -32001, message: 'Authentication failed' };
  await sockets[1].receive({ jsonrpc: '2.0', id: sockets[1].sent[0].id, error });
  assert.deepEqual([wrong.state, seen.at(-1).reason, seen.at(-1).retryIn], ['closed', 'Authentication failed', null]);
});

test('a refused initialize is final, unless the server only stops', async () => {
  const refuse = async (socket, error) => {
    await socket.open();
    await socket.receive({ jsonrpc: '2.0', id: socket.sent[0].id, error });
  };
  const [mcp, events] = await dialled({ framing: jsonRpc });
  const call = failure(mcp.callTool('add'));
  await refuse(sockets[0], { code: -32602, message: 'unsupported protocol version' });
  const { reason, retryIn } = events.at(-1);
  assert.deepEqual([mcp.state, retryIn], ['closed', null]);
  assert.equal(reason, 'the server refuses to initialize: unsupported protocol version');
  assert.equal((await call).reason, 'not_sent');
  assert.deepEqual(sockets[0].closed, []);
  await pass(60_000);
  assert.equal(sockets.length, 1);

  const [other] = await dialled({ framing: jsonRpc });
  await refuse(sockets[1], { code: -32000, message: 'the server is stopping', data: { reason: 'stopping' } });
  assert.equal(other.state, 'waiting');
  other.close();
});

test('what the browser does not accept is final', async () => {
  class Picky {
    constructor() {
      throw new SyntaxError("The subprotocol 'a b' is invalid");
    }
  }
  const [mcp, events] = await dialled({ WebSocket: Picky, protocols: ['a b'] });
  const { state, reason, retryIn } = events.at(-1);
  assert.deepEqual([state, reason, retryIn], ['closed', "The subprotocol 'a b' is invalid", null]);
  assert.equal((await failure(mcp.request('add'))).reason, 'not_sent');
  const [, heard] = await dialled({}, () => { throw final('no token'); });
  assert.deepEqual([heard.at(-1).state, heard.at(-1).reason], ['closed', 'no token']);
  await pass(60_000);
  assert.equal(sockets.length, 0);
});

/** The states of a client whose upgrades all fail, while HTTP is answered with these, one after the other. */
async function refused(statuses, options) {
  const asked = [];
  const fetch = async (url, init) => {
    if (init.mode === 'no-cors' && init.redirect !== 'follow') throw new TypeError('Failed to fetch'); // as Fetch says
    asked.push([url.href, init]);
    const status = statuses.shift();
    if (status === undefined) throw new TypeError('Failed to fetch');
    return { status };
  };
  const [mcp, events] = await dialled({ fetch, ...options });
  const fail = async () => {
    await sockets.at(-1).lose();
    if (mcp.state === 'waiting') await pass(events.at(-1).retryIn);
    return mcp.state;
  };
  return { mcp, events, asked, fail };
}

test('an upgrade that is refused three times in a row is not tried again', async () => {
  for (const [status, words] of [[401, /asks for a token/], [403, /refuses/], [404, /nothing/], [426, /asks for a token/], [0, /opens no WebSocket/]]) {
    sockets.length = 0;
    const { mcp, events, asked, fail } = await refused([status, status, status]);
    const waiting = failure(mcp.request('add'));
    assert.equal(await fail(), 'connecting');
    assert.equal(await fail(), 'connecting');
    assert.equal(await fail(), 'closed', String(status));
    assert.match(events.at(-1).reason, words);
    assert.equal((await waiting).reason, 'not_sent');
    assert.equal(asked[0][0], 'http://test/');
    await pass(120_000);
    assert.equal(sockets.length, 3);
    // It begins anew when it is told to.
    mcp.connect();
    await settle();
    assert.equal(await fail(), 'connecting');
    mcp.close();
  }
});

test('a page asks a server of another origin too why it is refused', async (context) => {
  globalThis.location = { href: 'http://page.test/', origin: 'http://page.test' };
  context.after(() => delete globalThis.location);
  const options = { token: 's3cr3t' };
  const { mcp, events, asked, fail } = await refused([0, 0, 0], options);
  for (const expected of ['connecting', 'connecting', 'closed']) assert.equal(await fail(), expected);
  assert.match(events.at(-1).reason, /opens no WebSocket/);
  assert.deepEqual(asked.map(([, { mode, headers }]) => [mode, headers]), Array(3).fill(['no-cors', undefined]));
  mcp.close();

  sockets.length = 0;
  globalThis.location = { href: 'http://test/', origin: 'http://test' };
  const own = await refused([401, 401, 401], options);
  for (const expected of ['connecting', 'connecting', 'closed']) assert.equal(await own.fail(), expected);
  assert.match(own.events.at(-1).reason, /does not accept this token/);
  assert.deepEqual([own.asked[0][1].redirect, own.asked[0][1].headers], ['manual', { authorization: 'Bearer s3cr3t' }]);
});

test('an inquiry that fails in whatever way is no answer', async () => {
  for (const fetch of [() => { throw new Error('not now'); }, async () => undefined]) {
    sockets.length = 0;
    const [mcp] = await dialled({ fetch });
    for (let attempt = 0; attempt < 4; attempt++) {
      await sockets.at(-1).lose();
      assert.equal(mcp.state, 'waiting');
      mcp.reconnect();
      await settle();
    }
    mcp.close();
  }
});

test('a server that is away, starts or is full is waited for', async () => {
  for (const status of [undefined, 502, 503, 429]) {
    const { mcp, fail } = await refused([401, 401, status, 401, 401, status]);
    for (let i = 0; i < 6; i++) assert.equal(await fail(), 'connecting', String(status));
    mcp.close();
  }
  // One that has let it in before may have no room just now, but a token can be taken back.
  for (const [status, end] of [[426, 'connecting'], [401, 'closed']]) {
    sockets.length = 0;
    const { mcp, events, fail } = await refused([status, status, status]);
    await sockets[0].open();
    await sockets[0].lose();
    await pass(events.at(-1).retryIn);
    for (const expected of ['connecting', 'connecting', end]) assert.equal(await fail(), expected);
    mcp.close();
  }
});

/** A socket that has spoken with a server of plain MCP. */
async function initialized(options) {
  const [mcp, events] = await dialled({ framing: jsonRpc, ...options });
  const [socket] = sockets;
  await socket.open('mcp');
  const server = { protocolVersion: '2025-11-25', capabilities: {}, serverInfo: { name: 'test' } };
  await socket.receive({ jsonrpc: '2.0', id: socket.sent[0].id, result: server });
  assert.deepEqual([mcp.state, mcp.server], ['open', server]);
  return [mcp, socket, events];
}

test('requests of the server are answered by handlers', async () => {
  const handlers = {
    'sampling/createMessage': async ({ messages }) => ({ role: 'assistant', content: messages[0].content, model: 'm' }),
    'elicitation/create': () => { throw Object.assign(new Error('not now'), { code: -32042 }); },
    'roots/list': (params, { signal }) => new Promise((resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
  };
  const [, socket] = await initialized({ handlers, capabilities: { sampling: {}, roots: {} } });
  assert.deepEqual(socket.sent[0].params.capabilities, { sampling: {}, roots: {} });
  const ask = async (id, method, params) => {
    await socket.receive({ jsonrpc: '2.0', id, method, params });
    await settle();
    return socket.sent.at(-1);
  };
  const sampled = await ask('s', 'sampling/createMessage', { messages: [{ content: 'hello' }] });
  assert.deepEqual(sampled.result, { role: 'assistant', content: 'hello', model: 'm' });
  assert.deepEqual((await ask('e', 'elicitation/create')).error, { code: -32042, message: 'not now' });
  assert.equal((await ask('t', 'toString')).error.code, -32601);
  const before = socket.sent.length;
  await ask('r', 'roots/list');
  await socket.receive({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'r' } });
  await settle();
  assert.equal(socket.sent.length, before);
});

test('what a handler returns and JSON cannot say is an error to the server', async () => {
  const handlers = {
    'roots/list': () => ({ roots: 1n }),
    'sampling/createMessage': () => { throw Object.assign(new Error('mine'), { data: 1n }); },
  };
  const [mcp, socket] = await initialized({ handlers });
  for (const [id, method] of Object.keys(handlers).entries()) {
    await socket.receive({ jsonrpc: '2.0', id, method });
    await settle();
    assert.deepEqual([socket.sent.at(-1).id, socket.sent.at(-1).error?.code], [id, -32603]);
  }
  mcp.close();
});

/** A handler whose calls are ended by hand, and those calls. */
function slow() {
  const calls = [];
  const handler = (params, { signal }) => new Promise((resolve, reject) => calls.push({ signal, resolve, reject }));
  return [handler, calls];
}

test('a handler that ends late answers no other request with its id', async () => {
  const [handler, calls] = slow();
  const [mcp, socket] = await initialized({ handlers: { 'roots/list': handler } });
  const ask = (to) => to.receive({ jsonrpc: '2.0', id: 0, method: 'roots/list' });
  const cancel = (to) => to.receive({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 0 } });
  const answers = ({ sent }) => sent.filter(({ result, error }) => result ?? error);
  const end = async ({ resolve }, roots) => {
    resolve({ roots });
    await settle();
  };

  await ask(socket);
  await cancel(socket);
  await ask(socket);
  await end(calls[0], ['of the first']);
  assert.deepEqual(answers(socket), []);
  await end(calls[1], ['of the second']);
  assert.deepEqual(answers(socket), [{ jsonrpc: '2.0', id: 0, result: { roots: ['of the second'] } }]);

  await ask(socket);
  await socket.lose();
  await pass(1000);
  const [, next] = sockets;
  await next.open('mcp');
  await next.receive({ jsonrpc: '2.0', id: next.sent[0].id, result: {} });
  await ask(next);
  assert.deepEqual(calls.slice(2).map(({ signal }) => signal.aborted), [true, false]);
  await end(calls[2], ['of another server']);
  assert.deepEqual(answers(next), []);
  await cancel(next);
  assert.equal(calls[3].signal.aborted, true);

  await ask(next);
  mcp.close();
  mcp.connect();
  await settle();
  await sockets[2].open('mcp');
  await sockets[2].receive({ jsonrpc: '2.0', id: sockets[2].sent[0].id, result: {} });
  await ask(sockets[2]);
  assert.deepEqual(calls.slice(4).map(({ signal }) => signal.aborted), [true, false]);
  await end(calls[4], ['of the last connection']);
  assert.deepEqual(answers(sockets[2]), []);
  await cancel(sockets[2]);
  assert.equal(calls[5].signal.aborted, true);
  mcp.close();
});

test('a handshake whose link is lost at once opens nothing', async () => {
  const [mcp, events] = await dialled({ framing: jsonRpc });
  const [socket] = sockets;
  await socket.open('mcp');
  const result = { protocolVersion: '2025-11-25', capabilities: {}, serverInfo: {} };
  socket.onmessage({ data: JSON.stringify({ jsonrpc: '2.0', id: socket.sent[0].id, result }) });
  await socket.lose(1012);
  const states = () => events.filter(({ type }) => type === 'state').map(({ state }) => state);
  assert.deepEqual([mcp.state, states().at(-1)], ['waiting', 'waiting']);
  await pass(10_000);
  await sockets[1].open('mcp');
  await sockets[1].receive({ jsonrpc: '2.0', id: sockets[1].sent[0].id, result });
  assert.deepEqual(sockets[1].sent.map(({ method }) => method), ['initialize', 'notifications/initialized']);
  assert.deepEqual([mcp.state, states().filter((state) => state === 'open').length], ['open', 1]);
  mcp.close();
});

test('a call that is given up is cancelled at the server', async () => {
  const [mcp, socket] = await initialized();
  const giveUp = new AbortController();
  const call = failure(mcp.callTool('slow', {}, { signal: giveUp.signal }));
  giveUp.abort(new Error('enough'));
  assert.equal((await call).message, 'enough');
  const [sent, cancelled] = socket.sent.slice(-2);
  assert.deepEqual([cancelled.method, cancelled.params.requestId], ['notifications/cancelled', sent.id]);
  await socket.receive({ jsonrpc: '2.0', id: sent.id, result: {} });
  assert.equal((await failure(mcp.request('ping', {}, { signal: giveUp.signal }))).message, 'enough');

  const late = failure(mcp.request('tools/call', {}, { deadline: 1000 }));
  await pass(1000);
  assert.equal((await late).reason, 'outcome_unknown');
  assert.equal(socket.sent.at(-1).method, 'notifications/cancelled');

  await socket.lose();
  const unsent = failure(mcp.request('tools/call', {}, { deadline: 10 }));
  await pass(10);
  assert.equal((await unsent).reason, 'not_sent');
});

test('progress is told to the call that it belongs to', async () => {
  const [mcp, socket] = await initialized();
  const reports = [];
  const call = mcp.callTool('slow', {}, { onprogress: ({ progress }) => reports.push(progress) });
  const { id, params } = socket.sent.at(-1);
  const report = (progressToken, progress) => socket.receive({ jsonrpc: '2.0', method: 'notifications/progress', params: { progressToken, progress } });
  await report(params._meta.progressToken, 1);
  await report('another', 2);
  await report(params._meta.progressToken, 3);
  await socket.receive({ jsonrpc: '2.0', id, result: { content: [] } });
  await report(params._meta.progressToken, 4);
  assert.deepEqual([await call, reports], [[], [1, 3]]);
});

test('a token is asked for at each attempt', async () => {
  const tokens = ['first', 'second'];
  const [mcp] = await dialled({ token: async () => tokens.shift() });
  await sockets[0].lose();
  await pass(1000);
  assert.deepEqual(sockets.map(({ protocols }) => protocols.at(-1)), ['mcp.auth.first', 'mcp.auth.second']);
  mcp.close();
});

test('a list whose cursor comes again ends', async () => {
  const [mcp, socket] = await initialized();
  const prompts = mcp.listPrompts();
  for (let page = 0; page < 2; page++) {
    await socket.receive({ jsonrpc: '2.0', id: socket.sent.at(-1).id, result: { prompts: [page], nextCursor: 'again' } });
    await settle();
  }
  assert.deepEqual(await prompts, [0, 1]);
});
