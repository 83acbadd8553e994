// What the page asks of the server, and how it reads the answers.

const chars = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

// A reload keeps the token, and with it the photo and its place in the line.
function newToken() {
  const bytes = crypto.getRandomValues(new Uint8Array(24));
  return Array.from(bytes, (byte) => chars[byte & 63]).join('');
}
const token = sessionStorage.getItem('token') || newToken();
sessionStorage.setItem('token', token);

export const address = (path) => `/api/${token}/${path}`;

export class Refused extends Error {
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refused('The server does not answer: is tools/serve.py still running?', 0);
  }
  if (response.ok) return response;
  let words = `the server answered ${response.status}`;
  try { words = (await response.json()).error || words; } catch { /* no JSON */ }
  throw new Refused(words, response.status);
}

export const about = async () => (await answer('/api/about')).json();
export const heldPhoto = async () => (await answer(address('photo'))).json();
export const forget = () => answer(address('forget'), { method: 'POST' });

export async function upload(file, signal) {
  const path = `${address('photo')}?name=${encodeURIComponent(file.name || 'photo')}`;
  const response = await answer(path, { method: 'POST', body: file, signal });
  return response.json();
}

// Calls `waiting` with the number of others in front, until the result is there.
export async function ask(path, asked, waiting, signal) {
  const options = { method: 'POST', body: JSON.stringify(asked), signal };
  const response = await answer(address(path), options);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    text += done ? decoder.decode() : decoder.decode(value, { stream: true });
    const lines = text.split('\n');
    text = lines.pop();
    for (const line of lines) {
      const found = JSON.parse(line);
      if (found.error) throw new Refused(found.error, found.status);
      if (found.waiting === undefined) return found;
      waiting(found.waiting);
    }
    if (done) throw new Refused('The answer broke off: is the server still running?', 0);
  }
}

export async function queryMask(asked) {
  const options = { method: 'POST', body: JSON.stringify(asked) };
  const found = await (await answer(address('query'), options)).json();
  return unpack(found.mask);
}

// Arrays come deflated, as text.
export async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export async function unpack16(text) {
  return new Uint16Array((await unpack(text)).buffer);
}
