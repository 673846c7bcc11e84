/** Shows what goes over the wire, and what the server tells by itself. */

import { $, clock, element, pretty, tabs } from './dom.js';

const MOST = 300;

function add(feed, entry) {
  feed.prepend(entry);
  if (feed.childElementCount > MOST) feed.lastElementChild.remove();
  count();
}

function count() {
  for (const [feed, number] of [['log', 'log-count'], ['notifications', 'notification-count']]) {
    const hidden = feed === 'log' && !$('own').checked ? $(feed).querySelectorAll('[data-kind="ping"]').length : 0;
    $(number).textContent = $(feed).childElementCount - hidden || '';
  }
}

function entry(direction, kind, what, body, open) {
  const now = new Date();
  const stamp = `${clock(now)}.${String(now.getMilliseconds()).padStart(3, '0')}`;
  const line = [
    element('i', {}, { out: '↑ out', in: '↓ in', state: '' }[direction]),
    element('span', { className: 'what' }, what),
    element('time', { dateTime: now.toISOString() }, stamp),
  ];
  const made = element('li', { dataset: { direction, kind } });
  if (body === undefined) made.append(...line);
  else made.append(element('details', { open }, element('summary', {}, ...line), element('pre', {}, body)));
  return made;
}

/** Shows a new state of the connection. */
export function showState(words) {
  add($('log'), entry('state', 'state', words));
}

/** Shows a message as it went over the wire. */
export function showMessage({ direction, text, message, isOwn }) {
  const method = message?.method ?? message?.request?.method ?? message?.payload?.method;
  const isError = message?.error !== undefined || message?.result?.isError;
  const id = message?.requestId ?? message?.id;
  const isPing = isOwn || ['ping', 'pong'].includes(message?.type ?? method);
  const kind = isError && !isPing ? 'error' : isPing ? 'ping' : 'message';
  const control = text.startsWith('@') ? text.split(' ', 1)[0] : undefined;
  const words = control ? [control] : [message?.type ?? (method ? '' : isError ? 'error' : 'result'), method, id === undefined ? '' : `#${id}`];
  const body = message === undefined ? text : pretty(message);
  add($('log'), entry(direction, kind, words.filter(Boolean).join(' '), body, kind !== 'ping' && (kind === 'error' || body.length < 400)));
}

/** Shows a notification of the server; of a progress report only that it came. */
export function showNotification({ method, params }) {
  const isError = method === 'notifications/message' && /^(error|critical|alert|emergency)$/.test(params?.level);
  const about = method === 'notifications/message' ? [params?.level, params?.logger].filter(Boolean).join(' · ') : '';
  const words = [method.replace(/^notifications\//, ''), about].filter(Boolean).join(': ');
  add($('notifications'), entry('in', isError ? 'error' : 'notification', words, params && pretty(params), method !== 'notifications/progress'));
}

tabs($('tab-log').parentElement, ({ id }) => {
  $('log').hidden = id !== 'tab-log';
  $('notifications').hidden = id !== 'tab-notifications';
});
$('own').addEventListener('change', ({ target }) => {
  $('log').classList.toggle('own', target.checked);
  count();
});
$('log-clear').addEventListener('click', () => {
  ($('log').hidden ? $('notifications') : $('log')).replaceChildren();
  count();
});
