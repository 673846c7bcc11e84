/** What the server has: lists of tools, prompts and resources, and the form of the one that is chosen. */

import { remember } from './agent.js';
import { run } from './call.js';
import { byAgent, current } from './connection.js';
import { $, element, pretty, tabs } from './dom.js';
import { promptResult, resourceResult, toolResult } from './result.js';
import { SchemaForm } from './schema-form.js';

/** The kinds of things that a server has: how they are listed, shown and used. */
const KINDS = {
  tools: {
    word: 'tool', button: 'Run',
    list: (socket) => socket.listTools(),
    schema: ({ inputSchema }) => inputSchema ?? {},
    use: useTool,
    render: (result) => toolResult(result),
  },
  prompts: {
    word: 'prompt', button: 'Get',
    list: (socket) => socket.listPrompts(),
    schema: ({ arguments: list = [] }) => ({
      properties: Object.fromEntries(list.map(({ name, ...about }) => [name, { type: 'string', ...about }])),
      required: list.filter(({ required }) => required).map(({ name }) => name),
    }),
    use: (socket, { name }, args, options) => socket.request('prompts/get', { name, arguments: args }, options),
    render: promptResult,
  },
  resources: {
    word: 'resource', button: 'Read',
    list: async (socket) => {
      const templates = socket.listResourceTemplates().catch(() => []); // which not every server has
      return [...(await socket.listResources()), ...(await templates)];
    },
    schema: ({ uriTemplate = '' }) => {
      const names = variables(uriTemplate);
      return { properties: Object.fromEntries(names.map((name) => [name, { type: 'string' }])), required: names };
    },
    use: (socket, item, args, options) => socket.request('resources/read', { uri: item.uri ?? expand(item.uriTemplate, args) }, options),
    render: resourceResult,
  },
};

const lists = { tools: [], prompts: [], resources: [] };
let kind = 'tools';
let selected;

/** The variables of a URI template (RFC 6570), and the URI that they give. */
const VARIABLE = /\{[+#./;?&]?([\w.,*]+)\}/g;
const variables = (template) => [...template.matchAll(VARIABLE)].flatMap(([, names]) => names.replaceAll('*', '').split(','));
const expand = (template, values) =>
  template.replace(VARIABLE, (_, names) => names.replaceAll('*', '').split(',').map((name) => encodeURIComponent(values[name])).join(','));

/** Agents run tools by their bare names, and answer with the structured content. */
async function useTool(socket, { name }, args, options) {
  if (!byAgent()) return socket.request('tools/call', { name, arguments: args }, options);
  const started = performance.now();
  const structuredContent = await socket.request(name, args, options);
  if (name !== 'history') remember(socket, structuredContent, started);
  return { structuredContent };
}

/** Asks a server for what it has. */
export async function load(socket) {
  const { capabilities = { tools: {} } } = socket.server ?? {};
  await Promise.all(Object.entries(KINDS).map(async ([name, { list }]) => {
    lists[name] = capabilities[name] ? await list(socket).catch(() => []) : [];
  }));
  if (socket !== current()) return;
  showCounts();
  if (lists[kind].length === 0) chooseKind(Object.keys(KINDS).find((name) => lists[name].length) ?? 'tools');
  showList();
  const again = lists[kind].find((item) => keyOf(item) === selected?.key);
  if (!again || selected.shape !== JSON.stringify(again)) choose(again ?? lists[kind][0]);
}

const keyOf = ({ name, uri, uriTemplate }) => `${kind} ${uri ?? uriTemplate ?? name}`;
const titleOf = ({ title, annotations, name, uri, uriTemplate }) => title ?? annotations?.title ?? name ?? uri ?? uriTemplate;

function showCounts() {
  for (const name of Object.keys(KINDS)) $(`tab-${name}`).querySelector('b').textContent = lists[name].length || '';
}

function chooseKind(name) {
  kind = name;
  for (const other of Object.keys(KINDS)) {
    $(`tab-${other}`).setAttribute('aria-selected', String(other === name));
    $(`tab-${other}`).tabIndex = other === name ? 0 : -1;
  }
  $('list').setAttribute('aria-labelledby', `tab-${name}`);
  $('filter').value = '';
}

function showList() {
  const words = $('filter').value.toLowerCase();
  $('filter').hidden = lists[kind].length < 9;
  const shown = lists[kind].filter((item) => JSON.stringify([titleOf(item), item.name, item.description]).toLowerCase().includes(words));
  const none = lists[kind].length ? 'Nothing matches' : `The server has no ${kind}`;
  $('list').replaceChildren(...(shown.length ? shown.map(row) : [element('p', { className: 'empty' }, none)]));
}

function row(item) {
  const note = item.description ?? item.uri ?? item.uriTemplate ?? '';
  const made = element('button', { type: 'button', onclick: () => choose(item, { focus: true }) }, element('span', { className: 'name' }, titleOf(item)));
  if (note) made.append(element('span', { className: 'note' }, note));
  Object.assign(made.dataset, { name: item.name ?? item.uri ?? item.uriTemplate });
  made.setAttribute('aria-current', String(keyOf(item) === selected?.key));
  return made;
}

function hints({ annotations = {}, mimeType, size }) {
  const names = { readOnlyHint: 'reads only', destructiveHint: 'may destroy', idempotentHint: 'idempotent', openWorldHint: 'reaches out' };
  const chips = Object.keys(names).filter((name) => annotations[name]).map((name) => names[name]);
  return [...chips, mimeType, size === undefined ? undefined : `${size} bytes`].filter(Boolean);
}

/** Shows the form of an item. */
function choose(item, { focus = false } = {}) {
  selected = item && { key: keyOf(item), shape: JSON.stringify(item) };
  for (const button of $('list').querySelectorAll('button')) {
    button.setAttribute('aria-current', String(button.dataset.name === (item?.name ?? item?.uri ?? item?.uriTemplate)));
  }
  if (!item) return $('detail').replaceChildren(element('p', { className: 'empty' }, 'Choose a tool, a prompt or a resource.'));
  const { word } = KINDS[kind];
  const title = titleOf(item);
  const about = [element('h2', {}, title), chips(item, word)];
  if (item.description) about.push(element('p', { className: 'about' }, item.description));
  $('detail').replaceChildren(...about, form(item), element('output', { id: 'result', ariaLive: 'polite' }));
  if (focus && matchMedia('(max-width: 700px)').matches) $('detail').scrollIntoView({ block: 'start' });
}

function chips(item, word) {
  const name = item.uri ?? item.uriTemplate ?? item.name;
  const words = [word, ...(name === titleOf(item) ? [] : [name]), ...hints(item)];
  return element('div', { className: 'chips' }, ...words.map((text) => element('span', { className: 'chip' }, text)));
}

function form(item) {
  const { schema, button, use, render } = KINDS[kind];
  const described = schema(item);
  const fields = new SchemaForm(described, 'argument');
  const json = element('textarea', { id: 'arguments-json', spellcheck: false, rows: 8, hidden: true, ariaLabel: 'Arguments as JSON' });
  const asJson = element('input', { type: 'checkbox' });
  const made = element('form', { id: 'call', autocomplete: 'off' }, fields.element, json, element(
    'div', { className: 'actions' },
    element('button', { className: 'main', id: 'run' }, button),
    element('button', { className: 'cancel small', type: 'button', hidden: true }, 'Cancel'),
    element('progress', { hidden: true, ariaLabel: 'Progress' }),
    element('label', { className: 'check', hidden: fields.isEmpty && kind !== 'tools' }, asJson, 'As JSON'),
  ));
  asJson.addEventListener('change', () => {
    fields.element.hidden = asJson.checked || fields.isEmpty;
    fields.element.querySelectorAll('input, select, textarea').forEach((one) => { one.disabled = asJson.checked; });
    json.hidden = !asJson.checked;
    json.setCustomValidity('');
    if (asJson.checked) json.value = pretty(readable(fields));
  });
  json.addEventListener('input', () => json.setCustomValidity(objectComplaint(json.value)));
  made.addEventListener('submit', (event) => {
    event.preventDefault();
    const args = asJson.checked ? JSON.parse(json.value) : fields.values;
    const socket = current();
    run(made, (options) => use(socket, item, args, options), render);
  });
  return made;
}

function readable(fields) {
  try { return fields.values; } catch { return {}; }
}

function objectComplaint(text) {
  try {
    return Object.prototype.toString.call(JSON.parse(text)) === '[object Object]' ? '' : 'JSON, but no object';
  } catch ({ message }) {
    return `no JSON: ${message}`;
  }
}

tabs($('tab-tools').parentElement, ({ dataset }) => {
  chooseKind(dataset.kind);
  showList();
  choose(lists[kind][0]);
});
$('filter').addEventListener('input', showList);
