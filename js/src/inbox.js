/**
 * Hands over what has arrived, one after the other, and in between lets run what the one before has begun. Some
 * WebSockets bring several messages within one task, and the TypeScript SDK handles a progress report later than the
 * result behind it, which then ends the call without the report.
 */
export class Inbox {
  #waiting = [];

  push(action) {
    this.#waiting.push(action);
    if (this.#waiting.length === 1) queueMicrotask(() => this.#run());
  }

  async #run() {
    while (this.#waiting.length) {
      this.#waiting[0]();
      for (let turn = 0; turn < 4; turn++) await undefined;
      this.#waiting.shift();
    }
  }
}
