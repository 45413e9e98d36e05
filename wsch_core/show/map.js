// One map: points on a canvas, coloured by group. Pointing tells Python which video, a lasso which videos.

const SHAPES = { o: circle, s: square, "^": triangle(0), v: triangle(Math.PI), "<": triangle(-Math.PI / 2),
  ">": triangle(Math.PI / 2), D: diamond, P: cross(0), X: cross(Math.PI / 4), "*": star, ".": circle };

function circle(pen, x, y, r) { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); }
function square(pen, x, y, r) { pen.rect(x - 0.9 * r, y - 0.9 * r, 1.8 * r, 1.8 * r); }
function polygon(pen, x, y, corners) { corners.forEach(([a, b], n) => (n ? pen.lineTo(x + a, y + b) : pen.moveTo(x + a, y + b))); pen.closePath(); }
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

function inside(x, y, outline) {
  let within = false;
  for (let a = 0, b = outline.length - 1; a < outline.length; b = a++) {
    const [ax, ay] = outline[a], [bx, by] = outline[b];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

function render({ model, el }) {
  const root = element("div", "wsch map"), left = element("div", "sheet"), side = element("div", "side");
  const canvas = element("canvas"), legend = element("div", "groups"), detail = element("div", "detail");
  left.append(canvas);
  side.append(detail, legend);
  root.append(left, side);
  el.append(root);
  const size = 560, pen = canvas.getContext("2d"), dense = window.devicePixelRatio || 1;
  canvas.width = canvas.height = size * dense;
  canvas.style.width = canvas.style.height = `${size}px`;
  let points, groups, hidden = new Set(), chosen = new Set(), view = { x: 0, y: 0, scale: 1 }, outline = null, hovered = -1;

  const floats = (bytes) => new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const at = (i) => [(points[2 * i] * size - view.x) * view.scale, ((1 - points[2 * i + 1]) * size - view.y) * view.scale];
  const shown = (i) => !hidden.has(groups[i]);

  function load() {
    points = floats(model.get("points"));
    const bytes = model.get("groups");
    groups = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    draw();
  }

  function draw() {
    const dark = document.body.dataset.jpThemeLight === "false";
    root.toggleAttribute("data-dark", dark);
    const names = model.get("names"), count = groups.length;
    const radius = Math.min(4.5, Math.max(1.1, 110 / Math.sqrt(count))) * Math.min(2, Math.sqrt(view.scale));
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, size, size);
    const order = names.map((_, g) => g).sort((a, b) => (names[b].grey || 0) - (names[a].grey || 0));
    for (const g of order) {
      if (hidden.has(g)) continue;
      pen.fillStyle = names[g].colour === "#222222" && dark ? "#eeeeee" : names[g].colour;
      for (const faded of chosen.size ? [true, false] : [false]) {
        pen.globalAlpha = faded ? 0.15 : 0.85;
        pen.beginPath();
        for (let i = 0; i < count; i++) {
          if (groups[i] === g && (!chosen.size || chosen.has(i) !== faded)) SHAPES[names[g].marker](pen, ...at(i), radius);
        }
        pen.fill();
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = dark ? "#fff" : "#222";
    pen.lineWidth = 1.5;
    if (hovered >= 0) { pen.beginPath(); pen.arc(...at(hovered), radius + 4, 0, 7); pen.stroke(); }
    if (outline) { pen.beginPath(); polygon(pen, 0, 0, outline); pen.setLineDash([5, 4]); pen.stroke(); pen.setLineDash([]); }
  }

  function drawLegend() {
    legend.replaceChildren(element("h4", "", model.get("title")));
    model.get("names").forEach((group, g) => {
      const entry = element("button", "group");
      const mark = element("canvas");
      mark.width = mark.height = 14 * dense;
      mark.style.width = mark.style.height = "14px";
      const small = mark.getContext("2d");
      small.scale(dense, dense);
      small.fillStyle = group.colour;
      small.beginPath();
      SHAPES[group.marker](small, 7, 7, 4.2);
      small.fill();
      entry.append(mark, element("span", "name", group.name), element("span", "rank", group.count.toLocaleString("en")));
      entry.setAttribute("aria-pressed", String(!hidden.has(g)));
      entry.title = "show or hide";
      entry.addEventListener("click", () => { hidden.has(g) ? hidden.delete(g) : hidden.add(g); drawLegend(); draw(); });
      legend.append(entry);
    });
  }

  function drawDetail() {
    const video = model.get("detail");
    const frame = element("span", "frame");
    if (video.film) {
      const film = element("span", video.film.moving ? "film always" : "strip");
      film.style.backgroundImage = `url(${video.film.source})`;
      film.style.setProperty("--frames", video.film.frames);
      film.style.setProperty("--middle", video.film.middle);
      frame.append(film);
    }
    detail.replaceChildren(frame, element("div", "name", video.id || "point at a video"), element("div", "name labels", video.labels || ""));
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function nearest([x, y]) {
    let best = -1, least = 12 * 12;
    for (let i = 0; i < groups.length; i++) {
      if (!shown(i)) continue;
      const [a, b] = at(i), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) { least = distance; best = i; }
    }
    return best;
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    outline = [place(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (outline && event.shiftKey) {
      view.x -= event.movementX / view.scale;
      view.y -= event.movementY / view.scale;
      outline = [place(event)];
    } else if (outline) {
      outline.push(place(event));
    } else {
      const found = nearest(place(event));
      if (found === hovered) return;
      hovered = found;
      if (found >= 0) model.send({ hover: found });
    }
    draw();
  });
  canvas.addEventListener("pointerup", () => {
    const drawn = outline;
    outline = null;
    chosen = new Set();
    if (drawn && drawn.length > 3) for (let i = 0; i < groups.length; i++) if (shown(i) && inside(...at(i), drawn)) chosen.add(i);
    model.send({ select: [...chosen] });
    draw();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = place(event), factor = Math.exp(-event.deltaY / 400), scale = Math.min(60, Math.max(1, view.scale * factor));
    view = { x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale, scale };
    if (scale === 1) view = { x: 0, y: 0, scale };
    draw();
  }, { passive: false });
  canvas.addEventListener("dblclick", () => { view = { x: 0, y: 0, scale: 1 }; draw(); });

  model.on("change:points", load);
  model.on("change:detail", drawDetail);
  drawLegend();
  drawDetail();
  load();
}

export default { render };
