// WebSockets that reconnect by themselves, and know nothing of MCP: PartySocket and reconnecting-websocket.
//
//     node socket.mjs MATH ASKS partysocket/ws|reconnecting-websocket
//
// The messages are written as the migration guide says: `initialize` once, with the session's id in the URL.

import { addresses, answer, capabilities, converse, Socket } from './conversation.mjs';

const { default: imported } = await import(addresses[2]);
const Reconnecting = imported.default ?? imported;

await converse(async (url) => {
  const address = new URL(url);
  address.searchParams.set('mcp_session_id', crypto.randomUUID());
  const socket = new Reconnecting(address.href, ['mcp'], { WebSocket: Socket });
  const waiting = new Map();
  const send = (message) => socket.send(JSON.stringify({ jsonrpc: '2.0', ...message }));
  const request = (method, params, onprogress) => new Promise((resolve, reject) => {
    const id = waiting.size + 1;
    waiting.set(id, { resolve, reject, onprogress });
    send({ id, method, params });
  });
  socket.addEventListener('message', ({ data }) => {
    const { id, method, params, result, error } = JSON.parse(data);
    if (method === 'notifications/progress') waiting.get(params.progressToken)?.onprogress(params);
    else if (method === 'elicitation/create') send({ id, result: answer() });
    else if (error) waiting.get(id)?.reject(new Error(error.message));
    else waiting.get(id)?.resolve(result);
  });
  const clientInfo = { name: addresses[2], version: '1.0.0' };
  await request('initialize', { protocolVersion: '2025-11-25', capabilities, clientInfo });
  send({ method: 'notifications/initialized' });
  return {
    tools: async () => (await request('tools/list', {})).tools,
    call(name, args, onprogress) {
      const params = { name, arguments: args };
      if (onprogress) params._meta = { progressToken: waiting.size + 1 };
      return request('tools/call', params, onprogress);
    },
  };
});
