// What a server has not executed is sent again: requests of which it has too many, and what it has not read of a
// connection that it closed since a message was too large.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LearnedLimit, ReadProgress } from '../src/read-progress.js';
import { failure, pass, settle, sockets, timerCount } from './fakes.mjs';
import {
  answer, initialized, notification, reasons, request, resumed, started,
} from './helpers.mjs';

const tooMany = (id) => ({
  jsonrpc: '2.0', id, error: { code: -32000, message: 'too many', data: { reason: 'too_many_requests' } },
});
const large = (id, length) => ({ ...request(id), params: { text: 'x'.repeat(length) } });
const stopping = (id) => ({
  jsonrpc: '2.0', id, error: { code: -32000, message: 'stopping', data: { reason: 'stopping' } },
});
const ids = ({ sent }) => sent.map(({ id, method }) => id ?? method).filter((id) => id !== undefined);

test('a request of too many waits before all later ones until the server takes more', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (const id of [1, 2, 3]) await made.send(request(id));
  for (const id of [3, 2]) await socket.receive(tooMany(id));
  await made.send(request(4));
  await made.send(notification('x'));
  assert.deepEqual(ids(socket).slice(3), ['x']);
  socket.sent.length = 0;
  await pass(99);
  assert.deepEqual(ids(socket), []);
  await pass(1);
  assert.deepEqual(ids(socket), [2]);
  await socket.receive(tooMany(2));
  await pass(199);
  assert.deepEqual(ids(socket), [2]);
  await pass(1);
  assert.deepEqual(ids(socket), [2, 2]);
  await socket.receive(answer(2));
  assert.deepEqual(ids(socket), [2, 2, 3]);
  await socket.receive(answer(1));
  assert.deepEqual(ids(socket), [2, 2, 3, 4]);
  for (const id of [3, 4]) await socket.receive(answer(id));
  await made.send(request(5));
  assert.deepEqual([ids(socket).at(-1), reasons(got)], [5, []]);
  assert.deepEqual(got.messages.map(({ id }) => id), [2, 1, 3, 4]);
  await made.close();
});

test('room that others have taken is none, and an error of another code is no refusal', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (const id of [1, 2, 3, 4]) await made.send(request(id));
  await socket.receive(tooMany(3));
  for (const id of [1, 2]) await socket.receive(answer(id));
  assert.deepEqual(ids(socket).slice(4), [3]);
  await socket.receive(tooMany(3));
  assert.deepEqual(ids(socket).slice(4), [3]);
  const refused = tooMany(4);
  refused.error.code = -32603;
  await socket.receive(refused);
  assert.deepEqual(reasons(got), [[4, 'too_many_requests']]);
  await made.close();
});

test('probes are at most 5 s apart, and after 60 s without an answer refusals are passed on', async () => {
  const [made, got, socket] = await started({ plain: true, heartbeat: Infinity });
  await made.send(request(1));
  const probes = [];
  for (let time = 0; time < 60_000; time += 100) {
    if (socket.sent.splice(0).length) {
      probes.push(time);
      await socket.receive(tooMany(1));
    }
    assert.deepEqual(reasons(got), [], `after ${time} ms`);
    await pass(100);
  }
  const waits = probes.slice(1).map((time, index) => time - probes[index]);
  assert.deepEqual(waits.slice(0, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  assert.ok(waits.slice(8).every((wait) => wait === 5000), String(waits));
  await socket.receive(tooMany(1));
  assert.deepEqual(reasons(got), [[1, 'too_many_requests']]);
  // The next answer is believed again.
  await made.send(request(2));
  await socket.receive(answer(2));
  await made.send(request(3));
  await socket.receive(tooMany(3));
  assert.equal(reasons(got).length, 1);
  await made.close();
  assert.equal(timerCount(), 0);
});

test('a request that waits can be given up, and is ended with the connection as not sent', async () => {
  const [made, got, socket] = await started({ plain: true });
  for (const id of [1, 2]) await made.send(request(id));
  for (const id of [1, 2]) await socket.receive(tooMany(id));
  socket.sent.length = 0;
  await made.send(notification('notifications/cancelled', { requestId: 1 }));
  await pass(100);
  assert.deepEqual(ids(socket), [2]);
  await socket.receive(tooMany(2));
  await made.close();
  await pass(0);
  assert.deepEqual([reasons(got), timerCount()], [[[2, 'not_sent']], 0]);
});

test('a peer that is back on another link has as many as before, another one has none', async () => {
  const [made, , socket] = await started();
  await made.send(request(1));
  await socket.receive(tooMany(1));
  await socket.lose();
  const next = await resumed({ received: 1 });
  await made.send(request(2));
  assert.deepEqual(next.sent.filter(({ id }) => id), []);
  await pass(100);
  assert.deepEqual(next.sent.filter(({ id }) => id).map(({ id }) => id), [1]);
  await next.receive(tooMany(1));
  await next.lose(4410);
  await pass(10_000);
  const another = sockets.at(-1);
  await another.open('mcp');
  assert.deepEqual(ids(another), [1, 2]);
  await made.close();
});

test('`initialize` is asked again too, also by the transport itself', async () => {
  const [made, got, socket] = await started({ plain: true, heartbeat: Infinity });
  await made.send(request(0, 'initialize'));
  await made.send(request(1));
  await socket.receive(tooMany(0));
  await pass(100);
  assert.deepEqual(ids(socket), [0, 0]);
  await socket.receive(answer(0, { serverInfo: {} }));
  await made.send(notification('notifications/initialized'));
  assert.equal(ids(socket).at(-1), 1);
  await pass(60_000); // the first one is not late any more
  await socket.receive(answer(1));
  await socket.lose();
  await pass(1000);
  await sockets.at(-1).open('mcp');
  const [{ id }] = sockets.at(-1).sent;
  await sockets.at(-1).receive(tooMany(id));
  assert.deepEqual([made.state, reasons(got)], ['waiting', []]);
  await made.close();
});

test('a message for which the server closes ends alone, and what was sent after it goes on', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  await made.send(large(1, 1500));
  await socket.receive(answer(1));
  for (const id of [2, 3]) await made.send(request(id));
  await made.send(large(4, 2000));
  await made.send(large(5, 1600));
  await made.send(request(6));
  await socket.receive(answer(3));
  await socket.lose(1009, 'too big');
  assert.deepEqual(reasons(got), [[4, 'not_sent'], [2, 'outcome_unknown']]);
  assert.match(got.messages.find(({ id }) => id === 4).error.message, /message of 2\d{3} bytes is larger than the server takes/);
  await pass(1000);
  const next = sockets.at(-1);
  await next.open('mcp');
  await next.receive(answer(next.sent[0].id, { serverInfo: {} }));
  assert.deepEqual(ids(next).slice(2), [5, 6]);
  assert.match((await failure(made.send(large(7, 2000)))).message, /bytes are more than the 20\d\d that the server takes/);
  await made.send(large(8, 1900));
  assert.equal(ids(next).at(-1), 8);
  await made.close();
});

/** The next link, to another server that is initialized. */
async function moved(made) {
  made.reconnect();
  await settle();
  const socket = sockets.at(-1);
  await socket.open('mcp');
  await socket.receive(answer(socket.sent[0].id, { serverInfo: {} }));
  return socket;
}

test('what no server reads is sent on five connections', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  for (const number of [1, 2, 3, 4, 5]) await made.send(large(number, 10_000 - 1000 * number));
  await made.send(request(6));
  let last = socket;
  for (const number of [1, 2, 3, 4, 5]) {
    assert.deepEqual(ids(last).slice(-1), [6]);
    await last.lose(1009, 'too big');
    if (number < 5) assert.deepEqual(reasons(got).at(-1), [number, 'not_sent']);
    last = await moved(made);
  }
  assert.deepEqual(reasons(got).slice(4).sort(), [[5, 'not_sent'], [6, 'not_sent']]);
  assert.equal(ids(last).includes(6), false);
  await made.close();
});

test('what every server refuses since it stops is sent on five connections', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  await made.send(request(1));
  let last = socket;
  for (let connection = 1; connection < 5; connection++) {
    assert.equal(ids(last).at(-1), 1);
    await last.receive(stopping(1));
    await last.lose(1012);
    assert.deepEqual(reasons(got), []);
    last = await moved(made);
  }
  await last.receive(stopping(1));
  assert.deepEqual(reasons(got), [[1, 'stopping']]);
  // Which is no sign of a connection that works.
  made.onstate = ({ retryIn }) => assert.ok(retryIn > 2000, retryIn);
  await last.lose(1006);
  made.onstate = undefined;
  await made.close();
});

test('the waits begin anew after a request that was executed, not after one that was refused', async () => {
  const [made, got, socket] = await started({ plain: true, heartbeat: Infinity });
  await initialized(made, socket);
  const waits = [];
  made.onstate = ({ state, retryIn }) => state === 'waiting' && waits.push(retryIn);
  await made.send(request(1));
  let last = socket;
  for (const refusal of [tooMany(1), tooMany(1), stopping(1), undefined]) {
    await last.receive(refusal ?? answer(1));
    await last.lose(1006);
    last = await moved(made);
    if (refusal?.error.data.reason === 'too_many_requests') await made.send(request(1)).catch(() => {});
  }
  assert.deepEqual([waits.length, waits[1] > waits[0], waits[2] > waits[1], waits[3] <= waits[0]], [4, true, true, true]);
  await made.close();
});

test('a message for which the server closes is found after it was cancelled, and costs no other', async () => {
  const [made, got, socket] = await started({ plain: true });
  await initialized(made, socket);
  await made.send(large(1, 2000));
  await made.send(request(2));
  await made.send(large(3, 9000));
  await made.send(request(4));
  await made.send(notification('notifications/cancelled', { requestId: 3 }));
  await socket.lose(1009, 'too big');
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown'], [2, 'outcome_unknown']]);
  await pass(1000);
  const next = sockets.at(-1);
  await next.open('mcp');
  await next.receive(answer(next.sent[0].id, { serverInfo: {} }));
  assert.deepEqual(ids(next).slice(2), [4]);
  await made.close();
});

test('a message for which the server closes is found after its session was taken for lost', async () => {
  const [made, got, socket] = await started({ fields: { window_s: 5 } });
  await made.send(large(1, 9000));
  await socket.lose();
  await pass(5_000);
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
  const next = await resumed();
  await made.send(large(2, 2000));
  await next.lose(1009, 'too big');
  assert.deepEqual(reasons(got), [[1, 'outcome_unknown']]);
  await made.close();
});

test('a notification that is too large costs no request', async () => {
  const [made, got, socket] = await started();
  await made.send(notification('x', { text: 'x'.repeat(2000) }));
  await made.send(request(1));
  await socket.lose(1009);
  await pass(1000);
  await sockets.at(-1).open('mcp');
  assert.deepEqual([reasons(got), ids(sockets.at(-1))], [[], [1]]);
  await made.close();
});

test('of what was small or read already, nothing was too large', async () => {
  const [made, got, socket] = await started({ plain: true });
  await made.send(large(1, 3000));
  await socket.receive(answer(1));
  await made.send(large(2, 2000));
  await made.send(request(3));
  await socket.lose(1009);
  assert.deepEqual(reasons(got), [[2, 'outcome_unknown'], [3, 'outcome_unknown']]);
  await made.close();
});

test('what another server has read may be sent again, whatever this one takes', async () => {
  const [made, got, socket] = await started({ plain: true });
  await made.send(large(1, 5000));
  await socket.receive(answer(1));
  for (const code of [1006, 1009]) {
    if (code === 1009) await made.send(large(2, 2000));
    await sockets.at(-1).lose(code);
    made.reconnect();
    await settle();
    await sockets.at(-1).open('mcp');
  }
  assert.deepEqual(reasons(got), [[2, 'not_sent']]);
  await made.send(large(3, 4000));
  assert.deepEqual(ids(sockets.at(-1)), [3]);
  await made.close();
});

test('progress: what is not known to be read is suspected, the largest of it, and of those the first', () => {
  const sent = (number, bytes) => ({ id: `r${number}`, number, bytes });
  const progress = new ReadProgress();
  assert.equal(progress.findTooLarge([sent(1, 1024)]), undefined);
  assert.equal(progress.findTooLarge([sent(1, 1025), sent(2, 2000), sent(3, 2000)]).number, 2);
  progress.onSent({ number: 4, bytes: 3000 });
  assert.equal(progress.findTooLarge([sent(3, 2000)]).number, 4);
  progress.onAnswered({ number: 5, bytes: 10 });
  assert.deepEqual([progress.passed, progress.findTooLarge([sent(6, 3000)])], [3000, undefined]);
  assert.equal(progress.findTooLarge([sent(3, 9000), sent(6, 9001)]).number, 6);
  assert.equal(progress.findTooLarge([sent(3, 9000), sent(6, 9000)]), undefined);
});

test('a limit that was shown is believed for an hour, and bounds what has passed when shown twice', async () => {
  const limit = new LearnedLimit();
  assert.equal(limit.bytes, Infinity);
  limit.learn(5000);
  limit.learn(6000);
  assert.equal(limit.bytes, 5000);
  limit.pass(7000);
  assert.equal(limit.bytes, 7000);
  limit.learn(4000);
  limit.pass(8000);
  limit.learn(4000);
  assert.equal(limit.bytes, 8000);
  limit.learn(4000);
  assert.equal(limit.bytes, 4000);
  for (let shown = 0; shown < 2; shown++) limit.learn(1);
  assert.equal(limit.bytes, 1024);
  await pass(3_600_000);
  assert.equal(limit.bytes, Infinity);
});
