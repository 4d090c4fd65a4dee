// The page's hand and eye. What is on screen is a link (model, digit, code); the server answers what it looks like.
// Every part of the page mounts itself; at most one request is under way, and the last wish wins.
"use strict";
window.explorer = (() => {
  const parts = {};            // the mounted elements, by name
  const known = {};            // answers that stay: sliders, map, examples
  const CLASS_COLOURS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
    "#bcbd22", "#17becf"];     // as in plots/latent_space.png
  const SIZE = 280;            // pixels of the drawing pad
  const PEN = 22;
  let hooks = {};              // what the layout hands over: server, upload, sync, largest
  let link = new URLSearchParams(location.search);
  const theme = link.get("__theme");
  link.delete("__theme");
  let tab = link.get("tab") === "Map" ? "Map" : link.has("code") || link.has("from") ? "Code" : "Draw";
  link.delete("tab");
  let seen = null;             // the last answer
  let lastDigit = 0;           // the test digit that an emptied pad goes back to
  let underway = false, wish = null, held = false, typing = null;
  let edits = [];              // of the link, made while an answer is under way
  let own = null;              // the visitor's last digit: its image, and the strokes if it was drawn
  let inked = [];              // the strokes that were sent last
  let goalClass = null;        // the class whose mean is marked on the sliders
  const moves = {};            // where each model's code was moved to, while the digit stays
  const timings = [];

  const $ = (part, selector) => parts[part]?.querySelector(selector);
  const $$ = (part, selector) => [...(parts[part]?.querySelectorAll(selector) ?? [])];
  const text = (node, value) => { if (node) node.textContent = value; };
  const escape = (value) => String(value).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
  const percent = (value) => value > 99.9 && value < 100 ? "more than 99.9" : value > 0 && value < 0.1 ? "less than 0.1"
    : value.toFixed(1);
  const rank = (value) => value === 0 ? "above no test digit" : value === 100 ? "above all test digits"
    : `above ${percent(value)} % of test digits`;

  // --- asking --------------------------------------------------------------------------

  // A digit or a button that waits to be sent is sent with what is asked for after it, unless that is another digit.
  function ask(request = {}) {
    wish = { ...wish, ...request, began: wish?.began ?? performance.now() };
    if (!underway) next();
  }

  function askAnew(request = {}) {
    wish = null;
    clearTimeout(typing);
    typing = null;
    ask(request);
  }

  function edit(change) {
    change(link);
    if (underway) edits.push(change);              // the answer brings a link of its own
  }

  async function next() {
    if (!hooks.server) return;
    const { began, ...request } = wish;
    wish = null;
    underway = true;
    const want = ["side"];
    if (!known.examples) want.push("examples", "measured");
    const named = link.get("model");
    if (seen && named !== seen.model) want.push("measured");
    if (tab === "Code") want.push("previews", "walk");
    if (tab === "Code" && known.sliders?.model !== (named ?? seen?.model)) want.push("sliders");
    if (tab === "Map") want.push("near");
    if (tab === "Map" && known.map?.model !== (named ?? seen?.model)) want.push("map");
    let answer;
    try {
      answer = await hooks.server.show({ link: link.toString(), want, ...request });
    } catch {
      answer = { problem: "The explorer does not answer. Is it still running in its terminal?" };
    }
    underway = false;
    const made = edits;
    edits = [];
    if (answer.problem) {
      say(answer.problem);
      if (seen && !made.length) {                  // what can't be shown is no longer asked for
        link = new URLSearchParams(seen.link);
        hooks.sync?.();
      }
    } else {
      say("");
      take(answer, made);
      timings.push(performance.now() - began);
    }
    document.body.dataset.answers = String(Number(document.body.dataset.answers ?? 0) + 1);
    if (wish) next();
  }

  function take(answer, made) {
    const changed = !seen || seen.model !== answer.model || seen.digit !== answer.digit;
    seen = answer;
    lastDigit = seen.digit ?? lastDigit;
    if (seen.digit === null) own = { image: new URLSearchParams(answer.link).get("image"), strokes: inked };
    link = new URLSearchParams(answer.link);
    for (const change of made) change(link);
    const address = new URLSearchParams(link);
    if (tab === "Map") address.set("tab", tab);
    if (theme) address.set("__theme", theme);
    history.replaceState(null, "", `?${address.toString().replaceAll("%2C", ",")}`);
    for (const key of ["sliders", "map", "examples"]) {
      if (answer[key]) known[key] = { model: answer.model, value: answer[key], classes: answer.classes };
    }
    if (answer.measured) known.measured = { sentences: answer.measured, pairs: answer.pairs };
    if (answer.side) document.documentElement.style.setProperty("--model",
      answer.side.find((row) => row.name === answer.model)?.colour ?? "#0072B2");
    if (changed) hooks.sync?.();
    for (const name of Object.keys(parts)) paint[name]?.();
  }

  function say(message) {
    const bar = $("head", ".problem");
    if (!bar) return;
    bar.hidden = !message;
    text(bar, message);
  }

  // --- wishes --------------------------------------------------------------------------

  const digitOf = (scene) => scene.get("image") ?? scene.get("digit");

  const setAside = () => Object.keys(moves).filter((name) =>
    name !== seen.model && moves[name].code && moves[name].digit === digitOf(link));

  function choose(name) {
    const before = link.get("model") ?? seen?.model;
    if (name === before) return;
    moves[before] = { digit: digitOf(link), code: link.get("code"), from: link.get("from") };
    edit((scene) => {
      const kept = moves[name]?.digit === digitOf(scene) ? moves[name] : {};
      scene.set("model", name);
      for (const key of ["code", "from"]) {        // one model's numbers mean nothing to another
        if (kept[key]) scene.set(key, kept[key]); else scene.delete(key);
      }
    });
    ask();
  }

  function setDigit(number) {
    if (number === null || number === undefined || number === "" || (seen?.digit === number && !wish && !underway)) return;
    edit((scene) => {
      scene.set("digit", String(number));
      scene.delete("image");
      scene.delete("code");
    });
    clearPad();
    askAnew();
  }

  function typeDigit(number) {                     // not every keystroke is a wish
    clearTimeout(typing);
    typing = setTimeout(() => { typing = null; setDigit(number); }, 300);
  }

  function backToOwn() {
    const { image, strokes: lines } = own;
    strokes = lines;
    paintPad();
    if (strokes.length) { sendPad(); return; }
    edit((scene) => {
      scene.set("image", image);
      scene.delete("digit");
      scene.delete("code");
    });
    askAnew();
  }

  function setCode(code) {
    const written = code?.map((v) => Math.fround(v)).join(","), digit = digitOf(link);
    edit((scene) => {
      if (digitOf(scene) !== digit) return;        // it was a code of another digit
      if (code) scene.set("code", written); else scene.delete("code");
    });
    if (wish && MOVES.includes(wish.act?.do)) delete wish.act;
    ask();
  }

  const MOVES = ["mean", "sample"];                // buttons that move the code; others take another digit

  function act(wanted) {
    if (MOVES.includes(wanted.do)) { ask({ act: wanted }); return; }
    clearPad();
    askAnew({ act: wanted });
  }

  function setTab(name) {
    tab = name;
    ask();
  }

  // --- painting ------------------------------------------------------------------------

  const paint = {
    head() {},

    picks() {
      const list = $("picks", ".examples");
      const examples = known.examples?.value;
      if (!examples) return;
      if (list.childElementCount !== examples.length) {
        list.innerHTML = examples.map((example) => `<button type="button" class="tile" data-label="${example.label}"
          aria-label="Example of ${example.label}" title="The next ${example.label} of the test set">
          <img src="${example.picture}" alt=""><span>${example.label}</span></button>`).join("");
      }
      for (const button of list.children) {
        button.classList.toggle("on", seen.label !== null && Number(button.dataset.label) === seen.label);
      }
      $("picks", ".own").hidden = !own || seen.digit === null;
    },

    eye() {
      if (!seen) return;
      $("eye", ".triptych").dataset.ready = "yes";
      document.documentElement.style.setProperty("--shape", `${seen.width} / ${seen.height}`);
      for (const [name, key] of [["Input", "input"], ["Reconstruction", "reconstruction"], ["Error", "error"]]) {
        $("eye", `img[alt="${name}"]`).src = seen[key];
      }
      text($("eye", ".source"), seen.source + (seen.note ? `, ${seen.note}` : ""));
      text($("eye", ".from"), `by ${seen.model}${seen.moved ? ", of the moved code" : ""}`);
      text($("eye", ".number"), seen.squared_error.toFixed(2));
      text($("eye", ".what"), seen.moved ? "squared error between the input and the moved code's digit"
        : `squared error, ${rank(seen.percentile)}`);
      $("eye", ".scale i").style.left = `${seen.percentile}%`;
      text($("eye", ".anomaly"), seen.anomaly === null ? "" : `anomaly score of error and code ${rank(seen.anomaly)}`);
      const unlike = $("eye", ".unlike");
      unlike.hidden = !seen.unusual || seen.moved;
      text(unlike, seen.unusual);
    },

    side() {
      if (!seen?.side) return;
      text($("side", "h2"), seen.moved ? "Side by side, of the encoded digit" : "Side by side");
      $("side", ".side").innerHTML = seen.side.map(sideRow).join("");
    },

    measured() {
      if (!known.measured || !seen?.side) return;
      $("measured", ".facts").innerHTML = seen.side.map((row) => `<li style="--row:${row.colour}">
        ${escape(known.measured.sentences[row.name] ?? "")}</li>`).join("");
      $("measured", ".pairs").innerHTML = known.measured.pairs.map((pair) => `<li>${escape(pair)}</li>`).join("");
    },

    draw() {
      if (seen && !link.has("image") && strokes.length && !drawing && !wish) clearPad();
    },

    code() { if (seen && known.sliders?.model === seen.model) paintSliders(); },
    map() { if (seen && known.map?.model === seen.model) paintMap(); },
  };

  function sideRow(row) {
    const on = row.name === seen.model;
    const head = `<button type="button" class="name" data-model="${escape(row.name)}" ${on ? 'aria-current="true"' : ""}
      title="Explore ${escape(row.name)}">${escape(row.name)}</button>`;
    if (row.problem) return `<li class="row broken" style="--row:${row.colour}">${head}<p>${escape(row.problem)}</p></li>`;
    return `<li class="row ${on ? "on" : ""}" style="--row:${row.colour}">${head}
      <img class="digit" src="${row.picture}" alt="What ${escape(row.name)} gives back">
      <img class="digit signed" src="${row.difference}" alt="What ${escape(row.name)} lost and added">
      <div class="rating"><p><b>${row.squared_error.toFixed(2)}</b>
        <span${row.unusual ? ' class="unusual"' : ""}>${rank(row.percentile)}</span></p>
        <div class="scale"><i style="left:${row.percentile}%"></i></div></div></li>`;
  }

  // --- the drawing pad -----------------------------------------------------------------

  let strokes = [], drawing = null;

  function paintPad() {
    const canvas = $("draw", "canvas");
    if (!canvas) return;
    const context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIZE, SIZE);
    context.strokeStyle = "#fff";
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      context.moveTo(...stroke[0]);
      context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);  // a line of no length would leave no dot
      for (const point of stroke.slice(1)) context.lineTo(...point);
      context.stroke();
    }
    $("draw", ".hint").hidden = strokes.length > 0;
  }

  function clearPad() {
    strokes = [];
    drawing = null;
    paintPad();
  }

  function sendPad() {
    const canvas = $("draw", "canvas");
    inked = strokes;
    askAnew({ drawing: canvas.toDataURL("image/png") });
  }

  function emptyPad() {
    clearPad();
    if (link.has("image") || wish?.drawing || underway) { setDigit(lastDigit); inked = []; }
  }

  function mountPad(element) {
    const canvas = element.querySelector("canvas");
    canvas.width = canvas.height = SIZE;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * SIZE / box.width, (event.clientY - box.top) * SIZE / box.height];
    };
    canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      drawing = [place(event)];
      strokes.push(drawing);
      paintPad();
      sendPad();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drawing) return;
      drawing.push(place(event));
      paintPad();
      sendPad();
    });
    const end = () => { if (drawing) { drawing = null; sendPad(); } };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    element.querySelector(".clear").addEventListener("click", emptyPad);
    element.querySelector(".undo").addEventListener("click", () => {
      if (!strokes.length) return;
      strokes.pop();
      paintPad();
      if (strokes.length) sendPad(); else emptyPad();
    });
    const file = element.querySelector("input[type=file]");
    element.querySelector(".photo").addEventListener("click", () => file.click());
    file.addEventListener("change", () => { if (file.files[0]) photo(file.files[0]); file.value = ""; });
    const frame = element.querySelector(".frame");
    frame.addEventListener("dragover", (event) => { event.preventDefault(); frame.classList.add("over"); });
    frame.addEventListener("dragleave", () => frame.classList.remove("over"));
    frame.addEventListener("drop", (event) => {
      event.preventDefault();
      frame.classList.remove("over");
      if (event.dataTransfer.files[0]) photo(event.dataTransfer.files[0]);
    });
    paintPad();
  }

  async function photo(file) {
    if (file.size > hooks.largest) {
      say(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB, but a picture may have ${
        Math.round(hooks.largest / 2 ** 20)} MB at most; make it smaller.`);
      return;
    }
    say("");
    parts.draw?.classList.add("busy");
    try {
      const { path } = await hooks.upload(file);
      clearPad();
      inked = [];
      askAnew({ photo: path });
    } catch {
      say(`${file.name} could not be sent to the explorer.`);
    } finally {
      parts.draw?.classList.remove("busy");
    }
  }

  // --- the code ------------------------------------------------------------------------

  function paintSliders() {
    const { low, high, mean, quartiles } = known.sliders.value;
    const list = $("code", ".sliders");
    if (list.dataset.model !== seen.model || list.childElementCount !== low.length) {
      list.dataset.model = seen.model;
      list.innerHTML = low.map((_, index) => `<li><span class="end low" aria-hidden="true"></span><div class="slide">
        <p><span>Latent ${index + 1}</span><output></output></p><div class="track"></div>
        <input type="range" step="any" aria-label="Latent ${index + 1}" data-index="${index}"></div>
        <span class="end high" aria-hidden="true"></span></li>`).join("");
      const classes = $("code", ".classes");
      classes.innerHTML = known.sliders.classes.map((label) =>
        `<button type="button" role="radio" aria-checked="false" data-label="${label}">${label}</button>`).join("");
    }
    const digit = digitOf(new URLSearchParams(seen.link));
    if (list.dataset.digit !== digit || !known.sliders.classes.includes(goalClass)) {
      list.dataset.digit = digit;                  // a new digit: begin with the class that it is or looks like
      const trained = known.sliders.classes.includes(seen.label);
      goalClass = trained ? seen.label : known.sliders.classes[closest(seen.encoded)];
    }
    chooseClass(goalClass);
    const count = low.length, goal = goalCode();
    [...list.children].forEach((item, index) => {
      const input = item.querySelector("input"), value = seen.code[index], own = seen.encoded[index];
      const from = Math.min(low[index], value, own), to = Math.max(high[index], value, own);
      const at = (v) => to > from ? (v - from) / (to - from) * 100 : 50;
      if (!(held && wish)) { input.min = from; input.max = to > from ? to : from + 1; input.value = value; }
      text(item.querySelector("output"), Number(input.value).toFixed(2));
      input.setAttribute("aria-valuetext", Number(input.value).toFixed(2));
      const marks = quartiles[index].map((v) => `<i style="left:${at(v)}%"></i>`).join("");
      item.querySelector(".track").innerHTML = `${marks}<i class="mean" title="mean" style="left:${at(mean[index])}%"></i>
        <i class="own" title="the encoded digit" style="left:${at(own)}%"></i>
        <i class="class" title="the mean of class ${goalClass}" style="left:${at(Math.min(Math.max(goal[index], from), to))}%"></i>`;
      item.querySelectorAll(".end").forEach((end, side) => {
        end.hidden = !seen.previews;
        end.style.backgroundImage = seen.previews ? `url(${seen.previews})` : "";
        end.style.backgroundSize = `200% ${count * 100}%`;
        end.style.backgroundPosition = `${side * 100}% ${count > 1 ? index / (count - 1) * 100 : 0}%`;
      });
    });
    $("code", ".back").disabled = !seen.moved;
    const aside = setAside();
    text($("code", ".moved"), (seen.moved ? `Moved ${seen.distance.toFixed(2)} away from the encoded digit.`
      : "At the encoded digit.") + (aside.length ? ` What you moved in ${aside.join(" and ")} returns with it.` : ""));
    paintGoal(goal);
    paintWalk();
  }

  const goalCode = () => known.sliders.value.means[known.sliders.classes.indexOf(goalClass)];

  function closest(code) {
    const far = known.sliders.value.means.map((mean) => mean.reduce((sum, v, i) => sum + (v - code[i]) ** 2, 0));
    return far.indexOf(Math.min(...far));
  }

  function paintGoal(goal) {
    const { quartiles } = known.sliders.value;
    const far = goal.map((v, i) => [Math.abs(v - seen.code[i]) / (quartiles[i][2] - quartiles[i][0] || 1), i + 1])
      .sort((a, b) => b[0] - a[0]).slice(0, 3).map(([, number]) => number);
    const there = goal.every((v, i) => Math.abs(v - seen.code[i]) < 1e-4 * (1 + Math.abs(v)));
    text($("code", ".far"), there ? `This is the mean of class ${goalClass}.` : seen.code.length > 3 ? `Move the sliders to the diamonds, the mean of class ${
      goalClass}. Farthest off: Latent ${far.slice(0, -1).join(", ")} and ${far.at(-1)}.` : "");
    text($("code", ".chosen"), goalClass);
  }

  function chooseClass(label) {
    goalClass = Number(label);
    for (const button of $$("code", ".classes button")) {
      const on = Number(button.dataset.label) === goalClass;
      button.setAttribute("aria-checked", String(on));
      button.tabIndex = on ? 0 : -1;
    }
  }

  function paintWalk() {
    const walk = seen.walk, box = $("code", ".walking");
    $("code", ".freeze").textContent = seen.frozen ? "Freeze this one instead" : "Freeze this digit";
    $("code", ".thaw").hidden = !seen.frozen;
    text($("code", ".walk-hint"), seen.frozen ? "Now take another digit above, and click on a step of the way or slide."
      : "Freeze this digit, take another above, and walk from one to the other.");
    box.hidden = !walk;
    if (!walk) return;
    $("code", ".strip").innerHTML = walk.pictures.map((picture, index) =>
      `<button type="button" data-step="${index / (walk.pictures.length - 1)}"
        aria-label="${Math.round(index / (walk.pictures.length - 1) * 100)} % of the way">
        <img src="${picture}" alt=""></button>`).join("");
  }

  function stride(share) {
    const start = seen.walk?.start;
    if (!start) return;
    setCode(start.map((value, index) => value * (1 - share) + seen.encoded[index] * share));
  }

  function mountCode(element) {
    const list = element.querySelector(".sliders");
    list.addEventListener("pointerdown", () => { held = true; });
    addEventListener("pointerup", () => { held = false; });
    list.addEventListener("input", (event) => {
      const moved = (link.get("code")?.split(",").map(Number)) ?? [...seen.code];
      moved[Number(event.target.dataset.index)] = Number(event.target.value);
      text(event.target.closest("li").querySelector("output"), Number(event.target.value).toFixed(2));
      setCode(moved);
    });
    element.querySelector(".back").addEventListener("click", () => setCode(null));
    element.querySelector(".class-mean").addEventListener("click", () => act({ do: "mean", label: goalClass }));
    element.querySelector(".sample").addEventListener("click", () => act({ do: "sample", label: goalClass }));
    element.querySelector(".freeze").addEventListener("click", () => {
      const from = seen.code.join(",");
      edit((scene) => scene.set("from", from));
      ask();
    });
    element.querySelector(".thaw").addEventListener("click", () => {
      edit((scene) => scene.delete("from"));
      ask();
    });
    element.querySelector(".strip").addEventListener("click", (event) => {
      const step = event.target.closest("[data-step]")?.dataset.step;
      if (step !== undefined) { element.querySelector(".way").value = step; stride(Number(step)); }
    });
    element.querySelector(".way").addEventListener("input", (event) => stride(Number(event.target.value)));
    const classes = element.querySelector(".classes");
    classes.addEventListener("click", (event) => {
      if (event.target.dataset.label !== undefined) { chooseClass(event.target.dataset.label); paintSliders(); }
    });
    classes.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const all = [...classes.children], here = all.findIndex((b) => b.getAttribute("aria-checked") === "true");
      const to = all[(here + step + all.length) % all.length];
      chooseClass(to.dataset.label);
      paintSliders();
      to.focus();
    });
  }

  // --- the map -------------------------------------------------------------------------

  let places = null, hovered = -1;

  const unpack = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const colourOf = (classes, label) => {
    const index = classes.indexOf(label);
    return classes.length <= 10 ? CLASS_COLOURS[index] : `hsl(${360 * index / classes.length} 65% 50%)`;
  };

  function paintMap() {
    const { points, labels, share, classes } = known.map.value;
    if (places?.model !== seen.model) {
      places = { model: seen.model, xy: new Float32Array(unpack(points).buffer), labels: unpack(labels), classes };
      $("map", ".legend").innerHTML = classes.map((label) =>
        `<li style="--row:${colourOf(classes, label)}">${label}</li>`).join("");
      text($("map", ".share"), `Two of ${seen.code.length} dimensions: the main components of the test codes, with ${
        Math.round(share * 100)} % of their variance. Hover over a point to see its digit, click to take it.`);
    }
    const canvas = $("map", "canvas"), box = canvas.getBoundingClientRect(), scale = devicePixelRatio || 1;
    if (!box.width) return;
    canvas.width = box.width * scale;
    canvas.height = box.height * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const { xy } = places, star = seen.star ?? [0, 0];
    const xs = [star[0], star[0]], ys = [star[1], star[1]];
    for (let i = 0; i < xy.length; i += 2) {
      xs[0] = Math.min(xs[0], xy[i]); xs[1] = Math.max(xs[1], xy[i]);
      ys[0] = Math.min(ys[0], xy[i + 1]); ys[1] = Math.max(ys[1], xy[i + 1]);
    }
    const margin = 14, width = box.width - 2 * margin, height = box.height - 2 * margin;
    const x = (v) => margin + (v - xs[0]) / (xs[1] - xs[0] || 1) * width;
    const y = (v) => margin + (ys[1] - v) / (ys[1] - ys[0] || 1) * height;
    places.screen = new Float32Array(xy.length);
    context.globalAlpha = 0.55;
    const palette = Object.fromEntries(places.classes.map((label) => [label, colourOf(places.classes, label)]));
    for (let i = 0; i < xy.length / 2; i++) {
      const px = places.screen[2 * i] = x(xy[2 * i]), py = places.screen[2 * i + 1] = y(xy[2 * i + 1]);
      context.fillStyle = palette[places.labels[i]];
      context.fillRect(px - 1.2, py - 1.2, 2.4, 2.4);
    }
    context.globalAlpha = 1;
    if (seen.star) drawStar(context, x(star[0]), y(star[1]));
    $("map", ".near").innerHTML = (seen.near ?? []).map((one) => `<li><img class="digit" src="${one.picture}"
      alt="Training digit, a ${one.label}"><span>${one.label}</span></li>`).join("");
    canvas.dataset.star = seen.star ? `${x(star[0])},${y(star[1])}` : "";
  }

  function drawStar(context, x, y) {
    context.beginPath();
    for (let i = 0; i < 10; i++) {
      const radius = i % 2 ? 5 : 12, angle = Math.PI * (i / 5 - 0.5);
      context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
    context.closePath();
    context.lineWidth = 4;
    const style = getComputedStyle(document.body);
    context.strokeStyle = style.getPropertyValue("--card");
    context.stroke();
    context.fillStyle = style.getPropertyValue("--ink");
    context.fill();
  }

  function nearest(x, y, reach, test = () => true) {
    let best = -1, smallest = reach * reach;
    for (let i = 0; i < places.screen.length / 2; i++) {
      const dx = places.screen[2 * i] - x, dy = places.screen[2 * i + 1] - y, d = dx * dx + dy * dy;
      if (d < smallest && test(dx, dy, d)) { best = i; smallest = d; }
    }
    return best;
  }

  async function hover(index) {
    const tip = $("map", ".tip");
    hovered = index;
    if (index < 0) { tip.hidden = true; return; }
    const found = await hooks.server.peek(index).catch(() => ({ problem: "gone" }));
    if (hovered !== index || found.problem) return;
    tip.querySelector("img").src = found.picture;
    text(tip.querySelector("span"), `Test digit ${index}, a ${found.label}`);
    const [x, y] = [places.screen[2 * index], places.screen[2 * index + 1]];
    const room = $("map", "canvas").getBoundingClientRect().width - 110;
    tip.style.transform = `translate(${Math.min(Math.max(x - 48, 0), room)}px, ${y > 150 ? y - 140 : y + 18}px)`;
    tip.hidden = false;
  }

  function mountMap(element) {
    const canvas = element.querySelector("canvas");
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointermove", (event) => {
      if (!places?.screen) return;
      const index = nearest(...place(event), 14);
      if (index !== hovered) hover(index);
    });
    canvas.addEventListener("pointerleave", () => hover(-1));
    canvas.addEventListener("click", (event) => {
      if (!places?.screen) return;
      const index = nearest(...place(event), 20);
      if (index >= 0) setDigit(index);
    });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "Enter" && hovered >= 0) setDigit(hovered);
      if (!way || !places?.screen) return;
      event.preventDefault();
      const from = hovered >= 0 ? [places.screen[2 * hovered], places.screen[2 * hovered + 1]]
        : canvas.dataset.star.split(",").map(Number);
      const index = nearest(...from, 1e4, (dx, dy, d) =>
        d > 16 && way[0] * dx + way[1] * dy > 0.8 * Math.sqrt(d));
      if (index >= 0) hover(index);
    });
    new ResizeObserver(() => paint.map()).observe(canvas);
  }

  // --- the head ------------------------------------------------------------------------

  function flash(button, message) {
    const before = button.dataset.text ??= button.textContent;
    button.textContent = message;
    setTimeout(() => { button.textContent = before; }, 1600);
  }

  async function settled() {                       // what the visitor did last is on screen and in the link
    while (!idle()) await new Promise((resume) => setTimeout(resume, 20));
  }

  async function copyLink(button) {
    await settled();
    const address = location.href;
    try {
      await navigator.clipboard.writeText(address);
    } catch {                                      // not allowed, or not over https: the old way
      const field = Object.assign(document.createElement("textarea"), { value: address });
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
    flash(button, "Link copied");
  }

  async function savePicture(button) {
    flash(button, "Drawing…");
    await settled();
    const answer = await hooks.server.sheet({ link: link.toString() })
      .catch(() => ({ problem: "The explorer does not answer. Is it still running in its terminal?" }));
    if (answer.problem) { say(answer.problem); return; }
    Object.assign(document.createElement("a"), { href: answer.picture, download: answer.name }).click();
    flash(button, "Saved");
  }

  function mountHead(element) {
    element.querySelector(".share").addEventListener("click", (event) => copyLink(event.currentTarget));
    element.querySelector(".save").addEventListener("click", (event) => savePicture(event.currentTarget));
    const remembered = localStorage.getItem("explorer-theme");
    if (remembered && !theme) document.body.classList.toggle("dark", remembered === "dark");
    element.querySelector(".theme").addEventListener("click", () => {
      localStorage.setItem("explorer-theme", document.body.classList.toggle("dark") ? "dark" : "light");
      paint.map();
    });
  }

  function mountPicks(element) {
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button?.classList.contains("own")) backToOwn();
      else if (button?.dataset.label !== undefined) act({ do: "class", label: Number(button.dataset.label) });
      else if (button?.dataset.do) act({ do: button.dataset.do });
    });
  }

  function mountSide(element) {
    element.addEventListener("click", (event) => {
      const name = event.target.closest("[data-model]")?.dataset.model;
      if (name) choose(name);
    });
  }

  const mounts = { head: mountHead, picks: mountPicks, side: mountSide, draw: mountPad, code: mountCode, map: mountMap };

  function mount(name, element, given = {}) {
    parts[name] = element;
    hooks = { ...hooks, ...given };
    mounts[name]?.(element);
    if (name === "code" || name === "map" || given.server) ask(); else paint[name]?.();
  }

  const place = (index) => [places.screen[2 * index], places.screen[2 * index + 1]];
  const idle = () => !underway && !wish && !typing;

  return { mount, choose, typeDigit, setTab, timings, place, idle,
    get model() { return seen?.model; }, get code() { return seen?.code; }, get digit() { return seen?.digit ?? null; } };
})();
