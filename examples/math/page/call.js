/** Runs what the chosen form asks for, and shows what comes of it. */

import { $, element } from './dom.js';

const FATES = { not_sent: 'It was not sent.', outcome_unknown: 'It may have been executed.' };

function show(state, ...nodes) {
  const result = $('result');
  if (!result) return;
  result.dataset.state = state;
  result.replaceChildren(...nodes);
}

/**
 * Runs `action({ signal, onprogress })` and shows what `render` makes of its result, unless another form was chosen
 * meanwhile. An error that has a result is one of a tool.
 */
export async function run(form, action, render) {
  const [button, cancel, bar] = ['.main', '.cancel', 'progress'].map((one) => form.querySelector(one));
  const giveUp = new AbortController();
  cancel.onclick = () => giveUp.abort(new Error('Cancelled'));
  const onprogress = ({ progress, total, message }) => {
    bar.hidden = false;
    if (total) [bar.max, bar.value] = [total, progress];
    bar.title = message ?? `${progress} of ${total ?? '?'}`;
  };
  button.disabled = true;
  cancel.hidden = false;
  show('waiting', element('span', { className: 'quiet' }, 'Waits for the answer …'));
  const started = performance.now();
  try {
    const result = await action({ signal: giveUp.signal, onprogress });
    const took = `${(performance.now() - started).toFixed(1)} ms`;
    if (form.isConnected) show(result?.isError ? 'error' : 'ok', ...render(result), element('span', { className: 'quiet' }, took));
    return result;
  } catch (error) {
    const code = error.code === undefined ? '' : `Code ${error.code}.`;
    const notes = [FATES[error.reason], code].filter(Boolean).join(' ');
    if (form.isConnected) show('error', element('b', {}, error.message), element('span', { className: 'quiet' }, notes));
    return undefined;
  } finally {
    button.disabled = false;
    cancel.hidden = bar.hidden = true;
    bar.removeAttribute('value');
  }
}
