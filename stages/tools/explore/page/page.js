// The page shows one scene: a model, a digit, and maybe a moved code. The address holds the scene, and the server
// answers how it looks. Only one question is open at a time; whatever changes meanwhile is asked next.

const PEN = 22;                // pixels of the drawing pad, which has 280
const MOVES = ["mean", "sample", "refine"]; // buttons that move the code; the others take another test digit
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const all = (selector) => [...document.querySelectorAll(selector)];

const start = await (await fetch("start")).json();
const address = new URLSearchParams(location.search);
let tab = address.get("tab") ?? (address.has("code") || address.has("from") ? "Code" : "Draw");
address.delete("tab");
let scene = Object.fromEntries(address); // fields of a link: model, digit or image, code, from
let seen = null;               // the last answer
let edits = {};                // of the scene, since the open question
let open = false, wish = null; // whether a question is open, and the next one

// --- asking ----------------------------------------------------------------------------

const digitOf = ({ image, digit }) => image ?? digit;
const link = () => new URLSearchParams(Object.entries(scene).filter(([, value]) => value !== undefined));

function edit(changes) {
  Object.assign(scene, changes);
  Object.assign(edits, changes);
}

// A drawing or a button that waits is asked together with what follows, unless that takes another digit.
function ask(question = {}) {
  wish = { ...wish, ...question };
  if (!open) send();
}

function askForDigit(question = {}) {
  wish = null;
  clearTimeout(typing);
  typing = null;
  ask(question);
}

async function send() {
  const asked = digitOf(scene), body = JSON.stringify({ tab, ...wish });
  [wish, edits, open] = [null, {}, true];
  const answer = await fetch(`answer?${link()}`, { method: "POST", body }).then((reply) => reply.json())
    .catch(() => ({ problem: "the explorer does not answer; is it still running in its terminal?" }));
  open = false;
  report(answer.problem);
  if (!answer.problem) take(answer, asked);
  else if (seen && !Object.keys(edits).length) scene = { ...seen.scene }; // go back to what is on screen
  if (seen) paint();
  if (wish) send();
}

function take(answer, asked) {
  if (digitOf(answer.scene) !== asked) delete edits.code; // a code of another digit
  seen = answer;
  scene = { ...answer.scene, ...edits };
  if (scene.image) own = { image: scene.image, strokes: sent }; else lastDigit = scene.digit;
  const fields = link();
  if (tab === "Map") fields.set("tab", tab);
  history.replaceState(null, "", `?${fields.toString().replaceAll("%2C", ",")}`);
}

function report(problem) {
  $("problem").hidden = !problem;
  $("problem").textContent = problem ? `Error: ${problem}` : "";
}

// --- choosing --------------------------------------------------------------------------

let lastDigit = "0";           // the test digit that an emptied pad returns to
let own = null;                // the visitor's last digit: its image, and its strokes if it was drawn
let typing = null;
const moves = {};              // where each model's code was moved to, of the same digit

const keptMove = (name) => moves[name]?.digit === digitOf(scene) ? moves[name] : {};

function chooseModel(name) {
  const before = scene.model ?? seen.scene.model;
  if (name === before) return;
  moves[before] = { digit: digitOf(scene), code: scene.code, from: scene.from };
  const { code, from } = keptMove(name);           // one model's numbers mean nothing to another
  edit({ model: name, code, from });
  ask();
}

function takeDigit(digit) {
  if (digit === "" || (scene.digit === digit && !open && !wish)) return;
  edit({ digit, image: undefined, code: undefined });
  clearPad();
  askForDigit();
}

function act(button) {
  const label = button.dataset.label ?? goal();
  const question = { do: button.dataset.do, label: label === null ? null : Number(label) };
  if (MOVES.includes(question.do)) return ask(question);
  clearPad();
  askForDigit(question);
}

function paintChoices() {
  $("model").value = scene.model;
  if (!typing) $("digit").value = scene.image ? "" : scene.digit;
  $("own").hidden = !own || Boolean(scene.image);
  for (const button of $("examples").children) button.classList.toggle("on", Number(button.dataset.label) === seen.label);
}

$("model").append(...Object.keys(start.colours).map((name) => new Option(name)));
$("digit").max = start.labels.length - 1;
$("examples").innerHTML = start.examples.map((position) => `
  <button data-do="class" data-label="${start.labels[position]}" aria-label="Example of ${start.labels[position]}"
    title="The next test digit of class ${start.labels[position]}"><img src="test/${position}" alt=""></button>`).join("");
$("model").onchange = () => chooseModel($("model").value);
$("digit").oninput = () => {                       // wait until the visitor has typed the whole number
  clearTimeout(typing);
  typing = setTimeout(() => { typing = null; takeDigit($("digit").value); }, 300);
};
for (const button of all("[data-do]")) button.onclick = () => act(button);
$("own").onclick = () => {
  strokes = own.strokes;
  paintPad();
  edit({ image: own.image, digit: undefined, code: undefined });
  askForDigit();
};

// --- drawing ---------------------------------------------------------------------------

const pad = $("pad"), pen = pad.getContext("2d");
let strokes = [], stroke = null; // lists of points; `stroke` is the one under the pen
let sent = [];                 // the strokes that were asked for last

function paintPad() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, pad.width, pad.height);
  Object.assign(pen, { strokeStyle: "#fff", lineWidth: PEN, lineCap: "round", lineJoin: "round" });
  for (const [first, ...others] of strokes) {
    pen.beginPath();
    pen.moveTo(...first);
    pen.lineTo(first[0] + 0.01, first[1]);         // a line of no length would leave no dot
    for (const point of others) pen.lineTo(...point);
    pen.stroke();
  }
  $("hint").hidden = strokes.length > 0;
}

function clearPad() {
  [strokes, stroke] = [[], null];
  paintPad();
}

function sendPad() {
  sent = strokes;
  askForDigit({ picture: pad.toDataURL().split(",")[1] });
}

function emptyPad() {
  clearPad();
  if (scene.image || wish?.picture || open) takeDigit(lastDigit);
}

function addPoint(event) {
  stroke.push([event.offsetX * pad.width / pad.clientWidth, event.offsetY * pad.height / pad.clientHeight]);
  paintPad();
  sendPad();
}

function sendPhoto(file) {
  if (file.size > start.largest_photo) {
    return report(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB, but a photo may have at most ${
      start.largest_photo / 2 ** 20} MB.`);
  }
  const reader = new FileReader();
  reader.onload = () => {
    clearPad();
    sent = [];
    askForDigit({ picture: reader.result.split(",")[1] ?? "", photo: file.name });
  };
  reader.readAsDataURL(file);
}

pad.onpointerdown = (event) => {
  event.preventDefault();
  pad.setPointerCapture(event.pointerId);
  stroke = [];
  strokes.push(stroke);
  addPoint(event);
};
pad.onpointermove = (event) => { if (stroke) addPoint(event); };
pad.onpointerup = pad.onpointercancel = () => { stroke = null; };
$("clear").onclick = emptyPad;
$("undo").onclick = () => {
  strokes.pop();
  paintPad();
  if (strokes.length) sendPad(); else emptyPad();
};
$("choose-photo").onclick = () => $("photo").click();
$("photo").onchange = ({ target }) => {
  if (target.files[0]) sendPhoto(target.files[0]);
  target.value = "";
};
$("frame").ondragover = (event) => event.preventDefault(); // else the browser would open the photo
$("frame").ondrop = (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) sendPhoto(event.dataTransfer.files[0]);
};
paintPad();

// --- looking ---------------------------------------------------------------------------

const rank = (value) => `above ${value.toFixed(2)} % of test digits`;
const escape = (value) => new Option(value).innerHTML;

function paintLook() {
  for (const name of ["input", "reconstruction", "error"]) $(name).src = seen[name];
  $("title").textContent = seen.title + (seen.note && `, ${seen.note}`);
  $("by").textContent = `by ${seen.scene.model}${seen.scene.code ? ", of the moved code" : ""}`;
  const [number, what] = $("verdict").children;
  number.textContent = seen.squared_error.toFixed(2);
  what.textContent = seen.scene.code ? "squared error between the input and the moved code's digit"
    : `squared error, ${rank(seen.percentile)}`;
  document.querySelector("#look .scale i").style.left = `${seen.percentile}%`;
  $("anomaly").textContent = seen.anomaly === null ? "" : `anomaly score of error and code ${rank(seen.anomaly)}`;
  $("unusual").hidden = !seen.unusual || Boolean(seen.scene.code);
  $("unusual").textContent = seen.scene.image ? "Unlike the training data." : "Unusually hard for this model.";
}

function sideRow(row) {
  const name = escape(row.name);
  const head = `<button class="name" ${row.name === seen.scene.model ? 'aria-current="true"' : ""}>${name}</button>`;
  const style = `style="--row: ${start.colours[row.name]}"`;
  if (row.problem) return `<li class="broken" ${style}>${head}<p class="warning">${escape(row.problem)}</p></li>`;
  return `<li ${style}>${head}
    <img src="${row.reconstruction}" alt="Reconstruction by ${name}">
    <img src="${row.error}" class="error" alt="Error of ${name}">
    <div><p><b>${row.squared_error.toFixed(2)}</b> <span ${row.unusual ? 'class="warning"' : ""}>${rank(row.percentile)}</span></p>
      <div class="scale"><i style="left: ${row.percentile}%"></i></div></div></li>`;
}

function paintSide() {
  document.querySelector("#side h2").textContent = `Side by side${seen.scene.code ? ", of the encoded digit" : ""}`;
  $("rows").innerHTML = seen.side.map(sideRow).join("");
  for (const button of all("#rows .name")) button.onclick = () => chooseModel(button.textContent);
  $("facts").innerHTML = seen.side.map(({ name, fact = "" }) =>
    `<li style="--row: ${start.colours[name]}">${escape(fact)}</li>`).join("");
}

// --- the code --------------------------------------------------------------------------

const goal = () => document.querySelector("[name=class]:checked")?.value ?? null; // the class marked on the sliders
let goalDigit = null;          // the digit that the class was chosen for

function setCode(code) {
  edit({ code: code?.map(Math.fround).join(",") });
  if (MOVES.includes(wish?.do)) delete wish.do;
  ask();
}

function buildCode() {
  $("sliders").dataset.model = seen.scene.model;
  $("sliders").innerHTML = seen.low.map((_, index) => `<li><img alt=""><div>
      <p><span>Latent ${index + 1}</span><output></output></p><div class="track"></div>
      <input type="range" step="any" aria-label="Latent ${index + 1}"></div><img alt=""></li>`).join("");
  all("#sliders input").forEach((input, index) => {
    input.oninput = () => setCode((scene.code?.split(",").map(Number) ?? seen.code).with(index, input.valueAsNumber));
  });
  $("classes").innerHTML = Object.keys(seen.class_means).map((label) =>
    `<label>${label}<input type="radio" name="class" value="${label}" aria-label="${label}"></label>`).join("");
  goalDigit = null;
}

function paintCode() {
  if (!seen.low) return;
  if ($("sliders").dataset.model !== seen.scene.model) buildCode();
  if (goalDigit !== digitOf(seen.scene)) {         // begin with the class of the digit
    goalDigit = digitOf(seen.scene);
    const label = seen.label in seen.class_means ? seen.label : seen.looks_like;
    document.querySelector(`[name=class][value="${label}"]`).checked = true;
  }
  [...$("sliders").children].forEach(paintSlider);
  paintGoal();
  paintMoved();
  paintWalk();
}

function paintSlider(item, index) {
  const input = item.querySelector("input"), value = seen.code[index], encoded = seen.encoded[index];
  const low = Math.min(seen.low[index], value, encoded), high = Math.max(seen.high[index], value, encoded);
  if (!wish) Object.assign(input, { min: low, max: high > low ? high : low + 1, value }); // else it is moving
  item.querySelector("output").textContent = input.valueAsNumber.toFixed(2);
  const mark = (kind, at) => {
    const share = high > low ? (Math.min(Math.max(at, low), high) - low) / (high - low) : 0.5;
    return `<i class="${kind}" style="left: ${100 * share}%"></i>`;
  };
  item.querySelector(".track").innerHTML = seen.quartiles[index].map((at) => mark("", at)).join("")
    + mark("mean", seen.mean[index]) + mark("own", encoded) + mark("class", seen.class_means[goal()][index]);
  item.querySelectorAll("img").forEach((image, side) => {
    image.hidden = !seen.previews.length;
    image.src = seen.previews[2 * index + side] ?? "";
  });
}

function paintGoal() {
  const distances = seen.class_means[goal()].map((mean, index) => {
    const [lower, , upper] = seen.quartiles[index];
    return Math.abs(mean - seen.code[index]) / (upper - lower || 1);
  });
  const farthest = [...distances.keys()].sort((a, b) => distances[b] - distances[a]).slice(0, 3);
  $("farthest").textContent = distances[farthest[0]] < 1e-4 ? `This is the mean of class ${goal()}.`
    : `Move the sliders to the diamonds, the mean of class ${goal()}. Farthest off: Latent ${
      farthest.map((index) => index + 1).join(", ")}.`;
}

function paintMoved() {
  const { code } = seen.scene;
  const elsewhere = Object.keys(moves).filter((name) => name !== seen.scene.model && keptMove(name).code);
  $("back").disabled = !code;
  $("moved").textContent = (code ? `Moved ${seen.distance.toFixed(2)} away from the encoded digit.` : "At the encoded digit.")
    + (elsewhere.length ? ` What you moved in ${elsewhere.join(" and ")} returns with it.` : "");
}

function paintWalk() {
  const frozen = Boolean(seen.scene.from), steps = seen.walk;
  $("freeze").textContent = frozen ? "Freeze this one instead" : "Freeze this digit";
  $("walk-hint").textContent = frozen ? "Now take another digit above, then click a step of the way or slide."
    : "Freeze this digit, take another one above, and walk from one to the other.";
  $("thaw").hidden = $("walk").hidden = !frozen;
  $("strip").innerHTML = steps.map((picture, index) => `
    <button aria-label="${Math.round(100 * index / (steps.length - 1))} % of the way"><img src="${picture}" alt=""></button>`).join("");
  [...$("strip").children].forEach((button, index) => { button.onclick = () => walkTo(index / (steps.length - 1)); });
}

function walkTo(share) {
  $("way").value = share;
  setCode(scene.from.split(",").map((value, index) => Number(value) * (1 - share) + seen.encoded[index] * share));
}

function freeze(from) {
  edit({ from });
  ask();
}

$("classes").onchange = paintCode;
$("back").onclick = () => setCode();
$("freeze").onclick = () => freeze(seen.code.join(","));
$("thaw").onclick = () => freeze();
$("way").oninput = () => walkTo($("way").valueAsNumber);

// --- the map ---------------------------------------------------------------------------

const map = $("map");
let places = [], star = null;  // where the test digits and the code are, in pixels of the page
let hovered = -1;

function paintMap() {
  const { clientWidth: width, clientHeight: height } = map, margin = 14;
  if (!seen.points || !width) return;
  const points = [...seen.points, seen.star];
  const [x, y] = [0, 1].map((axis) => {
    const values = points.map((point) => point[axis]);
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    return values.map((value) => (value - low) / (high - low || 1));
  });
  places = points.map((_, i) => [margin + x[i] * (width - 2 * margin), margin + (1 - y[i]) * (height - 2 * margin)]);
  star = places.pop();
  [map.width, map.height] = [width * devicePixelRatio, height * devicePixelRatio];
  const context = map.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.globalAlpha = 0.55;
  places.forEach(([left, top], i) => {
    context.fillStyle = start.classes[start.labels[i]];
    context.fillRect(left - 1.2, top - 1.2, 2.4, 2.4);
  });
  Object.assign($("star").style, { left: `${star[0]}px`, top: `${star[1]}px` });
  $("share").textContent = `Two of ${seen.code.length} dimensions: the principal components of the test codes, with ${
    Math.round(seen.share * 100)} % of their variance. Hover over a point to see its digit, and click to take it.`;
  $("near").innerHTML = seen.near.map(({ position, label }) =>
    `<li><img src="train/${position}" alt="Training digit of class ${label}">${label}</li>`).join("");
}

function nearest([x, y], reach, inSight = () => true) {
  let best = -1, smallest = reach;
  places.forEach(([left, top], i) => {
    const distance = Math.hypot(left - x, top - y);
    if (distance < smallest && inSight(left - x, top - y, distance)) [best, smallest] = [i, distance];
  });
  return best;
}

function hover(index) {
  hovered = index;
  $("tip").hidden = index < 0;
  if (index < 0) return;
  const [x, y] = places[index], [image, label] = $("tip").children;
  image.src = `test/${index}`;
  label.textContent = `Test digit ${index}, class ${start.labels[index]}`;
  $("tip").style.left = `${Math.min(Math.max(x - 48, 0), map.clientWidth - 110)}px`;
  $("tip").style.top = `${y > 150 ? y - 140 : y + 18}px`;
}

$("legend").innerHTML = Object.entries(start.classes).map(([label, colour]) =>
  `<li style="--row: ${colour}">${label}</li>`).join("");
map.onpointermove = (event) => hover(nearest([event.offsetX, event.offsetY], 14));
map.onpointerleave = () => hover(-1);
map.onclick = (event) => {
  const index = nearest([event.offsetX, event.offsetY], 20);
  if (index >= 0) takeDigit(String(index));
};
map.onkeydown = (event) => {
  const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Enter" && hovered >= 0) takeDigit(String(hovered));
  if (!way || !star) return;
  event.preventDefault();
  const next = nearest(places[hovered] ?? star, Infinity, (x, y, distance) =>
    distance > 4 && way[0] * x + way[1] * y > 0.8 * distance);
  if (next >= 0) hover(next);
};
new ResizeObserver(() => { if (seen) paintMap(); }).observe(map);

// --- the page --------------------------------------------------------------------------

function paint() {
  root.style.setProperty("--model", start.colours[seen.scene.model]);
  if (!scene.image && strokes.length && !stroke && !wish) clearPad();
  for (const part of [paintChoices, paintLook, paintSide, paintCode, paintMap]) part();
  document.body.dataset.ready = "yes";
}

function openTab(name) {
  tab = name;
  for (const button of all("[role=tab]")) {
    button.ariaSelected = button.textContent === name;
    button.tabIndex = button.textContent === name ? 0 : -1;
    $(button.textContent).hidden = button.textContent !== name;
  }
  ask();
}

const idle = () => !open && !wish && !typing;

async function settle() {                          // wait until the link holds what the visitor did last
  while (!idle()) await new Promise((resume) => setTimeout(resume, 20));
}

async function copyLink() {
  await settle();
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Link copied";
    setTimeout(() => { $("copy").textContent = "Copy link"; }, 1600);
  } catch {                                        // not allowed, or not over https
    report("the browser doesn't let this page copy; copy the address of the page instead.");
  }
}

for (const button of all("[role=tab]")) {
  button.onclick = () => openTab(button.textContent);
  button.onkeydown = ({ key }) => {
    const next = { ArrowRight: button.nextElementSibling, ArrowLeft: button.previousElementSibling }[key];
    next?.focus();
    next?.click();
  };
}
$("copy").onclick = copyLink;
$("save").onclick = async () => {
  await settle();
  Object.assign(document.createElement("a"), { href: `picture?${link()}`, download: "" }).click();
};
$("theme").onclick = () => {
  root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("explorer-theme", root.dataset.theme);
};
root.dataset.theme = localStorage.getItem("explorer-theme")
  ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
openTab(["Draw", "Code", "Map"].includes(tab) ? tab : "Draw");

window.explorer = { idle, places: () => places, star: () => star, code: () => seen.code };
