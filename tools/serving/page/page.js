// The page: photos in, settings from the controls, results to viewer and tables.

import { Controls } from './controls.js';
import { showInside } from './inside.js';
import * as server from './server.js';
import { element, showLegend, showTable, showTimes } from './tables.js';
import { Viewer } from './viewer.js';

const get = (id) => document.getElementById(id);
const viewer = new Viewer(get('canvas'));
let known; // what the server can do
let controls;
let file = null; // the last photo, to send it again if the server has let it go
let photo = null; // what the server holds
let placed = null; // settled when the viewer has it
let results = [null, null];
let round = 0; // of requests: answers of older ones are dropped
let abort = new AbortController();

function newRound() {
  abort.abort();
  abort = new AbortController();
  get('error').hidden = true;
  round += 1;
  return round;
}

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
  const mine = newRound();
  const start = performance.now();
  try {
    if (chosen.size > known.megabytes * 1e6) {
      throw new Error(`the file has ${(chosen.size / 1e6).toFixed(0)} MB, and at most `
        + `${known.megabytes} are taken: make it smaller, or start the page with a larger `
        + '--max-megabytes');
    }
    say('Sending the photo.');
    const answer = await server.upload(chosen, abort.signal);
    if (mine !== round) return;
    file = chosen;
    await open(answer, mine, start);
  } catch (error) {
    if (mine === round) fail(error);
  }
}

async function open(answer, mine, start) {
  photo = answer;
  results = [null, null];
  controls.setSteps([]);
  get('inside').replaceChildren();
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

// Asks for the results of both sides; the network runs only for what is not known.
async function refresh() {
  if (!photo) return;
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
  const sides = controls.comparing ? [0, 1] : [0];
  for (const number of sides) {
    const asked = controls.settings(number);
    const found = await server.ask('result', asked, waiting, abort.signal);
    const index = await server.unpack16(found.index);
    const map = found.confidence ? await server.unpack(found.confidence) : null;
    await placed;
    if (mine !== round) return;
    results[number] = { ...found, asked, map };
    viewer.set(number, found, index);
    if (number === 0) viewer.map = map;
    if (sides.length === 1) viewer.set(1, null);
    viewer.lit = null;
    viewer.draw();
    await painted();
    if (mine !== round) return;
    found.seconds.browser = (performance.now() - start) / 1000;
  }
  if (sides.length === 1) results[1] = null;
  tell();
}

const painted = () => new Promise((done) => { requestAnimationFrame(() => setTimeout(done)); });

function tell() {
  const { rows, passes, asked } = results[0];
  say(rows.length === 1 ? 'One segment.' : `${rows.length} segments.`);
  get('count').textContent = rows.length;
  document.body.dataset.passes = passes;
  const light = (test) => {
    viewer.lit = test;
    viewer.draw();
  };
  showLegend(get('legend'), rows, light);
  showTable(get('table').tBodies[0], rows, light);
  const shown = results.filter(Boolean);
  const headings = results[1] ? ['left', 'right'] : ['time'];
  showTimes(get('times'), shown.map((result, i) => [headings[i], result.seconds]));
  get('slider').hidden = !results[1];
  for (const [i, id] of ['nameA', 'nameB'].entries()) get(id).textContent = heading(results[i]);
  const model = known.models[asked.model];
  get('downloads').hidden = false;
  get('panoptic').hidden = model.task === 'instance';
  get('insideBox').hidden = !model.steps.length;
  const query = encodeURIComponent(JSON.stringify(asked));
  const stem = photo.name.replace(/\.[^.]*$/, '') || 'photo';
  for (const [id, kind, name] of [
    ['painted', 'painted.png', `${stem}_painted.png`],
    ['coco', 'coco.json', `${stem}.json`],
    ['panoptic', 'panoptic.png', `${stem}.png`],
  ]) {
    get(id).href = server.address(`download/${kind}?settings=${query}`);
    get(id).download = name;
  }
}

function heading(result) {
  if (!result) return '';
  const { model, dtype, merging } = result.asked;
  const merged = merging === 'own' ? ', merging' : `, ${merging} % merged`;
  return `${known.models[model].name} (${dtype}${merging === 'off' ? '' : merged})`;
}

// --- inside the network ------------------------------------------------------

// If the server has let the photo go, it is sent once more.
async function lookInside(again = true) {
  if (!photo) return;
  const mine = newRound();
  const held = photo;
  const asked = { ...controls.settings(0), inside: true };
  try {
    const found = await server.ask('inside', asked, waiting, abort.signal);
    if (mine !== round) return;
    controls.setSteps(found.steps);
    await showInside(get('inside'), found, (step, query) => choose(asked, step, query));
    say('Choose a mask to see it large, or a heading to see the whole prediction.');
  } catch (error) {
    if (mine !== round) return;
    if (error.status === 410 && file && again) {
      await take(file);
      if (photo !== held) await lookInside(false);
    } else fail(error);
  }
}

async function choose(asked, step, query) {
  if (query === null) {
    controls.chooseStep(step);
    await refresh();
    return;
  }
  try {
    viewer.map = await server.queryMask({ ...asked, step, query });
    viewer.draw();
    say(`Query ${query}, ${controls.steps[step]}: bright where its mask is.`);
  } catch (error) {
    fail(error);
  }
}

// --- pointer, files, downloads -----------------------------------------------

function wireHover() {
  const { canvas } = viewer;
  const tip = get('tip');
  canvas.onpointermove = canvas.onpointerdown = (event) => {
    const box = canvas.getBoundingClientRect();
    // The canvas keeps its shape within its box.
    const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
    const x = (event.clientX - box.left - (box.width - scale * canvas.width) / 2) / scale;
    const y = (event.clientY - box.top - (box.height - scale * canvas.height) / 2) / scale;
    const isOn = x >= 0 && y >= 0 && x < canvas.width && y < canvas.height;
    const found = isOn ? viewer.at(x, y) : null;
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
  canvas.onpointerleave = () => { tip.hidden = true; };
  window.onresize = () => viewer.draw(); // names keep their size on the screen
}

function wirePhotos() {
  const first = (files) => { if (files[0]) take(files[0]); };
  get('file').onchange = () => {
    first(get('file').files);
    get('file').value = '';
  };
  const over = (event, isOver) => {
    event.preventDefault();
    get('drop').classList.toggle('over', isOver);
  };
  document.ondragover = (event) => over(event, true);
  document.ondragleave = (event) => over(event, false);
  document.ondrop = (event) => {
    over(event, false);
    first(event.dataTransfer.files);
  };
  document.onpaste = (event) => first(event.clipboardData.files);
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

function wireButtons() {
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
  get('insideGo').onclick = () => lookInside();
}

async function begin() {
  try {
    known = await server.about();
  } catch (error) {
    fail(error);
    return;
  }
  const listed = known.models.map((model) => `${model.name} (${model.task})`);
  get('models').textContent = listed.join(', ');
  controls = new Controls(known, viewer, refresh);
  wireHover();
  wirePhotos();
  wireButtons();
  document.body.dataset.ready = 'yes';
  // After a reload the server may still hold the photo, or work on it.
  const mine = newRound();
  try {
    const held = await server.heldPhoto();
    if (held.number && mine === round) await open(held, mine, performance.now());
  } catch (error) {
    if (mine === round) fail(error);
  }
}

begin();
