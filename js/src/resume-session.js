import { Violation, ack, isControl, open, parse } from './resume-frame.js';

/** The messages, bytes and milliseconds after which what has arrived is acknowledged (section 4). */
const ACK_MESSAGES = 64;
const ACK_BYTES = 64 << 10;
const ACK_MS = 1000;

/** The longest time for which a session without a link is not taken for lost, in milliseconds. */
const MAX_WINDOW = 3_600_000;

/** The bytes that a message counts beside its payload (section 5). */
const OVERHEAD = 64;

/** Returns the size of a message in bytes of UTF-8; it is the same as its length for what is ASCII. */
export const byteLength = (text) => new TextEncoder().encode(text).length;

/**
 * The client's half of a session of `mcp.resume.v1`: what it keeps, counts and acknowledges. It has a link, or none.
 *
 * | | `attach` | `receive` | `send` | `detach` |
 * |---|---|---|---|---|
 * | no link | writes what the peer lacks | drops | keeps | |
 * | a link | | counts, acknowledges | keeps and writes | stops its timer |
 */
export class ResumeSession {
  /** The id, secret and limits of the last `@session`; none before the first. */
  #session;
  #windowBytes;
  #write; // none without a link
  #kept = []; // messages after number `#acked`, with their sizes
  #keptBytes = 0;
  #acked = 0;
  #received = 0;
  #unacknowledged = { messages: 0, bytes: 0, timer: undefined };

  constructor({ windowBytes = 1 << 20 } = {}) {
    this.#windowBytes = windowBytes;
  }

  /** `true` if there is a session to be resumed. */
  get isOpen() { return this.#session !== undefined; }

  /** The time for which the server keeps the session without a link, in milliseconds: an hour at most (section 5). */
  get window() { return Math.min((this.#session?.window_s ?? 0) * 1000, MAX_WINDOW); }

  /** The largest message that the server takes, in bytes. */
  get maxMessage() {
    const most = this.#session?.max_message;
    return most ? Math.max(most, 1024) : Infinity;
  }

  /** The most requests that the server takes and has not answered yet. */
  get maxRequests() { return this.#session?.max_inbound || Infinity; }

  /** `true` if there is no room for another message before the peer acknowledges some. */
  get isFull() { return this.#keptBytes >= this.#windowBytes; }

  /** The first message on a link. The count in it is frozen: nothing may be received from an older link any more. */
  get openFrame() {
    this.detach();
    const { session, secret } = this.#session ?? {};
    return open(session === undefined ? {} : { session, secret, received: this.#received });
  }

  /**
   * Takes the answer to `openFrame` and a way to write to the new link. Writes again what the peer has not received,
   * unless the peer has begun a new session: then everything of the former one is forgotten. Returns whether it was
   * resumed.
   */
  attach(text, write) {
    const { session } = isControl(text) ? parse(text) : {};
    if (!session) throw new Violation('resume: the first message is not `@session`');
    if (session.resumed && !this.isOpen) throw new Violation('resume: nothing was to be resumed');
    if (!session.resumed) this.forget();
    this.#session = session;
    this.#write = write;
    this.#onAck(session.received);
    for (const { text, isOwn } of this.#kept) write(text, isOwn);
    return session.resumed;
  }

  /** Forgets the link: what still arrives there is dropped. */
  detach() {
    this.#write = undefined;
    this.#acknowledged();
  }

  /** Forgets the session. */
  forget() {
    this.detach();
    this.#session = undefined;
    this.#kept = [];
    this.#keptBytes = this.#acked = this.#received = 0;
  }

  /** Sends a data message, and keeps it until it is acknowledged, with whether it is the transport's own. */
  send(text, isOwn = false) {
    const bytes = byteLength(text) + OVERHEAD;
    this.#kept.push({ text, bytes, isOwn });
    this.#keptBytes += bytes;
    this.#write?.(text, isOwn);
  }

  /** Returns whether what arrived is a data message, which is counted and has to be passed on. */
  receive(text, isBinary = false) {
    if (!this.#write) return false;
    if (isBinary || !isControl(text)) {
      this.#count(text);
      return true;
    }
    const frame = parse(text);
    if (frame.ack === undefined) throw new Violation('resume: a frame of the opening comes too late');
    this.#onAck(frame.ack);
    return false;
  }

  /** Acknowledges what has arrived. */
  acknowledge() {
    this.#acknowledged();
    this.#write?.(ack(this.#received));
  }

  #count(text) {
    this.#received++;
    const open = this.#unacknowledged;
    open.messages++;
    open.bytes += byteLength(text);
    if (open.messages >= ACK_MESSAGES || open.bytes >= ACK_BYTES) this.acknowledge();
    else open.timer ??= setTimeout(() => this.acknowledge(), ACK_MS);
  }

  #acknowledged() {
    clearTimeout(this.#unacknowledged.timer);
    this.#unacknowledged = { messages: 0, bytes: 0, timer: undefined };
  }

  #onAck(number) {
    const count = number - this.#acked;
    if (count < 0) throw new Violation('resume: an acknowledgement goes back');
    if (count > this.#kept.length) throw new Violation('resume: what was not sent is acknowledged');
    for (const { bytes } of this.#kept.splice(0, count)) this.#keptBytes -= bytes;
    this.#acked = number;
  }
}
