// A server whose only tool has an argument of each kind, and asks for more while it runs.

import { once } from 'node:events';

import { WebSocketServer } from 'ws';

const inputSchema = {
  type: 'object',
  $defs: { Color: { type: 'string', enum: ['red', 'green'] } },
  properties: {
    name: { type: 'string', title: 'Name', description: 'Of whom?', minLength: 2 },
    day: { type: 'string', format: 'date' },
    age: { type: 'integer', minimum: 0, maximum: 150 },
    height: { type: ['number', 'null'], default: 1.8 },
    agrees: { type: 'boolean' },
    newsletter: { type: 'boolean', default: true },
    color: { $ref: '#/$defs/Color' },
    size: { oneOf: [{ const: 1, title: 'small' }, { const: 2, title: 'large' }] },
    nickname: { anyOf: [{ type: 'string' }, { type: 'null' }] },
    tags: { type: 'array', items: { type: 'string' } },
    address: { type: 'object', properties: { city: { type: 'string' } } },
    anything: {},
  },
  required: ['name', 'age', 'agrees', 'color', 'size', 'tags'],
};

const elicitation = {
  message: 'Are you sure?',
  requestedSchema: { type: 'object', properties: { sure: { type: 'boolean' }, why: { type: 'string' } }, required: ['sure'] },
};
const sampling = { messages: [{ role: 'user', content: { type: 'text', text: 'Say hello' } }], maxTokens: 10 };

async function answer({ method, params }, ask) {
  switch (method) {
    case 'initialize': return { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo: { name: 'survey', version: '1' }, instructions: 'Fill it in.' };
    case 'tools/list': return { tools: [{ name: 'survey', description: 'Asks all kinds of things', inputSchema }] };
    case 'tools/call': {
      const asked = [await ask('elicitation/create', elicitation), await ask('sampling/createMessage', sampling)];
      return { content: [{ type: 'text', text: JSON.stringify([params.arguments, ...asked]) }] };
    }
    default: return {};
  }
}

/** Resolves with the server and its address. */
export async function survey() {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  server.on('connection', (socket) => {
    const asked = new Map();
    const send = (message) => socket.send(JSON.stringify({ jsonrpc: '2.0', ...message }));
    const ask = (method, params) => new Promise((resolve) => {
      asked.set(method, resolve);
      send({ id: method, method, params });
    });
    socket.on('message', async (data) => {
      const message = JSON.parse(data);
      if (message.method === undefined) asked.get(message.id)?.(message.result ?? message.error);
      else if (message.id !== undefined) send({ id: message.id, result: await answer(message, ask) });
    });
  });
  await once(server, 'listening');
  return { server, url: `ws://127.0.0.1:${server.address().port}/` };
}
