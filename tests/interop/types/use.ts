// What the declarations of the package `js/` have to fit. Compiled, not run.

import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import type { Transport as Transport1 } from '@modelcontextprotocol/sdk/shared/transport.js';
import { Client as Client2, type Transport as Transport2 } from '@modelcontextprotocol/client';

import { McpError, McpSocket, WebSocketTransport } from '../../../js/mcp-ws.js';

declare const WebSocket: new (url: string, protocols?: string[]) => object;
const transport = new WebSocketTransport('ws://localhost/mcp', { WebSocket, token: async () => 'token' });
export const transports: [Transport1, Transport2] = [transport, transport];
export const clients = async () => {
  await new Client1({ name: 'one', version: '1' }).connect(transport);
  await new Client2({ name: 'two', version: '2' }).connect(transport);
};

const server = new McpSocket(new URL('ws://localhost/mcp'), {
  handlers: { 'roots/list': (params, { signal }) => ({ roots: [], aborted: signal.aborted }) },
  reconnect: { first: 0 },
});
server.addEventListener('state', ({ state, retryIn }) => console.log(state === 'waiting' ? retryIn : state));
server.addEventListener('notification', ({ method }) => console.log(method));
export const result = server.callTool('add', { a: 5, b: 3 }, { signal: AbortSignal.timeout(5), onprogress: ({ total }) => total });
result.catch((error: unknown) => error instanceof McpError && error.reason === 'outcome_unknown');
// @ts-expect-error: there is no such option
new McpSocket('ws://localhost/mcp', { tokens: 'one' });
