/** The error of a request or a message. `reason` says what became of it; the others are those of JSON-RPC. */
export class McpError extends Error {
  name = 'McpError';

  constructor(reason, message, { code, data } = {}) {
    super(message);
    Object.assign(this, { reason, code, data });
  }
}

/**
 * The error of a connection that was not made or has ended, with the close code that says the same. `final` if another
 * attempt cannot help; `upgrade` if the upgrade failed, with its `status` where that is known.
 */
export class ConnectionError extends Error {
  name = 'ConnectionError';

  constructor(message, { code = 1006, final = false, upgrade, cause } = {}) {
    super(message, { cause });
    Object.assign(this, { code, final, upgrade });
  }
}

/** Returns an error after which no further attempt is made. */
export const final = (message, options) => new ConnectionError(message, { ...options, final: true });

/** Codes of JSON-RPC 2.0 and of this binding. */
export const RPC = Object.freeze({
  PARSE: -32700, INVALID_REQUEST: -32600, METHOD_NOT_FOUND: -32601, INTERNAL: -32603, CONNECTION: -32000,
  UNAUTHENTICATED: -32001,
});
