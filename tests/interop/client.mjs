// A client on the TypeScript SDK, for the tools of the `math` example.
//
//     node client.mjs URL [linger]
//
// prints what it got as one line of JSON, then how the connection ended. With `linger` it waits for
// the server to end it.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { EmptyResultSchema } from '@modelcontextprotocol/sdk/types.js';
import { WebSocket } from 'ws';

const [url, linger] = process.argv.slice(2);

let socket;
globalThis.WebSocket = class extends WebSocket {
  constructor(address, protocols) {
    // One event per task, as in browsers: else the SDK misses the progress report that arrives
    // together with the result.
    super(address, protocols, { allowSynchronousEvents: false });
    socket = this;
  }
};

const client = new Client({ name: 'typescript', version: '1.0.0' });
await client.connect(new WebSocketClientTransport(new URL(url)));
const closed = new Promise((resolve) => {
  socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
});

const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);
const codeOf = (promise) => promise.then(() => null, (error) => error.code);
const progress = [];
const onprogress = (report) => progress.push([report.progress, report.total]);
const many = Array.from({ length: 100 }, (_, i) => call('add', { a: i, b: 1 }));

const report = {
  server: client.getServerVersion().name,
  subprotocol: socket.protocol,
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  add: (await call('add', { a: 5, b: 3 })).structuredContent,
  sum: (await call('sum', { numbers: [1, 2, 3] }, { onprogress })).structuredContent.result,
  progress,
  many: (await Promise.all(many)).map((result) => result.structuredContent.result),
  tool_error: await call('divide', { a: 1, b: 0 }).then((r) => [r.isError, r.content[0].text]),
  invalid_params: await codeOf(call('add', { a: 'five', b: 3 })),
  unknown_tool: await codeOf(call('modulo', {})),
  unknown_method: await codeOf(client.request({ method: 'no/such' }, EmptyResultSchema)),
  ping: await client.ping(),
};
await new Promise((resolve) => {
  socket.once('pong', resolve);
  socket.ping();
});
console.log(JSON.stringify(report));

if (!linger) await client.close();
console.log(JSON.stringify(await closed));
