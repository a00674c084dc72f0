// Sliders over frequency rings without a kernel: image = mean + sum of gain * ring, per channel.
(() => {
  const make = (tag, parent, text = "", traits = {}) => {
    const element = Object.assign(document.createElement(tag), { textContent: text, ...traits });
    parent.append(element);
    return element;
  };

  function start(box) {
    const data = JSON.parse(box.dataset.rings);
    box.replaceChildren();
    const { height, width, rings } = data;
    const pixels = height * width, count = rings.length;
    for (const image of data.images)
      image.parts = new Int8Array(Uint8Array.from(atob(image.parts), (c) => c.charCodeAt(0)).buffer);
    const choice = make("label", box, "Image ", { className: "choice" });
    const select = make("select", choice);
    data.images.forEach((image, k) => make("option", select, image.title, { value: k }));
    const views = make("div", box, "", { className: "views" });
    const [before, after] = ["as it is", "with these gains"].map((title) => {
      const figure = make("figure", views);
      const canvas = make("canvas", figure, "", { width, height });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `the image ${title}`);
      make("figcaption", figure, title);
      return canvas.getContext("2d");
    });
    const changed = make("output", box, "", { className: "changed" });
    changed.setAttribute("aria-live", "polite");
    const table = make("table", make("div", box, "", { className: "scroll" }));
    const head = make("tr", make("thead", table));
    for (const name of ["Ring, cycles per pixel", "Gain", "", "Contrast", `Drift of ${data.teacher}, one ring at a time`])
      make("th", head, name);
    const body = make("tbody", table);
    const rows = rings.map((name) => {
      const row = make("tr", body);
      make("th", row, name, { scope: "row" });
      const slider = make("input", make("td", row),
        "", { type: "range", min: 0, max: data.most, step: 0.05, value: data.start[body.childElementCount - 1] });
      slider.setAttribute("aria-label", `gain of ${name} cycles per pixel`);
      slider.addEventListener("input", draw);
      const [gain, contrast, drift] = ["", "contrast", "drift"].map((className) => make("td", row, "", { className }));
      contrast.dataset.name = "contrast";
      drift.dataset.name = "drift, alone";
      return { slider, gain, contrast, drift };
    });
    const buttons = make("p", box, "", { className: "presets" });
    for (const [name, gains] of Object.entries({ "as it is": rings.map(() => 1), ...data.presets })) {
      make("button", buttons, name, { type: "button" }).addEventListener("click", () => {
        gains.forEach((gain, k) => (rows[k].slider.value = gain));
        draw();
      });
    }
    select.addEventListener("change", draw);

    function sum(image, gains) {
      const values = new Float32Array(3 * pixels);
      for (let c = 0; c < 3; c++) values.fill(image.mean[c], c * pixels, (c + 1) * pixels);
      for (let place = 0; place < 3 * count; place++) {
        const scale = gains[Math.floor(place / 3)] * image.steps[place];
        const from = place * pixels, to = (place % 3) * pixels;
        for (let k = 0; k < pixels; k++) values[to + k] += scale * image.parts[from + k];
      }
      return values;
    }

    function show(context, values) {
      const shown = context.createImageData(width, height);
      for (let k = 0; k < pixels; k++) {
        for (let c = 0; c < 3; c++) shown.data[4 * k + c] = Math.round(255 * values[c * pixels + k]);
        shown.data[4 * k + 3] = 255;
      }
      context.putImageData(shown, 0, 0);
    }

    function draw() {
      const image = data.images[select.value];
      const gains = rows.map(({ slider }) => Number(slider.value));
      show(before, sum(image, rings.map(() => 1)));
      const values = sum(image, gains);
      show(after, values);
      const left = values.filter((value) => value < 0 || value > 1).length / values.length;
      const rms = Math.hypot(...gains.map((gain, k) => (gain - 1) * image.contrast[k]));
      changed.textContent = `Changed by ${rms.toFixed(4)} RMS of [0, 1]; `
        + `${(100 * left).toFixed(1)} % of the values leave it and are clipped here.`;
      rows.forEach((row, k) => {
        row.gain.textContent = gains[k].toFixed(2);
        row.contrast.textContent = `${image.contrast[k].toFixed(3)} → ${(gains[k] * image.contrast[k]).toFixed(3)}`;
        const distance = data.measured.map((gain) => Math.abs(gain - gains[k]));
        const nearest = data.measured[distance.indexOf(Math.min(...distance))];
        const told = nearest === 1 ? 2 : nearest; // unchanged, it is 0: say what would be
        row.drift.textContent = `${image.drift[k][data.measured.indexOf(told)].toFixed(4)} at gain ${told}`;
        row.drift.classList.toggle("would", nearest === 1);
      });
    }

    draw();
    box.dataset.ready = "";
  }

  for (const box of document.querySelectorAll(".fopro-rings:not([data-ready])")) start(box);
})();
