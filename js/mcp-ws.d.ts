/** A message of JSON-RPC 2.0: a request, a notification or a response. */
export type Message = object;

/** A token, or a function that is asked for one at each attempt. */
export type TokenSource = string | (() => string | Promise<string>);

/** An address (ws:// or wss://), or a function that is asked for one at each attempt, with the failures so far. */
export type Address = string | URL | ((failures: number) => string | URL | Promise<string | URL>);

/** A constructor of WebSockets, such as the global one or that of the package `ws`. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type WebSocketConstructor = new (url: string, protocols?: string[]) => any;

/** The waits before a lost connection is made again, in milliseconds. */
export interface ReconnectPolicy {
  /** Upper bound of the first wait, and lower bound of the later ones. Default: 1000. */
  first?: number;
  /** Upper bound of the first wait after the server has announced that it restarts or is full. Default: 10000. */
  afterRestart?: number;
  /** By how much the random part of each further wait grows. Default: 1.5. */
  factor?: number;
  /** The longest wait. Default: 30000. */
  max?: number;
  /** The time that a connection which answers nothing has to last for the next wait to be a first one. Default: 60000. */
  stable?: number;
  /**
   * The most attempts to reconnect since the last connection that worked, after which the transport closes; 0 for none.
   * A connection has worked when the server has executed a request on it besides `initialize`, or when it has lasted for
   * `stable`; one that has not counts as an attempt that failed. The first connection counts as none.
   * Default: Infinity.
   */
  attempts?: number;
}

/** A form in which messages are written on the wire. */
export interface Framing {
  /** The subprotocols to be offered. */
  readonly protocols: readonly string[];
  /** `true` if a connection begins with `initialize`. */
  readonly hasHandshake: boolean;
  /** Returns what is written as JSON for a message. */
  encode(message: Message): object;
  /** Returns the message that was read as JSON; `undefined` for what is none. */
  decode(value: unknown): Message | undefined;
  /** Returns a ping. */
  ping(id: number): object;
}

/** What a transport needs to know. What is undefined has its default; a number below 0, or NaN, is a `RangeError`. */
export interface TransportOptions {
  /** Default: `globalThis.WebSocket`, which Node has from 22 on. Without one, the constructor throws. */
  WebSocket?: WebSocketConstructor;
  /** Asks by HTTP why a server does not upgrade. Default: `globalThis.fetch`. */
  fetch?: typeof fetch;
  /** Goes out as a subprotocol, in base64url where it has characters that no subprotocol may have. Default: none. */
  token?: TokenSource;
  /** Shows the token within the connection, by the request `authenticate`, and not before it. Default: false. */
  inBand?: boolean;
  /** The subprotocols to be offered, without that of sessions and of the token. Default: those of the framing. */
  protocols?: string[];
  /** Offers `mcp.resume.v1`. Default: true. */
  resume?: boolean;
  /** Default: `jsonRpc`. */
  framing?: Framing;
  reconnect?: ReconnectPolicy;
  /** Goes on if the first attempt fails. Default: false. */
  retryFirst?: boolean;
  /** The most bytes that wait to be sent. Default: 16 MiB. */
  queueBytes?: number;
  /** The longest time for an attempt, in milliseconds; `Infinity` for any. Default: 20000. */
  connectTimeout?: number;
  /** The longest time for the answer to `initialize`, in milliseconds; `Infinity` for any. Default: 60000. */
  initializeTimeout?: number;
  /** Milliseconds without a message after which the server is pinged; `Infinity` for never. Default: 15000. */
  heartbeat?: number;
  /** Milliseconds after a ping without a message, after which the connection is lost; `Infinity` for never. Default: 10000. */
  pongTimeout?: number;
}

export type State = 'closed' | 'connecting' | 'open' | 'waiting';

export interface StateChange {
  state: State;
  /** When open: `true` if the session of the former connection goes on. */
  isResumed?: boolean;
  /** After a loss: the close code, its name, the reason, and the milliseconds to wait; `null` if it is for good. */
  code?: number;
  codeName?: string;
  reason?: string;
  retryIn?: number | null;
}

export interface WireMessage {
  direction: 'in' | 'out';
  text?: string;
  /** The parsed text, if it is JSON. */
  message?: unknown;
  /** `true` if it is the transport's own: a ping, a control frame, a repeated `initialize`. */
  isOwn: boolean;
}

/**
 * The `Transport` of the TypeScript SDK, 1.x and 2.x, over WebSockets. It outlives its connections: it reconnects, and
 * resumes its session where the server speaks `mcp.resume.v1`. Where the session is gone it repeats `initialize`, and
 * each request that was sent and has no answer ends with an error of code -32000, whose `data.reason` is `not_sent` or
 * `outcome_unknown`. Each request ends exactly once.
 */
export declare class WebSocketTransport {
  constructor(url: Address, options?: TransportOptions);
  /** Called with each message. The ids and progress tokens of a later server's requests differ from those on the wire. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  onmessage?: (message: any, extra?: any) => void;
  onclose?: () => void;
  onerror?: (error: Error) => void;
  onstate?: (change: StateChange) => void;
  onwire?: (message: WireMessage) => void;
  readonly state: State;
  /** `true` if a lost connection costs nothing: the server speaks `mcp.resume.v1`. */
  readonly isResumable: boolean;
  /** Connects; rejects with a `ConnectionError` if the first attempt fails, unless `retryFirst` says otherwise. */
  start(): Promise<void>;
  /**
   * Sends a message, or has it wait for a connection. Rejects with an `McpError` if this message cannot be sent. One that
   * waits and is no request is dropped where the next connection begins another session.
   */
  send(message: Message, options?: object): Promise<void>;
  /** Ends a request, whose answer is dropped if it still comes. */
  forget(id: string | number): 'not_sent' | 'outcome_unknown';
  /** Makes the next attempt at once, where one is waited for. */
  reconnect(): void;
  /** Closes for good, and ends each request that has no answer; with an error, because of that. */
  close(error?: Error): Promise<void>;
}

// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Handler = (params: any, extra: { signal: AbortSignal }) => unknown;

export interface SocketOptions extends Omit<TransportOptions, 'retryFirst'> {
  clientInfo?: { name: string; version: string; title?: string };
  /** The capabilities that the server may use, such as `{ sampling: {}, roots: {} }`. */
  capabilities?: object;
  /**
   * Answers to requests of the server, by method. What they throw is an error for it, and so is what cannot be sent, such
   * as a BigInt. `ping` is answered anyway.
   */
  handlers?: Record<string, Handler>;
  /** The longest time for a call, in milliseconds; `Infinity` for any. Default: 30000. */
  deadline?: number;
}

export interface Progress {
  progress: number;
  total?: number;
  message?: string;
}

export interface RequestOptions {
  /** The longest time for this call, in milliseconds; `Infinity` for any. */
  deadline?: number;
  /** Gives the call up, and has the server cancel it. */
  signal?: AbortSignal;
  onprogress?: (progress: Progress) => void;
}

export interface SocketEvents {
  state: Event & StateChange;
  message: Event & WireMessage & { text: string };
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  notification: Event & { method: string; params?: any };
}

/** A client of MCP over a WebSocket that comes back by itself. */
export declare class McpSocket extends EventTarget {
  constructor(url: Address, options?: SocketOptions);
  readonly state: State;
  /** The server's answer to `initialize`, while there is one. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  readonly server?: any;
  /** Connects, and comes back until `close`, or until the server ends it for good. */
  connect(): void;
  /** Makes the next attempt at once, where one is waited for. */
  reconnect(): void;
  close(): void;
  /** Returns the result of a method, or throws an `McpError`. Without a connection, it waits for the next one. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  request(method: string, params?: object, options?: RequestOptions): Promise<any>;
  /** Sends a notification. One that waits is dropped where the next connection begins another session. */
  notify(method: string, params?: object): Promise<void>;
  /** Returns a tool's structured content; where it has none, its list of contents. Throws if the tool failed. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  callTool(name: string, args?: object, options?: RequestOptions): Promise<any>;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  listTools(options?: RequestOptions): Promise<any[]>;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  listPrompts(options?: RequestOptions): Promise<any[]>;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  listResources(options?: RequestOptions): Promise<any[]>;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  listResourceTemplates(options?: RequestOptions): Promise<any[]>;
  addEventListener<K extends keyof SocketEvents>(type: K, listener: (event: SocketEvents[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
}

/** The error of a request or a message. */
export declare class McpError extends Error {
  /** `refused` (by an answer), `not_sent`, `outcome_unknown` or `unreadable` (an answer came). */
  readonly reason: 'refused' | 'not_sent' | 'outcome_unknown' | 'unreadable';
  readonly code?: number;
  readonly data?: unknown;
}

/** The error of a connection that was not made or has ended. */
export declare class ConnectionError extends Error {
  /** The close code that says the same. */
  readonly code: number;
  /** `true` if another attempt cannot help. */
  readonly final: boolean;
}

/** Returns an error after which no further attempt is made: for functions that give an address or a token. */
export declare function final(message: string): ConnectionError;

/** Plain MCP: each text message is one JSON-RPC 2.0 message. */
export declare const jsonRpc: Framing;

/** Envelopes: `{"type":"mcp_request","request":{"method","params"},"requestId","timestamp"}`. */
export declare const envelope: Framing;

/** The names of close codes. */
export declare const CLOSE_CODES: Readonly<Record<number, string>>;

/** Returns whether no further attempt is made after a connection that closed with `code`. */
export declare function isFinal(code: number): boolean;

/** The defaults of a `ReconnectPolicy`. */
export declare const RECONNECT: Readonly<Required<ReconnectPolicy>>;

/** Returns how many milliseconds to wait after a connection that closed with `code`; `null` for ever. */
export declare function retryDelay(code: number, failures: number, policy?: Required<ReconnectPolicy>): number | null;

/** Returns whether a browser can offer `text` as a subprotocol. */
export declare function isSubprotocol(text: string): boolean;

/** Returns the subprotocol that carries a token. */
export declare function authSubprotocol(token: string): string;
