// What each client in JavaScript does, in Node and in a browser, and how it tells of it: an object on each line, or
// posted to where the page came from. Its arguments are the addresses of `math`, and of a server that asks.

const inBrowser = typeof process === 'undefined';
export const addresses = inBrowser ? new URLSearchParams(location.search).getAll('url') : process.argv.slice(2);

// In Node as in browsers, one event per task: else the SDK 1.x misses the progress report that arrives together with
// the result.
const Base = inBrowser ? WebSocket : (await import('ws')).WebSocket;
const options = inBrowser ? [] : [{ allowSynchronousEvents: false }];
let socket;
export class Socket extends Base {
  constructor(url, protocols) {
    super(url, protocols, ...options);
    socket = this;
  }
}
globalThis.WebSocket = Socket;

const ELICITED = { action: 'accept', content: { confirm: true } };
export const capabilities = { elicitation: {} };
export const answer = () => ELICITED;

async function tell(fact) {
  if (inBrowser) await fetch('/facts', { method: 'POST', body: JSON.stringify(fact) });
  else console.log(JSON.stringify(fact));
}

/** Has the connection cut, and resolves when this side knows. */
async function cut() {
  const closed = new Promise((resolve) => { socket.addEventListener('close', resolve); });
  await tell({ cut: true });
  await closed;
}

const within = (milliseconds, promise) => Promise.race([promise, new Promise((_, reject) => {
  setTimeout(() => reject(new Error(`no answer within ${milliseconds / 1000} s`)), milliseconds);
})]);

async function step(name, action) {
  try {
    await tell({ [name]: await within(15_000, action()) });
  } catch (error) {
    await tell({ [name]: { error: error?.message ?? String(error) } });
  }
}

/**
 * Tells of a client. `connect(url)` resolves with how to use it:
 * `tools()`, `call(name, arguments, onprogress)`, which resolves with the result.
 */
export async function converse(connect) {
  const [math, asks] = addresses;
  let client;
  await step('initialize', async () => {
    client = await connect(math);
    return true;
  });
  if (client) {
    const result = async (...call) => {
      const { structuredContent, content } = await client.call(...call);
      return structuredContent?.result ?? content[0].text;
    };
    await step('tools', async () => (await client.tools()).map(({ name }) => name));
    await step('add', () => result('add', { a: 5, b: 3 }));
    await step('progress', async () => {
      const progress = [];
      await result('sum', { numbers: [1, 2, 3] }, (report) => progress.push(report.progress));
      return progress;
    });
    await cut();
    await step('after', () => result('add', { a: 20, b: 22 }));
    await step('asked', async () => (await (await connect(asks)).call('ask', {})).content[0].text);
  }
  await tell({ done: true });
  if (!inBrowser) process.exit();
}
