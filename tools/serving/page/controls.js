// The controls beside the photo, and the settings that they stand for.

import { element } from './tables.js';

const LABELS = {
  object_mask_thr: 'Least score', iou_thr: 'Least visible share', max_per_image: 'Most segments',
};
const MERGINGS = { off: 'off', own: 'as in the config', any: 'by amount' };
const PAUSE = 60; // ms after the last move of a slider
const get = (id) => document.getElementById(id);
const SIDES = [get('sideA'), get('sideB')];

export class Controls {
  // `changed` is called when the server has to be asked again.
  constructor(known, viewer, changed) {
    this.known = known;
    this.viewer = viewer;
    this.changed = changed;
    this.thresholds = {}; // those that were moved
    this.steps = []; // names of the predictions, once the network was looked into
    this.wireDrawing();
    SIDES.forEach((side, number) => this.wireSide(side, number));
    get('compare').ontoggle = changed;
    get('reset').onclick = () => {
      this.thresholds = {};
      this.fillThresholds();
      changed();
    };
    this.fillThresholds();
  }

  get comparing() { return get('compare').open; }

  model(side) { return this.known.models[Number(side.querySelector('.model').value)]; }

  settings(number) {
    const side = SIDES[number];
    const value = (name) => side.querySelector(name).value;
    const merging = value('.merging');
    return {
      model: Number(value('.model')),
      dtype: value('.dtype'),
      merging: merging === 'any' ? Number(value('.amount')) : merging,
      inside: Number(value('.step')) >= 0,
      step: Number(value('.step')),
      thresholds: this.thresholds,
      confidence: (number === 0 && get('confidence').value) || null,
    };
  }

  // Offers the predictions inside the network; none after another photo.
  setSteps(names) {
    this.steps = names;
    for (const side of SIDES) this.fillSteps(side);
  }

  chooseStep(step) {
    const last = step === this.steps.length - 1;
    SIDES[0].querySelector('.step').value = last ? -1 : step;
  }

  fillSteps(side) {
    const fits = this.model(side).steps.length === this.steps.length;
    const inner = fits ? this.steps.slice(0, -1) : [];
    fill(side.querySelector('.step'), [[-1, 'final'], ...inner.map((name, i) => [i, name])]);
  }

  fillSide(side) {
    const model = this.model(side);
    fill(side.querySelector('.dtype'), model.dtypes.map((name) => [name, name]));
    fill(side.querySelector('.merging'), model.merging.map((name) => [name, MERGINGS[name]]));
    this.fillSteps(side);
    side.querySelector('.warning').textContent = model.warning;
    showAmount(side);
  }

  // Thresholds and confidence of the model on the left.
  fillThresholds() {
    const model = this.model(SIDES[0]);
    const names = Object.keys(model.thresholds);
    get('thresholds').hidden = !names.length;
    get('thresholds').querySelector('div').replaceChildren(
      ...names.map((name) => this.slider(name, model.thresholds[name])),
    );
    const measures = model.confidences.map((name) => [name, name.replace('_', ' ')]);
    fill(get('confidence'), [['', 'off'], ...measures]);
  }

  slider(name, own) {
    const [low, high] = this.known.thresholds[name];
    const whole = name === 'max_per_image';
    const input = element('input', { type: 'range', id: name });
    Object.assign(input, { min: low, max: whole ? Math.max(own, 200) : high, step: whole ? 1 : 0.01 });
    input.value = this.thresholds[name] ?? own;
    const output = element('output', {}, input.value);
    let timer;
    input.oninput = () => {
      output.textContent = input.value;
      this.thresholds[name] = Number(input.value);
      clearTimeout(timer);
      timer = setTimeout(this.changed, PAUSE);
    };
    return element('label', {}, LABELS[name], ' ', element('code', {}, name), output, input);
  }

  wireDrawing() {
    const { viewer } = this;
    const opacity = get('opacity');
    opacity.oninput = () => {
      viewer.opacity = opacity.value / 100;
      opacity.parentElement.querySelector('output').textContent = `${opacity.value} %`;
      viewer.draw();
    };
    opacity.oninput();
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
    get('confidence').onchange = this.changed;
  }

  wireSide(side, number) {
    const models = this.known.models.map((model, i) => [i, model.name]);
    fill(side.querySelector('.model'), models, number && models.length > 1 ? 1 : 0);
    this.fillSide(side);
    side.querySelector('.model').onchange = () => {
      if (number === 0) this.thresholds = {};
      this.fillSide(side);
      this.fillThresholds();
      this.changed();
    };
    side.querySelector('.merging').onchange = () => {
      showAmount(side);
      this.changed();
    };
    for (const name of ['.dtype', '.step', '.amount']) {
      side.querySelector(name).onchange = this.changed;
    }
    side.querySelector('.amount').oninput = () => showAmount(side);
  }
}

// Options as [value, name]; the choice stays where it can, and one option is no choice.
function fill(select, options, value) {
  const chosen = String(value ?? select.value);
  select.replaceChildren(...options.map(([key, name]) => element('option', { value: key }, name)));
  if (options.some(([key]) => String(key) === chosen)) select.value = chosen;
  select.closest('label').hidden = options.length < 2;
}

function showAmount(side) {
  const box = side.querySelector('.amountBox');
  box.hidden = side.querySelector('.merging').value !== 'any';
  box.querySelector('output').textContent = `${side.querySelector('.amount').value} %`;
}
