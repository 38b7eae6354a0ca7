// CartPole-v1 after Gymnasium's equations (Barto, Sutton and Anderson 1983; Florian 2007), with one more
// force, a push at the pole's tip. Without a push, steps equal Gymnasium's.

const CARTPOLE = { gravity: 9.8, cart: 1.0, pole: 0.1, half: 0.5, force: 10.0, seconds: 0.02 };
const CARTPOLE_LIMITS = { x: 2.4, theta: (12 * 2 * Math.PI) / 360 };

/** Take one Euler step. `push`: newtons at the tip, positive to the right. */
function advanceCartPole(state, action, push) {
  const { gravity, cart, pole, half, force, seconds } = CARTPOLE;
  const { x, speed, theta, omega } = state;
  const [cos, sin] = [Math.cos(theta), Math.sin(theta)];
  const total = cart + pole;
  const pushed = (action === 1 ? force : -force) + push;
  const common = (pushed + pole * half * omega * omega * sin) / total;
  // The push also turns the pole, with a lever of its whole length, 2·half.
  const turning = gravity * sin - cos * common + (2 * push * cos) / pole;
  const alpha = turning / (half * (4 / 3 - (pole * cos * cos) / total));
  const acceleration = common - (pole * half * alpha * cos) / total;
  return {
    x: x + seconds * speed,
    speed: speed + seconds * acceleration,
    theta: theta + seconds * omega,
    omega: omega + seconds * alpha,
  };
}

class CartPole {
  constructor(about, random) {
    this.random = random;
    this.period = CARTPOLE.seconds;
    this.speed = 1;
    this.choices = ["push left", "push right"];
    this.task = "Keep the pole upright. Push it, and see how the policy answers.";
    this.aspect = 2.35;
    this.push = 0;
    this.reset();
  }

  reset() {
    const draw = () => (this.random() - 0.5) * 0.1;
    this.state = { x: draw(), speed: draw(), theta: draw(), omega: draw() };
    this.before = this.state;
    this.steps = 0;
  }

  observe() {
    const { x, speed, theta, omega } = this.state;
    return Float32Array.of(x, speed, theta, omega);
  }

  /** Return why the episode is over, or null. */
  step(action) {
    this.before = this.state;
    this.state = advanceCartPole(this.state, action, this.push);
    this.action = action;
    this.steps += 1;
    const { x, theta } = this.state;
    if (Math.abs(theta) > CARTPOLE_LIMITS.theta) return `The pole fell after ${this.steps} steps.`;
    if (Math.abs(x) > CARTPOLE_LIMITS.x) return `The cart left its track after ${this.steps} steps.`;
    return "";
  }

  readout() {
    const { x, speed, theta, omega } = this.state;
    return [
      ["cart", `${number(x, 2)} m`],
      ["its speed", `${number(speed, 2)} m/s`],
      ["pole", `${number((theta * 180) / Math.PI, 1)}°`],
      ["its turning", `${number(omega, 2)} rad/s`],
      ["push", `${number(this.push, 2)} N`],
    ];
  }

  describe() {
    const { x, theta } = this.state;
    return `A cart at ${x.toFixed(1)} metres, its pole at ${((theta * 180) / Math.PI).toFixed(0)} degrees.`;
  }

  /** Draw on a canvas of `width` × `height`; `part`: fraction of the step done, 0 to 1. */
  draw(pen, width, height, colour, part) {
    const between = (name) => this.before[name] + part * (this.state[name] - this.before[name]);
    const scale = width / 5.6;
    const ground = height - 0.55 * scale;
    const [x, theta] = [width / 2 + between("x") * scale, between("theta")];
    this.drawTrack(pen, width, scale, ground, colour);
    const [wide, tall] = [0.5 * scale, 0.24 * scale];
    const pivot = ground - tall - 0.07 * scale;
    const long = 2 * CARTPOLE.half * scale;
    const tip = [x + Math.sin(theta) * long, pivot - Math.cos(theta) * long];
    pen.fillStyle = colour.body;
    pen.beginPath();
    pen.roundRect(x - wide / 2, pivot, wide, tall, 0.06 * scale);
    pen.fill();
    pen.fillStyle = colour.ink;
    for (const side of [-1, 1]) {
      pen.beginPath();
      pen.arc(x + side * wide * 0.3, ground - 0.06 * scale, 0.075 * scale, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.strokeStyle = colour.accent;
    pen.lineWidth = 0.085 * scale;
    pen.lineCap = "round";
    pen.beginPath();
    pen.moveTo(x, pivot + 0.06 * scale);
    pen.lineTo(...tip);
    pen.stroke();
    pen.fillStyle = colour.paper;
    pen.beginPath();
    pen.arc(x, pivot + 0.06 * scale, 0.035 * scale, 0, 2 * Math.PI);
    pen.fill();
    if (this.action !== undefined) {
      const way = this.action === 1 ? 1 : -1;
      const from = x + way * (wide / 2 + 0.06 * scale);
      arrow(pen, from, pivot + tall / 2, from + way * 0.34 * scale, pivot + tall / 2, colour.body, scale / 60);
    }
    if (Math.abs(this.push) > 0.005) {
      const way = Math.sign(this.push);
      const length = (0.16 + 1.4 * Math.abs(this.push)) * scale;
      const at = tip[0] - way * 0.1 * scale;
      arrow(pen, at - way * length, tip[1], at, tip[1], colour.alert, scale / 45);
    }
  }

  drawTrack(pen, width, scale, ground, colour) {
    pen.strokeStyle = colour.line;
    pen.fillStyle = colour.muted;
    pen.lineWidth = 1.5;
    pen.font = `${Math.max(11, scale * 0.12)}px ${colour.font}`;
    pen.textAlign = "center";
    pen.beginPath();
    pen.moveTo(0, ground);
    pen.lineTo(width, ground);
    for (let metre = -2; metre <= 2; metre++) {
      const at = width / 2 + metre * scale;
      pen.moveTo(at, ground);
      pen.lineTo(at, ground + 0.07 * scale);
      pen.fillText(metre === 0 ? "0 m" : String(metre).replace("-", "−"), at, ground + 0.24 * scale);
    }
    pen.stroke();
    pen.setLineDash([4, 4]);
    pen.beginPath();
    for (const side of [-1, 1]) {
      const at = width / 2 + side * CARTPOLE_LIMITS.x * scale;
      pen.moveTo(at, ground);
      pen.lineTo(at, ground - 1.6 * scale);
    }
    pen.stroke();
    pen.setLineDash([]);
  }
}

/** A straight arrow. */
function arrow(pen, x, y, toX, toY, colour, thick) {
  const [dx, dy] = [toX - x, toY - y];
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const head = Math.min(4.5 * thick, length * 0.6);
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = thick * 1.6;
  pen.lineCap = "round";
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(toX - ux * head, toY - uy * head);
  pen.stroke();
  pen.beginPath();
  pen.moveTo(toX, toY);
  pen.lineTo(toX - ux * head - uy * head * 0.62, toY - uy * head + ux * head * 0.62);
  pen.lineTo(toX - ux * head + uy * head * 0.62, toY - uy * head - ux * head * 0.62);
  pen.fill();
}
