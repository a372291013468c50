// Small line charts as SVG: one feature over days. In: points, reference interval; out: a <figure>.

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 200, HEIGHT = 70, LEFT = 6, RIGHT = 6, TOP = 8, BOTTOM = 14;

function shape(name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

export function number(value) {
  return Number(value.toPrecision(4)).toString();
}

// points: [{day, value, summary}], ascending. normal: [low, high] or undefined.
export function trend(name, unit, points, normal, named) {
  const days = points.map((point) => point.day), values = points.map((point) => point.value);
  const low = Math.min(...values, ...(normal ?? [])), high = Math.max(...values, ...(normal ?? []));
  const first = Math.min(...days), last = Math.max(...days);
  const across = (day) => LEFT + (last > first ? (day - first) / (last - first) : 0.5) * (WIDTH - LEFT - RIGHT);
  const up = (value) => HEIGHT - BOTTOM - (high > low ? (value - low) / (high - low) : 0.5) * (HEIGHT - TOP - BOTTOM);
  const told = points.map((point) => `day ${number(point.day)}: ${number(point.value)}`).join(", ");
  const chart = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name}, ${told}` });
  if (normal) {
    const top = up(normal[1]);
    chart.append(shape("rect", { class: "band", x: LEFT, y: top, width: WIDTH - LEFT - RIGHT,
      height: Math.max(1, up(normal[0]) - top) }));
  }
  chart.append(shape("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM + 3,
    y2: HEIGHT - BOTTOM + 3 }));
  chart.append(shape("polyline", { class: "path",
    points: points.map((point) => `${across(point.day)},${up(point.value)}`).join(" ") }));
  for (const point of points) {
    chart.append(shape("circle", { class: point.summary ? "dot summary" : "dot", cx: across(point.day),
      cy: up(point.value), r: 2.2 }));
  }
  chart.append(shape("text", { x: LEFT, y: HEIGHT - 2 }, `day ${number(first)}`));
  if (last > first) chart.append(shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, number(last)));
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  figure.className = named ? "trend named" : "trend";
  caption.textContent = `${name}: ${number(values.at(-1))}${unit ? " " + unit : ""}${named ? " (named important)" : ""}`;
  figure.append(caption, chart);
  return figure;
}

// The patient's measured features as [{name, points}], in the order of the catalogue.
export function series(patient, names) {
  const visits = Array.isArray(patient?.visits) ? patient.visits : [];
  const found = [];
  for (const name of names) {
    const points = [];
    for (const visit of visits) {
      const value = visit?.values?.[name];
      if (Number.isFinite(value) && Number.isFinite(visit.day)) {
        points.push({ day: visit.day, value, summary: visit.summary === true });
      }
    }
    if (points.length) found.push({ name, points });
  }
  return found;
}
