// permessage-deflate by the package `ws`, against a server of MCP.
//
//     node deflate.mjs URL
//
// offers it as it does by itself, and prints what was agreed on as one line of JSON, with the number of
// tools, and what came of a call with a large argument.

import { WebSocket } from 'ws';

const [url] = process.argv.slice(2);
const socket = new WebSocket(url, ['mcp'], { perMessageDeflate: { threshold: 0 } });
const answers = new Map();
socket.on('message', (data) => {
  const message = JSON.parse(data);
  answers.get(message.id)?.(message);
});
const ask = (id, method, params) =>
  new Promise((resolve) => {
    answers.set(id, resolve);
    socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
  });
await new Promise((resolve, reject) => {
  socket.once('open', resolve);
  socket.once('error', reject);
});
await ask(1, 'initialize', {
  protocolVersion: '2025-11-25',
  capabilities: {},
  clientInfo: { name: 'node', version: '1.0.0' },
});
socket.send(JSON.stringify({ jsonrpc: '2.0', method: 'notifications/initialized' }));
const tools = (await ask(2, 'tools/list', {})).result.tools.length;
const numbers = Array.from({ length: 5000 }, (_, n) => n);
const sum = (await ask(3, 'tools/call', { name: 'sum', arguments: { numbers } })).result;
const { extensions } = socket;
console.log(JSON.stringify({ extensions, tools, sum: sum.structuredContent.result }));
socket.close(1000);
await new Promise((resolve) => socket.once('close', resolve));
