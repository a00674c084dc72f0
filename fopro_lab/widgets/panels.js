// Panels of the band explorer: they draw what Python measured and report where the hand is.

const SVG = "http://www.w3.org/2000/svg";
const MAX_GAIN = 4, STEP = 0.05; // of a slider
const LEFT = 46, RIGHT = 10; // margins of the frequency axis, pixels; panels.css has the same
const CORNER = Math.SQRT1_2;

const draw = (tag, attributes, parent, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
};

const make = (tag, name, parent, text = "") => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return parent.appendChild(element);
};

const showPng = (image, bytes) => {
  URL.revokeObjectURL(image.src); // of the one before, which may never have been loaded
  image.src = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
};

const last = (edges) => Math.min(edges.at(-1), CORNER);
const ringName = (edges, ring) =>
  `${+edges[ring].toFixed(3)} to ${+Math.min(edges[ring + 1], CORNER).toFixed(3)} cycles per pixel`
    + (edges[ring + 1] > CORNER ? " (corners)" : "");

// Image before and after under a wipe, and the spectrum, whose rings are dragged up and down.
function images({ model, el, on }) {
  const wipe = make("div", "wipe", el), spectrum = make("div", "spectrum", el);
  const before = make("img", "before", wipe), after = make("img", "after", wipe);
  before.alt = "Image before", after.alt = "Image after";
  make("span", "line", wipe), make("span", "tag left", wipe, "before");
  make("span", "tag right", wipe, "after");
  const range = make("input", "", wipe);
  Object.assign(range, { type: "range", min: 0, max: 100, value: 50 });
  range.setAttribute("aria-label", "Wipe: before on its left, after on its right");
  range.oninput = () => wipe.style.setProperty("--wipe", `${range.value}%`);
  const plane = make("img", "", spectrum);
  plane.alt = "Log amplitude after, zero frequency in the middle";
  const rings = draw("svg", { "aria-hidden": "true" }, spectrum); // sliders do the same by keys
  const told = make("span", "tag", spectrum);
  let held = null;

  const byRings = () => model.get("moving").mode !== "bump";
  const ringAt = (event) => {
    const box = rings.getBoundingClientRect(), half = 0.5 / model.get("fixed").size;
    const x = (event.clientX - box.left) / box.width - 0.5 - half;
    const y = (event.clientY - box.top) / box.height - 0.5 - half;
    const edges = model.get("fixed").rings, radius = Math.hypot(x, y);
    return Math.min(edges.findLastIndex((edge) => radius >= edge), edges.length - 2);
  };
  const tell = (ring, gain) => {
    const edges = model.get("fixed").rings;
    told.textContent = byRings() && ring >= 0
      ? `${ringName(edges, ring)}: gain ${gain.toFixed(2)}`
      : `log amplitude${byRings() ? "; drag a ring up or down" : ""}`;
    for (const line of rings.querySelectorAll(".edge"))
      line.classList.toggle("near", ring >= 0 && [ring, ring + 1].includes(+line.dataset.edge));
  };
  const send = (ring, gain) => {
    model.set("move", [ring, gain, Date.now()]);
    model.save_changes();
  };
  rings.onpointerdown = (event) => {
    if (!byRings()) return;
    const ring = ringAt(event);
    held = { ring, y: event.clientY, gain: model.get("moving").sliders[ring] };
    rings.setPointerCapture(event.pointerId);
    event.preventDefault();
  };
  rings.onpointermove = (event) => {
    if (!held) return tell(ringAt(event), model.get("moving").sliders[ringAt(event)]);
    const moved = ((held.y - event.clientY) / rings.clientHeight) * MAX_GAIN;
    const gain = Math.min(MAX_GAIN, Math.max(0, held.gain + moved));
    const rounded = +(Math.round(gain / STEP) * STEP).toFixed(2);
    if (rounded !== held.sent) send(held.ring, (held.sent = rounded));
    tell(held.ring, rounded);
  };
  rings.onpointerup = rings.onpointercancel = () => (held = null);
  rings.onpointerleave = () => held || tell(-1);
  rings.ondblclick = (event) => byRings() && send(ringAt(event), 1);

  on("fixed", ({ before: bytes, size, rings: edges }) => {
    if (!bytes) return;
    showPng(before, bytes);
    const start = -0.5 - 0.5 / size; // zero frequency is in the middle of its pixel
    rings.setAttribute("viewBox", `${start} ${start} 1 1`);
    rings.replaceChildren();
    draw("g", { class: "tint" }, rings);
    edges.slice(1, -1).forEach((r, i) =>
      draw("circle", { r, class: "edge", "data-edge": i + 1 }, rings));
    tell(-1);
  });
  on("moving", ({ after: bytes, spectrum: log, gains, sliders, mode }) => {
    if (!bytes) return;
    showPng(after, bytes);
    showPng(plane, log);
    if (spectrum.dataset.mode !== mode) tell(-1);
    spectrum.dataset.mode = mode;
    const edges = model.get("fixed").edges, tint = rings.querySelector(".tint");
    tint.replaceChildren();
    gains.forEach((gain, i) => {
      if (Math.abs(gain - 1) < 0.02) return;
      const low = edges[i], high = Math.min(edges[i + 1], CORNER);
      const depth = Math.min(1, Math.abs(Math.log2(Math.max(gain, 0.06))) / 2);
      const look = { class: gain > 1 ? "up" : "down", "stroke-opacity": 0.18 + 0.37 * depth };
      draw("circle", { r: (low + high) / 2, "stroke-width": high - low, ...look }, tint);
    });
    if (held) tell(held.ring, sliders[held.ring]);
  });
}

// Images of the tail classes under the same change; a click shows one large.
function strip({ model, el, on }) {
  const image = make("img", "", el), places = make("div", "places", el);
  image.alt = "Images of tail classes, after";
  on("fixed", ({ names = [] }) => {
    el.hidden = !names.length;
    places.replaceChildren();
    el.style.setProperty("--places", names.length);
    names.forEach((name, place) => {
      const button = make("button", "", places, name);
      button.title = `${name}: show this image`;
      button.onclick = () => {
        model.set("move", [place, 0, Date.now()]);
        model.save_changes();
      };
    });
  });
  on("moving", ({ after, chosen }) => {
    if (after) showPng(image, after);
    [...places.children].forEach((b, i) => b.setAttribute("aria-pressed", i === chosen));
  });
}

// The radial profile above the sliders and, behind them on the same axis, the teacher's response.
function equaliser({ model, el, on }) {
  const steps = (edges, heights, x, y) =>
    heights.map((h, i) => `${i ? "L" : "M"}${x(edges[i])} ${y(h)}H${x(edges[i + 1])}`).join("");
  const render = () => {
    const { edges, rings, contrast: before, response, heard = "" } = model.get("fixed");
    const { contrast: after, gains, mode } = model.get("moving");
    const width = el.clientWidth, height = el.clientHeight;
    if (!before || !after || !width) return;
    el.replaceChildren();
    const svg = draw("svg", { width, height, role: "img" }, el);
    svg.setAttribute("aria-label", "Radial profile before and after, and the teacher's response");
    const x = (f) => LEFT + (Math.min(f, CORNER) / last(edges)) * (width - LEFT - RIGHT);
    const base = el.closest(".fopro-equaliser-box")?.querySelector(".noUi-vertical .noUi-base");
    const own = el.getBoundingClientRect(), track = base?.getBoundingClientRect();
    const high = track?.height ? track.top - own.top : 0.54 * height;
    const low = track?.height ? track.bottom - own.top : height - 30;
    const top = Math.max(...before, 1e-4), floor = top / 3000, bottom = high - 54;
    const y = (c) => {
      const share = Math.log(Math.max(c, floor) / floor) / Math.log((top * 6) / floor);
      return bottom - Math.min(1, share) * (bottom - 18);
    };
    const gain = (g) => low - (Math.min(g, MAX_GAIN) / MAX_GAIN) * (low - high);
    const text = (cx, cy, words, look = {}) => draw("text", { x: cx, y: cy, ...look }, svg, words);
    const end = { "text-anchor": "end" }, middle = { "text-anchor": "middle" };
    for (let f = 0; f <= last(edges); f += 0.1) {
      draw("line", { x1: x(f), x2: x(f), y1: 18, y2: bottom, class: "grid" }, svg);
      draw("line", { x1: x(f), x2: x(f), y1: high - 10, y2: low, class: "grid" }, svg);
      text(x(f), bottom + 13, f ? f.toFixed(1) : "0", middle);
    }
    if (last(edges) > 0.5) text(x((0.5 + last(edges)) / 2), 30, "corners", middle);
    text((LEFT + width - RIGHT) / 2, bottom + 25, "spatial frequency, cycles per pixel", middle);
    for (let d = Math.ceil(Math.log10(floor)); d <= Math.log10(top * 6); d += 1) {
      draw("line", { x1: LEFT, x2: width - RIGHT, y1: y(10 ** d), y2: y(10 ** d), class: "grid" }, svg);
      text(LEFT - 5, y(10 ** d) + 4, d < 0 ? (10 ** d).toFixed(-d) : 10 ** d, end);
    }
    text(LEFT, 12, "contrast", { class: "strong" });
    text(width - RIGHT - 104, 12, "after", { class: "after", ...end });
    text(width - RIGHT, 12, "before (dashed)", { class: "before", ...end });
    draw("path", { d: steps(edges, after, x, y), class: "after" }, svg);
    draw("path", { d: steps(edges, before, x, y), class: "before" }, svg);
    if (response) {
      const largest = Math.max(...response, 1e-9);
      response.forEach((drift, i) => {
        const size = (drift / largest) * (low - high);
        const box = { x: x(rings[i]) + 1, width: x(rings[i + 1]) - x(rings[i]) - 2 };
        const bar = draw("rect", { ...box, y: low - size, height: size, class: "response" }, svg);
        draw("title", {}, bar, `${ringName(rings, i)}: drift ${drift.toFixed(4)} when removed`);
      });
      const words = width < 480 ? "bars: teacher's response" : heard;
      text(width - RIGHT, high - 12, words, { class: "heard", ...end });
    }
    for (const g of [0, 1, 2, 3, 4]) text(LEFT - 7, gain(g) + 4, `${g}×`, end);
    const hand = width < 480 ? "gain: drag a handle" : "gain of each ring: drag its handle";
    text(LEFT, high - 12, mode !== "bump" ? hand : "mean gain of each ring", { class: "strong" });
    draw("line", { x1: LEFT, x2: width - RIGHT, y1: gain(1), y2: gain(1), class: "one" }, svg);
    if (mode !== "rings") draw("path", { d: steps(edges, gains, x, gain), class: "after" }, svg);
  };
  on("fixed", render);
  on("moving", render);
  const watcher = new ResizeObserver(render); // of the sliders, too: they may come later
  watcher.observe(el);
  return () => watcher.disconnect();
}

// The teacher's drift, here and in the mean, on a scale of the ring that it hears most.
function drift({ el, on }) {
  on("moving", ({ error, title, here, mean, n, largest, top = [], student = "" }) => {
    el.replaceChildren();
    if (error) return make("p", "error", el, error);
    const lines = make("div", "", el);
    if (title) {
      make("h4", "", lines, `Drift of ${title} (1 - cos)`);
      const scale = Math.max(1.3 * largest, here, mean); // its end, so that no bar is cut off
      for (const [value, what] of [[here, "this image"], [mean, `mean of ${n} images`]]) {
        const row = make("p", "meter", lines);
        make("b", "", row, value.toFixed(4));
        make("span", "", row, what);
        const bar = make("i", "", row);
        bar.style.setProperty("--share", value / scale);
        bar.style.setProperty("--mark", largest / scale);
      }
      make("small", "", lines, `mark: strongest ring removed, ${largest.toFixed(4)}`);
    }
  });
}

// What the change does to each class: a line from recall before to recall after.
function classes({ model, el, on }) {
  const render = () => {
    const { error, title, rows, top } = model.get("moving");
    el.replaceChildren();
    if (error) return make("p", "error", el, error);
    if (!rows) return;
    const head = make("h4", "", el, title), foot = make("p", "", el, top);
    const rest = el.clientHeight - head.offsetHeight - foot.offsetHeight - 10;
    const width = el.clientWidth, height = Math.max(120, rest);
    const svg = draw("svg", { width, height, role: "img", "aria-label": title }, el);
    foot.before(svg);
    const words = Math.min(230, 0.56 * width), x0 = 42, x1 = width - words;
    const y = (share) => 8 + (1 - share) * (height - 26);
    for (const share of [0, 0.5, 1]) {
      draw("line", { x1: x0, x2: x1, y1: y(share), y2: y(share), class: "grid" }, svg);
      draw("text", { x: x0 - 5, y: y(share) + 4, "text-anchor": "end" }, svg, `${100 * share}%`);
    }
    draw("text", { x: x0, y: height - 2 }, svg, "before");
    draw("text", { x: x1, y: height - 2, "text-anchor": "end" }, svg, "after");
    const placed = rows.map(([name, n, before, after, group]) =>
      ({ name, n, before, after, group, at: y(after / n) }));
    placed.sort((a, b) => a.at - b.at || (a.group === "tail") - (b.group === "tail"));
    const gap = Math.min(14, (height - 14) / placed.length);
    placed.forEach((row, i) => (row.at = Math.max(row.at, i ? placed[i - 1].at + gap : 0)));
    for (let i = placed.length - 1, low = height - 16; i >= 0; low = placed[i--].at - gap)
      placed[i].at = Math.min(placed[i].at, low);
    for (const { name, n, before, after, group, at } of placed) {
      const line = draw("g", { class: `${group} ${after < before ? "lost" : ""}` }, svg);
      draw("line", { x1: x0, y1: y(before / n), x2: x1, y2: y(after / n) }, line);
      draw("circle", { cx: x0, cy: y(before / n), r: 2.5 }, line);
      draw("circle", { cx: x1, cy: y(after / n), r: 2.5 }, line);
      draw("path", { d: `M${x1 + 4} ${y(after / n)}L${x1 + 14} ${at}`, class: "leader" }, line);
      const label = draw("text", { x: x1 + 17, y: at + 4 }, line);
      const counts = before === after ? `${after} of ${n}` : `${before} → ${after} of ${n}`;
      label.textContent = `${name.length > 18 ? `${name.slice(0, 17)}…` : name}  ${counts}`;
      draw("title", {}, line, `${name}, ${group || "no group"}: ${counts}`);
    }
  };
  on("moving", render);
  const watcher = new ResizeObserver(render);
  watcher.observe(el);
  return () => watcher.disconnect();
}

const PARTS = { images, strip, equaliser, drift, classes };

export default {
  render({ model, el }) {
    const callbacks = [];
    const on = (name, show) => {
      const call = () => show(model.get(name));
      callbacks.push([`change:${name}`, call]);
      model.on(`change:${name}`, call);
      call();
    };
    el.setAttribute("aria-live", "polite");
    on("pending", (pending) => {
      el.classList.toggle("pending", pending);
      el.setAttribute("aria-busy", pending);
    });
    const end = PARTS[model.get("part")]({ model, el, on });
    return () => {
      callbacks.forEach(([name, call]) => model.off(name, call));
      end?.();
    };
  },
};
