/** The close codes of RFC 6455 and its registry, and those by which MCP servers say more. */
export const CLOSE_CODES = Object.freeze({
  1000: 'normal closure', 1001: 'going away', 1002: 'protocol error', 1003: 'unsupported data', 1004: 'reserved',
  1005: 'no status received', 1006: 'abnormal closure', 1007: 'invalid payload data', 1008: 'policy violation',
  1009: 'message too big', 1010: 'mandatory extension missing', 1011: 'internal error', 1012: 'service restart',
  1013: 'try again later', 1014: 'bad gateway', 1015: 'TLS handshake failed', 4401: 'not authenticated',
  4403: 'forbidden', 4409: 'taken over by a newer connection', 4410: 'session gone',
});

/** The codes after which another connection would end in the same way. */
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1010, 4401, 4403, 4409]);

/** The codes that end a session of `mcp.resume.v1` (its section 7). */
const SESSION_ENDS = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010, 4401, 4403, 4410]);

/** Returns the name of a close code. */
export const closeName = (code) => CLOSE_CODES[code] ?? 'unknown code';

/** Returns whether no further attempt is made after a connection that closed with `code`. */
export const isFinal = (code) => FINAL.has(code);

/** Returns whether a session cannot be resumed after a link that closed with `code`. */
export const endsSession = (code) => SESSION_ENDS.has(code);
