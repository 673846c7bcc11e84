// The package `js/` in chromium: the TypeScript SDK, both major versions, over its transport, and its own client,
// against our server, that of the Python SDK, and supergateway's.
//
//     MATH=../../target/debug/examples/math node --test browser.test.mjs

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { Browser } from './browser.mjs';
import { cuttingProxy, executed, math, python, stop, supergateway } from './programs.mjs';

const PACKAGE = new URL('../../js/', import.meta.url);

/** The SDKs as one module, as web pages have them. */
async function sdks() {
  const contents = `export { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
    export { Client as Client2 } from '@modelcontextprotocol/client';`;
  const resolveDir = fileURLToPath(new URL('.', import.meta.url));
  const { outputFiles } = await build({ stdin: { contents, resolveDir }, bundle: true, format: 'esm', write: false });
  return outputFiles[0].text;
}

/** An empty page, the modules of the package as they are, and the SDKs. */
async function pages() {
  const bundle = await sdks();
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, 'http://localhost');
    const [type, body] = pathname === '/' ? ['text/html', '<!doctype html><title>test</title><link rel="icon" href="data:">']
      : pathname === '/sdks.js' ? ['text/javascript', bundle]
        : ['text/javascript', await readFile(new URL(`.${pathname}`, PACKAGE))];
    response.writeHead(200, { 'content-type': type }).end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return [server, `http://127.0.0.1:${server.address().port}`];
}

let browser;
let page;
let origin;
before(async () => {
  [page, origin] = await pages();
  browser = await Browser.launch();
  await browser.open(origin);
});
after(async () => {
  await browser?.close();
  page?.close();
  page?.closeAllConnections();
});

/** What a client of the SDK does in the page. */
async function useSdk(which, url, tool) {
  const { WebSocketTransport } = await import('/mcp-ws.js');
  const { [which]: Client } = await import('/sdks.js');
  const transport = new WebSocketTransport(url);
  const client = new Client({ name: which, version: '1' });
  const errors = [];
  client.onerror = (error) => errors.push(error.message);
  await client.connect(transport);
  const { tools } = await client.listTools();
  const { content } = await client.callTool({ name: tool, arguments: { a: 5, b: 3 } });
  const { isResumable } = transport;
  await client.close();
  return { tools: tools.map(({ name }) => name), text: content[0].text, isResumable, errors };
}

/** What the client of the package does there. */
async function useSocket(url, tool) {
  const { McpSocket } = await import('/mcp-ws.js');
  const server = new McpSocket(url, { capabilities: { roots: {} }, handlers: { 'roots/list': () => ({ roots: [] }) }, heartbeat: 50 });
  const pong = new Promise((resolve) => {
    server.addEventListener('message', ({ direction, isOwn, message }) => direction === 'in' && isOwn && message?.id && resolve());
  });
  server.connect();
  const answer = JSON.stringify(await server.callTool(tool, { a: 5, b: 3 }));
  await pong;
  server.close();
  return { state: server.state, answer };
}

/** 2,000 calls, and the order in which they were answered. */
async function useMuch(which, url) {
  const { WebSocketTransport } = await import('/mcp-ws.js');
  const { [which]: Client } = await import('/sdks.js');
  const transport = new WebSocketTransport(url, { reconnect: { first: 10, afterRestart: 10, max: 50 } });
  const client = new Client({ name: which, version: '1' });
  const errors = [];
  client.onerror = (error) => errors.push(error.message);
  await client.connect(transport);
  const order = [];
  const one = async (n) => {
    const { structuredContent } = await client.callTool({ name: 'add', arguments: { a: n, b: 1 } });
    order.push([n, structuredContent.result]);
  };
  await Promise.all(Array.from({ length: 2000 }, (_, n) => one(n)));
  await client.close();
  return { order, errors };
}

for (const [name, start, tool, isResumable] of [
  ['our server', () => math('--allow-origin', origin), 'add', true],
  ['the Python SDK\'s server', python, 'add', false],
  ['supergateway', supergateway, 'get-sum', false],
]) {
  test(`in chromium against ${name}`, async () => {
    const { child, url } = await start();
    try {
      for (const which of ['Client1', 'Client2']) {
        const got = await browser.awaitInPage(useSdk, which, url, tool);
        assert.ok(got.tools.includes(tool), which);
        assert.match(got.text, /8/);
        assert.deepEqual([got.isResumable, got.errors], [isResumable, []]);
      }
      const { state, answer } = await browser.awaitInPage(useSocket, url, tool);
      assert.equal(state, 'closed');
      assert.match(answer, /8/);
    } finally {
      await stop(child);
    }
  });
}

for (const which of ['Client1', 'Client2']) {
  test(`in chromium, ${which}: 2,000 calls over connections that are cut, each once`, async () => {
    const { child, url } = await math('--allow-origin', origin);
    const proxy = await cuttingProxy(url, () => 3000 + Math.floor(Math.random() * 30_000));
    try {
      const { order, errors } = await browser.awaitInPage(useMuch, which, proxy.url);
      assert.deepEqual(order.sort(([a], [b]) => a - b), Array.from({ length: 2000 }, (_, n) => [n, n + 1]));
      assert.equal(await executed(url), 2000);
      assert.ok(proxy.cuts >= 10, `${proxy.cuts} cuts`);
      assert.deepEqual(errors, []);
    } finally {
      proxy.close();
      await stop(child);
    }
  });
}

test('in chromium: a page that the server refuses is told so, and does not come back', async () => {
  const { child, url } = await math();
  try {
    const told = await browser.awaitInPage(async (address) => {
      const { McpSocket } = await import('/mcp-ws.js');
      const server = new McpSocket(address, { reconnect: { first: 10, max: 10 } });
      const attempts = [];
      const closed = new Promise((resolve) => {
        server.addEventListener('state', ({ state, reason }) => {
          attempts.push(reason);
          if (state === 'closed' || attempts.length > 20) resolve([state, reason]);
        });
      });
      server.connect();
      const end = await closed;
      server.close();
      return end;
    }, url);
    assert.equal(told[0], 'closed');
    assert.match(told[1], /the server is there, but opens no WebSocket/);
  } finally {
    await stop(child);
  }
});

test('in chromium: what breaks the rules ends the session with a code that a page may send', async () => {
  const { WebSocketServer } = await import('ws');
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => 'mcp.resume.v1' });
  await once(server, 'listening');
  const closed = new Promise((resolve) => {
    server.on('connection', (socket) => {
      socket.once('message', () => {
        socket.send('@session {"session":"s","secret":"k","received":0,"resumed":false,"window_s":9,"window_bytes":9}');
        socket.send('@ack 7');
      });
      socket.on('close', (code, reason) => resolve([code, String(reason)]));
    });
  });
  await browser.awaitInPage(async (url) => {
    const { WebSocketTransport } = await import('/mcp-ws.js');
    const transport = new WebSocketTransport(url);
    const ended = new Promise((resolve) => { transport.onclose = resolve; });
    await transport.start();
    await ended;
  }, `ws://127.0.0.1:${server.address().port}/`);
  const [code, reason] = await closed;
  assert.equal(code, 1000);
  assert.match(reason, /^resume:/);
  server.close();
});
