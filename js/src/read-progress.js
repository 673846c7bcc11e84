/** The size in bytes up to which no message is too large for a peer. */
const MIN_MESSAGE = 1024;

/** Milliseconds for which a limit is believed that a peer has shown. */
const LEARNED_MS = 3_600_000;

/**
 * What the present peer is known to have read, and which message was too large for one that closes with 1009 without
 * having told its limit. A peer reads in order, up to the first message that is too large: of those that it is not
 * known to have read, it has read neither the largest nor any sent after it.
 */
export class ReadProgress {
  #read = 0; // the number of the last message that was certainly read, as were all before it
  #passed = 0; // the size of the largest of them, as far as known
  #other; // { number, bytes } of the largest later message that is no request without an answer

  /** The size of the largest message that was certainly read, in bytes. */
  get passed() { return this.#passed; }

  /** Notes that the peer has answered the message with this number. */
  onAnswered({ number, bytes }) {
    this.#read = Math.max(this.#read, number);
    this.#passed = Math.max(this.#passed, bytes);
    if (this.#other?.number > this.#read) return;
    this.#passed = Math.max(this.#passed, this.#other?.bytes ?? 0);
    this.#other = undefined;
  }

  /** Notes a message that was sent and is no request without an answer. */
  onSent({ number, bytes }) {
    if (number > this.#read && bytes > this.#passed && !(this.#other?.bytes >= bytes)) this.#other = { number, bytes };
  }

  /** Returns the message that was too large, of `requests` without an answer and what else was sent; else nothing. */
  findTooLarge(requests) {
    const all = [...requests, ...(this.#other ? [this.#other] : [])];
    const read = all.filter(({ number }) => number <= this.#read).map(({ bytes }) => bytes);
    const passed = Math.max(MIN_MESSAGE, this.#passed, ...read);
    const unread = all.filter(({ number, bytes }) => number > this.#read && bytes > passed);
    return unread.sort((a, b) => b.bytes - a.bytes || a.number - b.number)[0];
  }
}

/**
 * The largest message of peers that tell no limit, as they have shown it. It does not bound what has passed before,
 * since another cause may have been taken for the size, unless it is shown twice and nothing larger has passed between.
 */
export class LearnedLimit {
  #bytes = Infinity;
  #until = 0;
  #passed = 0;
  #isDoubted = false;

  /** The largest message that is sent, in bytes. */
  get bytes() { return Math.max(this.#known, this.#passed); }

  get #known() { return Date.now() < this.#until ? this.#bytes : Infinity; }

  /** Notes that a peer has shown to take no more than so many bytes. */
  learn(bytes) {
    const most = Math.max(bytes, MIN_MESSAGE);
    const known = this.#known;
    if (most < known) this.#until = Date.now() + LEARNED_MS;
    this.#bytes = Math.min(known, most);
    if (most >= this.#passed) return;
    if (this.#isDoubted) this.#passed = most;
    this.#isDoubted = !this.#isDoubted;
  }

  /** Notes that a peer has read a message of so many bytes. */
  pass(bytes) {
    this.#passed = Math.max(this.#passed, bytes);
    if (bytes > this.#bytes) this.#isDoubted = false;
  }
}
