/** An inspector for any MCP server, which begins with the one that this page is from. */

import { loadHistory } from './agent.js';
import { load } from './browse.js';
import { begin, byAgent, current } from './connection.js';

const LISTS = /^notifications\/(tools|prompts|resources)\/list_changed$/;
let again;

begin({
  open(socket, isResumed) {
    if (isResumed) return;
    if (byAgent()) loadHistory(socket);
    load(socket);
  },
  notification(method) {
    if (!LISTS.test(method)) return;
    clearTimeout(again);
    again = setTimeout(() => load(current()), 200); // of many changes, the last
  },
});
