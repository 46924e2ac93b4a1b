"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
const make = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const signed = x => (x < 0 ? "\u2212" : "+") + Math.abs(x).toFixed(3);
const percent = x => (100 * x).toFixed(x < 0.0995 ? 1 : 0) + " %";

// The text: one tab stop, arrows go from token to token.
const panel = document.getElementById("panel");
const tokens = [...document.querySelectorAll("#text i")];
let shown = 0;
const predictions = (loss, i) => {
  const column = make("div"), list = make("ol");
  column.append(make("span", D.names[loss], loss ? "of-b" : "of-a"), ` nll ${D.nll[loss][i].toFixed(3)}`);
  for (const [word, p, whole] of D.top[loss][i]) {
    const row = make("li", undefined, word === D.target[i] ? "target" : "");
    row.append(make("code", D.words[word]), make("span", (whole ? "" : "\u2265 ") + percent(p)));
    list.append(row);
  }
  column.append(list);
  return column;
};
const show = i => {
  tokens[shown].classList.remove("on");
  tokens[shown].tabIndex = -1;
  shown = i;
  tokens[i].classList.add("on");
  tokens[i].tabIndex = 0;
  const [low, high] = D.interval ? [D.interval[0][i], D.interval[1][i]] : [];
  const about = make("p"), difference = make("p"), pair = make("div", undefined, "pair");
  about.append(make("code", D.words[D.target[i]]), ` \u00b7 token ${i + 1}, ${D.position[i]} read before it in its ` +
    `window, ${D.train[i].toLocaleString("en")} \u00d7 in train`);
  difference.textContent = `difference ${signed(D.mean[i])}` +
    (D.interval ? ` [${signed(low)}, ${signed(high)}]` : "") + ` nats: ${D.says[D.state[i]]}`;
  pair.append(predictions(0, i), predictions(1, i));
  panel.replaceChildren(about, difference, pair);
};
const text = document.getElementById("text");
for (const event of ["pointerover", "focusin", "click"])
  text.addEventListener(event, e => {
    const i = tokens.indexOf(e.target.closest("i"));
    if (i >= 0) show(i);
  });
text.addEventListener("keydown", e => {
  const to = shown + ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 }[e.key] || 0);
  if (to === shown || !tokens[to]) return;
  e.preventDefault();
  tokens[to].focus();
});

// Attention: lower triangles, row after row, as bytes 255 \u00b7 \u221aweight.
const P = D.window.length, TRIANGLE = P * (P + 1) / 2;
const bytes = D.attention.map(packed => Uint8Array.from(atob(packed), c => c.charCodeAt(0)));
const big = [...document.querySelectorAll("figure canvas")], outputs = [...document.querySelectorAll("output")];
const small = [];
let head = 0, row = Math.min(P - 1, Math.ceil(P / 2)), column = row;
const weight = (loss, r, c) => (bytes[loss][head * TRIANGLE + r * (r + 1) / 2 + c] / 255) ** 2;
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const picture = (loss, h) => {
  const canvas = make("canvas");
  canvas.width = canvas.height = P;
  const brush = canvas.getContext("2d"), image = brush.createImageData(P, P);
  const ink = colour(loss ? "--b" : "--a").split(" ").map(Number);
  for (let r = 0, at = h * TRIANGLE; r < P; r++)
    for (let c = 0; c <= r; c++, at++) image.data.set([...ink, bytes[loss][at]], 4 * (r * P + c));
  brush.putImageData(image, 0, 0);
  return canvas;
};
const draw = () => big.forEach((canvas, loss) => {
  const size = canvas.clientWidth, edge = Math.min(72, size / 5), cell = (size - edge) / P;
  const ratio = devicePixelRatio || 1;
  canvas.width = canvas.height = size * ratio;
  const brush = canvas.getContext("2d");
  brush.scale(ratio, ratio);
  brush.imageSmoothingEnabled = false;
  brush.drawImage(picture(loss, head), edge, edge, size - edge, size - edge);
  brush.fillStyle = colour("--quiet");
  brush.font = "10px ui-monospace, monospace";
  brush.textBaseline = "middle";
  const every = Math.ceil(12 / cell);
  const label = t => D.words[D.window[t]].slice(0, 9);
  for (let t = 0; t < P; t += every) {
    const middle = edge + (t + .5) * cell;
    brush.textAlign = "right";
    brush.fillText(label(t), edge - 4, middle);
    brush.save();
    brush.translate(middle, edge - 4);
    brush.rotate(-Math.PI / 2);
    brush.textAlign = "left";
    brush.fillText(label(t), 0, 0);
    brush.restore();
  }
  brush.strokeStyle = colour("--line");
  brush.strokeRect(edge, edge, size - edge, size - edge);
  brush.strokeStyle = colour("--ink");
  brush.strokeRect(edge, edge + row * cell, (row + 1) * cell, cell);
  brush.strokeRect(edge + column * cell, edge + row * cell, cell, cell);
  const word = t => "\u201c" + D.words[D.window[t]] + "\u201d";
  const most = [...Array(row + 1).keys()].sort((x, y) => weight(loss, row, y) - weight(loss, row, x)).slice(0, 4);
  outputs[loss].textContent = `${word(row)} (${row + 1}) takes ${percent(weight(loss, row, column))} from ` +
    `${word(column)} (${column + 1}); most from ` +
    most.map(c => `${word(c)} (${c + 1}) ${percent(weight(loss, row, c))}`).join(", ");
});
const pick = (r, c) => {
  row = Math.max(0, Math.min(P - 1, r));
  column = Math.max(0, Math.min(row, c));
  draw();
};
big.forEach(canvas => {
  const at = e => {
    const box = canvas.getBoundingClientRect(), edge = Math.min(72, box.width / 5), cell = (box.width - edge) / P;
    const [r, c] = [e.clientY - box.top, e.clientX - box.left].map(x => Math.floor((x - edge) / cell));
    if (r >= 0 && r < P && c < P) pick(r, c);
  };
  canvas.addEventListener("pointermove", at);
  canvas.addEventListener("pointerdown", at);
  canvas.addEventListener("keydown", e => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[e.key];
    if (!step) return;
    e.preventDefault();
    pick(row + step[0], column + step[1]);
  });
});
const heads = document.getElementById("heads");
for (let h = 0; h < D.heads; h++) {
  const button = make("button"), pair = [make("canvas"), make("canvas")];
  pair.forEach(canvas => { canvas.width = canvas.height = P; });
  button.append(...pair, make("br"), `head ${h + 1}`);
  button.addEventListener("click", () => { head = h; mark(); draw(); });
  heads.append(button);
  small.push(pair);
}
const mark = () => [...heads.children].forEach((b, h) => b.setAttribute("aria-pressed", h === head));
const redraw = () => {
  small.forEach((pair, h) => pair.forEach((canvas, loss) => {
    const brush = canvas.getContext("2d");
    brush.clearRect(0, 0, P, P);
    brush.drawImage(picture(loss, h), 0, 0);
  }));
  draw();
};
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", draw);
mark();
redraw();
if (tokens.length) show(0);
