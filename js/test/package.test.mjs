// What is published.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

import * as api from '../mcp-ws.js';

const root = new URL('..', import.meta.url);
const read = (name) => readFileSync(new URL(name, root), 'utf8');
const manifest = JSON.parse(read('package.json'));

test('the version is that of the crate', () => {
  const [, version] = read('../Cargo.toml').match(/^version = "(.+)"$/m);
  assert.equal(manifest.version, version);
});

test('everything that is exported is declared, and nothing else', () => {
  const declared = [...read('mcp-ws.d.ts').matchAll(/^export declare (?:const|function|class) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(api).sort());
});

test('what is packed is what a user needs', () => {
  const options = { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] };
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json'], options));
  const modules = readdirSync(new URL('src', root)).map((name) => `src/${name}`);
  const others = ['LICENSE-APACHE', 'LICENSE-MIT', 'README.md', 'mcp-ws.d.ts', 'mcp-ws.js', 'package.json'];
  assert.deepEqual(files.map(({ path }) => path).sort(), [...others, ...modules].sort());
});

test('the modules need nothing but each other', () => {
  for (const name of ['mcp-ws.js', ...readdirSync(new URL('src', root)).map((name) => `src/${name}`)]) {
    for (const [, from] of read(name).matchAll(/^(?:import|export) .* from '([^']+)'/gm)) assert.match(from, /^\.\//, `${name}: ${from}`);
  }
});
