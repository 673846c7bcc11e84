import { ConnectionError, final } from './errors.js';
import { Link } from './link.js';
import { Inquiry, describe, mayAcceptAnother, refused } from './refusal.js';
import { isControl, withoutSecrets } from './resume-frame.js';
import { ResumeSession } from './resume-session.js';
import { Offers, RESUME } from './subprotocol.js';

const valueOf = (option, ...args) => (typeof option === 'function' ? option(...args) : option);

/** Settles as `promise` does, or rejects when `signal` is aborted. */
function until(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Makes connections to one server: address, token, subprotocols, authentication, and the opening of a session. */
export class Dialer {
  #url;
  #options;
  #offers;
  #inquiry;
  #last = {}; // the address and token of the latest attempt
  #unauthorized = 0; // refusals of a token in a row

  constructor(url, options) {
    const { framing, protocols = framing.protocols, resume } = options;
    this.#url = url;
    this.#options = options;
    this.#offers = new Offers(protocols, { resume: resume && protocols.includes('mcp') });
    this.#inquiry = new Inquiry(options);
  }

  /**
   * Makes one attempt, which ends when `signal` is aborted. Resolves with a link, a session where the server speaks
   * `mcp.resume.v1`, and whether that is the former one.
   */
  async dial(failures, former, signal) {
    try {
      const url = String(await until(Promise.resolve(valueOf(this.#url, failures)), signal));
      const token = await until(Promise.resolve(valueOf(this.#options.token) ?? ''), signal);
      this.#last = { url, token };
      const opened = await this.#open(url, token, former, signal);
      this.#unauthorized = 0;
      this.#inquiry.reset();
      return opened;
    } catch (error) {
      this.#offers.fail();
      throw error;
    }
  }

  /** Asks the server why it does not upgrade; resolves with the words for that, if it can be reached. */
  async whyNot() {
    const { url, token } = this.#last;
    const status = await this.#inquiry.status(url, this.#options.inBand ? '' : token);
    return {
      words: status === undefined ? undefined : describe(status, token),
      /** Counts this answer. Returns why no further attempt can help; `undefined` as long as one may. */
      verdict: (hasOpened) => this.#inquiry.verdict(status, { token, hasOpened }),
    };
  }

  /** Offers one list of subprotocols after the other. */
  async #open(url, token, former, signal) {
    const lists = this.#offers.next(this.#options.inBand ? '' : token);
    for (const [index, [offers, offered]] of lists.entries()) {
      const link = new Link(this.#options.WebSocket, url, offered);
      try {
        await until(link.opened, signal);
      } catch (error) {
        link.close();
        if (signal.aborted) throw error;
        const status = error.upgrade?.status;
        if (status && !mayAcceptAnother(status)) throw this.#refused(status, token);
        if (index + 1 < lists.length) continue;
        throw status ? this.#refused(status, token) : error;
      }
      this.#offers.accept(offers);
      return await this.#begin(link, token, former, signal).catch((error) => {
        link.close();
        throw error;
      });
    }
    throw final('there is no subprotocol to be offered');
  }

  #refused(status, token) {
    const mayRenew = typeof this.#options.token === 'function' && this.#unauthorized++ === 0;
    return refused(status, { token, mayRenew });
  }

  async #begin(link, token, former, signal) {
    if (token && this.#options.inBand) await until(this.#authenticate(link, token), signal);
    if (link.protocol !== RESUME) return { link, session: undefined, isResumed: false };
    const session = former ?? new ResumeSession();
    const isResumed = await until(this.#openSession(link, session), signal);
    return { link, session, isResumed };
  }

  /** Shows the token within the connection, whatever characters it has. */
  async #authenticate(link, token) {
    const { onwire } = this.#options;
    const request = { jsonrpc: '2.0', id: 0, method: 'authenticate', params: { token } };
    link.send(JSON.stringify(request));
    onwire?.({ direction: 'out', message: { ...request, params: undefined } });
    const text = await next(link);
    let answer;
    try { answer = JSON.parse(text); } catch { /* which is no answer */ }
    onwire?.({ direction: 'in', text, message: answer });
    if (answer?.error) throw final(answer.error.message ?? 'authentication failed', { code: 4401 });
    if (!answer?.result) throw new ConnectionError('authentication was not answered');
  }

  /** Sends `@open`, and reads `@session`; neither is shown with its secret. */
  async #openSession(link, session) {
    const { onwire } = this.#options;
    const show = (direction, text, isOwn = false) => {
      const shown = isControl(text) ? withoutSecrets(text) : text;
      onwire?.({ direction, text: shown, isOwn: isOwn || isControl(text) });
    };
    const write = (text, isOwn) => {
      link.send(text);
      show('out', text, isOwn);
    };
    write(session.openFrame);
    return next(link, (text) => {
      show('in', text);
      return session.attach(text, write);
    });
  }
}

/** Returns what `take` makes of the next message, before anything that comes after it is read. */
function next(link, take = (text) => text) {
  return new Promise((resolve, reject) => {
    link.read({
      message(text) {
        link.read(undefined);
        try { resolve(take(text)); } catch (error) { reject(error); }
      },
      close: ({ code, reason }) => reject(new ConnectionError(reason || 'the connection was lost', { code })),
    });
  });
}
