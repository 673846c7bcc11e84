// Programs that the tests start, and a line between two of them that is cut.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Starts a program, and waits for the line of its output that `pattern` finds. */
export async function start(program, options, pattern) {
  const child = spawn(program, options, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  child.on('exit', () => children.delete(child));
  const failed = once(child, 'error').then(([error]) => { throw error; });
  failed.catch(() => {});
  const found = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [, word] = line.match(pattern) ?? [];
      if (word !== undefined) return word;
    }
    throw new Error(`${program} never printed ${pattern}`);
  })();
  const word = await Promise.race([found, failed]);
  child.stdout.resume(); // what nobody reads must not stop it
  return [child, word];
}

/** Ends a program. */
export async function stop(child, signal = 'SIGTERM') {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill(signal);
  await gone;
}

/** The `math` example, whose path is in the environment. Resolves with the program and its address. */
export async function math(...options) {
  const program = process.env.MATH;
  if (!program) throw new Error('MATH is not the path of the `math` example: cargo build --example math');
  const [child, url] = await start(program, ['serve', '--listen', '127.0.0.1:0', ...options], /^listening on (\S+)$/);
  return { child, url };
}

/** The server on the Python SDK. */
export async function python() {
  const [child, url] = await start(file('.venv/bin/python'), [file('server.py')], /^listening on (\S+)$/);
  return { child, url };
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** supergateway in front of the reference server for stdio. */
export async function supergateway() {
  const port = await freePort();
  const everything = `node ${file('node_modules/@modelcontextprotocol/server-everything/dist/index.js')} stdio`;
  const options = ['--stdio', everything, '--outputTransport', 'ws', '--port', String(port), '--messagePath', '/message'];
  const [child] = await start('node', [file('node_modules/supergateway/dist/index.js'), ...options], /(WebSocket endpoint|Listening)/i);
  return { child, url: `ws://127.0.0.1:${port}/message` };
}

/**
 * A proxy before `target` that cuts each connection after so many bytes in both directions together as `bytes()` draws:
 * by a reset, or by the end of the stream.
 */
export async function cuttingProxy(target, bytes) {
  const { hostname, port, pathname } = new URL(target);
  const proxy = { cuts: 0, connections: 0 };
  const server = createServer((near) => {
    proxy.connections++;
    const far = connect(Number(port), hostname);
    let left = bytes();
    const cut = () => {
      if (near.destroyed) return;
      proxy.cuts++;
      if (proxy.cuts % 2) near.resetAndDestroy();
      else near.destroy();
      far.destroy();
    };
    const pass = (from, to) => {
      from.on('data', (data) => {
        const piece = data.subarray(0, left);
        left -= piece.length;
        if (!to.write(piece)) from.pause();
        if (left <= 0) cut();
      });
      to.on('drain', () => from.resume());
      from.on('end', () => to.end());
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    };
    pass(near, far);
    pass(far, near);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  proxy.url = `ws://127.0.0.1:${server.address().port}${pathname}`;
  proxy.close = () => server.close();
  return proxy;
}

/** How many tool calls the `math` server at `url` has executed. */
export async function executed(url) {
  const health = new URL('/health', url);
  health.protocol = 'http:';
  return (await (await fetch(health)).json()).tool_calls;
}
