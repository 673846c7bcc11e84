// The TypeScript SDK 1.x over its own transport, in Node or in a browser.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import { ElicitRequestSchema } from '@modelcontextprotocol/sdk/types.js';

import { answer, capabilities, converse } from './conversation.mjs';

await converse(async (url) => {
  const client = new Client({ name: 'typescript', version: '1.0.0' }, { capabilities });
  client.setRequestHandler(ElicitRequestSchema, answer);
  await client.connect(new WebSocketClientTransport(new URL(url)));
  return {
    tools: async () => (await client.listTools()).tools,
    call: (name, args, onprogress) => client.callTool({ name, arguments: args }, undefined, { onprogress }),
  };
});
