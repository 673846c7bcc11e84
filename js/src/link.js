import { ConnectionError, final } from './errors.js';

const CONNECTING = 0;
const OPEN = 1;

/** One WebSocket connection. What arrives before somebody reads is kept until then. */
export class Link {
  #socket;
  #early = [];
  #reader; // { message(text, isBinary), close({ code, reason }) }
  #status; // with which the upgrade was refused, where that is known

  /** Resolves when the connection is open; rejects with why it is not. */
  opened;

  constructor(WebSocket, url, offers) {
    try {
      this.#socket = new WebSocket(url, offers);
    } catch (error) {
      throw final(error.message, { cause: error });
    }
    const socket = this.#socket;
    socket.binaryType = 'arraybuffer';
    this.opened = new Promise((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onclose = ({ code, reason }) => {
        if (socket === this.#socket) this.#hand((reader) => reader.close({ code, reason }));
        reject(new ConnectionError(reason || 'the connection was not opened', { code, upgrade: { status: this.#status } }));
      };
    });
    this.opened.catch(() => {}); // whoever waits is told
    socket.onerror = (event) => { this.#status = statusOf(event); };
    socket.onmessage = ({ data }) => this.#receive(data);
  }

  /** The subprotocol that the server chose; empty if it chose none. */
  get protocol() { return this.#socket?.protocol ?? ''; }

  get isOpen() { return this.#socket?.readyState === OPEN; }

  /** The number of bytes that were sent and have not left yet. */
  get bufferedBytes() { return this.#socket?.bufferedAmount ?? 0; }

  /** Hands everything over that has arrived, and what will; without a reader, keeps it. */
  read(reader) {
    this.#reader = reader;
    while (reader && this.#early.length && this.#reader === reader) this.#early.shift()(reader);
  }

  send(text) {
    if (this.isOpen) this.#socket.send(text);
  }

  /** Closes the connection, and hears of it no more. A browser sends no codes but 1000 and those from 3000 on. */
  close(code, reason) {
    const socket = this.#socket;
    this.#socket = this.#reader = undefined;
    this.#early = [];
    if (!socket) return;
    socket.onmessage = null;
    if (socket.readyState === CONNECTING) return socket.close();
    try {
      if (code === undefined) socket.close();
      else if (reason) socket.close(code, reason);
      else socket.close(code);
    } catch {
      socket.close(1000, reason);
    }
  }

  #receive(data) {
    const isBinary = typeof data !== 'string';
    const text = isBinary ? new TextDecoder().decode(data) : data;
    this.#hand((reader) => reader.message(text, isBinary));
  }

  #hand(event) {
    if (this.#reader && !this.#early.length) event(this.#reader);
    else this.#early.push(event);
  }
}

/** Returns the status with which a server refused the upgrade, where the WebSocket says so, as the package `ws` does. */
function statusOf({ message }) {
  const [, status] = /Unexpected server response: (\d{3})/.exec(message ?? '') ?? [];
  return status && Number(status);
}
