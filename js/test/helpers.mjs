// Transports over the WebSockets of the tests' own, and what goes over them.

import { WebSocketTransport } from '../mcp-ws.js';
import { FakeWebSocket, pass, settle, sockets } from './fakes.mjs';

export const RESUME = 'mcp.resume.v1';
const away = async () => Promise.reject(new TypeError('Failed to fetch'));

export function transport(options) {
  const made = new WebSocketTransport('ws://test/', { WebSocket: FakeWebSocket, fetch: away, ...options });
  const got = { messages: [], errors: [], states: [], closed: 0 };
  made.onmessage = (message) => got.messages.push(message);
  made.onerror = (error) => got.errors.push(error.message);
  made.onstate = ({ state }) => got.states.push(state);
  made.onclose = () => got.closed++;
  return [made, got];
}

export const session = (fields) => {
  const all = { session: 's', secret: 'one', received: 0, resumed: false, window_s: 120, window_bytes: 1 << 20, ...fields };
  return `@session ${JSON.stringify(all)}`;
};
export const request = (id, method = 'tools/call') => ({ jsonrpc: '2.0', id, method, params: {} });
export const answer = (id, result = {}) => ({ jsonrpc: '2.0', id, result });
export const notification = (method, params) => ({ jsonrpc: '2.0', method, params });
export const reasons = ({ messages }) => messages.filter(({ error }) => error).map(({ id, error }) => [id, error.data.reason]);

/** A transport whose first link is open, with a session unless `plain`. */
export async function started({ plain = false, fields, ...options } = {}) {
  const [made, got] = transport(options);
  const start = made.start();
  await settle();
  await sockets[0].open(plain ? 'mcp' : RESUME);
  if (!plain) await sockets[0].receive(session(fields));
  await start;
  return [made, got, sockets[0]];
}

/** The next link, on which a session is resumed. */
export async function resumed(fields) {
  await pass(1000);
  const socket = sockets.at(-1);
  await socket.open(RESUME);
  await socket.receive(session({ resumed: true, ...fields }));
  return socket;
}

export async function initialized(made, socket) {
  await made.send(request(0, 'initialize'));
  await socket.receive(answer(0, { serverInfo: {} }));
  await made.send(notification('notifications/initialized'));
  socket.sent.length = 0;
}
