// A real browser, by W3C WebDriver: chromium and chromedriver.

import { setTimeout as sleep } from 'node:timers/promises';

import { start, stop } from './programs.mjs';

/** No wait of a page is longer than 30 s. */
const PATIENCE = 35_000;

export const [TAB, ENTER, RIGHT] = ['\ue004', '\ue007', '\ue014'];

export class Browser {
  #driver;
  #session;

  static async launch({ width = 1180, height = 1000 } = {}) {
    const browser = new Browser();
    const [driver, port] = await start('chromedriver', ['--port=0'], /successfully on port (\d+)/);
    browser.#driver = driver;
    browser.#session = `http://127.0.0.1:${port}/session`;
    const args = ['headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'hide-scrollbars', `window-size=${width},${height}`];
    const alwaysMatch = {
      'goog:chromeOptions': { binary: '/usr/bin/chromium', args },
      'goog:loggingPrefs': { browser: 'ALL' },
    };
    const { sessionId } = await browser.command('POST', '', { capabilities: { alwaysMatch } });
    browser.#session += `/${sessionId}`;
    return browser;
  }

  /** Ends the browser before its driver, which would leave it behind. */
  async close() {
    await Promise.race([this.command('DELETE', '').catch(() => {}), sleep(3000)]);
    await stop(this.#driver);
  }

  /** One WebDriver command. */
  async command(method, path, body) {
    const options = { method, body: body && JSON.stringify(body), signal: AbortSignal.timeout(120_000) };
    const { value } = await (await fetch(this.#session + path, options)).json();
    if (value?.error) throw new Error(`${path}: ${value.message}`);
    return value;
  }

  open(url) { return this.command('POST', '/url', { url }); }

  /** What a function returns in the page. */
  inPage(action, ...args) {
    return this.command('POST', '/execute/sync', { script: `return (${action})(...arguments)`, args });
  }

  /** What a function resolves with in the page; rejects as it does. */
  async awaitInPage(action, ...args) {
    await this.command('POST', '/timeouts', { script: 100_000 });
    const script = `const done = arguments[arguments.length - 1];
      (${action})(...[...arguments].slice(0, -1)).then((value) => done({ value }), (error) => done({ error: error.stack ?? String(error) }))`;
    const { value, error } = await this.command('POST', '/execute/async', { script, args });
    if (error) throw new Error(error);
    return value;
  }

  devtools(cmd, params) { return this.command('POST', '/goog/cdp/execute', { cmd, params }); }

  async press(...keys) {
    const actions = keys.flatMap((value) => [{ type: 'keyDown', value }, { type: 'keyUp', value }]);
    await this.command('POST', '/actions', { actions: [{ type: 'key', id: 'keyboard', actions }] });
  }

  /** Waits until what `action` returns in the page passes `test`. */
  async until(what, action, test, ...args) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const value = await this.inPage(action, ...args);
      if (test(value)) return value;
      if (Date.now() > end) throw new Error(`${what}: still ${JSON.stringify(value)}`);
      await sleep(20);
    }
  }

  /** What the browser complained about since the last time; of the network only where that was to be expected. */
  async complaints({ network } = {}) {
    const entries = await this.command('POST', '/se/log', { type: 'browser' });
    return entries.filter(({ level, source }) => level === 'SEVERE' && !(network && source === 'network'));
  }
}
