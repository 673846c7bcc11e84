/**
 * MCP over WebSockets, for web pages and Node. No dependencies, no build step.
 *
 *     import { McpSocket } from 'mcp-ws-transport';
 *     const server = new McpSocket('wss://example.com/mcp');
 *     server.connect();
 *     const { result } = await server.callTool('add', { a: 5, b: 3 });
 */
export { RECONNECT, retryDelay } from './src/backoff.js';
export { CLOSE_CODES, isFinal } from './src/close-codes.js';
export { ConnectionError, McpError, final } from './src/errors.js';
export { envelope, jsonRpc } from './src/framing.js';
export { McpSocket } from './src/socket.js';
export { authSubprotocol, isSubprotocol } from './src/subprotocol.js';
export { WebSocketTransport } from './src/transport.js';
