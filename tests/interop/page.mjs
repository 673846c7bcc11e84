// The page of the `math` example in a real browser, by W3C WebDriver: chromium and chromedriver.
//
//     node page.mjs [--screenshots DIR] COMMAND...
//
// COMMAND, such as `math serve`, starts the server: with `--listen ADDR` it prints where it listens.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const words = process.argv.slice(2);
const screenshots = words[0] === '--screenshots' ? words.splice(0, 2)[1] : undefined;
const [program, ...options] = words;
const PATIENCE = 35_000; // no wait of the page is longer than 30 s

let created; // the session of the browser
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
const overdue = setTimeout(() => fail(new Error('took longer than 190 s')), 190_000);

/** Ends with this error, and the browser before its driver, which would leave it behind. */
async function fail(error) {
  console.error(error);
  if (created) await Promise.race([command('DELETE', '').catch(() => {}), sleep(3000)]);
  process.exit(1);
}
process.on('uncaughtException', fail);

/** Starts a program, and waits for the line of its output that `pattern` finds. */
async function start(program, options, pattern) {
  const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  child.on('exit', () => children.delete(child));
  child.on('error', fail);
  for await (const line of createInterface({ input: child.stdout })) {
    const found = line.match(pattern);
    if (found) return [child, found[1]];
  }
  throw new Error(`${program} never said ${pattern}`);
}

const serve = (address, ...more) =>
  start(program, [...options, ...more, '--listen', address], /^listening on ws:\/\/([^/]+)\//);

async function stop(child, signal) {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill(signal);
  await gone;
}

const [driver, driverPort] = await start('chromedriver', ['--port=0'], /successfully on port (\d+)/);
let session = `http://127.0.0.1:${driverPort}/session`;

/** One WebDriver command. */
async function command(method, path, body) {
  const options = { method, body: body && JSON.stringify(body), signal: AbortSignal.timeout(60_000) };
  const { value } = await (await fetch(session + path, options)).json();
  if (value?.error) throw new Error(`${path}: ${value.message}`);
  return value;
}

created = await command('POST', '', {
  capabilities: {
    alwaysMatch: {
      'goog:chromeOptions': {
        binary: '/usr/bin/chromium',
        args: ['headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'hide-scrollbars', 'window-size=1180,1000'],
      },
      'goog:loggingPrefs': { browser: 'ALL' },
    },
  },
});
session += `/${created.sessionId}`;

/** What a function returns in the page. */
const inPage = (action, ...args) =>
  command('POST', '/execute/sync', { script: `return (${action})(...arguments)`, args });
const text = (id) => inPage((id) => document.getElementById(id).textContent, id);
const click = (selector) => inPage((selector) => document.querySelector(selector).click(), selector);
const devtools = (cmd, params) => command('POST', '/goog/cdp/execute', { cmd, params });

async function press(...keys) {
  const actions = keys.flatMap((value) => [{ type: 'keyDown', value }, { type: 'keyUp', value }]);
  await command('POST', '/actions', { actions: [{ type: 'key', id: 'keyboard', actions }] });
}
const [TAB, ENTER, RIGHT] = ['\ue004', '\ue007', '\ue014'];

/** Waits until what `action` returns in the page passes `test`. */
async function until(what, action, test, ...args) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await inPage(action, ...args);
    if (test(value)) return value;
    if (Date.now() > end) throw new Error(`${what}: still ${JSON.stringify(value)}`);
    await sleep(20);
  }
}
const state = (expected) =>
  until(expected, () => document.getElementById('state').dataset.state, (state) => state === expected);

/** Chooses an operation, gives it its numbers, and runs it. */
async function calculate(operation, numbers) {
  await click(`[name="operation"][value="${operation}"]`);
  await inPage((numbers) => {
    for (const [id, value] of Object.entries(numbers)) document.getElementById(id).value = value;
  }, numbers);
  await click('#run');
}
const result = async (expected, kind = 'ok') => {
  const shown = () => {
    const result = document.getElementById('result');
    return [result.dataset.state, result.querySelector('b')?.textContent];
  };
  const [state, value] = await until(`result ${expected}`, shown, ([state]) => state === 'ok' || state === 'error');
  assert.deepEqual([state, value], [kind, expected]);
};
const log = (direction, kind = 'message') =>
  inPage(
    (selector) => [...document.querySelectorAll(selector)].map((pre) => JSON.parse(pre.textContent)),
    `#log li[data-direction="${direction}"][data-kind="${kind}"] pre`,
  );
const historyTold = () => {
  const newest = () => document.querySelector('#log [data-direction="in"] pre')?.textContent.includes('"history"');
  return until('the history', newest, Boolean);
};
const history = () => inPage(() => [...document.querySelectorAll('#history span')].map((line) => line.textContent));

/** What the browser complained about since the last time; of the network only where that was to be expected. */
async function complaints({ network } = {}) {
  const entries = await command('POST', '/se/log', { type: 'browser' });
  return entries.filter(({ level, source }) => level === 'SEVERE' && !(network && source === 'network'));
}

async function screenshot(name, { scheme = 'light', phone = false, clip } = {}) {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  await devtools('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  const { data } = await devtools('Page.captureScreenshot', { captureBeyondViewport: phone, clip });
  writeFileSync(`${screenshots}/${name}.png`, Buffer.from(data, 'base64'));
  await devtools('Emulation.setEmulatedMedia', { features: [] });
}

let [server, address] = await serve('127.0.0.1:0');
console.log('opens, and connects by keyboard alone');
await command('POST', '/url', { url: `http://${address}/` });
assert.equal(await text('state'), 'Not connected');
await press(TAB); // to the protocol
await press(TAB); // to the token
await press(TAB); // to the name
await press(TAB, ENTER);
await state('open');
await historyTold();
const agent = await text('agent-id');
assert.match(agent, /^[0-9a-f]+$/);

console.log('calculates by keyboard alone');
await press(TAB, RIGHT, RIGHT); // to the operations, and there to the third
await press(TAB);
await press('7', TAB);
await press('6', TAB, ENTER);
await result('42');

console.log('runs each operation');
for (const [operation, numbers, expected] of [
  ['add', { a: 5, b: 3 }, '8'],
  ['subtract', { a: 5, b: 3 }, '2'],
  ['multiply', { a: 5, b: 3 }, '15'],
  ['divide', { a: 5, b: 2 }, '2.5'],
  ['power', { a: 2, b: 10 }, '1024'],
  ['sqrt', { a: 144 }, '12'],
  ['sum', { numbers: '1 2 3 4' }, '10'],
]) {
  await calculate(operation, numbers);
  await result(expected);
  const [[sent], [received]] = [await log('out'), await log('in')];
  assert.deepEqual([sent.type, sent.request.method], ['mcp_request', operation]);
  assert.equal(received.type, 'mcp_response');
  assert.equal(received.requestId, sent.requestId);
  assert.equal(received.result.operation, operation);
  assert.equal(String(received.result.result), expected);
}

console.log('shows what a tool complains about, and lives on');
await calculate('divide', { a: 1, b: 0 });
await result('division by zero', 'error');
assert.equal((await log('in', 'error'))[0].type, 'error');
await calculate('add', { a: 5, b: 3 });
await result('8');
const times = await inPage(() => [...document.querySelectorAll('#log time')].map((time) => time.textContent));
assert.ok(times.every((time) => /^\d\d:\d\d:\d\d\.\d{3}$/.test(time)), times.join());

console.log('pings when the network changes');
await inPage(() => dispatchEvent(new Event('online')));
await until('pong', () => document.querySelectorAll('#log [data-direction="in"][data-kind="ping"]').length, Boolean);

await inPage(() => document.activeElement.blur());
await screenshot('light');
await screenshot('dark', { scheme: 'dark' });
await screenshot('page', { clip: { x: 0, y: 0, width: 1180, height: 765, scale: 800 / 1180 } }); // for the README

console.log('finds its history again');
const before = await history();
assert.deepEqual(before.slice(0, 2), ['5 + 3 = 8', '1 + 2 + 3 + 4 = 10']);
await click('#connect');
await state('closed');
await click('#connect');
await state('open');
assert.equal(await text('agent-id'), agent);
await historyTold();
assert.deepEqual(await history(), before);
assert.deepEqual(await complaints(), []);

console.log('fits on a phone');
await devtools('Emulation.setDeviceMetricsOverride', { width: 360, height: 740, deviceScaleFactor: 2, mobile: true });
const widest = () =>
  Math.max(...[...document.querySelectorAll('body *')].map((one) => one.getBoundingClientRect().right));
assert.ok((await inPage(widest)) <= 360);
await screenshot('phone', { phone: true });
await screenshot('phone-dark', { phone: true, scheme: 'dark' });
await devtools('Emulation.clearDeviceMetricsOverride', {});

console.log('negotiates compression where the server has it');
await inPage(() => {
  window.probe = new WebSocket(`ws://${location.host}/mcp`, 'mcp');
});
await until('an open socket', () => window.probe.readyState, (readyState) => readyState === 1);
const extensions = await inPage(() => window.probe.extensions);
assert.equal(extensions.startsWith('permessage-deflate'), process.argv.includes('--deflate'));
await inPage(() => window.probe.close());

console.log('counts down while the server is away');
await stop(server, 'SIGKILL');
const countdown = () => document.getElementById('countdown').textContent.match(/in ([\d.]+) s/)?.[1];
await state('waiting');
await until('a wait that is seen', countdown, (seconds) => seconds > 1);
await screenshot('disconnected');
await devtools('Emulation.setDeviceMetricsOverride', { width: 360, height: 740, deviceScaleFactor: 2, mobile: true });
await screenshot('disconnected-phone', { scheme: 'dark' });
await devtools('Emulation.clearDeviceMetricsOverride', {});
await calculate('power', { a: 3, b: 4 }); // which waits

console.log('recovers by itself');
[server] = await serve(address);
await state('open');
await result('81');
assert.notEqual(await text('agent-id'), agent);
assert.equal(await inPage(() => document.getElementById('notice').hidden), true);
await calculate('add', { a: 20, b: 22 });
await result('42');
await until('two lines', () => document.querySelectorAll('#history li').length, (length) => length === 2);
assert.deepEqual(await history(), ['20 + 22 = 42', '3 ^ 4 = 81']);

console.log('reconnects when told to');
await stop(server, 'SIGKILL');
await until('a wait that is seen', countdown, (seconds) => seconds > 1);
const retried = () => {
  document.getElementById('retry').click();
  return document.getElementById('state').dataset.state;
};
assert.equal(await inPage(retried), 'connecting');
[server] = await serve(address);
await state('open');
assert.deepEqual(await complaints({ network: true }), []);

console.log('speaks plain MCP');
await click('#connect');
await state('closed');
await click('[name="protocol"][value="mcp"]');
await click('#connect');
await state('open');
await calculate('multiply', { a: 6, b: 7 });
await result('42');
assert.equal((await log('out'))[0].method, 'tools/call');
assert.equal((await log('in'))[0].result.structuredContent.operation, 'multiply');
await calculate('divide', { a: 1, b: 0 });
await result('division by zero', 'error');
await inPage(() => dispatchEvent(new Event('online')));
await until('pong', () => document.querySelectorAll('#log [data-kind="ping"] pre').length, (length) => length >= 4);
assert.deepEqual((await log('in', 'ping'))[0].result, {});
await screenshot('mcp');
await click('#connect');
await state('closed');
assert.deepEqual(await complaints(), []);

console.log('shows a token where it is asked for one');
const TOKEN = "t0ken!#$%&'*+-.^_`|~";
const [guarded, guardedAddress] = await serve('127.0.0.1:0', '--token', TOKEN, '--token', 'b64/token==');
await command('POST', '/url', { url: `http://${guardedAddress}/` });
const cause = () => inPage(() => (document.getElementById('notice').hidden ? '' : document.getElementById('cause').textContent));
const connectWith = async (protocol, token) => {
  await click(`[name="protocol"][value="${protocol}"]`);
  await inPage((token) => {
    document.getElementById('token').value = token;
    document.getElementById('token').dispatchEvent(new Event('input', { bubbles: true }));
  }, token);
  await click('#connect');
};
for (const [protocol, token] of [['envelope', TOKEN], ['mcp', TOKEN], ['mcp', 'b64/token==']]) {
  await connectWith(protocol, token);
  await state('open');
  await calculate('multiply', { a: 6, b: 7 });
  await result('42');
  await click('#connect');
  await state('closed');
  assert.equal(await cause(), '');
}
const shown = await inPage(() => document.body.textContent);
assert.ok(!shown.includes('b64/token') && !shown.includes('t0ken'), 'a token is shown');
await complaints({ network: true });

console.log('says why it stops, and stops');
for (const [protocol, token, words] of [
  ['envelope', '', /asks for a token/],
  ['envelope', 'wrong', /does not accept this token/],
  ['mcp', '', /asks for a token/],
  ['mcp', 'wrong', /does not accept this token/],
  ['mcp', 'wrong/', /[Aa]uthentication failed/],
]) {
  await connectWith(protocol, token);
  await state('closed');
  assert.match(await cause(), words, `${protocol} ${token}`);
  assert.equal(await text('state'), 'Stopped');
  assert.equal(await text('connect'), 'Connect');
}
await screenshot('stopped');
await devtools('Emulation.setDeviceMetricsOverride', { width: 360, height: 740, deviceScaleFactor: 2, mobile: true });
assert.ok((await inPage(widest)) <= 360);
await screenshot('stopped-phone', { phone: true });
await screenshot('stopped-phone-dark', { phone: true, scheme: 'dark' });
await devtools('Emulation.clearDeviceMetricsOverride', {});
await screenshot('stopped-dark', { scheme: 'dark' });
// What agents cannot be shown is not tried at all.
for (const token of ['b64/token==', 'two words', 'naïve']) {
  await connectWith('envelope', token);
  assert.notEqual(await inPage(() => document.getElementById('token').validationMessage), '', token);
  assert.equal(await inPage(() => document.getElementById('state').dataset.state), 'closed');
}
// And in the end it connects.
await connectWith('mcp', TOKEN);
await state('open');
assert.equal(await cause(), '');
await click('#connect');
await stop(guarded, 'SIGTERM');

await command('DELETE', '');
clearTimeout(overdue);
await Promise.all([stop(server, 'SIGTERM'), stop(driver, 'SIGTERM')]);
console.log('done');
