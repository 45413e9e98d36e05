// Two maps of the same videos side by side: points on canvases, coloured by group. Pointing tells Python which video, a
// lasso which videos; what is pointed at or chosen on one map is marked on the other.

const SIZE = 410, LARGEST = 60; // pixels of a map's side; times that it can be magnified
const SHAPES = { o: circle, s: square, "^": triangle(0), v: triangle(Math.PI), "<": triangle(-Math.PI / 2),
  ">": triangle(Math.PI / 2), D: diamond, P: cross(0), X: cross(Math.PI / 4), "*": star, ".": circle };

function circle(pen, x, y, r) { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); }
function square(pen, x, y, r) { pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r); }
function polygon(pen, x, y, corners) {
  corners.forEach(([a, b], n) => (n ? pen.lineTo(x + a, y + b) : pen.moveTo(x + a, y + b)));
  pen.closePath();
}
function ring(count, turn, radius) {
  return Array.from({ length: count }, (_, n) => {
    const angle = turn - Math.PI / 2 + (2 * Math.PI * n) / count;
    return [radius(n) * Math.cos(angle), radius(n) * Math.sin(angle)];
  });
}
function triangle(turn) { return (pen, x, y, r) => polygon(pen, x, y, ring(3, turn, () => 1.3 * r)); }
function diamond(pen, x, y, r) { polygon(pen, x, y, ring(4, 0, () => 1.25 * r)); }
function star(pen, x, y, r) { polygon(pen, x, y, ring(10, 0, (n) => (n % 2 ? 0.6 * r : 1.5 * r))); }
function cross(turn) { return (pen, x, y, r) => polygon(pen, x, y, ring(12, turn, (n) => (n % 3 === 2 ? 0.5 * r : 1.35 * r))); }

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function sheet(size) {
  const canvas = element("canvas"), dense = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.ceil(size * dense);
  canvas.style.width = canvas.style.height = `${size}px`;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  return [canvas, pen];
}

// A group's marker, drawn once and copied for every point: 45,600 copies are quick, as many outlines are not.
function stamp(group, radius) {
  const size = Math.ceil(4 * radius) + 2, [canvas, pen] = sheet(size);
  pen.fillStyle = group.colour;
  pen.beginPath();
  SHAPES[group.marker](pen, size / 2, size / 2, radius);
  pen.fill();
  return { canvas, size };
}

function inside(x, y, outline) {
  let within = false;
  for (let a = 0, b = outline.length - 1; a < outline.length; b = a++) {
    const [ax, ay] = outline[a], [bx, by] = outline[b];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

// Grey points first, the others mixed, so that no group covers another.
function drawingOrder(groups, names) {
  const order = Uint32Array.from(groups.keys());
  for (let i = order.length - 1, state = 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = state % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  const grey = (i) => names[groups[i]].grey;
  return [...order.filter(grey), ...order.filter((i) => !grey(i))];
}

// One map. `shared` is what both know: groups, order, what is hidden, chosen and pointed at.
function panel(model, shared, place) {
  const root = element("div", "chart"), which = element("select"), box = element("div", "sheet");
  const [canvas, pen] = sheet(SIZE), [layer, inks] = sheet(SIZE);
  model.get("titles").forEach((title, n) => which.append(new Option(title, n, false, n === place)));
  which.setAttribute("aria-label", "map of");
  canvas.tabIndex = 0;
  box.append(canvas);
  const tools = element("div", "tools");
  root.append(which, box, tools);
  let view, points, outline = null, stale = false;

  const at = (i) => [(points[2 * i] * SIZE - view.x) * view.scale, ((1 - points[2 * i + 1]) * SIZE - view.y) * view.scale];
  const shown = (i) => !shared.hidden.has(shared.groups[i]);
  const radius = () => Math.min(4, Math.max(1.2, 100 / Math.sqrt(shared.groups.length))) * Math.min(2, Math.sqrt(view.scale));

  function load() {
    const count = 2 * shared.groups.length, first = count * Number(which.value);
    points = Float32Array.from(shared.coordinates.subarray(first, first + count), (value) => value / 65535);
    whole();
  }

  function drawPoints() {
    const stamps = model.get("names").map((group) => stamp(group, radius())), { chosen, groups } = shared;
    inks.clearRect(0, 0, SIZE, SIZE);
    for (const faded of chosen.size ? [true, false] : [false]) {
      inks.globalAlpha = faded ? 0.12 : 0.85;
      for (const i of shared.order) {
        if (!shown(i) || (chosen.size && chosen.has(i) === faded)) continue;
        const [x, y] = at(i), { canvas: mark, size } = stamps[groups[i]];
        if (x > -size && y > -size && x < SIZE + size && y < SIZE + size) inks.drawImage(mark, x - size / 2, y - size / 2, size, size);
      }
    }
  }

  function drawOver() {
    pen.clearRect(0, 0, SIZE, SIZE);
    pen.drawImage(layer, 0, 0, SIZE, SIZE);
    pen.strokeStyle = "#222";
    pen.lineWidth = 1.5;
    if (shared.hovered >= 0) { pen.beginPath(); pen.arc(...at(shared.hovered), radius() + 4, 0, 7); pen.stroke(); }
    if (outline) { pen.beginPath(); polygon(pen, 0, 0, outline); pen.setLineDash([5, 4]); pen.stroke(); pen.setLineDash([]); }
  }

  function draw(all = true) {
    stale ||= all;
    if (draw.asked) return;
    draw.asked = requestAnimationFrame(() => {
      draw.asked = 0;
      if (stale) drawPoints();
      stale = false;
      drawOver();
    });
  }

  function nearest([x, y]) {
    let best = -1, least = 12 * 12;
    for (let i = 0; i < shared.groups.length; i++) {
      if (!shown(i)) continue;
      const [a, b] = at(i), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  }

  const where = (event) => { const edge = canvas.getBoundingClientRect(); return [event.clientX - edge.left, event.clientY - edge.top]; };
  const whole = () => { view = { x: 0, y: 0, scale: 1 }; draw(); };
  const move = (x, y) => { view.x -= x / view.scale; view.y -= y / view.scale; draw(); };
  function magnify(factor, [x, y] = [SIZE / 2, SIZE / 2]) {
    const scale = Math.min(LARGEST, Math.max(1, view.scale * factor));
    view = { x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale, scale };
    if (scale === 1) whole();
    draw();
  }

  function choose(drawn, add) {
    const found = [];
    if (drawn.length > 3) shared.groups.forEach((_, i) => { if (shown(i) && inside(...at(i), drawn)) found.push(i); });
    else if (nearest(drawn[0]) >= 0) found.push(nearest(drawn[0]));
    shared.choose(add ? [...shared.chosen, ...found] : found);
  }

  let moving = false;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    canvas.focus({ preventScroll: true });
    moving = event.shiftKey;
    if (!moving) outline = [where(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (moving) move(event.movementX, event.movementY);
    else if (outline) { outline.push(where(event)); draw(false); }
    else shared.point(nearest(where(event)));
  });
  canvas.addEventListener("pointerup", (event) => {
    if (outline) choose(outline, event.ctrlKey || event.metaKey);
    outline = null;
    moving = false;
    draw(false);
  });
  canvas.addEventListener("pointercancel", () => { outline = null; moving = false; draw(false); });
  // The wheel scrolls the notebook, until a map has been clicked.
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    magnify(Math.exp(-event.deltaY / 400), where(event));
  }, { passive: false });
  const keys = { "+": () => magnify(1.5), "=": () => magnify(1.5), "-": () => magnify(1 / 1.5), 0: whole, Escape: () => shared.choose([]),
    ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40) };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook has meanings of its own for keys
    keys[event.key]();
  });
  for (const [text, title, act] of [["+", "nearer", () => magnify(1.5)], ["−", "farther", () => magnify(1 / 1.5)], ["whole map", "", whole]]) {
    const button = element("button", "", text);
    button.title = title;
    button.addEventListener("click", act);
    tools.append(button);
  }
  which.addEventListener("change", load);
  return { root, load, draw };
}

function render({ model, el }) {
  const root = element("div", "wsch map"), side = element("div", "side");
  const legend = element("div", "groups"), detail = element("div", "detail");
  const names = model.get("names"), bytes = (name) => { const data = model.get(name); return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength); };
  const groups = new Uint8Array(bytes("groups"));
  const shared = { groups, coordinates: new Uint16Array(bytes("points")), order: drawingOrder(groups, names), hidden: new Set(),
    chosen: new Set(), hovered: -1, point, choose };
  const panels = model.get("titles").slice(0, 2).map((_, place) => panel(model, shared, place));
  const draw = (all) => panels.forEach((shown) => shown.draw(all));

  function point(found) {
    if (found === shared.hovered) return;
    shared.hovered = found;
    if (found >= 0) model.send({ hover: found });
    draw(false);
  }

  function choose(found) {
    shared.chosen = new Set(found);
    model.send({ select: [...shared.chosen] });
    drawLegend();
    draw();
  }

  function toggle(g, alone) {
    const others = names.map((_, n) => n).filter((n) => n !== g);
    if (alone) shared.hidden = new Set(others.every((n) => shared.hidden.has(n)) ? [] : others);
    else if (!shared.hidden.delete(g)) shared.hidden.add(g);
    drawLegend();
    draw();
  }

  function drawLegend() {
    const focused = [...legend.children].indexOf(document.activeElement), counts = names.map(() => 0);
    shared.chosen.forEach((i) => counts[groups[i]]++);
    legend.replaceChildren(element("h4", "", model.get("title")));
    names.forEach((group, g) => {
      const entry = element("button", "group"), mark = element("span", "mark"), { canvas } = stamp(group, 4.2);
      mark.append(canvas);
      const total = group.count.toLocaleString("en");
      const count = shared.chosen.size ? `${counts[g].toLocaleString("en")} of ${total}` : total;
      entry.append(mark, element("span", "name", group.name), element("span", "rank", count));
      entry.setAttribute("aria-pressed", String(!shared.hidden.has(g)));
      entry.title = "show or hide; with shift, show it alone";
      entry.addEventListener("click", (event) => toggle(g, event.shiftKey));
      legend.append(entry);
    });
    legend.children[focused]?.focus();
  }

  function drawDetail() {
    const video = model.get("detail"), frame = element("span", "frame");
    if (video.film) {
      const film = element("span", video.film.moving ? "film always" : "strip");
      film.style.backgroundImage = `url(${video.film.source})`;
      film.style.setProperty("--frames", video.film.frames);
      film.style.setProperty("--middle", video.film.middle);
      film.style.setProperty("--aspect", video.film.aspect);
      frame.append(film);
    }
    detail.replaceChildren(frame, element("div", "name", video.id || "point at a video"), element("div", "name labels", video.labels || ""));
  }

  side.append(detail, legend);
  root.append(...panels.map((shown) => shown.root), side);
  el.append(root);
  model.on("change:detail", drawDetail);
  drawLegend();
  drawDetail();
  panels.forEach((shown) => shown.load());
  return () => model.off("change:detail", drawDetail);
}

export default { render };
