/** Shows what a call has brought. */

import { element, pretty } from './dom.js';

const isShort = (text) => text.length <= 60 && !text.includes('\n');

/** Returns text that is JSON in lines of its own. */
function readable(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && value !== null ? pretty(value) : text;
  } catch { return text; }
}

/** Returns what shows a block of content, or a resource. */
export function block(content) {
  const { type, text, data, mimeType = '', blob, uri, name, resource } = content;
  if (type === 'resource') return block(resource ?? {});
  if (type === 'resource_link') return element('pre', {}, `${name ?? 'resource'}: ${uri}`);
  const bytes = data ?? blob;
  if (bytes !== undefined && /^image\/(png|jpeg|gif|webp|svg\+xml|avif)$/.test(mimeType)) {
    return element('img', { src: `data:${mimeType};base64,${bytes}`, alt: name ?? 'An image from the server' });
  }
  if (bytes !== undefined) return element('pre', {}, `${mimeType || 'binary'}, ${Math.floor((bytes.length * 3) / 4)} bytes`);
  return element('pre', {}, text === undefined ? pretty(content) : readable(text));
}

/** Returns the few words that say all of a tool's result, if there are such. */
function headline({ structuredContent, content = [] }) {
  const value = structuredContent?.result;
  if (['number', 'string', 'boolean'].includes(typeof value) && isShort(String(value))) return String(value);
  const [only, ...more] = content;
  return more.length === 0 && only?.type === 'text' && isShort(only.text) && !/^[[{]/.test(only.text) ? only.text : undefined;
}

/** Returns what shows a tool's result. */
export function toolResult(result) {
  const words = headline(result);
  const shown = words === undefined ? (result.content ?? []).map(block) : [element('b', {}, words)];
  if (result.structuredContent !== undefined) {
    const open = words === undefined && shown.length === 0;
    shown.push(element('details', { open }, element('summary', {}, 'Structured content'), element('pre', {}, pretty(result.structuredContent))));
  }
  return shown.length ? shown : [element('b', {}, 'Done'), element('span', { className: 'quiet' }, 'The tool has returned nothing.')];
}

/** Returns what shows the messages of a prompt. */
export function promptResult({ description, messages = [] }) {
  const shown = messages.flatMap(({ role, content }) => [element('h3', {}, role), ...[content].flat().map(block)]);
  return description ? [element('span', { className: 'quiet' }, description), ...shown] : shown;
}

/** Returns what shows a resource that was read. */
export function resourceResult({ contents = [] }) {
  return contents.flatMap((content) => [element('h3', {}, [content.uri, content.mimeType].filter(Boolean).join(' · ')), block(content)]);
}
