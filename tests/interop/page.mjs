// The page of the `math` example in a real browser, by W3C WebDriver: chromium and chromedriver.
//
//     node page.mjs [--screenshots DIR] COMMAND...
//
// COMMAND, such as `math serve`, starts the server: with `--listen ADDR` it prints where it listens.

import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';

import { Browser, ENTER, RIGHT, TAB } from './browser.mjs';
import { start, stop, supergateway } from './programs.mjs';
import { survey } from './survey.mjs';

const words = process.argv.slice(2);
const screenshots = words[0] === '--screenshots' ? words.splice(0, 2)[1] : undefined;
const [program, ...options] = words;

let browser;
const overdue = setTimeout(() => fail(new Error('took longer than 190 s')), 190_000);

/** Ends with this error, and the browser before that. */
async function fail(error) {
  console.error(error);
  await browser?.close();
  process.exit(1);
}
process.on('uncaughtException', fail);

const serve = (address, ...more) =>
  start(program, [...options, ...more, '--listen', address], /^listening on ws:\/\/([^/]+)\//);

browser = await Browser.launch();
const inPage = (action, ...args) => browser.inPage(action, ...args);
const until = (...args) => browser.until(...args);
const press = (...keys) => browser.press(...keys);
const devtools = (...args) => browser.devtools(...args);
const complaints = (...args) => browser.complaints(...args);
const text = (id) => inPage((id) => document.getElementById(id).textContent, id);
const click = (selector) => inPage((selector) => document.querySelector(selector).click(), selector);
const state = (expected) =>
  until(expected, () => document.getElementById('state').dataset.state, (state) => state === expected);


/** Chooses a tool, a prompt or a resource of the list. */
const choose = async (name) => {
  await until(name, (name) => document.querySelectorAll(`#list [data-name="${name}"]`).length, Boolean, name);
  await click(`#list [data-name="${name}"]`);
};

/** Fills the form that is shown. */
async function fill(values) {
  await inPage((values) => {
    for (const [name, value] of Object.entries(values)) {
      const control = document.getElementById(`argument-${name}`);
      control.value = value;
      control.dispatchEvent(new Event('input', { bubbles: true }));
    }
  }, values);
}

async function submit(values) {
  await fill(values);
  await click('#run');
}

async function calculate(operation, values) {
  await choose(operation);
  await submit(values);
}

const result = async (expected, kind = 'ok') => {
  const shown = () => {
    const result = document.getElementById('result');
    return [result.dataset.state, (result.querySelector('b') ?? result.querySelector('pre'))?.textContent];
  };
  const [state, value] = await until(`result ${expected}`, shown, ([state]) => state === 'ok' || state === 'error');
  if (expected instanceof RegExp) assert.match(value, expected);
  else assert.equal(value, expected);
  assert.equal(state, kind);
};
const log = (direction, kind = 'message') =>
  inPage(
    (selector) => [...document.querySelectorAll(selector)].map((pre) => JSON.parse(pre.textContent)),
    `#log li[data-direction="${direction}"][data-kind="${kind}"] pre`,
  );
const historyTold = () => {
  const told = () => [...document.querySelectorAll('#log [data-direction="in"] pre')].some((pre) => pre.textContent.includes('"history": ['));
  return until('the history', told, Boolean);
};
const history = () => inPage(() => [...document.querySelectorAll('#history span')].map((line) => line.textContent));
const cause = () => inPage(() => (document.getElementById('notice').hidden ? '' : document.getElementById('cause').textContent));

async function disconnect() {
  await click('#connect');
  await state('closed');
  await click('#log-clear');
}

const DESKTOP = { width: 1180, height: 1000, deviceScaleFactor: 1, mobile: false };
const PHONE = { width: 360, height: 740, deviceScaleFactor: 2, mobile: true };
const WIDTHS = { desktop: { ...DESKTOP, width: 1440, height: 900 }, tablet: { ...DESKTOP, width: 820 }, phone: PHONE };
const size = (metrics) => devtools('Emulation.setDeviceMetricsOverride', metrics);

const widest = () =>
  Math.max(...[...document.querySelectorAll('body *')].map((one) => one.getBoundingClientRect().right));

async function capture(name, scheme, options) {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  await devtools('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
  const { data } = await devtools('Page.captureScreenshot', options);
  writeFileSync(`${screenshots}/${name}.png`, Buffer.from(data, 'base64'));
  await devtools('Emulation.setEmulatedMedia', { features: [] });
}

/** Looks at the page in each width, and takes pictures in both colours. Nothing sticks out. */
async function look(name) {
  for (const [device, metrics] of Object.entries(WIDTHS)) {
    await size(metrics);
    assert.ok((await inPage(widest)) <= metrics.width, `${name} on a ${device}`);
    for (const scheme of ['light', 'dark']) await capture(`${name}-${device}-${scheme}`, scheme, { captureBeyondViewport: device === 'phone' });
  }
  await size(DESKTOP);
}

let [server, address] = await serve('127.0.0.1:0');
console.log('connects by itself, and by keyboard alone');
await size(DESKTOP);
await browser.open(`http://${address}/`);
await state('open');
await until('a list', () => document.querySelectorAll('#list button').length, (length) => length === 7);
assert.match(await text('server'), /^math /);
await press(TAB, ENTER); // to the button
await state('closed');
assert.equal(await text('state'), 'Not connected');
assert.equal(await inPage(() => document.getElementById('state').classList.contains('failed')), false);
await press(ENTER);
await state('open');

console.log('calculates by keyboard alone');
await press(TAB); // to the kinds
await press(RIGHT, RIGHT, RIGHT); // to the others, and back
await press(TAB, TAB, TAB, ENTER); // to the third tool
await press(TAB, TAB, TAB, TAB, TAB); // past the other tools, to its form
await press('7', TAB);
await press('6', TAB, ENTER);
await result('42');
const unnamed = () => [...document.querySelectorAll('input, select, textarea, button, [role="tabpanel"]')]
  .filter((one) => one.checkVisibility() && !one.labels?.length && !one.textContent.trim() && !one.ariaLabel && !one.getAttribute('aria-labelledby'))
  .map(({ outerHTML }) => outerHTML);
assert.deepEqual(await inPage(unnamed), []);

console.log('runs each operation');
for (const [operation, values, expected] of [
  ['add', { a: 5, b: 3 }, '8'],
  ['subtract', { a: 5, b: 3 }, '2'],
  ['multiply', { a: 5, b: 3 }, '15'],
  ['divide', { a: 5, b: 2 }, '2.5'],
  ['power', { a: 2, b: 10 }, '1024'],
  ['sqrt', { a: 144 }, '12'],
  ['sum', { numbers: '[1, 2, 3, 4]' }, '10'],
]) {
  await calculate(operation, values);
  await result(expected);
  const sent = (await log('out')).find(({ method }) => method === 'tools/call');
  const received = (await log('in')).find(({ id }) => id === sent.id);
  assert.equal(sent.params.name, operation);
  assert.equal(received.result.structuredContent.operation, operation);
  assert.equal(String(received.result.structuredContent.result), expected);
}
assert.equal(await inPage(() => document.querySelectorAll('#notifications li').length), 4); // the progress of the sum

console.log('says what is wrong with arguments before they are sent');
await calculate('sum', { numbers: '[1, 2' });
assert.match(await inPage(() => document.getElementById('argument-numbers').validationMessage), /no JSON/);
await submit({ numbers: '{}' });
assert.match(await inPage(() => document.getElementById('argument-numbers').validationMessage), /no array/);
await choose('add');
await submit({ a: '', b: 1 });
assert.notEqual(await inPage(() => document.getElementById('argument-a').validationMessage), '');
await submit({ a: 1.5, b: 1 });
await result('2.5');
await click('#call .check input');
await inPage(() => { document.getElementById('arguments-json').value = '{"a": 20, "b": 22}'; });
await click('#run');
await until('42', () => document.querySelector('#result b')?.textContent, (text) => text === '42');

console.log('shows what a tool complains about, and lives on');
await calculate('divide', { a: 1, b: 0 });
await result('division by zero', 'error');
assert.equal((await log('in', 'error'))[0].result.isError, true);
await look('error');
await calculate('add', { a: 5, b: 3 });
await result('8');
const times = await inPage(() => [...document.querySelectorAll('#log time')].map((time) => time.textContent));
assert.ok(times.every((time) => /^\d\d:\d\d:\d\d\.\d{3}$/.test(time)), times.join());

console.log('pings when the network changes');
await inPage(() => dispatchEvent(new Event('online')));
await until('pong', () => [...document.querySelectorAll('#log [data-direction="in"][data-kind="ping"] pre')].some((pre) => pre.textContent.includes('"result": {}')), Boolean);

await inPage(() => document.activeElement.blur());
await look('tool');
// For the README, twice as sharp as it is shown.
await capture('page', 'light', { clip: { x: 0, y: 0, width: 1180, height: 700, scale: 1640 / 1180 } });
assert.deepEqual(await complaints(), []);

console.log('negotiates compression where the server has it');
await inPage(() => {
  window.probe = new WebSocket(`ws://${location.host}/mcp`, 'mcp');
});
await until('an open socket', () => window.probe.readyState, (readyState) => readyState === 1);
const extensions = await inPage(() => window.probe.extensions);
assert.equal(extensions.startsWith('permessage-deflate'), process.argv.includes('--deflate'));
await inPage(() => window.probe.close());

console.log('speaks to agents, whose history is found again');
await disconnect();
await click('[name="protocol"][value="envelope"]');
await click('#connect');
await state('open');
await historyTold();
const agent = await text('agent-id');
assert.match(agent, /^[0-9a-f]+$/);
await calculate('sum', { numbers: '[1, 2, 3, 4]' });
await result('10');
await calculate('add', { a: 5, b: 3 });
await result('8');
const [[sent], [received]] = [await log('out'), await log('in')];
assert.deepEqual([sent.type, sent.request.method], ['mcp_request', 'add']);
assert.equal(received.type, 'mcp_response');
assert.equal(received.requestId, sent.requestId);
await calculate('divide', { a: 1, b: 0 });
await result('division by zero', 'error');
assert.equal((await log('in', 'error'))[0].type, 'error');
const before = await history();
assert.deepEqual(before.slice(0, 2), ['5 + 3 = 8', '1 + 2 + 3 + 4 = 10']);
await disconnect();
await click('#connect');
await state('open');
assert.equal(await text('agent-id'), agent);
await historyTold();
assert.deepEqual(await history(), before);
await look('agent');
assert.deepEqual(await complaints(), []);

console.log('counts down while the server is away');
await stop(server, 'SIGKILL');
const countdown = () => document.getElementById('countdown').textContent.match(/in ([\d.]+) s/)?.[1];
await state('waiting');
await until('a wait that is seen', countdown, (seconds) => seconds > 1);
await look('waiting');
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

console.log('inspects a server that is not its own');
const gateway = await supergateway();
await disconnect();
await click('[name="protocol"][value="mcp"]');
await inPage((url) => { document.getElementById('address').value = url; }, gateway.url);
await click('#connect');
await state('open');
await choose('get-sum');
await submit({ a: 40, b: 2 });
await result(/42/);
await choose('get-structured-content');
const cities = () => [...document.querySelectorAll('#argument-location option')].map((option) => option.textContent);
assert.ok((await inPage(cities)).includes('Chicago'));
await choose('get-tiny-image');
await click('#run');
await until('an image', () => document.querySelector('#result img')?.naturalWidth, (width) => width > 0);
await look('image');
await choose('trigger-long-running-operation');
await submit({ duration: 30, steps: 30 });
await until('progress', () => document.querySelector('#call progress').value, (value) => value >= 1 / 30);
await click('#call .cancel');
await result('Cancelled', 'error');
await until('the cancellation', () => [...document.querySelectorAll('#log .what')].some((line) => line.textContent.includes('notifications/cancelled')), Boolean);
await click('#tab-prompts');
await choose('args-prompt');
await submit({ city: 'Paris' });
await result(/Paris/);
await look('prompt');
await click('#tab-resources');
await choose('architecture.md');
await click('#run');
await result(/Architecture/);
await look('resource');
await click('#tab-notifications');
await until('a notification', () => document.querySelectorAll('#notifications li').length, Boolean);
await look('notifications');
await click('#tab-log');
await disconnect();
await stop(gateway.child);
assert.deepEqual(await complaints({ network: true }), []);

console.log('has a control for each kind of argument, and asks what the server asks');
const surveyed = await survey();
await inPage((url) => { document.getElementById('address').value = url; }, surveyed.url);
await click('#connect');
await state('open');
await choose('survey');
const kinds = () => [...document.querySelectorAll('#call .argument')].map((one) => {
  const control = one.querySelector('input, select, textarea');
  return [control.name, control.type, control.required];
});
assert.deepEqual(await inPage(kinds), [
  ['name', 'text', true], ['day', 'date', false], ['age', 'number', true], ['height', 'number', false],
  ['agrees', 'select-one', true], ['newsletter', 'select-one', false], ['color', 'select-one', true],
  ['size', 'select-one', true], ['nickname', 'text', false], ['tags', 'textarea', true], ['address', 'textarea', false],
  ['anything', 'textarea', false],
]);
const given = { name: 'Ada', day: '2026-11-29', age: 36, agrees: '0', color: '1', size: '1', tags: '["one"]', address: '{"city":"London"}' };
for (const [name, value] of [['name', ''], ['age', '1.5'], ['age', '200'], ['agrees', ''], ['tags', '{}'], ['address', '[]'], ['anything', '{']]) {
  await fill({ ...given, anything: '', [name]: value });
  assert.equal(await inPage(() => document.getElementById('call').checkValidity()), false, `${name}: ${value}`);
}
await look('survey');
await submit({ ...given, anything: '' });
const dialog = (title) => until(title, () => document.querySelector('dialog h2')?.textContent, (text) => text === title);
await dialog('The server asks');
await look('elicitation');
await inPage(() => {
  document.getElementById('elicited-sure').value = '0';
  document.querySelector('dialog button[value="accept"]').click();
});
await dialog('The server samples a model');
await inPage(() => {
  document.getElementById('reply').value = 'Hello';
  document.querySelector('dialog button[value="accept"]').click();
});
await result(/./);
const answered = JSON.parse(await inPage(() => document.querySelector('#result pre').textContent));
assert.deepEqual(answered[0], {
  name: 'Ada', day: '2026-11-29', age: 36, height: 1.8, agrees: true, newsletter: true, color: 'green', size: 2,
  tags: ['one'], address: { city: 'London' },
});
assert.deepEqual(answered[1], { action: 'accept', content: { sure: true } });
assert.equal(answered[2].content.text, 'Hello');
await click('#run');
await dialog('The server asks');
await press('\ue00c'); // Escape
await dialog('The server samples a model');
await inPage(() => document.querySelector('dialog button[value="decline"]').click());
await until('another answer', () => document.querySelector('#result pre')?.textContent.includes('"action": "cancel"'), Boolean);
await disconnect();
surveyed.server.close();
assert.deepEqual(await complaints(), []);

console.log('shows a token where it is asked for one');
const TOKEN = "t0ken!#$%&'*+-.^_`|~";
const [guarded, guardedAddress] = await serve('127.0.0.1:0', '--token', TOKEN, '--token', 'b64/token==');
await browser.open(`http://${guardedAddress}/`);
await state('closed');
assert.match(await cause(), /asks for a token/);
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
  await disconnect();
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
await look('stopped');
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
await disconnect();
await stop(guarded);

await browser.close();
clearTimeout(overdue);
await stop(server);
console.log('done');
