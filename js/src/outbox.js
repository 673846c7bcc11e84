/** Messages that wait to be sent, in order and bounded in bytes. */
export class Outbox {
  #entries = [];
  #bytes = 0;
  #lastTurn = 0;
  #maxBytes;

  constructor(maxBytes) {
    this.#maxBytes = maxBytes;
  }

  get isEmpty() { return this.#entries.length === 0; }

  /** Returns whether there is room for a message, and so much `more`; a single one may be larger than all of the room. */
  hasRoomFor(bytes, more = 0) { return this.isEmpty || this.#bytes + bytes <= this.#maxBytes + more; }

  /** Returns whether an entry waits that `test` finds. */
  has(test) { return this.#entries.some(test); }

  push(entry) {
    entry.turn = ++this.#lastTurn;
    this.#entries.push(entry);
    this.#bytes += entry.bytes;
  }

  /** Puts an entry back that was here before, before all that came later. */
  putBack(entry) {
    const later = this.#entries.findIndex(({ turn }) => turn > entry.turn);
    this.#entries.splice(later < 0 ? this.#entries.length : later, 0, entry);
    this.#bytes += entry.bytes;
  }

  /** Removes the entries that `test` finds, and returns them. */
  take(test) {
    const taken = this.#entries.filter(test);
    this.#entries = this.#entries.filter((entry) => !taken.includes(entry));
    for (const { bytes } of taken) this.#bytes -= bytes;
    return taken;
  }

  /**
   * Hands over one entry after the other while `canSend()`. Those for which `mustWait` holds stay, and are overtaken.
   */
  flush({ canSend, mustWait, send }) {
    for (let index = 0; index < this.#entries.length && canSend(); ) {
      const entry = this.#entries[index];
      if (mustWait(entry)) {
        index++;
        continue;
      }
      this.#entries.splice(index, 1);
      this.#bytes -= entry.bytes;
      send(entry);
    }
  }
}
