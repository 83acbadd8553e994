// Legend, table of segments and table of times.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const percent = (share) => (share > 0 && share < 0.0005 ? '<0.1 %' : `${(100 * share).toFixed(1)} %`);

// Entries highlight their segments while the pointer or the focus is on them, and stay
// pressed until they are pressed again. `light(test)` gets null for none.
export function showLegend(list, rows, light) {
  const classes = new Map();
  for (const row of rows) {
    const entry = classes.get(row.label) || { row, count: 0, share: 0 };
    entry.count += 1;
    entry.share += row.share;
    if (row.number < entry.row.number) entry.row = row;
    classes.set(row.label, entry);
  }
  const entries = [...classes.values()].sort((a, b) => b.share - a.share);
  let pressed = null;
  const back = () => light(pressed);
  list.replaceChildren(...entries.map(({ row, count, share }) => {
    const test = (other) => other.name === row.name; // in both models
    const name = count > 1 ? `${row.name} × ${count}` : row.name;
    const button = element('button', { type: 'button', title: percent(share) }, name);
    button.style.background = `rgb(${row.colour})`;
    button.style.color = row.ink;
    button.setAttribute('aria-pressed', 'false');
    button.onpointerenter = button.onfocus = () => light(test);
    button.onpointerleave = button.onblur = back;
    button.onclick = () => {
      const was = button.getAttribute('aria-pressed') === 'true';
      for (const other of list.querySelectorAll('button')) other.setAttribute('aria-pressed', 'false');
      button.setAttribute('aria-pressed', String(!was));
      pressed = was ? null : test;
      light(pressed);
    };
    return element('li', {}, button);
  }));
}

export function showTable(body, rows, light) {
  const sorted = [...rows].sort((a, b) => (b.score ?? 0) - (a.score ?? 0) || b.share - a.share);
  body.replaceChildren(...sorted.map((row) => {
    const swatch = element('span', { className: 'swatch' });
    swatch.style.background = `rgb(${row.colour})`;
    const line = element(
      'tr', { tabIndex: 0 },
      element('td', {}, swatch, row.name),
      element('td', {}, row.score === null ? '–' : row.score.toFixed(2)),
      element('td', {}, percent(row.share)),
    );
    line.onpointerenter = line.onfocus = () => light((other) => other === row);
    line.onpointerleave = line.onblur = () => light(null);
    return line;
  }));
}

const STAGES = { read: 'reading', network: 'network', post: 'post-processing', draw: 'drawing' };

// `columns` are [heading, seconds by stage].
export function showTimes(table, columns) {
  const cell = (words) => element('td', {}, words);
  const ms = (seconds) => `${(1000 * seconds).toFixed(0)} ms`;
  table.tHead.replaceChildren(element(
    'tr', {}, element('th', {}, 'stage'),
    ...columns.map(([heading]) => element('th', {}, heading)),
  ));
  const rows = Object.entries(STAGES).map(([key, name]) => element(
    'tr', {}, cell(name), ...columns.map(([, seconds]) => cell(ms(seconds[key]))),
  ));
  const sum = ([, seconds]) => Object.keys(STAGES).reduce((total, key) => total + seconds[key], 0);
  rows.push(element(
    'tr', {}, cell('images/s'),
    ...columns.map((column) => cell((1 / sum(column)).toFixed(1))),
  ));
  rows.push(element(
    'tr', {}, cell('in the browser'),
    ...columns.map(([, seconds]) => cell(ms(seconds.browser))),
  ));
  table.tBodies[0].replaceChildren(...rows);
}

export { element };
