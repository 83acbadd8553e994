// The photo with segments laid over it: one canvas, one or two results.

const SEEN = 0.25; // share of the opacity that is left beside a highlighted segment

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.photo = null;
    this.sides = [null, null]; // of the slider: what `add` has prepared
    this.split = 0.5;
    this.opacity = 0.6;
    this.borders = this.names = true;
    this.lit = null; // tells the rows that are highlighted; null for all
    this.map = null; // one grey map over the photo instead: confidence, a query
  }

  setPhoto(bitmap) {
    this.photo = bitmap;
    this.canvas.width = bitmap.width;
    this.canvas.height = bitmap.height;
    this.sides = [null, null];
    this.map = null;
  }

  // `result` has rows, width and height; `index` the segment of each pixel, from 1.
  set(side, result, index) {
    if (!result) {
      this.sides[side] = null;
      return;
    }
    const { width, height } = result;
    const edges = new Uint8Array(index.length);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        edges[i] = (x + 1 < width && index[i] !== index[i + 1])
          || (y + 1 < height && index[i] !== index[i + width]) ? 1 : 0;
      }
    }
    const layer = new OffscreenCanvas(width, height);
    this.sides[side] = { result, index, edges, layer };
  }

  // The segment at a place of the canvas, and the side it is on.
  at(x, y) {
    const side = this.sides[1] && x >= this.split * this.canvas.width ? 1 : 0;
    const found = this.sides[side];
    if (!found) return null;
    const place = Math.floor(y) * found.result.width + Math.floor(x);
    const number = found.index[place];
    return { side, place, number, row: found.result.rows[number - 1] };
  }

  draw() {
    if (!this.photo) return;
    const { width, height } = this.canvas;
    const context = this.canvas.getContext('2d');
    context.drawImage(this.photo, 0, 0);
    if (this.map) {
      this.drawMap(context);
      return;
    }
    const middle = this.sides[1] ? Math.round(this.split * width) : width;
    this.sides.forEach((side, number) => {
      if (!side) return;
      const [left, right] = number ? [middle, width] : [0, middle];
      context.save();
      context.beginPath();
      context.rect(left, 0, right - left, height);
      context.clip();
      this.paint(side);
      context.drawImage(side.layer, 0, 0);
      if (this.names) this.write(context, side);
      context.restore();
    });
    if (this.sides[1]) {
      context.fillStyle = '#000';
      context.fillRect(middle - 2, 0, 4, height);
      context.fillStyle = '#fff';
      context.fillRect(middle - 1, 0, 2, height);
    }
  }

  isLit(row) { return !this.lit || this.lit(row); }

  paint(side) {
    const { result, index, edges, layer } = side;
    // One colour for each segment; in memory A, B, G, R of each pixel.
    const table = new Uint32Array(result.rows.length + 1);
    const lines = new Uint32Array(table.length);
    result.rows.forEach((row, i) => {
      const lit = this.isLit(row);
      const [r, g, b] = row.colour;
      const alpha = Math.round(255 * this.opacity * (lit ? 1 : SEEN));
      table[i + 1] = ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
      lines[i + 1] = lit ? 0xffffffff : 0x60ffffff;
    });
    lines[0] = 0xffffffff;
    const image = new ImageData(result.width, result.height);
    const pixels = new Uint32Array(image.data.buffer);
    const borders = this.borders && this.opacity > 0;
    for (let i = 0; i < pixels.length; i++) {
      pixels[i] = borders && edges[i] ? lines[index[i]] : table[index[i]];
    }
    layer.getContext('2d').putImageData(image, 0, 0);
  }

  write(context, side) {
    const scale = this.canvas.width / Math.max(1, this.canvas.clientWidth);
    const size = Math.round(Math.min(3, Math.max(1, scale)) * 13);
    context.font = `600 ${size}px system-ui, "DejaVu Sans", sans-serif`;
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const row of side.result.rows) {
      const [x, y, depth] = row.place;
      if (depth < size / 2 || !this.isLit(row)) continue;
      const width = context.measureText(row.name).width + size * 0.7;
      context.fillStyle = `rgb(${row.colour})`;
      context.beginPath();
      context.roundRect(x - width / 2, y - size * 0.7, width, size * 1.4, size * 0.3);
      context.fill();
      context.fillStyle = row.ink;
      context.fillText(row.name, x, y + 1);
    }
  }

  // Dark where the map is low.
  drawMap(context) {
    const { width, height } = this.canvas;
    const image = new ImageData(width, height);
    for (let i = 0; i < this.map.length; i++) {
      image.data[4 * i + 3] = Math.round((255 - this.map[i]) * 0.85);
    }
    const layer = new OffscreenCanvas(width, height);
    layer.getContext('2d').putImageData(image, 0, 0);
    context.drawImage(layer, 0, 0);
  }
}
