import { RECONNECT } from './backoff.js';
import { endsSession } from './close-codes.js';
import { Dialer } from './dialer.js';
import { ConnectionError, McpError, RPC } from './errors.js';
import { jsonRpc } from './framing.js';
import { Handshake } from './handshake.js';
import { Heartbeat } from './heartbeat.js';
import { Inbox } from './inbox.js';
import { withDefaults } from './options.js';
import { Outbox } from './outbox.js';
import { Overload } from './overload.js';
import { LearnedLimit, ReadProgress } from './read-progress.js';
import { Reconnect } from './reconnect.js';
import { Requests, localError } from './requests.js';
import { byteLength } from './resume-session.js';
import { Timeout } from './timer.js';

/** The most bytes that are handed to a WebSocket and have not left yet; a browser takes any number. */
const MAX_BUFFERED = 1 << 20;

/** Bytes beside `queueBytes` for errors as answers to the peer: it is told, however much waits. */
const ERROR_BYTES = 1 << 20;

/** Milliseconds after which a WebSocket that holds so many is looked at again. */
const LOOK_MS = 20;

/** The most connections on which a request is sent whose servers say that they do not execute it. */
const MAX_SENDS = 5;

const DEFAULTS = {
  framing: jsonRpc,
  token: '',
  inBand: false,
  resume: true,
  retryFirst: false,
  queueBytes: 16 << 20,
  connectTimeout: 20_000,
  initializeTimeout: 60_000,
  heartbeat: 15_000,
  pongTimeout: 10_000,
};

/** Returns whether a server refuses a request for this reason, and has not executed it. */
const isRefused = (error, reason) => error?.code === RPC.CONNECTION && error.data?.reason === reason;
const isStopping = (error) => isRefused(error, 'stopping'); // it would take it on another connection
const isTooMany = (error) => isRefused(error, 'too_many_requests'); // it would take it later
const isExecuted = ({ error }) => !isStopping(error) && !isTooMany(error);

const isRequest = ({ message: { id, method } }) => method !== undefined && id !== undefined;

/** Throws where an option that is a number has another value. */
export function checkNumbers(options) {
  withDefaults(RECONNECT, options.reconnect, 'reconnect.');
  withDefaults(DEFAULTS, options);
}

function complete(options) {
  const { WebSocket = globalThis.WebSocket, fetch = globalThis.fetch } = options;
  if (typeof WebSocket !== 'function') {
    throw new TypeError('there is no global WebSocket (Node has one from 22 on): pass one as the option `WebSocket`, such as that of the package `ws`');
  }
  const reconnect = withDefaults(RECONNECT, options.reconnect, 'reconnect.');
  return { ...withDefaults(DEFAULTS, options), reconnect, WebSocket, fetch: fetch?.bind(globalThis) };
}

/**
 * The `Transport` of the TypeScript SDK, 1.x and 2.x, over WebSockets. It outlives its connections: it reconnects, and
 * resumes its session where the server speaks `mcp.resume.v1`. Where the session is gone it repeats `initialize`, and
 * each request that was sent and has no answer ends with an error. Each request ends exactly once.
 *
 * | state | |
 * |---|---|
 * | closed | before `start`, and for good after `close` or an end that another attempt cannot help |
 * | connecting | an attempt is under way, or a new peer is being initialized |
 * | open | messages go out |
 * | waiting | for the next attempt; requests that are sent meanwhile wait too, and all else waits for the same session |
 */
export class WebSocketTransport {
  /** Called with each message. The ids and progress tokens of a later server's requests differ from those on the wire. */
  onmessage;
  onclose;
  onerror;
  /** Called with `{ state, isResumed, code, codeName, reason, retryIn }` for each new state. */
  onstate;
  /** Called with `{ direction, text, message, isOwn }` for each message on the wire; `isOwn` is the transport's. */
  onwire;

  #state = 'closed';
  #options;
  #reconnect;
  #session; // of `mcp.resume.v1`, on the present or the latest link
  #outbox;
  #inbox = new Inbox();
  #requests = new Requests();
  #handshake = new Handshake();
  #heartbeat;
  #lastOwnId = Number.MAX_SAFE_INTEGER; // some servers know only numbers; the user's count up
  #overload;
  #progress = new ReadProgress();
  #learned = new LearnedLimit();
  #lastNumber = 0; // of the messages that were handed to links
  #stoppingLink; // on which the server takes no further requests
  #repeated; // the id of the `initialize` that is repeated
  #initializeTimeout = new Timeout();
  #timers = {}; // window: until the session is lost; look: at a full WebSocket
  #started;

  constructor(url, options = {}) {
    this.#options = complete(options);
    const { framing, retryFirst, heartbeat, pongTimeout, queueBytes } = this.#options;
    this.#outbox = new Outbox(queueBytes);
    this.#overload = new Overload({ hasWaiting: () => this.#outbox.has(isRequest), flush: () => this.#flush() });
    const onwire = (event) => this.#wire({ isOwn: true, ...event });
    const dialer = new Dialer(url, { ...this.#options, onwire });
    const mayRetry = (hasOpened) => retryFirst || hasOpened;
    this.#reconnect = new Reconnect(dialer, { ...this.#options, mayRetry }, {
      session: () => (this.#session?.isOpen ? this.#session : undefined),
      up: (opened) => this.#onUp(opened),
      down: (end) => this.#onDown(end),
      message: (text, isBinary) => this.#onText(text, isBinary),
      became: (state, end) => this.#became(state, end),
      giveUp: () => (this.#handshake.onLost() ? 'the connection is lost whenever the server is to initialize' : undefined),
      online: () => this.#heartbeat.ping(),
    });
    this.#heartbeat = new Heartbeat({
      interval: heartbeat,
      timeout: pongTimeout,
      ping: () => this.#writeOwn(framing.ping(this.#ownId())),
      onDead: () => this.#reconnect.lose(1006, 'a ping was not answered'),
    });
  }

  get state() { return this.#state; }

  /** `true` if a lost connection costs nothing: the server speaks `mcp.resume.v1`. */
  get isResumable() { return this.#session?.isOpen ?? false; }

  /** Connects; rejects if the first attempt fails, unless `retryFirst` says otherwise. */
  start() {
    if (this.#started) return Promise.reject(new Error('the transport was started before; each is for one client'));
    return new Promise((resolve, reject) => {
      this.#started = { resolve, reject };
      this.#reconnect.start();
    });
  }

  /**
   * Sends a message, or has it wait for a connection. Rejects if this message cannot be sent. One that waits and is no
   * request is dropped where the next connection begins another session.
   */
  async send(told) {
    if (this.#state === 'closed') throw new McpError('not_sent', 'not connected');
    const message = this.#forPeer(told);
    if (!message) return; // whoever waits for it is gone
    const { id, method } = message;
    if (method === undefined) return this.#answer(message);
    const entry = this.#entry(message);
    if (method === 'notifications/cancelled' && this.forget(message.params?.requestId) === 'not_sent') return;
    this.#check(entry);
    if (isRequest(entry)) {
      if (this.#requests.has(id)) throw new McpError('not_sent', `there is a request with the id ${id} already`);
      this.#requests.add(id, entry);
    }
    if (this.#handshake.onQueued(message)) this.#queue(entry);
  }

  /** Ends a request, whose answer is dropped if it still comes. Returns `not_sent` or `outcome_unknown`. */
  forget(id) {
    if (this.#drop(id)) return 'not_sent';
    this.#abandon(id);
    this.#requests.end(id);
    return 'outcome_unknown';
  }

  /** Makes the next attempt at once, where one is waited for. */
  reconnect() { this.#reconnect.retry(); }

  /** Closes the connection, and ends each request that has no answer; with an error, because of that. */
  async close(error) {
    if (error) this.#reconnect.lose(1006, error.message, { isFinal: true });
    else this.#reconnect.lose(1000, 'closed by this side');
  }

  // --- Out --------------------------------------------------------------------------------------

  /** Returns a message with the peer's own id or progress token; `undefined` if those are of a former peer. */
  #forPeer(message) {
    const { method, params } = message;
    if (method === undefined) {
      const id = this.#requests.answer(message.id);
      return id === undefined ? undefined : { ...message, id };
    }
    if (method !== 'notifications/progress') return message;
    const progressToken = this.#requests.token(params?.progressToken);
    return progressToken === undefined ? undefined : { ...message, params: { ...params, progressToken } };
  }

  #entry(message) {
    const shown = this.#options.framing.encode(message);
    const text = JSON.stringify(shown); // at once, since that may fail
    return { message, shown, text, bytes: byteLength(text) };
  }

  #queue(entry) {
    this.#outbox.push(entry);
    this.#flush();
  }

  /** Answers a request of the peer: with an error where the answer cannot be sent, and then throws. */
  #answer(message) {
    let entry;
    try {
      entry = this.#entry(message);
      this.#check(entry);
    } catch (error) {
      const why = error instanceof McpError ? error.message : 'it is no JSON';
      this.#queueError(message.id, { code: RPC.INTERNAL, message: `the answer cannot be sent: ${why}` });
      throw error;
    }
    this.#queue(entry);
  }

  /** Has `notifications/initialized` wait before all others, if the user has sent it before the answer came. */
  #queueInitialized({ isOwn }) {
    const { initialized } = this.#handshake;
    if (initialized) this.#outbox.putBack({ ...this.#entry(initialized), isOwn, turn: 0 });
  }

  /** Has an error wait as the answer to a request of the peer, unless too many do. */
  #queueError(id, error, isOwn = false) {
    const entry = { ...this.#entry({ jsonrpc: '2.0', id, error }), isOwn };
    if (entry.bytes <= this.#maxMessage && this.#outbox.hasRoomFor(entry.bytes, ERROR_BYTES)) this.#queue(entry);
  }

  /** Throws if a message cannot be sent. */
  #check({ message, bytes }) {
    const most = this.#maxMessage;
    if (bytes > most) throw new McpError('not_sent', `${bytes} bytes are more than the ${most} that the server takes`);
    const hasRoom = this.#handshake.isAwaited(message) || this.#outbox.hasRoomFor(bytes);
    if (!hasRoom) throw new McpError('not_sent', 'too much waits to be sent');
  }

  /** The largest message that the server takes, in bytes, as it has told or shown. */
  get #maxMessage() {
    const told = this.#session?.maxMessage ?? Infinity;
    return told < Infinity ? told : this.#learned.bytes;
  }

  /** Takes a request back that was not sent. Returns whether there was one. */
  #drop(id) {
    if (this.#requests.state(id) !== 'waiting') return false;
    this.#outbox.take(({ message }) => message.id === id && message.method !== undefined);
    this.#requests.end(id);
    return true;
  }

  /** Notes that the answer to a sent request is not awaited any more. It may still be the message that is too large. */
  #abandon(id) {
    const entry = this.#requests.entry(id);
    if (entry) this.#progress.onSent(entry);
  }

  #flush() {
    clearTimeout(this.#timers.look);
    const maxRequests = this.#session?.maxRequests ?? Infinity;
    const rules = {
      canSend: () => this.#canWrite && !this.#session?.isFull && !this.#isCongested,
      mustWait: (entry) => this.#handshake.mustWait(entry.message)
        || (isRequest(entry) && (this.#requests.sent >= maxRequests || this.#isRefusing)),
      send: (entry) => this.#sendEntry(entry),
    };
    let before;
    do {
      before = this.#handshake.state;
      this.#outbox.flush(rules);
    } while (this.#handshake.state !== before);
    if (!this.#outbox.isEmpty && this.#isCongested) this.#timers.look = setTimeout(() => this.#flush(), LOOK_MS);
  }

  get #canWrite() { return this.#reconnect.state === 'open' && this.#reconnect.link.isOpen; }
  /** `true` if the server takes no requests now. */
  get #isRefusing() { return this.#stoppingLink === this.#reconnect.link || this.#overload.holdsBack; }
  get #isCongested() { return this.#reconnect.link?.bufferedBytes > MAX_BUFFERED; }

  #sendEntry(entry) {
    const { message, shown, text, bytes, isOwn } = entry;
    if (isRequest(entry) && bytes > this.#maxMessage) {
      return this.#end(message.id, 'not_sent', 'the message is larger than the server takes');
    }
    entry.number = ++this.#lastNumber;
    if (isRequest(entry)) {
      this.#requests.setSent(message.id);
      this.#overload.onSent();
    } else this.#progress.onSent(entry);
    this.#handshake.onSent(message);
    if (message.method === 'initialize') this.#awaitInitialize();
    this.#write(text, { message: shown, isOwn });
  }

  /** Returns whether a message of the transport's own could be written. */
  #writeOwn(message) {
    const canWrite = this.#canWrite && !this.#session?.isFull;
    if (canWrite) this.#write(JSON.stringify(message), { message, isOwn: true });
    return canWrite;
  }

  #write(text, { message, isOwn = false }) {
    if (this.#session) return this.#session.send(text, isOwn); // which tells what goes over the wire
    this.#reconnect.link.send(text);
    this.#wire({ direction: 'out', text, message, isOwn });
  }

  #ownId() { return this.#lastOwnId--; }

  // --- In ---------------------------------------------------------------------------------------

  #onText(text, isBinary) {
    this.#heartbeat.arrived();
    try {
      if (this.#session && !this.#session.receive(text, isBinary)) {
        this.#wire({ direction: 'in', text, isOwn: true });
        return this.#flush(); // an acknowledgement makes room
      }
    } catch (violation) {
      this.#report(violation);
      return this.#reconnect.lose(1002, violation.message);
    }
    this.#onData(text);
    this.#flush();
  }

  #onData(text) {
    let value;
    try { value = JSON.parse(text.replace(/^\ufeff/, '')); } catch { /* reported below */ }
    let message;
    let failure;
    try { message = this.#options.framing.decode(value); } catch (error) { failure = error; }
    const isOwn = message?.method === undefined && this.#isOwn(message?.id);
    this.#wire({ direction: 'in', text, message: value, isOwn });
    if (failure) return this.#report(failure);
    if (message?.reply) return this.#writeOwn(message.reply);
    if (isOwn) return this.#onOwnAnswer(message);
    if (!message) return this.#isExpected(value) ? undefined : this.#report(new Error('a message cannot be read'));
    if (message.method === undefined) return this.#onAnswer(message);
    if (message.id !== undefined) this.#onRequest(message);
    else this.#deliver(message.method === 'notifications/cancelled' ? this.#requests.cancel(message) : message);
  }

  #onRequest(message) {
    const taken = this.#requests.accept(message);
    if (taken) this.#deliver(taken);
    else this.#refuse(message.id);
  }

  #onAnswer(message) {
    if (this.#requests.state(message.id) !== 'sent') return; // it has ended, or the server makes it up
    this.#progress.onAnswered(this.#requests.entry(message.id));
    if (isStopping(message.error) && this.#onStopping(message)) return;
    if (isTooMany(message.error) && this.#overload.onRefused()) return this.#putBack(message.id);
    this.#overload.onAnswered();
    this.#requests.end(message.id);
    if (this.#handshake.onAnswer(message)) {
      this.#initializeTimeout.stop();
      if (this.#handshake.state === 'answered') this.#queueInitialized({ isOwn: false });
    } else if (isExecuted(message)) this.#reconnect.setWorks();
    const unreadable = () => localError(message.id, 'unreadable', 'the answer cannot be read', RPC.PARSE);
    this.#deliver(message.unreadable ? unreadable() : message);
  }

  /**
   * Has a request that a stopping server did not execute wait for the next connection, and all others with it. Returns
   * `false` if the refusal is to be passed on.
   */
  #onStopping({ id, error }) {
    const isInitialize = this.#handshake.isRefusal({ id, error });
    if (!isInitialize && !this.#mayMove(id)) return false;
    this.#stoppingLink = this.#reconnect.link;
    this.#putBack(id);
    if (isInitialize) this.#reconnect.lose(1012, error.message);
    return true;
  }

  /** Returns whether a request that was sent, and not executed, may go to one more connection. */
  #mayMove(id) {
    const entry = this.#requests.entry(id);
    entry.sends = (entry.sends ?? 0) + 1;
    return entry.sends < MAX_SENDS;
  }

  /** Has a request that was sent, and not executed, wait anew. */
  #putBack(id) {
    const entry = this.#requests.wait(id);
    if (entry.message.method === 'initialize') this.#initializeTimeout.stop();
    this.#outbox.putBack(entry);
  }

  /** Refuses a request: one too many, which may come again, or one whose id is in flight already. */
  #refuse(id) {
    const error = this.#requests.isInFlight(id)
      ? { code: RPC.INVALID_REQUEST, message: 'a request with this id is already in flight' }
      : { code: RPC.CONNECTION, message: 'too many requests', data: { reason: 'too_many_requests' } };
    this.#queueError(id, error, true);
  }

  #isOwn(id) { return typeof id === 'number' && id > this.#lastOwnId; }

  /** Returns whether what is no message is still part of a framing, as a pong is. */
  #isExpected(value) { return value?.type === 'pong'; }

  #onOwnAnswer({ id, error }) {
    if (id !== this.#repeated) return; // a ping
    this.#repeated = undefined;
    this.#initializeTimeout.stop();
    if (isStopping(error) || isTooMany(error)) return this.#reconnect.lose(1012, error.message);
    if (error) return this.close(new Error(`the server refuses to initialize: ${error.message}`));
    this.#handshake.onRepeated();
    this.#queueInitialized({ isOwn: true });
    this.#became('open', { isResumed: false });
    this.#flush();
  }

  #deliver(message) { this.#inbox.push(() => this.#tell('onmessage', message)); }

  #wire(event) { this.#tell('onwire', event); }

  /** Calls back the user, whose errors break nothing here. */
  #tell(callback, detail) {
    try { this[callback]?.(detail); } catch (error) { this.#report(error); }
  }

  #report(error) {
    try { this.onerror?.(error); } catch { /* of whoever is told about errors */ }
  }

  // --- Links and sessions -----------------------------------------------------------------------

  #onUp({ isFirst, session, isResumed }) {
    clearTimeout(this.#timers.window);
    this.#timers.window = undefined;
    this.#session = session;
    if (!isResumed) {
      this.#progress = new ReadProgress();
      this.#repeated = undefined;
    }
    this.#overload.onUp(isResumed);
    this.#heartbeat.start();
    if (isResumed) session.acknowledge(); // so that the secret which was shown is spent
    else if (!isFirst) this.#onPeerLost('the server has forgotten the session');
    if (this.#reconnect.state !== 'open') return; // whoever was told of that has closed
    if (isResumed ? this.#handshake.state === 'repeating' : this.#handshake.mustRepeat) return this.#repeatHandshake();
    if (isResumed && this.#isInitializing) this.#awaitInitialize();
    this.#became('open', { isResumed });
    this.#started.resolve();
    this.#flush();
  }

  /** Ends what the former peer was asked, and what it has asked for. */
  #onPeerLost(why) {
    const lost = this.#requests.lost();
    this.#outbox.take((entry) => !isRequest(entry));
    for (const entry of this.#requests.again()) this.#outbox.putBack(entry);
    for (const id of lost) this.#end(id, 'outcome_unknown', why);
    for (const requestId of this.#requests.dropInbound()) {
      const params = { requestId, reason: why };
      this.#deliver({ jsonrpc: '2.0', method: 'notifications/cancelled', params });
    }
  }

  /** Sends `initialize` to a new peer, unless that was done on an earlier link of its session. */
  #repeatHandshake() {
    this.#awaitInitialize();
    if (this.#repeated === undefined) {
      const id = this.#ownId();
      const request = this.#options.framing.encode(this.#handshake.repeat(id));
      if (this.#writeOwn(request)) this.#repeated = id;
    }
  }

  /** `true` if the user's `initialize` was sent and has no answer. */
  get #isInitializing() {
    return this.#handshake.state === 'asked' && this.#requests.state(this.#handshake.id) === 'sent';
  }

  /** Gives a connection up on which the server does not initialize. */
  #awaitInitialize() {
    const { initializeTimeout } = this.#options;
    const lose = () => this.#reconnect.lose(1006, `the server does not initialize within ${initializeTimeout / 1000} s`);
    this.#initializeTimeout.start(initializeTimeout, lose);
  }

  #onDown({ code, reason, codeName, retryIn }) {
    clearTimeout(this.#timers.look);
    this.#initializeTimeout.stop();
    this.#heartbeat.stop();
    this.#overload.onDown();
    this.#session?.detach();
    if (endsSession(code)) this.#session?.forget();
    const why = `connection lost: ${reason || codeName}`;
    this.#learned.pass(this.#progress.passed);
    if (code === 1009) this.#onTooLarge();
    if (retryIn === null) return this.#endAll(why);
    if (this.isResumable) this.#timers.window ??= setTimeout(() => this.#onWindowOver(), this.#session.window);
    else if (this.#reconnect.hasOpened) this.#onPeerLost(why);
  }

  /** Ends the message for which the server has closed the connection. What was sent after it was not read. */
  #onTooLarge() {
    const inFlight = this.#requests.inFlight();
    const { id, number, bytes } = this.#progress.findTooLarge(inFlight) ?? {};
    if (number === undefined) return;
    this.#learned.learn(bytes - 1);
    for (const later of inFlight.filter((request) => request.number > number)) {
      if (this.#mayMove(later.id)) this.#putBack(later.id);
      else this.#end(later.id, 'not_sent', `connections were closed (1009) before it was read, ${MAX_SENDS} times`);
    }
    if (id === undefined || this.#requests.entry(id).message.method === 'initialize') return;
    this.#end(id, 'not_sent', `a message of ${bytes} bytes is larger than the server takes, which has closed the connection for it (1009)`);
  }

  /** Takes a session for lost that the server no longer keeps. It may be resumed all the same. */
  #onWindowOver() {
    for (const id of this.#requests.lost()) {
      this.#abandon(id);
      this.#end(id, 'outcome_unknown', 'connection lost for longer than the session is kept');
    }
  }

  #endAll(why) {
    clearTimeout(this.#timers.window);
    this.#outbox.take(() => true);
    this.#session?.forget();
    for (const [id, state] of this.#requests.all()) {
      this.#end(id, state === 'sent' ? 'outcome_unknown' : 'not_sent', why);
    }
  }

  /** Ends a request with an error, in place of an answer. */
  #end(id, reason, why) {
    if (this.#requests.end(id)) this.#deliver(localError(id, reason, why));
  }

  #became(state, detail) {
    if (state === this.#state && state === 'closed') return;
    this.#state = state;
    this.#tell('onstate', { state, ...detail });
    if (state !== 'closed') return;
    const { code, reason, codeName } = detail;
    const error = new ConnectionError(reason || codeName, { code, final: true });
    if (!this.#reconnect.hasOpened) this.#started.reject(error);
    else if (code !== 1000) this.#report(error);
    this.#inbox.push(() => this.#tell('onclose'));
  }
}
