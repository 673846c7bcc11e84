/** The forms in which a message of JSON-RPC is written on the wire. */

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Plain MCP: each text message is one JSON-RPC 2.0 message. */
export const jsonRpc = Object.freeze({
  protocols: ['mcp'],
  hasHandshake: true,
  encode: (message) => message,
  ping: (id) => ({ jsonrpc: '2.0', id, method: 'ping' }),

  /** Returns a message, or what stands in for an answer that cannot be read; `undefined` for what is none. */
  decode(value) {
    if (!isObject(value)) return undefined;
    const { id, method, result, error } = value;
    if (typeof method === 'string') return value;
    if (isObject(result)) return value;
    if (isObject(error) && typeof error.message === 'string' && Number.isInteger(error.code)) return value;
    return id === undefined || id === null ? undefined : { jsonrpc: '2.0', id, unreadable: true };
  },
});

const enclose = (type, fields) => ({ type, ...fields, timestamp: new Date().toISOString() });
const number = (id) => (/^\d{1,16}$/.test(id) ? Number(id) : id);

/** Agents speak in envelopes: `{"type":"mcp_request","request":{"method","params"},"requestId","timestamp"}`. */
export const envelope = Object.freeze({
  protocols: [],
  hasHandshake: false,
  ping: () => enclose('ping'),

  encode({ id, method, params, result, error }) {
    if (method !== undefined && id === undefined) {
      const named = method === 'notifications/cancelled' ? { ...params, requestId: String(params.requestId) } : params;
      return enclose('notification', { payload: { method, params: named } });
    }
    if (method !== undefined) return enclose('mcp_request', { request: { method, params }, requestId: String(id) });
    return error ? enclose('error', { error, requestId: id }) : enclose('mcp_response', { result, requestId: id });
  },

  decode(value) {
    const { type, requestId, result, error, payload, request } = Object(value);
    const id = number(requestId);
    const message = (fields) => ({ jsonrpc: '2.0', ...fields });
    if (type === 'ping') return { reply: enclose('pong') };
    if (type === 'notification' && payload?.method) return message({ method: payload.method, params: payload.params });
    if (type === 'mcp_request' && request?.method) return message({ id, ...request });
    if (type === 'mcp_response' && result !== undefined) return message({ id, result });
    if (type === 'error' && error) return message({ id, error: { code: -32603, message: 'unnamed error', ...error } });
    return undefined;
  },
});
