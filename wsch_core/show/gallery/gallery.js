// Draws what Python says: one query, and for each method the cards of its results. Text is set as text, never as HTML.

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function film(picture) {
  const made = element("span", picture.moving ? "film" : "strip");
  made.style.backgroundImage = `url(${picture.source})`;
  made.style.setProperty("--frames", picture.frames);
  made.style.setProperty("--middle", picture.middle);
  made.style.setProperty("--aspect", picture.aspect);
  return made;
}

function code(bits, reference) {
  const made = element("div", "code");
  made.title = reference ? "the code; underlined bits differ from the query's" : "the query's code";
  for (let place = 0; place < bits.length; place++) {
    const differs = reference && bits[place] !== reference[place];
    made.append(differs ? element("mark", "", bits[place]) : bits[place]);
  }
  return made;
}

function card(model, panel, item, showCodes) {
  const kind = item.relevant === null ? "" : item.relevant ? "hit" : "miss";
  const made = element("div", `card ${kind}`);
  if (item.tie) made.append(element("span", `tie ${item.tie}`));
  const frame = element("button", "frame");
  frame.title = `${item.id}\n${item.labels}\nmake it the query`;
  frame.append(film(item.film));
  frame.addEventListener("click", () => model.send({ query: item.row }));
  const line = element("div", "line");
  if (kind) line.append(element("span", "mark", kind === "hit" ? "✓" : "✗"));
  line.append(element("span", "", `d = ${item.distance}`), element("span", "rank", `#${item.rank}`));
  const choose = element("input", "choose");
  choose.type = "checkbox";
  choose.title = "choose for the export";
  choose.checked = model.get("chosen").includes(`${panel.method}\n${item.id}`);
  choose.addEventListener("change", () => model.send({ choose: [panel.method, item.id], on: choose.checked }));
  line.append(choose);
  made.append(frame, line, element("div", "name", item.id), element("div", "name labels", item.labels));
  if (showCodes) made.append(code(item.bits, panel.bits));
  return made;
}

function draw(model, root) {
  const { query, panels } = model.get("content");
  const showCodes = model.get("codes");
  const dark = document.body.dataset.jpThemeLight === "false";
  root.toggleAttribute("data-dark", dark);
  const left = element("div", "query");
  const frame = element("span", "frame");
  frame.append(film(query.film));
  left.append(element("h4", "", query.where), frame, element("div", "name", query.id), element("div", "name labels", query.labels));
  const right = element("div", "panels");
  for (const panel of panels) {
    const made = element("div", "panel");
    const cards = element("div", "cards");
    cards.append(...panel.cards.map((item) => card(model, panel, item, showCodes)));
    made.append(element("h4", "", panel.method), element("p", "note", panel.summary));
    if (showCodes) made.append(code(panel.bits));
    made.append(cards);
    right.append(made);
  }
  const row = element("div", "row");
  row.append(left, right);
  const legend =
    "✓ solid frame: shares a label with the query · ✗ dashed: does not · a bracket joins equally near videos, whose order " +
    "means nothing · d: Hamming distance · #: rank · point at a picture to play it, click it to make it the query, tick it " +
    "for the export";
  root.replaceChildren(row, element("div", "legend", legend));
}

export default {
  render({ model, el }) {
    const root = element("div", "wsch");
    el.append(root);
    const redraw = () => draw(model, root);
    model.on("change:content", redraw);
    model.on("change:codes", redraw);
    redraw();
    return () => {
      model.off("change:content", redraw);
      model.off("change:codes", redraw);
    };
  },
};
