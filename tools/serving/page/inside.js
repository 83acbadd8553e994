// The prediction before each of the last blocks, query by query (the paper's Fig. 2).

import { unpack } from './server.js';
import { element } from './tables.js';

// `choose(step, query)` shows one mask large, `choose(step, null)` a whole prediction.
export async function showInside(box, found, choose) {
  const masks = await unpack(found.masks);
  const { width, height, steps, queries, labels } = found;
  const size = width * height;
  const head = element('tr', {}, element('th', {}, 'query'), ...steps.map((name, step) => {
    const all = element('button', { type: 'button', title: 'show this prediction' }, name);
    all.onclick = () => choose(step, null);
    return element('th', {}, all);
  }));
  const rows = queries.map((query, place) => element(
    'tr', {}, element('th', {}, String(query)),
    ...steps.map((name, step) => {
      const start = (step * queries.length + place) * size;
      const { name: label, score } = labels[step][place];
      const canvas = thumbnail(masks.subarray(start, start + size), width, height);
      const button = element('button', { type: 'button' }, canvas);
      button.setAttribute('aria-label', `query ${query}, ${name}: ${label}, ${score}`);
      button.onclick = () => choose(step, query);
      return element('td', {}, button, element('small', {}, `${label} ${score.toFixed(2)}`));
    }),
  ));
  box.replaceChildren(element('table', {}, element('thead', {}, head), element('tbody', {}, ...rows)));
}

function thumbnail(mask, width, height) {
  const canvas = element('canvas', { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < mask.length; i++) {
    image.data.fill(mask[i], 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
  return canvas;
}
