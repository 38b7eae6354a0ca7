// TurtleBot3-v0: the same steps as qhat's environment. Its constants are in the page's data.

const wrapAngle = (angle) => {
  const turn = 2 * Math.PI;
  return ((((angle + Math.PI) % turn) + turn) % turn) - Math.PI;
};

class TurtleBot3 {
  constructor(about, random, constants) {
    Object.assign(this, constants);
    this.random = random;
    this.period = constants.seconds;
    this.speed = 3;
    this.choices = this.turns.map((rate) =>
      rate === 0 ? "straight on" : `${rate > 0 ? "left" : "right"} ${Math.abs(rate)} rad/s`,
    );
    this.task = "Drive to the goal, past walls and moving obstacles. Click or tap the arena to set the goal.";
    this.aspect = 1;
    this.reached = 0;
    this.reset();
  }

  reset() {
    const { options, radius } = this;
    const inside = options.arena / 2 - 2 * radius;
    const room = options.arena / 2 - options.obstacle_radius;
    const clear = this.clear + radius + options.obstacle_radius;
    const place = [this.uniform(-inside, inside), this.uniform(-inside, inside)];
    const cylinders = Array.from({ length: options.obstacles }, () => this.away(place, room, clear, []));
    const ways = cylinders.map(() => this.uniform(0, 2 * Math.PI));
    this.state = {
      place,
      facing: this.uniform(-Math.PI, Math.PI),
      goal: this.away(place, inside, this.clear, cylinders),
      cylinders,
      velocities: ways.map((way) => [Math.cos(way), Math.sin(way)].map((part) => part * options.obstacle_speed)),
      commands: Array(options.actuation_delay).fill(Math.floor(this.turns.length / 2)),
      grip: 1 - options.friction * this.random(),
    };
    this.before = this.state;
    this.trail = [place];
    this.steps = 0;
    this.reached = 0;
  }

  /** Drive for one step without moving the goal; `step` draws the next goal. */
  advance(state, action) {
    const f = Math.fround;
    const queue = [...state.commands, action];
    const turn = state.grip * this.turns[queue[0]] * this.seconds;
    const way = state.grip * this.ahead * this.seconds;
    // The chord of an arc has the heading of its midpoint and is slightly shorter than the arc.
    const half = turn / 2;
    const chord = way * (half === 0 ? 1 : Math.sin(half) / half);
    const place = [
      f(state.place[0] + chord * Math.cos(state.facing + half)),
      f(state.place[1] + chord * Math.sin(state.facing + half)),
    ];
    const room = this.options.arena / 2 - this.options.obstacle_radius;
    const moved = state.cylinders.map((at, i) =>
      at.map((one, axis) => f(one + state.velocities[i][axis] * this.seconds)),
    );
    return {
      ...state,
      place,
      facing: f(wrapAngle(state.facing + turn)),
      cylinders: moved.map((at) => at.map((one) => Math.min(Math.max(one, -room), room))),
      velocities: state.velocities.map((own, i) =>
        own.map((one, axis) => (Math.abs(moved[i][axis]) > room ? -one : one)),
      ),
      commands: queue.slice(1),
    };
  }

  /** Return why the episode is over, or null. */
  step(action) {
    this.before = this.state;
    this.state = this.advance(this.state, action);
    this.action = action;
    this.steps += 1;
    this.trail.push(this.state.place);
    if (this.trail.length > 240) this.trail.shift();
    if (this.touches(this.state)) return `It touched something after ${this.steps} steps.`;
    if (this.distance() < this.near) {
      this.reached += 1;
      const inside = this.options.arena / 2 - 2 * this.radius;
      const goal = this.away(this.state.place, inside, this.clear, this.state.cylinders);
      this.state = { ...this.state, goal };
    }
    return "";
  }

  observe() {
    const { state } = this;
    const beams = this.lidar(state).map((one) => {
      const noisy = this.options.lidar_noise ? one + this.options.lidar_noise * this.normal() : one;
      return Math.min(Math.max(noisy, this.nearest), this.farthest);
    });
    const [dx, dy] = [state.goal[0] - state.place[0], state.goal[1] - state.place[1]];
    return Float32Array.from([...beams, wrapAngle(Math.atan2(dy, dx) - state.facing), Math.hypot(dx, dy)]);
  }

  /** Return the distance from the robot's centre to the first hit of each beam. */
  lidar(state) {
    const half = this.options.arena / 2;
    const deep = this.options.obstacle_radius ** 2;
    return Array.from({ length: this.beams }, (_, beam) => {
      const angle = state.facing + (beam * 2 * Math.PI) / this.beams;
      const ray = [Math.cos(angle), Math.sin(angle)];
      // A beam parallel to a wall never hits it.
      let least = Infinity;
      for (const axis of [0, 1]) {
        const safe = Math.abs(ray[axis]) < 1e-6 ? 1e-6 : ray[axis];
        least = Math.min(least, (Math.sign(safe) * half - state.place[axis]) / safe);
      }
      for (const at of state.cylinders) {
        const [dx, dy] = [at[0] - state.place[0], at[1] - state.place[1]];
        const along = ray[0] * dx + ray[1] * dy;
        const depth = deep - (dx * dx + dy * dy - along * along);
        if (depth >= 0 && along > 0) least = Math.min(least, along - Math.sqrt(depth));
      }
      return least;
    });
  }

  touches(state) {
    const { place, cylinders } = state;
    if (Math.max(...place.map(Math.abs)) > this.options.arena / 2 - this.radius) return true;
    const least = this.radius + this.options.obstacle_radius;
    return cylinders.some((at) => Math.hypot(at[0] - place[0], at[1] - place[1]) < least);
  }

  distance() {
    const { goal, place } = this.state;
    return Math.hypot(goal[0] - place[0], goal[1] - place[1]);
  }

  /** Return a position within ±room at least `distance` from `place`, else the farthest of 64 draws. */
  away(place, room, least, cylinders) {
    const tries = Array.from({ length: this.tries }, () => [this.uniform(-room, room), this.uniform(-room, room)]);
    const far = (at) => Math.hypot(at[0] - place[0], at[1] - place[1]);
    const free = (at) =>
      cylinders.every((own) => Math.hypot(at[0] - own[0], at[1] - own[1]) > this.radius + this.options.obstacle_radius);
    return tries.find((at) => far(at) >= least && free(at)) ?? tries.reduce((a, b) => (far(b) > far(a) ? b : a));
  }

  /** Move the goal to a position, limited to the arena. */
  setGoal(x, y) {
    const inside = this.options.arena / 2 - 2 * this.radius;
    const goal = [x, y].map((one) => Math.min(Math.max(one, -inside), inside));
    this.state = { ...this.state, goal };
  }

  uniform(low, high) {
    return Math.fround(low + (high - low) * this.random());
  }

  normal() {
    return Math.sqrt(-2 * Math.log(1 - this.random())) * Math.cos(2 * Math.PI * this.random());
  }

  readout() {
    const { state } = this;
    const heading = Math.atan2(state.goal[1] - state.place[1], state.goal[0] - state.place[0]) - state.facing;
    const degrees = Math.round((wrapAngle(heading) * 180) / Math.PI);
    return [
      ["goals reached", String(this.reached)],
      ["to the goal", `${this.distance().toFixed(2)} m`],
      ["its direction", degrees === 0 ? "ahead" : `${Math.abs(degrees)}° ${degrees > 0 ? "left" : "right"}`],
      ["nearest beam", `${Math.min(...this.lidar(state)).toFixed(2)} m`],
    ];
  }

  describe() {
    return `A robot in an arena, ${this.distance().toFixed(1)} metres from its goal; ${this.reached} goals reached.`;
  }
}
