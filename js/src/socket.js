import { McpError, RPC } from './errors.js';
import { withDefaults } from './options.js';
import { Timeout } from './timer.js';
import { WebSocketTransport, checkNumbers } from './transport.js';

const DEFAULTS = { clientInfo: { name: 'mcp-ws', version: '1' }, capabilities: {}, handlers: {}, deadline: 30_000 };

/** The latest version of MCP that has `initialize`. */
const PROTOCOL_VERSION = '2025-11-25';

const FATES = new Set(['not_sent', 'outcome_unknown', 'unreadable']);

/**
 * A client of MCP over a WebSocket that comes back by itself.
 *
 * Events: `state` (`state`: connecting, open, waiting or closed; when open `isResumed`; after a loss `code`, `codeName`,
 * `reason`, and `retryIn` in milliseconds, which is `null` once it is closed for good), `message` (`direction`: in or
 * out; `text`; `message`, the same parsed; `isOwn` for those of the transport itself, such as pings) and `notification`
 * (`method`, `params`).
 */
export class McpSocket extends EventTarget {
  state = 'closed';
  /** The result of `initialize`, in which the server says what it is; `undefined` before it. */
  server;
  #url;
  #options;
  #transport;
  #lastId = 0;
  #calls = new Map(); // id → { resolve, reject, onprogress, timeout, unlisten }

  constructor(url, options = {}) {
    super();
    this.#url = url;
    checkNumbers(options);
    this.#options = withDefaults(DEFAULTS, options);
  }

  /** Connects, and comes back until `close`, or until the server ends it for good. */
  connect() {
    if (this.state !== 'closed') return;
    const transport = (this.#transport = new WebSocketTransport(this.#url, { ...this.#options, retryFirst: true }));
    const running = new Map(); // id of a request of the server → AbortController
    transport.onmessage = (message) => this.#onMessage(message, transport, running);
    transport.onwire = ({ text, message = parsed(text), ...event }) => {
      this.#emit('message', { ...event, text: text ?? JSON.stringify(message), message });
    };
    transport.onstate = (event) => this.#onState(transport, event);
    transport.onclose = () => running.forEach((handler) => handler.abort());
    transport.start().catch(() => {}); // it is told as a state
    if (this.#hasHandshake) this.#initialize(transport);
  }

  /** Makes the next attempt at once. */
  reconnect() { this.#transport?.reconnect(); }

  close() { this.#transport?.close(); }

  /** Returns the result of a method, or throws an `McpError`. Without a connection, it waits for the next one. */
  request(method, params = {}, { deadline = this.#options.deadline, signal, onprogress } = {}) {
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (!this.#transport || this.#transport.state === 'closed') {
      return Promise.reject(new McpError('not_sent', 'not connected'));
    }
    const id = ++this.#lastId;
    const meta = onprogress && { _meta: { ...params._meta, progressToken: id } };
    return new Promise((resolve, reject) => {
      const cancelled = () => this.#cancel(id, signal.reason, 'cancelled by the user');
      const timeout = new Timeout();
      const call = { resolve, reject, onprogress, timeout, unlisten: () => signal?.removeEventListener('abort', cancelled) };
      signal?.addEventListener('abort', cancelled);
      timeout.start(deadline, () => this.#overdue(id, deadline));
      this.#calls.set(id, call);
      const message = { jsonrpc: '2.0', id, method, params: { ...params, ...meta } };
      this.#transport.send(message).catch((error) => this.#take(id)?.reject(error));
    });
  }

  /** Sends a notification. One that waits is dropped where the next connection begins another session. */
  async notify(method, params) {
    if (!this.#transport) throw new McpError('not_sent', 'not connected');
    return this.#transport.send({ jsonrpc: '2.0', method, ...(params && { params }) });
  }

  /** Returns a tool's structured content; where it has none, its list of contents. */
  async callTool(name, args = {}, options) {
    const result = await this.request('tools/call', { name, arguments: args }, options);
    if (result.isError) throw new McpError('refused', result.content?.[0]?.text ?? 'the tool failed', { data: result });
    return result.structuredContent ?? result.content;
  }

  listTools(options) { return this.#list('tools/list', 'tools', options); }
  listPrompts(options) { return this.#list('prompts/list', 'prompts', options); }
  listResources(options) { return this.#list('resources/list', 'resources', options); }
  listResourceTemplates(options) { return this.#list('resources/templates/list', 'resourceTemplates', options); }

  async #list(method, field, options) {
    const items = [];
    const seen = new Set();
    for (let cursor; ; ) {
      const page = await this.request(method, cursor ? { cursor } : {}, options);
      items.push(...(page[field] ?? []));
      cursor = page.nextCursor;
      if (!cursor || seen.has(cursor)) return items; // one that comes again would come for ever
      seen.add(cursor);
    }
  }

  // --- The connection ---------------------------------------------------------------------------

  get #hasHandshake() { return this.#options.framing?.hasHandshake ?? true; }

  /** Waits in the transport for a connection; everything else waits there for the answer. */
  async #initialize(transport) {
    const { capabilities, clientInfo } = this.#options;
    const params = { protocolVersion: PROTOCOL_VERSION, capabilities, clientInfo };
    try {
      const server = await this.request('initialize', params, { deadline: Infinity });
      if (transport !== this.#transport || transport.state === 'closed') return;
      this.server = server;
      await transport.send({ jsonrpc: '2.0', method: 'notifications/initialized' });
      // Where the connection was lost meanwhile, the next one tells when it is open.
      if (transport === this.#transport && transport.state === 'open') this.#become({ state: 'open', isResumed: false });
    } catch (error) {
      transport.close(new Error(`the server refuses to initialize: ${error.message}`));
    }
  }

  #onState(transport, event) {
    if (transport !== this.#transport) return;
    const isInitialized = !this.#hasHandshake || this.server !== undefined;
    if (event.state === 'closed') this.server = undefined;
    if (event.state !== 'open' || isInitialized) this.#become(event);
  }

  #become(event) {
    this.state = event.state;
    this.#emit('state', event);
  }

  // --- Messages ---------------------------------------------------------------------------------

  #onMessage(message, transport, running) {
    const { id, method, params, result, error } = message;
    if (method !== undefined && id !== undefined) this.#serve(message, transport, running);
    else if (method !== undefined) this.#onNotification(method, params, running);
    else if (error) this.#take(id)?.reject(toError(error));
    else this.#take(id)?.resolve(result);
  }

  #onNotification(method, params, running) {
    if (method === 'notifications/progress') this.#calls.get(params?.progressToken)?.onprogress?.(params);
    if (method === 'notifications/cancelled') running.get(params?.requestId)?.abort(new Error(params.reason ?? 'cancelled'));
    this.#emit('notification', { method, params });
  }

  /** Answers a request of the server. */
  async #serve({ id, method, params }, transport, running) {
    const handler = new AbortController();
    running.set(id, handler);
    const answer = await this.#handle(method, params, handler.signal);
    if (running.get(id) === handler) running.delete(id);
    if (handler.signal.aborted) return; // the id may be that of another request by now
    // The transport drops it where nobody waits any more; it fails where nobody is there.
    transport.send({ jsonrpc: '2.0', id, ...answer }).catch(() => {});
  }

  async #handle(method, params, signal) {
    const { handlers } = this.#options;
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined;
    if (!handler && method === 'ping') return { result: {} };
    if (!handler) return { error: { code: RPC.METHOD_NOT_FOUND, message: 'method not found' } };
    try {
      return { result: (await handler(params ?? {}, { signal })) ?? {} };
    } catch (error) {
      const { code, message, data } = Object(error);
      return { error: { code: Number.isInteger(code) ? code : RPC.INTERNAL, message: message ?? 'the handler failed', data } };
    }
  }

  #overdue(id, deadline) {
    const fate = this.#cancel(id, undefined, 'the deadline has passed');
    fate.call?.reject(new McpError(fate.reason, `no answer within ${deadline / 1000} s`));
  }

  /** Gives a call up, and tells the server if it was sent. */
  #cancel(id, error, reason) {
    const call = this.#take(id);
    if (!call) return {};
    const fate = this.#transport.forget(id);
    if (fate !== 'not_sent') this.notify('notifications/cancelled', { requestId: id, reason }).catch(() => {});
    if (error !== undefined) call.reject(error);
    return { call, reason: fate };
  }

  #take(id) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    call?.timeout.stop();
    call?.unlisten();
    return call;
  }

  #emit(type, fields) { this.dispatchEvent(Object.assign(new Event(type), fields)); }
}

function toError({ code, message, data }) {
  const reason = FATES.has(data?.reason) ? data.reason : 'refused';
  return new McpError(reason, message ?? 'unnamed error', { code, data });
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}
