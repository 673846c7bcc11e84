// The package `js/` in Node: the TypeScript SDK, both major versions, over its transport, and its own client, against
// our server, that of the Python SDK, and supergateway's.
//
//     MATH=../../target/debug/examples/math node --test sdk.test.mjs

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';

import { Client as Client2 } from '@modelcontextprotocol/client';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { ListRootsRequestSchema } from '@modelcontextprotocol/sdk/types.js';
import { WebSocket } from 'ws';

import { McpSocket, WebSocketTransport } from '../../js/mcp-ws.js';
import { cuttingProxy, executed, math, python, start, stop, supergateway } from './programs.mjs';

const ROOTS = { roots: [{ uri: 'file:///root', name: 'root' }] };
const capabilities = { roots: {} };

/** The clients of the SDK under one interface. */
const sdks = [
  ['SDK 1.x', (transport) => {
    const client = new Client1({ name: 'one', version: '1' }, { capabilities });
    client.setRequestHandler(ListRootsRequestSchema, () => ROOTS);
    const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
    return { client, call, connect: () => client.connect(transport) };
  }],
  ['SDK 2.x', (transport) => {
    const client = new Client2({ name: 'two', version: '2' }, { capabilities });
    client.setRequestHandler('roots/list', () => ROOTS);
    const call = (name, args, options) => client.callTool({ name, arguments: args }, options);
    return { client, call, connect: () => client.connect(transport) };
  }],
];

async function connected([, make], url, options) {
  const transport = new WebSocketTransport(url, { WebSocket, ...options });
  const errors = [];
  const made = make(transport);
  made.client.onerror = (error) => errors.push(error);
  await made.connect();
  return { ...made, transport, errors };
}

const servers = {};
const started = (name, start) => (servers[name] ??= start());
after(async () => {
  for (const server of Object.values(servers)) await stop((await server).child);
});

for (const sdk of sdks) {
  test(`${sdk[0]} against our server`, async () => {
    const { url } = await started('math', math);
    const { client, call, transport, errors } = await connected(sdk, url);
    assert.equal(client.getServerVersion().name, 'math');
    assert.ok(transport.isResumable);
    assert.equal((await client.listTools()).tools.length, 7);
    assert.equal((await call('add', { a: 5, b: 3 })).structuredContent.result, 8);
    const reports = [];
    const options = { onprogress: ({ progress }) => reports.push(progress) };
    assert.equal((await call('sum', { numbers: [1, 2, 3] }, options)).structuredContent.result, 6);
    assert.deepEqual(reports, [1, 2, 3]);
    const failed = await call('divide', { a: 1, b: 0 });
    assert.deepEqual([failed.isError, failed.content[0].text], [true, 'division by zero']);
    await assert.rejects(call('add', { a: 'five', b: 3 }), { code: -32602 });
    await assert.rejects(call('sum', { numbers: Array(3_000_000).fill(0) }), /bytes are more than the/);
    assert.equal((await call('add', { a: 1, b: 1 })).structuredContent.result, 2);
    await client.ping();
    const closed = new Promise((resolve) => { client.onclose = resolve; });
    await client.close();
    await closed;
    assert.deepEqual(errors, []);
  });

  test(`${sdk[0]} against the Python SDK's server`, async () => {
    const { url } = await started('python', python);
    const { client, call, transport, errors } = await connected(sdk, url);
    assert.equal(client.getServerVersion().name, 'python');
    assert.ok(!transport.isResumable);
    assert.deepEqual((await call('add', { a: 5, b: 3 })).structuredContent, { result: 8 });
    assert.deepEqual((await call('ask', {})).structuredContent, { result: ['file:///root'] });
    const reports = [];
    await call('sum', { numbers: [1, 2, 3] }, { onprogress: ({ message }) => reports.push(message) });
    assert.deepEqual(reports, ['1 so far', '3 so far', '6 so far']);
    await client.close();
    assert.deepEqual(errors, []);
  });

  test(`${sdk[0]} against supergateway`, async () => {
    const { url } = await started('supergateway', supergateway);
    const { client, call, transport } = await connected(sdk, url);
    assert.ok(!transport.isResumable);
    const { tools } = await client.listTools();
    assert.ok(tools.some(({ name }) => name === 'echo'));
    const answers = await Promise.all([1, 2, 3].map((n) => call('echo', { message: `number ${n}` })));
    assert.deepEqual(answers.map(({ content }) => content[0].text), [1, 2, 3].map((n) => `Echo: number ${n}`));
    await client.close();
  });

  test(`${sdk[0]}: 2,000 calls over connections that are cut, each once`, async () => {
    const server = await math();
    const proxy = await cuttingProxy(server.url, () => 3000 + Math.floor(Math.random() * 30_000));
    const reconnect = { first: 10, afterRestart: 10, max: 50 };
    const { client, call, errors } = await connected(sdk, proxy.url, { reconnect });
    const order = [];
    const one = async (n) => {
      const reports = [];
      const isSum = n % 10 === 0;
      const options = isSum ? { onprogress: ({ progress }) => reports.push(progress) } : undefined;
      const args = isSum ? { numbers: [n, 1, 2] } : { a: n, b: 3 };
      const { structuredContent } = await call(isSum ? 'sum' : 'add', args, options);
      assert.equal(structuredContent.result, n + 3);
      if (isSum) assert.deepEqual(reports, [1, 2, 3]);
      order.push(n);
    };
    // As many at once as there is room for, and more.
    const numbers = Array.from({ length: 2000 }, (_, n) => n);
    await Promise.all(numbers.map(one));
    assert.equal(await executed(server.url), 2000);
    assert.deepEqual([...order].sort((a, b) => a - b), numbers);
    assert.ok(proxy.cuts >= 10, `${proxy.cuts} cuts`);
    assert.deepEqual(errors, []);
    console.log(`# ${proxy.cuts} cuts, ${proxy.connections} connections`);
    await client.close();
    proxy.close();
    await stop(server.child);
  });

  test(`${sdk[0]}: a call ends with an error when the session is gone, and the next is answered`, async () => {
    let server = await math();
    const { client, call, transport } = await connected(sdk, server.url, { reconnect: { first: 50, max: 50 } });
    await call('add', { a: 1, b: 1 });
    const { port } = new URL(server.url);
    await stop(server.child, 'SIGKILL');
    const waits = call('add', { a: 20, b: 22 });
    const [child] = await restarted(port);
    server = { child };
    assert.equal((await waits).structuredContent.result, 42);
    assert.equal(transport.state, 'open');
    await client.close();
    await stop(server.child);
  });
}

test('the later lifecycle, without `initialize`, over a server that is started again', async () => {
  const server = await math();
  const { port } = new URL(server.url);
  const transport = new WebSocketTransport(server.url, { WebSocket, reconnect: { first: 50, max: 50 } });
  const options = { supportedProtocolVersions: ['2026-07-28', '2025-11-25'], versionNegotiation: { mode: 'auto' } };
  const client = new Client2({ name: 'two', version: '2' }, options);
  const methods = new Set();
  transport.onwire = ({ message }) => methods.add(message?.method);
  await client.connect(transport);
  assert.equal(client.getNegotiatedProtocolVersion(), '2026-07-28');
  const call = (a, b) => client.callTool({ name: 'add', arguments: { a, b } });
  assert.equal((await call(5, 3)).structuredContent.result, 8);
  await stop(server.child, 'SIGKILL');
  const waits = call(20, 22);
  const [child] = await restarted(port);
  assert.equal((await waits).structuredContent.result, 42);
  assert.ok(!methods.has('initialize'));
  await client.close();
  await stop(child);
});

/** The server at the same port. */
function restarted(port) {
  return start(process.env.MATH, ['serve', '--listen', `127.0.0.1:${port}`], /^listening on (\S+)$/);
}

test('our own client against all three', async () => {
  const cases = [['math', math, 'add'], ['python', python, 'add'], ['supergateway', supergateway, 'get-sum']];
  // Newer Nodes have a WebSocket of their own.
  const sockets = [WebSocket, globalThis.WebSocket].filter(Boolean);
  for (const [name, begin, tool, WebSocket] of cases.flatMap((one) => sockets.map((socket) => [...one, socket]))) {
    const { url } = await started(name, begin);
    const handlers = { 'roots/list': () => ROOTS };
    const server = new McpSocket(url, { WebSocket, capabilities, handlers, heartbeat: 100 });
    server.connect();
    const tools = await server.listTools();
    const names = tools.map((one) => one.name);
    assert.ok(names.includes(tool), names.join());
    const answer = await server.callTool(tool, { a: 5, b: 3 });
    assert.match(JSON.stringify(answer), /8/, name);
    if (name === 'python') assert.deepEqual(await server.callTool('ask'), { result: ['file:///root'] });
    const pong = new Promise((resolve) => {
      server.addEventListener('message', ({ direction, isOwn }) => direction === 'in' && isOwn && resolve());
    });
    await pong;
    const closed = once(server, 'state');
    server.close();
    assert.equal((await closed)[0].state, 'closed');
  }
});

test('a token that is right, and one that is wrong', async () => {
  const { child, url } = await math('--token', 'plain-token');
  const answered = new McpSocket(url, { WebSocket, token: async () => 'plain-token' });
  answered.connect();
  assert.equal((await answered.callTool('add', { a: 5, b: 3 })).result, 8);
  answered.close();
  const wrong = new WebSocketTransport(url, { WebSocket, token: 'wrong/=' });
  await assert.rejects(wrong.start(), { message: 'the server does not accept this token', final: true });
  await stop(child);
});
