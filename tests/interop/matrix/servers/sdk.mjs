// A server on the TypeScript SDK over npm's mcp-websocket-transport.
//
//     node sdk.mjs 1|2
//
// prints where it listens. Both major versions of the SDK have the same server but for names.

import { once } from 'node:events';

import { WebSocketServerTransport } from 'mcp-websocket-transport';
import { WebSocketServer } from 'ws';

const major = process.argv[2];
const types = major === '1' && await import('@modelcontextprotocol/sdk/types.js');
const { Server } = await import(major === '1' ? '@modelcontextprotocol/sdk/server/index.js' : '@modelcontextprotocol/server');

const tool = (name, ...names) => {
  const number = { type: 'number' };
  const properties = Object.fromEntries(names.map((one) => [one, one === 'numbers' ? { type: 'array', items: number } : number]));
  return { name, inputSchema: { type: 'object', properties, required: names } };
};
const tools = [tool('add', 'a', 'b'), tool('sum', 'numbers'), tool('ask')];
const question = {
  message: 'Are you sure?',
  requestedSchema: { type: 'object', properties: { confirm: { type: 'boolean' } }, required: ['confirm'] },
};

function serve(socket) {
  const server = new Server({ name: 'typescript', version: '1.0.0' }, { capabilities: { tools: {} } });
  const call = async ({ params: { name, arguments: given, _meta } }, context) => {
    const text = (value) => ({ content: [{ type: 'text', text: String(value) }] });
    if (name === 'ask') return text((await server.elicitInput(question)).action);
    if (name === 'add') return text(given.a + given.b);
    const notify = (notification) => (context.sendNotification ?? context.mcpReq.notify)(notification);
    // 2.x takes `_meta` out of the parameters.
    const progressToken = (_meta ?? context.mcpReq?._meta)?.progressToken;
    for (const [at] of given.numbers.entries()) {
      const progress = { progressToken, progress: at + 1, total: given.numbers.length };
      if (progressToken !== undefined) await notify({ method: 'notifications/progress', params: progress });
    }
    return text(given.numbers.reduce((a, b) => a + b, 0));
  };
  server.setRequestHandler(types ? types.ListToolsRequestSchema : 'tools/list', () => ({ tools }));
  server.setRequestHandler(types ? types.CallToolRequestSchema : 'tools/call', call);
  server.onerror = (error) => console.error(error.message);
  server.connect(new WebSocketServerTransport(socket));
}

const listener = new WebSocketServer({ host: '127.0.0.1', port: 0 });
listener.on('connection', serve);
await once(listener, 'listening');
console.log(`listening on ws://127.0.0.1:${listener.address().port}/`);
