/** MCP over a WebSocket that comes back by itself. No dependencies, no build step: take this file.
 *     const server = new McpSocket('wss://example.com/mcp');
 *     server.connect();
 *     const { result } = await server.callTool('add', { a: 5, b: 3 });
 *
 * Events: `state` (`state`: connecting, open, waiting or closed; after a loss `code`, `codeName`, `reason`, and
 * `retryIn` in milliseconds, which is `null` once it is closed for good), `message` (`direction`: in or out; `text`;
 * `message`, the same parsed; pings too) and `notification` (`method`, `params`).
 *
 * It stops by itself where another attempt cannot help: after a close code that is the last word, when the browser
 * does not accept the address or a subprotocol, when a token or `initialize` is refused, and when the server has
 * refused to upgrade three times in a row. */

/** The close codes of RFC 6455 and its registry, and those by which MCP servers say more. */
export const CLOSE_CODES = {
  1000: 'normal closure', 1001: 'going away', 1002: 'protocol error', 1003: 'unsupported data', 1004: 'reserved',
  1005: 'no status received', 1006: 'abnormal closure', 1007: 'invalid payload data', 1008: 'policy violation',
  1009: 'message too big', 1010: 'mandatory extension missing', 1011: 'internal error', 1012: 'service restart',
  1013: 'try again later', 1014: 'bad gateway', 1015: 'TLS handshake failed', 4401: 'not authenticated',
  4403: 'forbidden', 4409: 'taken over by a newer connection', 4410: 'session gone',
};

/** How many milliseconds to wait after a connection that closed with `code`; `null` for ever. The first wait is drawn
 * from up to 1 s (10 s when the server restarts or is full), so that clients which lost it together do not return
 * together. Whoever failed waits at least 1 s, so that all have come once before: by up to 1, 1.5, 2.25, … s more. */
export function retryDelay(code, failures) {
  if ([1000, 4401, 4403, 4409].includes(code)) return null;
  const spread = failures ? 1000 * 1.5 ** (failures - 1) : [1012, 1013].includes(code) ? 10_000 : 1000;
  const least = [1008, 1011].includes(code) ? 5000 : failures ? 1000 : 0;
  return least + Math.random() * Math.min(spread, 30_000 - least);
}

/** Whether a browser can offer `text` as a subprotocol: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110, 5.6.2). */
export const isSubprotocol = (text) => /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(text);

/** An error after which no further attempt is made. */
export const final = (message) => Object.assign(new Error(message), { final: true });

/** The code by which a server refuses a request that it may take on another connection, since it stops. */
const UNAVAILABLE = -32000;

const WHY = {
  401: 'the server asks for a token', 403: 'the server refuses this page, or this token',
  404: 'there is nothing at this address', 410: 'what was at this address is gone',
};

/** Why a call failed. `reason` is what became of it: `refused` (by an answer), `not_sent` or `outcome_unknown`. */
export class McpError extends Error {
  name = 'McpError';
  constructor(reason, message, { code, data } = {}) { Object.assign(super(message), { reason, code, data }); }
}

/** Plain MCP: each text message is one JSON-RPC 2.0 message. */
export const jsonRpc = {
  protocols: ['mcp'],
  request: (id, method, params) => ({ jsonrpc: '2.0', id, method, params }),
  ping: (id) => ({ jsonrpc: '2.0', id, method: 'ping' }),
  hello: (clientInfo) => ['initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo }],
  ready: { jsonrpc: '2.0', method: 'notifications/initialized' },
  read({ id, method, params, result, error }) {
    if (method === undefined || id === undefined) return { id, method, params, result, error };
    const answer = method === 'ping' ? { result: {} } : { error: { code: -32601, message: 'method not found' } };
    return { answer: { jsonrpc: '2.0', id, ...answer } };
  },
};

/** Agents speak in envelopes: `{"type":"mcp_request","request":{"method","params"},"requestId","timestamp"}`. */
const enclose = (type, fields) => ({ type, ...fields, timestamp: new Date().toISOString() });
export const envelope = {
  protocols: [],
  request: (id, method, params) => enclose('mcp_request', { request: { method, params }, requestId: String(id) }),
  ping: () => enclose('ping'),
  read({ type, requestId: id, result, error, payload }) {
    if (type === 'ping') return { answer: enclose('pong') };
    if (type === 'notification') return { method: payload?.method, params: payload?.params };
    return type === 'mcp_response' || type === 'error' ? { id, result, error } : {};
  },
};

export class McpSocket extends EventTarget {
  state = 'closed';
  #url; #options; #socket; #timer; #pulse; #openedAt; #lastId = 0; #pending = new Map();
  #run = 0; // the current attempt: what an earlier one still brings is dropped
  #failures = 0; // since a connection that lasted
  #refusals = 0; // refused upgrades in a row
  #hasOpened = false; // since `connect`
  #online = () => (this.state === 'open' ? this.#pingAfter(0) : this.reconnect());

  /** @param {string | ((failures: number) => string | Promise<string>)} url a function is asked at each attempt; an
   *   error of its with `final: true` is the last word
   * @param {object} options `dialect`, `protocols`, `clientInfo`, `WebSocket`, `fetch`; `token`, which goes out as the
   *   subprotocol `mcp.auth.<token>`, or with `inBand`, whatever characters it has, as the first message; and in
   *   milliseconds `deadline` (of a call), `heartbeat`, `pongTimeout`, `connectTimeout`, `stable` (what makes the next
   *   wait a first one again) */
  constructor(url, options) {
    super();
    this.#url = url;
    const times = { deadline: 30e3, heartbeat: 15e3, pongTimeout: 10e3, connectTimeout: 20e3, stable: 60e3 };
    const about = { dialect: jsonRpc, clientInfo: { name: 'mcp-ws', version: '1' }, token: '', inBand: false };
    const { WebSocket, fetch } = globalThis;
    this.#options = { ...about, ...times, WebSocket, fetch: fetch?.bind(globalThis), ...options };
  }

  /** Connects, and comes back until `close`, or until the server ends it for good. */
  connect() {
    if (this.state !== 'closed') return;
    globalThis.addEventListener?.('online', this.#online);
    this.#failures = this.#refusals = 0;
    this.#hasOpened = false;
    this.#dial();
  }

  /** Makes the next attempt at once. */
  reconnect() { if (this.state === 'waiting') this.#dial(); }
  close() { if (this.state !== 'closed') this.#lost(1000, 'closed by this side'); }

  /** The result of a method, or an `McpError`. Without a connection, it waits for the next one. */
  async request(method, params = {}, { deadline = this.#options.deadline, now = this.state === 'open', shown } = {}) {
    if (this.state === 'closed') throw new McpError('not_sent', 'not connected');
    return new Promise((resolve, reject) => {
      const [id, call] = [++this.#lastId, { resolve, reject, sent: false }];
      const message = this.#options.dialect.request(id, method, params);
      const text = JSON.stringify(message); // at once, since that may fail
      call.send = () => (call.sent = this.#socket?.readyState === 1) && this.#send(message, text, shown);
      call.fail = (why) => this.#take(id).reject(new McpError(call.sent ? 'outcome_unknown' : 'not_sent', why));
      call.timer = setTimeout(call.fail, deadline, `no answer within ${deadline / 1000} s`);
      this.#pending.set(String(id), call);
      if (now) call.send();
    });
  }

  /** A tool's structured content; where it has none, its list of contents. */
  async callTool(name, args = {}, options) {
    const result = await this.request('tools/call', { name, arguments: args }, options);
    if (result.isError) throw new McpError('refused', result.content?.[0]?.text ?? 'the tool failed', { data: result });
    return result.structuredContent ?? result.content;
  }

  async listTools(cursor) {
    const { tools, nextCursor } = await this.request('tools/list', cursor ? { cursor } : {});
    return nextCursor ? [...tools, ...(await this.listTools(nextCursor))] : tools;
  }

  async #dial() {
    const { dialect, clientInfo, connectTimeout, heartbeat, token, inBand } = this.#options;
    const run = ++this.#run;
    const lost = (code, reason, isFinal) => run === this.#run && this.#lost(code, reason, isFinal);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(lost, connectTimeout, 1006, `no connection within ${connectTimeout / 1000} s`);
    this.#become('connecting');
    try {
      const url = typeof this.#url === 'function' ? await this.#url(this.#failures) : this.#url;
      if (run !== this.#run) return;
      const socket = (this.#socket = this.#open(url));
      socket.onmessage = ({ data }) => run === this.#run && this.#receive(data);
      socket.onclose = ({ code, reason }) => {
        if (lost(code, reason) && code === 1006 && !socket.hasOpened) this.#inquire(url, run);
      };
      await new Promise((opened) => (socket.onopen = opened));
      socket.hasOpened = true;
      const first = { deadline: connectTimeout, now: true };
      if (run === this.#run && token && inBand) {
        const refused = ({ reason, message }) => { throw reason === 'refused' ? final(message) : new Error(message); };
        await this.request('authenticate', { token }, { ...first, shown: { method: 'authenticate' } }).catch(refused);
      }
      if (run === this.#run && dialect.hello) {
        const refused = (error) => {
          if (error.reason !== 'refused' || error.code === UNAVAILABLE) throw error;
          throw final(`the server refuses to initialize: ${error.message}`);
        };
        await this.request(...dialect.hello(clientInfo), first).catch(refused);
        this.#send(dialect.ready);
      }
    } catch (error) {
      lost(1006, error.message, error.final);
    }
    if (run !== this.#run) return;
    clearTimeout(this.#timer);
    this.#hasOpened = true;
    this.#refusals = 0;
    this.#openedAt = Date.now();
    this.#pingAfter(heartbeat);
    this.#become('open');
    for (const call of this.#pending.values()) if (!call.sent) call.send();
  }

  #open(url) {
    const { dialect, protocols = dialect.protocols, WebSocket, token, inBand } = this.#options;
    const offers = [...protocols];
    if (token && !inBand) {
      if (!isSubprotocol(token)) throw final('a browser cannot send a token of these characters before the upgrade');
      // Browsers give a connection up for which the server chooses no offer, and nobody chooses a token.
      offers.push(...(offers.length ? [] : ['mcp']), `mcp.auth.${token}`);
    }
    try { return new WebSocket(url, offers); } catch ({ message }) { throw final(message); }
  }

  /** Asks the server by HTTP why it does not upgrade, as far as that can be known: a browser tells a refusal no
   * different from a server that is not there. Some answers mean the same for an upgrade; others only mean that the
   * server is there, which is the last word unless it has let this client in before and may be full. */
  async #inquire(url, run) {
    const { fetch, token, inBand, connectTimeout } = this.#options;
    const here = globalThis.location;
    const http = new URL(url, here?.href);
    http.protocol = http.protocol.replace('ws', 'http');
    const isOwn = http.origin === here?.origin;
    const headers = token && !inBand ? { authorization: `Bearer ${token}` } : {};
    const signal = globalThis.AbortSignal?.timeout?.(connectTimeout);
    const options = { cache: 'no-store', redirect: 'manual', signal, ...(isOwn ? { headers } : { mode: 'no-cors' }) };
    const status = await fetch?.(http, options).then((answer) => answer.status, () => undefined);
    if (this.state !== 'waiting' || this.#run !== run + 1) return; // there has been another attempt since
    if (status === undefined || status >= 500 || [408, 425, 429].includes(status)) this.#refusals = 0;
    else if (++this.#refusals >= 3 && (!this.#hasOpened || WHY[status])) {
      const why = status === 401 && token ? 'the server does not accept this token' : WHY[status];
      const perhaps = token ? 'perhaps the token is wrong' : 'perhaps it asks for a token';
      const orElse = 'or it takes no connection from this page, or not at this address';
      this.#lost(1006, why ?? `the server is there, but opens no WebSocket: ${perhaps}, ${orElse}`, true);
    }
  }

  #lost(code, reason, isFinal = false) {
    this.#run++;
    for (const timer of [this.#timer, this.#pulse]) clearTimeout(timer);
    this.#socket?.close(...(code === 1000 ? [1000] : [])); // whose handshake, on a dead link, nobody waits for
    if (this.state === 'open' && Date.now() - this.#openedAt >= this.#options.stable) this.#failures = 0;
    const name = CLOSE_CODES[code] ?? 'unknown code';
    const retryIn = isFinal ? null : retryDelay(code, this.#failures++);
    const over = retryIn === null;
    for (const call of this.#pending.values()) if (call.sent || over) call.fail(`connection lost: ${reason || name}`);
    if (over) globalThis.removeEventListener?.('online', this.#online);
    else this.#timer = setTimeout(() => this.#dial(), retryIn);
    this.#become(over ? 'closed' : 'waiting', { code, codeName: name, reason, retryIn });
    return !over;
  }

  /** Sends `message`; those who listen get to see `shown` where there is a secret in it. */
  #send(message, text = JSON.stringify(message), shown = message) {
    if (this.#socket.readyState !== 1) return; // its close event is on the way
    this.#socket.send(text);
    this.#emit('message', { direction: 'out', text: shown === message ? text : JSON.stringify(shown), message: shown });
  }

  #receive(text) {
    if (this.state === 'open') this.#pingAfter(this.#options.heartbeat); // whatever arrives shows that the server is alive
    let message;
    try { message = JSON.parse(text); } catch { /* seen by whoever listens to `message` */ }
    this.#emit('message', { direction: 'in', text, message });
    const { id, result, error, method, params, answer } = this.#options.dialect.read(Object(message));
    if (answer) this.#send(answer);
    else if (method) this.#emit('notification', { method, params });
    else if (error) this.#take(id)?.reject(new McpError('refused', error.message ?? 'unnamed error', error));
    else if (result !== undefined) this.#take(id)?.resolve(result);
  }

  #take(id) {
    const call = this.#pending.get(String(id));
    this.#pending.delete(String(id));
    clearTimeout(call?.timer);
    return call;
  }

  /** Pings after so much silence. Browsers cannot send the pings of RFC 6455, so these are messages. */
  #pingAfter(silence) {
    const { dialect, pongTimeout } = this.#options;
    clearTimeout(this.#pulse);
    this.#pulse = setTimeout(() => {
      this.#pulse = setTimeout(() => this.#lost(1006, 'a ping was not answered'), pongTimeout);
      this.#send(dialect.ping(`ping-${++this.#lastId}`));
    }, silence);
  }

  #become(state, detail) { this.#emit('state', { state: (this.state = state), ...detail }); }
  #emit(type, fields) { this.dispatchEvent(Object.assign(new Event(type), fields)); }
}
