// The page: photos in, controls to settings, results to the viewer.

import * as server from './server.js';
import { showInside } from './inside.js';
import { element, showLegend, showTable, showTimes } from './tables.js';
import { Viewer } from './viewer.js';

const get = (id) => document.getElementById(id);
const viewer = new Viewer(get('canvas'));
const LABELS = {
  object_mask_thr: 'Least score', iou_thr: 'Least visible share', max_per_image: 'Most segments',
};
const MERGINGS = { off: 'off', own: 'as in the config', any: 'by amount' };
let known; // what the server can do
let file = null; // the last photo, to send it again if the server has let it go
let photo = null; // what the server holds
let placed = null; // settled when the viewer has it
let thresholds = {}; // those that were moved
let inside = null; // names of the predictions, once the network was looked into
let results = [null, null];
let round = 0; // of requests: answers of older ones are dropped
let abort = new AbortController();

// --- words -------------------------------------------------------------------

function say(words) { get('status').textContent = words; }

function fail(error) {
  if (error.name === 'AbortError') return;
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  get('error').textContent = /[.?]$/.test(words) ? words : `${words}.`;
  get('error').hidden = false;
  say('');
}

function waiting(place) {
  say(place ? `Waiting: ${place} in front of you.` : 'The network is running.');
}

// --- photos ------------------------------------------------------------------

async function take(chosen) {
  get('error').hidden = true;
  if (chosen.size > known.megabytes * 1e6) {
    fail(new Error(`the file has ${(chosen.size / 1e6).toFixed(0)} MB, and at most `
      + `${known.megabytes} are taken: make it smaller, or start the page with a larger `
      + '--max-megabytes'));
    return;
  }
  const mine = newRound();
  say('Sending the photo.');
  const start = performance.now();
  try {
    const answer = await server.upload(chosen, abort.signal);
    if (mine !== round) return;
    file = chosen;
    await open(answer, mine, start);
  } catch (error) {
    if (mine === round) fail(error);
  }
}

function newRound() {
  abort.abort();
  abort = new AbortController();
  round += 1;
  return round;
}

async function open(answer, mine, start) {
  photo = answer;
  forgetInside();
  results = [null, null];
  placed = place(answer);
  await show(mine, start);
}

// Shows the photo as soon as it is there; results wait for it.
async function place(answer) {
  const response = await fetch(server.address(`photo/${answer.number}.jpg`));
  const bitmap = await createImageBitmap(await response.blob());
  if (photo !== answer) return;
  viewer.setPhoto(bitmap);
  get('viewer').hidden = false;
  viewer.draw();
  get('caption').textContent = `${answer.name}, ${answer.width} × ${answer.height}. ${answer.note}`;
}

// --- results -----------------------------------------------------------------

const comparing = () => get('compare').open;

function settings(number) {
  const side = get(number ? 'sideB' : 'sideA');
  const merging = side.querySelector('.merging').value;
  const step = Number(side.querySelector('.step').value);
  return {
    model: Number(side.querySelector('.model').value),
    dtype: side.querySelector('.dtype').value,
    merging: merging === 'any' ? Number(side.querySelector('.amount').value) : merging,
    inside: step >= 0,
    step,
    thresholds,
    confidence: number === 0 && get('confidence').value ? get('confidence').value : null,
  };
}

// Asks for the results of both sides; the network runs only for what is not known.
async function refresh() {
  if (!photo) return;
  get('error').hidden = true;
  const mine = newRound();
  try {
    await show(mine, performance.now());
  } catch (error) {
    if (mine !== round) return;
    if (error.status === 410 && file) take(file);
    else fail(error);
  }
}

async function show(mine, start) {
  for (const number of comparing() ? [0, 1] : [0]) {
    const asked = settings(number);
    const found = await server.ask('result', asked, waiting, abort.signal);
    const index = await server.unpack16(found.index);
    const map = found.confidence ? await server.unpack(found.confidence) : null;
    await placed;
    if (mine !== round) return;
    results[number] = { ...found, asked, map, index };
    viewer.set(number, found, index);
    if (number === 0) viewer.map = map;
    if (!comparing()) viewer.set(1, null);
    viewer.lit = null;
    viewer.draw();
    await painted();
    found.seconds.browser = (performance.now() - start) / 1000;
    results[number].seconds = found.seconds;
  }
  if (!comparing()) results[1] = null;
  tell();
}

const painted = () => new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); });

function tell() {
  const rows = results[0].rows;
  say(rows.length === 1 ? 'One segment.' : `${rows.length} segments.`);
  get('count').textContent = rows.length;
  document.body.dataset.passes = results[0].passes;
  const light = (test) => {
    viewer.lit = test && { side: 0, test };
    viewer.draw();
  };
  showLegend(get('legend'), rows, light);
  showTable(get('table').tBodies[0], rows, light);
  const columns = results.filter(Boolean).map((result, i) => [
    results[1] ? ['left', 'right'][i] : 'time', result.seconds,
  ]);
  showTimes(get('times'), columns);
  get('slider').hidden = !results[1];
  for (const [i, id] of ['nameA', 'nameB'].entries()) get(id).textContent = heading(i);
  get('downloads').hidden = false;
  const model = known.models[results[0].asked.model];
  get('panoptic').hidden = model.task === 'instance';
  const query = encodeURIComponent(JSON.stringify(results[0].asked));
  const stem = photo.name.replace(/\.[^.]*$/, '') || 'photo';
  for (const [id, kind, name] of [
    ['painted', 'painted.png', `${stem}_painted.png`],
    ['coco', 'coco.json', `${stem}.json`],
    ['panoptic', 'panoptic.png', `${stem}.png`],
  ]) {
    get(id).href = server.address(`download/${kind}?settings=${query}`);
    get(id).download = name;
  }
  get('insideBox').hidden = !model.steps.length;
}

function heading(number) {
  if (!results[number]) return '';
  const { model, dtype, merging } = results[number].asked;
  const merged = merging === 'off' ? '' : `, merging ${merging === 'own' ? 'on' : `${merging} %`}`;
  return `${known.models[model].name} (${dtype}${merged})`;
}

// --- inside the network ------------------------------------------------------

function forgetInside() {
  inside = null;
  get('inside').replaceChildren();
  for (const id of ['sideA', 'sideB']) fillSteps(get(id));
}

async function lookInside() {
  const mine = newRound();
  get('error').hidden = true;
  const asked = { ...settings(0), inside: true };
  try {
    const found = await server.ask('inside', asked, waiting, abort.signal);
    if (mine !== round) return;
    inside = found.steps;
    for (const id of ['sideA', 'sideB']) fillSteps(get(id));
    await showInside(get('inside'), found, (step, query) => choose(asked, step, query));
    say('Choose a mask to see it large, or a heading to see the whole prediction.');
  } catch (error) {
    if (mine === round) fail(error);
  }
}

async function choose(asked, step, query) {
  try {
    if (query === null) {
      viewer.map = null;
      get('sideA').querySelector('.step').value = step;
      await refresh();
      return;
    }
    viewer.map = await server.queryMask({ ...asked, step, query });
    viewer.draw();
    say(`Query ${query}, ${inside[step]}: bright where its mask is.`);
  } catch (error) {
    fail(error);
  }
}

// --- controls ----------------------------------------------------------------

function fill(select, options, value) {
  const chosen = value ?? select.value;
  select.replaceChildren(...options.map(([key, name]) => element('option', { value: key }, name)));
  if (options.some(([key]) => String(key) === String(chosen))) select.value = chosen;
  select.closest('label').hidden = options.length < 2;
}

function fillSteps(side) {
  const model = known.models[Number(side.querySelector('.model').value)];
  const steps = inside && model.steps.length === inside.length ? inside.slice(0, -1) : [];
  fill(side.querySelector('.step'), [[-1, 'final'], ...steps.map((name, i) => [i, name])]);
}

function fillSide(side) {
  const model = known.models[Number(side.querySelector('.model').value)];
  fill(side.querySelector('.dtype'), model.dtypes.map((name) => [name, name]));
  fill(side.querySelector('.merging'), model.merging.map((name) => [name, MERGINGS[name]]));
  fillSteps(side);
  showAmount(side);
}

function showAmount(side) {
  const box = side.querySelector('.amountBox');
  box.hidden = side.querySelector('.merging').value !== 'any';
  box.querySelector('output').textContent = `${side.querySelector('.amount').value} %`;
}

// Thresholds and confidence of the model on the left.
function fillThresholds() {
  const model = known.models[Number(get('sideA').querySelector('.model').value)];
  const names = Object.keys(model.thresholds);
  get('thresholds').hidden = !names.length;
  get('thresholds').querySelector('div').replaceChildren(...names.map((name) => {
    const [low, high] = known.thresholds[name];
    const whole = name === 'max_per_image';
    const input = element('input', {
      type: 'range', id: name, min: low, max: whole ? 200 : high, step: whole ? 1 : 0.01,
    });
    input.value = thresholds[name] ?? model.thresholds[name];
    const output = element('output', {}, input.value);
    input.oninput = () => {
      output.textContent = input.value;
      thresholds[name] = Number(input.value);
      soon();
    };
    return element('label', {}, LABELS[name], ' ', element('code', {}, name), output, input);
  }));
  const measures = model.confidences.map((name) => [name, name.replace('_', ' ')]);
  get('confidenceBox').hidden = !measures.length;
  const chosen = get('confidence').value;
  get('confidence').replaceChildren(
    ...[['', 'off'], ...measures].map(([key, name]) => element('option', { value: key }, name)),
  );
  if (model.confidences.includes(chosen)) get('confidence').value = chosen;
}

let timer;
function soon() {
  clearTimeout(timer);
  timer = setTimeout(refresh, 60);
}

function wireDrawing() {
  const opacity = () => {
    viewer.opacity = get('opacity').value / 100;
    get('opacity').parentElement.querySelector('output').textContent = `${get('opacity').value} %`;
    viewer.draw();
  };
  get('opacity').oninput = opacity;
  opacity();
  for (const id of ['borders', 'names']) {
    get(id).onchange = () => {
      viewer[id] = get(id).checked;
      viewer.draw();
    };
  }
  get('split').oninput = () => {
    viewer.split = get('split').value / 100;
    viewer.draw();
  };
  get('confidence').onchange = refresh;
}

function wireSides() {
  for (const id of ['sideA', 'sideB']) {
    const side = get(id);
    const models = known.models.map((model, i) => [i, model.name]);
    fill(side.querySelector('.model'), models, id === 'sideB' && models.length > 1 ? 1 : 0);
    fillSide(side);
    side.querySelector('.model').onchange = () => {
      if (id === 'sideA') thresholds = {};
      fillSide(side);
      fillThresholds();
      refresh();
    };
    side.querySelector('.merging').onchange = () => {
      showAmount(side);
      refresh();
    };
    for (const name of ['.dtype', '.step', '.amount']) side.querySelector(name).onchange = refresh;
    side.querySelector('.amount').oninput = () => showAmount(side);
  }
  get('compare').ontoggle = refresh;
  get('reset').onclick = () => {
    thresholds = {};
    fillThresholds();
    refresh();
  };
}

function wireHover() {
  const tip = get('tip');
  viewer.canvas.onpointermove = (event) => {
    const box = viewer.canvas.getBoundingClientRect();
    // The canvas keeps its shape within its box.
    const scale = Math.min(box.width / viewer.canvas.width, box.height / viewer.canvas.height);
    const left = (box.width - scale * viewer.canvas.width) / 2;
    const top = (box.height - scale * viewer.canvas.height) / 2;
    const x = (event.clientX - box.left - left) / scale;
    const y = (event.clientY - box.top - top) / scale;
    const inside = x >= 0 && y >= 0 && x < viewer.canvas.width && y < viewer.canvas.height;
    const found = inside ? viewer.at(x, y) : null;
    tip.hidden = !found;
    if (!found) return;
    const parts = [found.row ? found.row.name : 'nothing'];
    if (found.row && found.row.score !== null) parts.push(`score ${found.row.score.toFixed(2)}`);
    if (found.side === 0 && results[0].map) {
      parts.push(`confidence ${(results[0].map[found.place] / 255).toFixed(2)}`);
    }
    tip.textContent = parts.join(', ');
    tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 120)}px`;
    tip.style.top = `${event.clientY - box.top + 16}px`;
  };
  viewer.canvas.onpointerleave = () => { tip.hidden = true; };
}

function wirePhotos() {
  get('file').onchange = () => {
    if (get('file').files[0]) take(get('file').files[0]);
    get('file').value = '';
  };
  const drop = get('drop');
  document.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add('over');
  };
  document.ondragleave = () => drop.classList.remove('over');
  document.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  };
  document.onpaste = (event) => {
    if (event.clipboardData.files[0]) take(event.clipboardData.files[0]);
  };
  for (let i = 0; i < known.examples; i++) {
    const address = `/api/examples/${i}`;
    const image = element('img', { src: address, alt: `example ${i + 1}` });
    const button = element('button', { type: 'button' }, image);
    button.onclick = async () => {
      const blob = await (await fetch(address)).blob();
      take(new File([blob], `scene_${i + 1}.png`));
    };
    get('examples').append(button);
  }
}

function wireDownloads() {
  get('shown').onclick = () => viewer.canvas.toBlob((blob) => {
    const link = element('a', { href: URL.createObjectURL(blob), download: 'shown.png' });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  get('forget').onclick = async () => {
    newRound();
    await server.forget().catch(fail);
    file = photo = null;
    results = [null, null];
    for (const id of ['viewer', 'downloads', 'insideBox']) get(id).hidden = true;
    for (const id of ['legend', 'inside']) get(id).replaceChildren();
    for (const id of ['table', 'times']) get(id).tBodies[0].replaceChildren();
    get('count').textContent = '';
    say('The photo is forgotten.');
  };
  get('insideGo').onclick = lookInside;
}

async function begin() {
  try {
    known = await server.about();
  } catch (error) {
    fail(error);
    return;
  }
  get('models').textContent = known.models.map((model) => `${model.name} (${model.task})`).join(', ');
  wireDrawing();
  wireSides();
  wireHover();
  wirePhotos();
  wireDownloads();
  fillThresholds();
  document.body.dataset.ready = 'yes';
  // After a reload the server may still hold the photo, or work on it.
  try {
    const held = await server.heldPhoto();
    if (held.number) await open(held, newRound(), performance.now());
  } catch (error) {
    fail(error);
  }
}

begin();
