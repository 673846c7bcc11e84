/** Asks whoever sits here what the server asks for: elicitation and sampling. */

import { element, pretty } from './dom.js';
import { SchemaForm } from './schema-form.js';

export const capabilities = { elicitation: {}, sampling: {} };

export const handlers = {
  async 'elicitation/create'({ message, requestedSchema = {} }, { signal }) {
    const fields = new SchemaForm(requestedSchema, 'elicited');
    const choice = await ask('The server asks', [element('p', { className: 'about' }, message), fields.element], ['accept', 'decline'], signal);
    return choice === 'accept' ? { action: 'accept', content: fields.values } : { action: choice };
  },

  async 'sampling/createMessage'({ messages, systemPrompt, maxTokens }, { signal }) {
    const reply = element('textarea', { id: 'reply', required: true, rows: 4 });
    const body = [
      element('p', { className: 'about' }, 'The server asks for the reply of a model. Write one in its place.'),
      element('pre', {}, pretty({ systemPrompt, messages, maxTokens })),
      element('label', { className: 'field', htmlFor: 'reply' }, 'Reply'),
      reply,
    ];
    const choice = await ask('The server samples a model', body, ['accept', 'decline'], signal);
    if (choice !== 'accept') throw Object.assign(new Error('The user has declined'), { code: -1 });
    return { role: 'assistant', content: { type: 'text', text: reply.value }, model: 'a person', stopReason: 'endTurn' };
  },
};

const WORDS = { accept: 'Accept', decline: 'Decline' };
let latest = Promise.resolve();

/** Shows one question after the other. Resolves with the choice; `cancel` if there is none. */
function ask(title, body, choices, signal) {
  const answered = latest.then(() => show(title, body, choices, signal));
  latest = answered.catch(() => {});
  return answered;
}

function show(title, body, choices, signal) {
  if (signal.aborted) return 'cancel';
  const buttons = choices.map((choice) => element('button', {
    value: choice, className: choice === 'accept' ? 'main' : '', formNoValidate: choice !== 'accept',
  }, WORDS[choice]));
  const form = element('form', { method: 'dialog' }, ...body, element('div', { className: 'actions' }, ...buttons));
  const dialog = element('dialog', { className: 'card', ariaLabel: title }, element('h2', {}, title), form);
  document.body.append(dialog);
  signal.addEventListener('abort', () => dialog.close('cancel'));
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue || 'cancel');
    });
  });
}
