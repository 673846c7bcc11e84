/** The form that connects, and the state of the connection. */

import { McpSocket, envelope, isSubprotocol } from '../mcp-ws.js';
import { agentUrl } from './agent.js';
import { $ } from './dom.js';
import { capabilities, handlers as answers } from './requests.js';
import { showMessage, showNotification, showState } from './traffic.js';

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

/** Whether the server is spoken to as an agent. */
export const byAgent = () => chosen('protocol') === 'envelope';

const at = (path) => {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  return url.href;
};

let socket;
let handlers;

/** The client of the present server; `undefined` before the first. */
export const current = () => socket;

/** `on.open(socket, isResumed)`, `on.notification(method)`. */
export function begin(on) {
  handlers = on;
  $('address').value = at('mcp');
  connect();
}

function connect() {
  const token = $('token').value;
  const address = $('address').value;
  // What no subprotocol can carry is shown within the connection, for which this page's server has a path of its own.
  const inBand = token !== '' && !isSubprotocol(token) && address === at('mcp');
  const clientInfo = { name: 'mcp-inspector', version: '1' };
  // The policy of this page lets it ask no other server by HTTP.
  const fetch = new URL(address).host === location.host ? undefined : null;
  socket = byAgent()
    ? new McpSocket(agentUrl, { framing: envelope, token })
    : new McpSocket(inBand ? at('ws') : address, {
      token, inBand, clientInfo, fetch, capabilities, handlers: answers, deadline: 300_000,
    });
  socket.addEventListener('state', onState);
  socket.addEventListener('message', showMessage);
  socket.addEventListener('notification', (event) => {
    showNotification(event);
    handlers.notification(event.method);
  });
  socket.connect();
}

function onState({ target, state, code, codeName, reason, retryIn, isResumed }) {
  if (target !== socket) return;
  const why = reason && code === 1006 ? reason : `${reason || codeName} (${code})`;
  const words = { connecting: 'Connecting…', open: 'Connected', waiting: 'No connection' };
  const isClosed = state === 'closed';
  $('state').dataset.state = state;
  $('state').textContent = words[state] ?? (code === 1000 ? 'Not connected' : 'Stopped');
  $('state').classList.toggle('failed', isClosed && code !== 1000);
  $('connect').textContent = isClosed ? 'Connect' : 'Disconnect';
  $('connect').classList.toggle('main', isClosed);
  for (const id of ['settings', 'agent-name', 'address', 'token']) $(id).disabled = !isClosed;
  if (isClosed) chooseProtocol();
  if (state === 'open') showServer(target.server);
  showNotice(state, why, retryIn, code);
  showState({ connecting: 'connecting', open: isResumed ? 'connected, and resumed' : 'connected' }[state] ?? `not connected: ${why}`);
  if (state === 'open') handlers.open(target, isResumed);
}

function showServer(server) {
  const { serverInfo, protocolVersion, instructions } = server ?? {};
  const name = serverInfo && `${serverInfo.title ?? serverInfo.name} ${serverInfo.version ?? ''}`.trim();
  $('server').textContent = name ? `${name} · MCP ${protocolVersion}`.replaceAll('-', '\u2011') : 'An agent of this server';
  $('instructions').hidden = !instructions;
  $('instructions').querySelector('p').textContent = instructions ?? '';
}

let ticking;
function showNotice(state, why, retryIn, code) {
  const [lost, failed] = [state === 'waiting', state === 'closed' && code !== 1000];
  clearInterval(ticking);
  $('bar').getAnimations().forEach((animation) => animation.cancel());
  if (state === 'connecting' && !$('notice').hidden) $('countdown').textContent = 'Trying now …';
  if (state === 'open' || state === 'closed') {
    if (document.activeElement === $('retry')) $('connect').focus();
    $('notice').hidden = !failed;
  }
  if (!lost && !failed) return;
  $('notice').hidden = false;
  $('notice').dataset.state = state;
  $('cause').textContent = `${why[0].toUpperCase()}${why.slice(1)}.`;
  $('retry').hidden = failed;
  if (failed) return ($('countdown').textContent = 'No further attempt is made.');
  const end = performance.now() + retryIn;
  const tick = () => {
    const left = Math.max(0, end - performance.now()) / 1000;
    $('countdown').textContent = `Next attempt in ${left.toFixed(1)} s`;
  };
  $('bar').animate([{ transform: 'scaleX(1)' }, { transform: 'scaleX(0)' }], retryIn);
  ticking = setInterval(tick, 100);
  tick();
}

/** Says of a token that cannot be sent what can be done about it. */
function checkToken() {
  const token = $('token').value;
  const problem = /[^\x21-\x7e]/.test(token)
    ? 'A token has letters, digits and signs of ASCII only, and no spaces'
    : byAgent() && token && !isSubprotocol(token)
      ? "A browser can show an agent's server only tokens of letters, digits and !#$%&'*+-.^_`|~. Choose Plain MCP for this one."
      : '';
  $('token').setCustomValidity(problem);
}

function chooseProtocol() {
  const agent = byAgent();
  for (const [id, isShown] of [['address', !agent], ['agent-name', agent]]) {
    $(id).closest('.field').hidden = !isShown;
    $(id).disabled = !isShown;
    $(id).required = isShown;
  }
  $('agent').hidden = !agent;
}

for (const id of ['token', 'settings']) $(id).addEventListener('input', checkToken);
$('settings').addEventListener('change', chooseProtocol);
$('retry').addEventListener('click', () => socket.reconnect());
$('connection').addEventListener('submit', (event) => {
  event.preventDefault();
  if (socket && socket.state !== 'closed') socket.close();
  else connect();
});
