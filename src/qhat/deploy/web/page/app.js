// The page: runs policy and environment in a loop, and draws them.

const element = (id) => document.getElementById(id);
/** Format a number with a typographic minus sign; −0 is written as 0. */
const number = (value, digits) => value.toFixed(digits).replace(/^-(?=0(\.0*)?$)/, "").replace("-", "−");
const HISTORY = 300;
const AGAIN = 1.5; // Seconds to show the end of an episode.

/** Random numbers in [0, 1), reproducible by seed (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

class App {
  constructor() {
    const about = JSON.parse(element("policy").textContent);
    const constants = JSON.parse(element("constants").textContent);
    const bytes = Uint8Array.from(atob(element("weights").textContent.trim()), (char) => char.charCodeAt(0));
    this.policy = new Policy(about, bytes);
    const kind = { cartpole: CartPole, turtlebot3: TurtleBot3 }[constants.kind];
    this.environment = new kind(about, generator(constants.seed), constants);
    this.gentle = matchMedia("(prefers-reduced-motion: reduce)");
    this.playing = !this.gentle.matches;
    this.speed = this.environment.speed;
    this.history = [];
    this.due = 0; // Environment time in seconds since the last step.
    this.over = 0; // Seconds left to show the end of the episode.
    this.held = 0; // Push by the arrow keys.
    this.think();
  }

  /** Compute Q of the current observation, the next choice, and its environment action. */
  think() {
    Object.assign(this, this.policy.act(this.environment.observe()));
  }

  /** Take one decision and one environment step. */
  step() {
    if (this.over > 0) return this.reset();
    this.history.push(this.q[this.choice]);
    if (this.history.length > HISTORY) this.history.shift();
    const end = this.environment.step(this.action);
    if (end) {
      this.say(end);
      this.over = AGAIN;
    } else this.think();
  }

  reset() {
    this.environment.reset();
    this.policy.reset();
    this.say("");
    this.over = this.due = 0;
    this.history = [];
    this.think();
  }

  say(words) {
    element("event").textContent = words;
  }

  /** Advance by `seconds` of real time. */
  pass(seconds) {
    if (this.over > 0) {
      this.over -= seconds;
      if (this.over <= 0) this.reset();
      return;
    }
    this.due += seconds * this.speed;
    while (this.due >= this.environment.period && !(this.over > 0)) {
      this.due -= this.environment.period;
      this.step();
    }
    if (this.over > 0) this.due = this.environment.period;
  }

  play(playing) {
    this.playing = playing;
    element("play").textContent = playing ? "Pause" : "Play";
  }
}

/** Draws the page. */
class View {
  constructor(app) {
    this.app = app;
    this.low = Infinity;
    this.high = -Infinity;
    element("task").textContent = app.environment.task;
    element("history-length").textContent = String(HISTORY);
    this.rows = app.environment.choices.map((label) => this.row(label));
    this.colours();
  }

  row(label) {
    const make = (tag, name, parent) => {
      const made = document.createElement(tag);
      made.className = name;
      parent.append(made);
      return made;
    };
    const line = make("li", "", element("q"));
    const mark = make("span", "mark", line);
    mark.textContent = "▶";
    mark.setAttribute("aria-hidden", "true");
    make("span", "name", line).textContent = label;
    const value = make("span", "value", line);
    const bar = make("div", "bar", make("div", "track", line));
    return { line, value, bar };
  }

  colours() {
    const told = getComputedStyle(document.documentElement);
    const names = { goalArea: "goal-area" };
    this.colour = { font: getComputedStyle(document.body).fontFamily };
    for (const name of ["paper", "ink", "muted", "line", "floor", "body", "accent", "beam", "alert", "goal", "goalArea"]) {
      this.colour[name] = told.getPropertyValue(`--${names[name] ?? name}`).trim();
    }
  }

  /** Size a canvas to its box and the device pixel ratio; returns context, width and height in CSS pixels. */
  sheet(canvas, aspect) {
    const width = canvas.clientWidth;
    const height = aspect ? width / aspect : canvas.clientHeight;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      if (aspect) canvas.style.height = `${height}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    return [pen, width, height];
  }

  draw() {
    const { app } = this;
    const { environment } = app;
    const scene = element("scene");
    scene.style.maxWidth = environment.aspect === 1 ? "min(100%, 66vh)" : "100%";
    const part = app.playing ? Math.min(app.due / environment.period, 1) : 1;
    environment.draw(...this.sheet(scene, environment.aspect), this.colour, part);
    this.drawValues();
    this.drawHistory();
    element("steps").textContent = environment.steps.toLocaleString("en");
    const readout = environment.readout();
    const list = element("readout");
    if (list.children.length !== 2 * readout.length) {
      list.replaceChildren(...readout.flatMap(() => [document.createElement("dt"), document.createElement("dd")]));
    }
    readout.flat().forEach((text, i) => {
      if (list.children[i].textContent !== text) list.children[i].textContent = text;
    });
  }

  drawValues() {
    const { q, choice } = this.app;
    const least = Math.min(...q);
    const most = Math.max(...q);
    // The bars' range follows the observed values and shrinks slowly.
    this.low = Math.min(least, Number.isFinite(this.low) ? this.low + 0.01 * (least - this.low) : least);
    this.high = Math.max(most, Number.isFinite(this.high) ? this.high + 0.01 * (most - this.high) : most);
    const span = Math.max(this.high - this.low, 1e-6);
    this.rows.forEach(({ line, value, bar }, i) => {
      value.textContent = number(q[i], 3);
      bar.style.width = `${4 + (96 * (q[i] - this.low)) / span}%`;
      if (i === choice) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    });
  }

  drawHistory() {
    const [pen, width, height] = this.sheet(element("history"));
    const { history } = this.app;
    if (history.length < 2) return;
    const [low, high] = [Math.min(...history), Math.max(...history)];
    const span = Math.max(high - low, 1e-6);
    const X = (i) => 2 + ((width - 48) * (i + HISTORY - history.length)) / (HISTORY - 1);
    const Y = (value) => height - 8 - ((height - 16) * (value - low)) / span;
    pen.strokeStyle = this.colour.accent;
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    pen.beginPath();
    history.forEach((value, i) => (i ? pen.lineTo(X(i), Y(value)) : pen.moveTo(X(i), Y(value))));
    pen.stroke();
    pen.fillStyle = this.colour.muted;
    pen.font = `11px ${this.colour.font}`;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of [high, low]) {
      const text = number(value, Math.abs(value) >= 100 ? 0 : 1);
      pen.fillText(text, width - 1, Y(value));
    }
  }
}
