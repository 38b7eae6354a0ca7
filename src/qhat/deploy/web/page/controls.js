// Buttons, keys, clicks; and the clock.

const app = new App();
const view = new View(app);

function connect() {
  element("play").addEventListener("click", () => app.play(!app.playing));
  element("step").addEventListener("click", stepOnce);
  element("reset").addEventListener("click", () => app.reset());
  element("speed").value = String(app.speed);
  element("speed").addEventListener("change", (event) => (app.speed = Number(event.target.value)));
  element("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
  app.gentle.addEventListener("change", (event) => event.matches && app.play(false));
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", onKeyUp);
  window.addEventListener("blur", () => holdPush(0));
  app.play(app.playing);
  showTheme();
  if (app.environment instanceof CartPole) connectPush();
  else connectGoal();
}

function stepOnce() {
  app.play(false);
  app.step();
}

const isDark = () =>
  (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "")) === "dark";

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  showTheme();
}

function showTheme() {
  element("theme").textContent = isDark() ? "Light" : "Dark";
  element("theme").setAttribute("aria-pressed", String(isDark()));
  element("theme").setAttribute("aria-label", `Change to ${isDark() ? "light" : "dark"} colours`);
  view.colours();
}

/** CartPole: a slider that returns to 0 on release, and the arrow keys. */
function connectPush() {
  const slider = element("push");
  element("pushing").hidden = false;
  tellKeys([["← →", "push, while held"]]);
  slider.addEventListener("input", () => setPush(Number(slider.value)));
  // A value set by keyboard stays until the slider loses focus.
  for (const end of ["pointerup", "pointercancel", "blur"]) slider.addEventListener(end, () => setPush(0));
}

function setPush(push) {
  app.environment.push = push;
  element("push").value = String(push);
  element("push").setAttribute("aria-valuetext", `${Math.abs(push).toFixed(2)} newtons ${push < 0 ? "left" : "right"}`);
  element("pushed").textContent = `${number(push, 2)} N`;
}

function holdPush(way) {
  if (!(app.environment instanceof CartPole) || way === app.held) return;
  app.held = way;
  setPush(0.4 * way);
}

/** TurtleBot3: click, tap or drag in the arena; the arrow keys move the goal. */
function connectGoal() {
  const scene = element("scene");
  tellKeys([["← ↑ ↓ →", "move the goal"]]);
  scene.style.cursor = "crosshair";
  const put = (event) => {
    const box = scene.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top];
    putGoal(...placeAt(app.environment, ...at, box.width, box.height));
  };
  scene.addEventListener("pointerdown", (event) => {
    put(event);
    scene.setPointerCapture(event.pointerId);
  });
  scene.addEventListener("pointermove", (event) => event.buttons === 1 && put(event));
}

function putGoal(x, y) {
  if (app.over > 0) return;
  app.environment.setGoal(x, y);
  app.think();
}

function tellKeys(own) {
  for (const [key, what] of [["Space", "play, pause"], ["N", "step"], ["R", "reset"], ...own]) {
    const pair = document.createElement("span");
    const cap = document.createElement("kbd");
    cap.textContent = key;
    pair.append(cap, ` ${what}`);
    element("keys").append(pair);
  }
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const own = event.target.closest("button, select, input");
  const key = event.key.toLowerCase();
  if (key === " " && !own) app.play(!app.playing);
  else if (key === "n" && !event.target.closest("select")) stepOnce();
  else if (key === "r" && !event.target.closest("select")) app.reset();
  else if (WAYS[event.key] && !event.target.closest("select, input")) {
    const [dx, dy] = WAYS[event.key];
    if (app.environment instanceof CartPole) {
      if (dx === 0) return;
      holdPush(dx);
    } else {
      const [x, y] = app.environment.state.goal;
      putGoal(x + 0.1 * dx, y + 0.1 * dy);
    }
  } else return;
  event.preventDefault();
}

function onKeyUp(event) {
  if (WAYS[event.key] && app.held) holdPush(0);
}

let last = performance.now();
let described = 0;

function frame(now) {
  // Time does not pass while the page is hidden.
  const seconds = Math.min(Math.max((now - last) / 1000, 0), 0.1);
  last = now;
  if (app.playing) app.pass(seconds);
  view.draw();
  if (now - described > 2000) {
    described = now;
    element("scene").setAttribute("aria-label", app.environment.describe());
  }
  requestAnimationFrame(frame);
}

connect();
requestAnimationFrame(frame);

// For the console: qhat.policy.qValues([...]), qhat.environment.state.
window.qhat = { app, policy: app.policy, environment: app.environment, Policy };
