/** Agents, which the server of this page makes over HTTP, and what they remember. */

import { final } from '../mcp-ws.js';
import { $, clock, element } from './dom.js';

const MOST = 100;
const SHOW = {
  add: ({ a, b }) => `${a} + ${b}`, subtract: ({ a, b }) => `${a} − ${b}`, multiply: ({ a, b }) => `${a} × ${b}`,
  divide: ({ a, b }) => `${a} ÷ ${b}`, power: ({ a, b }) => `${a} ^ ${b}`, sqrt: ({ a }) => `√${a}`,
  sum: ({ numbers }) => numbers?.join(' + '),
};

let agent; // { id, name }

async function post(path, body) {
  const token = $('token').value;
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
  } catch {
    throw new Error('the server cannot be reached'); // of which `fetch` says only that it failed
  }
  if (response.status === 401) throw final(token ? 'the server does not accept this token' : 'the server asks for a token');
  if (response.status === 403) throw final('the server refuses this page, or this token');
  return response;
}

/** Whether the server still knows our agent, which it does not after a restart. */
async function isKnown({ id: agentId }) {
  return (await post('mcp', { agentId, request: { method: 'history' } })).status !== 404;
}

/** The address of our agent: a new one where there is none by that name yet, or none any more. */
export async function agentUrl() {
  const name = $('agent-name').value;
  if (agent?.name !== name || !(await isKnown(agent))) {
    const response = await post('agent', { name });
    if (!response.ok) throw new Error(`no agent: status ${response.status}`);
    agent = { id: (await response.json()).agentId, name };
  }
  $('agent-id').textContent = $('agent-id').title = agent.id;
  const url = new URL(`agent/${agent.id}/websocket`, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  return url;
}

let toldAt = Infinity; // when the agent last told its history; while it is asked, for ever
let asking = 0;

/** Asks the agent what it remembers. */
export async function loadHistory(socket) {
  toldAt = Infinity;
  const mine = ++asking;
  const known = await socket.request('history').catch(() => undefined);
  if (mine !== asking) return;
  $('history').replaceChildren();
  known?.history?.forEach(add);
  toldAt = performance.now();
}

/** Adds a calculation that began at `started`; asks for all if the agent may have told it already, or not. */
export function remember(socket, answer, started) {
  if (started > toldAt) add({ ...answer, timestamp: new Date().toISOString() });
  else loadHistory(socket);
}

function add({ operation, result, timestamp, ...numbers }) {
  const text = `${SHOW[operation]?.(numbers) ?? operation} = ${result}`;
  const time = element('time', { dateTime: timestamp }, clock(new Date(timestamp)));
  $('history').prepend(element('li', {}, element('span', {}, text), time));
  if ($('history').childElementCount > MOST) $('history').lastElementChild.remove();
}
