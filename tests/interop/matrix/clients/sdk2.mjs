// The TypeScript SDK 2.x over npm's mcp-websocket-transport, or over the package in `js/`.
//
//     node sdk2.mjs MATH ASKS mcp-websocket-transport|mcp-ws-transport [2026-07-28]

import { Client } from '@modelcontextprotocol/client';

import { addresses, answer, capabilities, converse, Socket } from './conversation.mjs';

const [, asks, name, version] = addresses;
const { WebSocketClientTransport, WebSocketTransport } = await import(name);
const over = (url) => WebSocketTransport
  ? new WebSocketTransport(url, { WebSocket: Socket })
  : new WebSocketClientTransport(url, { WebSocket: Socket, protocols: 'mcp' });

await converse(async (url) => {
  // The server that asks knows `initialize` alone, as every server does that sends requests.
  const newer = version && url !== asks && {
    supportedProtocolVersions: [version, '2025-11-25'],
    versionNegotiation: { mode: 'auto' },
  };
  const client = new Client({ name: 'typescript', version: '2.0.0' }, { capabilities, ...newer });
  client.setRequestHandler('elicitation/create', answer);
  await client.connect(over(url));
  return {
    tools: async () => (await client.listTools()).tools,
    call: (name, args, onprogress) => client.callTool({ name, arguments: args }, { onprogress }),
  };
});
