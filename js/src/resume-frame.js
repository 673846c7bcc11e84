/** The control frames of `mcp.resume.v1`: its sections 2 and 3. */

const MAX_BYTES = 4096;
const MAX_NUMBER = 2n ** 64n - 1n;

/** The error for what a peer did that the extension does not allow, which ends the session. */
export class Violation extends Error {
  name = 'Violation';
}

function must(condition, what) {
  if (!condition) throw new Violation(`resume: ${what}`);
}

function toNumber(raw) {
  must(/^(0|[1-9]\d{0,19})$/.test(raw) && BigInt(raw) <= MAX_NUMBER, 'a number is malformed');
  return Number(raw);
}

function toName(raw) {
  must(raw[0] === '"', 'a session or secret is no string');
  const name = JSON.parse(raw);
  must(/^[A-Za-z0-9._~-]{1,128}$/.test(name), 'a session or secret is malformed');
  return name;
}

function toBoolean(raw) {
  must(raw === 'true' || raw === 'false', '`resumed` is neither true nor false');
  return raw === 'true';
}

function toText(raw) {
  must(raw[0] === '"', '`why` is no string');
  return JSON.parse(raw);
}

const LIMITS = { max_message: toNumber, max_inbound: toNumber };
const SESSION = { session: toName, secret: toName, received: toNumber };
const FIELDS = {
  open: { ...SESSION, ...LIMITS },
  session: { ...SESSION, resumed: toBoolean, window_s: toNumber, window_bytes: toNumber, ...LIMITS, why: toText },
};

/** Returns whether a text message is a control frame. */
export const isControl = (text) => text[0] === '@';

/** Parses a control frame into an object with one member: `ack`, `open` or `session`. Throws a `Violation`. */
export function parse(text) {
  must(text.length <= MAX_BYTES && new TextEncoder().encode(text).length <= MAX_BYTES, 'a frame is too long');
  const [, name, body] = text.match(/^@([a-z]+) ([^]+)$/) ?? [];
  if (name === 'ack') return { ack: toNumber(body) };
  must(name === 'open' || name === 'session', 'a frame has an unknown name or no body');
  return { [name]: check(name, toFields(body, FIELDS[name])) };
}

function check(name, fields) {
  if (name === 'open') {
    const count = Object.keys(SESSION).filter((field) => field in fields).length;
    must(count === 0 || count === 3, '`@open` names a session in part');
    return fields;
  }
  const required = [...Object.keys(SESSION), 'resumed', 'window_s', 'window_bytes'];
  must(required.every((field) => field in fields), '`@session` is not complete');
  must(fields.resumed || fields.received === 0, 'a new session has received something');
  return fields;
}

/** Returns the known fields of an object, each by its own reader. */
function toFields(body, readers) {
  const fields = {};
  const seen = new Set();
  for (const [name, raw] of members(body)) {
    must(!seen.has(name), 'a field comes twice');
    seen.add(name);
    if (Object.hasOwn(readers, name)) fields[name] = readers[name](raw);
  }
  return fields;
}

/** Yields the name and the text of each member of a JSON object, which `JSON.parse` would read without saying how. */
function* members(json) {
  try {
    must(Object.prototype.toString.call(JSON.parse(json)) === '[object Object]', 'a body is no object');
  } catch {
    throw new Violation('resume: a body is no JSON object');
  }
  let depth = 0;
  let name;
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s"{}[\]:,]+/g)) {
    if (depth === 1 && name !== undefined && token !== ':') {
      yield [name, token];
      name = undefined;
    } else if (depth === 1 && name === undefined && token[0] === '"') {
      name = JSON.parse(token);
    }
    if (token === '{' || token === '[') depth++;
    if (token === '}' || token === ']') depth--;
  }
}

export const ack = (number) => `@ack ${number}`;
export const open = (fields) => `@open ${JSON.stringify(fields)}`;

/** Returns a control frame as it may be shown. */
export const withoutSecrets = (text) => text.replace(/"(session|secret)"\s*:\s*"[^"]*"/g, '"$1":"…"');
