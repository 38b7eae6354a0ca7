// Draws TurtleBot3's arena from above, and converts clicks to positions in it.

const arenaScale = (robot, width) => width / (robot.options.arena * 1.06);

/** Return the arena position at a canvas position. */
function placeAt(robot, x, y, width, height) {
  const scale = arenaScale(robot, width);
  return [(x - width / 2) / scale, (height / 2 - y) / scale];
}

function drawArena(robot, pen, width, height, colour, part) {
  const scale = arenaScale(robot, width);
  const { state, before, options } = robot;
  const X = (x) => width / 2 + x * scale;
  const Y = (y) => height / 2 - y * scale;
  const between = (from, to) => from.map((one, axis) => one + part * (to[axis] - one));
  const place = between(before.place, state.place);
  const facing = before.facing + part * wrapAngle(state.facing - before.facing);
  const side = options.arena / 2;
  const disc = (at, radius, fill) => {
    pen.fillStyle = fill;
    pen.beginPath();
    pen.arc(X(at[0]), Y(at[1]), radius * scale, 0, 2 * Math.PI);
    pen.fill();
  };
  pen.fillStyle = colour.floor;
  pen.fillRect(X(-side), Y(side), 2 * side * scale, 2 * side * scale);
  drawGrid(pen, X, Y, side, colour);
  const cylinders = state.cylinders.map((at, i) => between(before.cylinders[i] ?? at, at));
  const shown = { ...state, place, facing, cylinders };
  drawBeams(robot, pen, X, Y, shown, colour);
  drawTrail(robot, pen, X, Y, place, colour);
  drawGoal(robot, pen, X, Y, scale, colour);
  cylinders.forEach((at, i) => {
    disc(at, options.obstacle_radius, colour.alert);
    const [vx, vy] = state.velocities[i];
    const speed = Math.hypot(vx, vy) || 1;
    const to = [at[0] + (vx / speed) * 0.09, at[1] + (vy / speed) * 0.09];
    const from = [at[0] - (vx / speed) * 0.07, at[1] - (vy / speed) * 0.07];
    if (options.obstacle_speed > 0) {
      arrow(pen, X(from[0]), Y(from[1]), X(to[0]), Y(to[1]), colour.paper, scale / 75);
    }
  });
  disc(place, robot.radius, colour.body);
  const ahead = (angle, far) => [X(place[0] + Math.cos(angle) * far), Y(place[1] + Math.sin(angle) * far)];
  pen.fillStyle = colour.paper;
  pen.beginPath();
  pen.moveTo(...ahead(facing, robot.radius * 0.78));
  pen.lineTo(...ahead(facing + 2.5, robot.radius * 0.6));
  pen.lineTo(...ahead(facing - 2.5, robot.radius * 0.6));
  pen.fill();
  pen.strokeStyle = colour.ink;
  pen.lineWidth = 2.5;
  pen.strokeRect(X(-side), Y(side), 2 * side * scale, 2 * side * scale);
}

function drawGrid(pen, X, Y, side, colour) {
  pen.strokeStyle = colour.line;
  pen.lineWidth = 1;
  pen.beginPath();
  for (let at = Math.ceil(-side); at <= side; at++) {
    pen.moveTo(X(at), Y(-side));
    pen.lineTo(X(at), Y(side));
    pen.moveTo(X(-side), Y(at));
    pen.lineTo(X(side), Y(at));
  }
  pen.stroke();
}

function drawBeams(robot, pen, X, Y, shown, colour) {
  pen.strokeStyle = colour.beam;
  pen.fillStyle = colour.accent;
  pen.lineWidth = 1;
  robot.lidar(shown).forEach((far, beam) => {
    const angle = shown.facing + (beam * 2 * Math.PI) / robot.beams;
    const reach = Math.min(far, robot.farthest);
    const end = [shown.place[0] + Math.cos(angle) * reach, shown.place[1] + Math.sin(angle) * reach];
    pen.beginPath();
    pen.moveTo(X(shown.place[0]), Y(shown.place[1]));
    pen.lineTo(X(end[0]), Y(end[1]));
    pen.stroke();
    if (far <= robot.farthest) {
      pen.beginPath();
      pen.arc(X(end[0]), Y(end[1]), 2.2, 0, 2 * Math.PI);
      pen.fill();
    }
  });
}

function drawTrail(robot, pen, X, Y, place, colour) {
  pen.strokeStyle = colour.body;
  pen.lineWidth = 2;
  pen.lineCap = "butt";
  // The last step is drawn only as far as it has been driven.
  const points = [...robot.trail.slice(0, -1), place];
  for (let i = 1; i < points.length; i++) {
    pen.globalAlpha = (0.5 * i) / points.length;
    pen.beginPath();
    pen.moveTo(X(points[i - 1][0]), Y(points[i - 1][1]));
    pen.lineTo(X(points[i][0]), Y(points[i][1]));
    pen.stroke();
  }
  pen.globalAlpha = 1;
}

function drawGoal(robot, pen, X, Y, scale, colour) {
  const [x, y] = robot.state.goal;
  pen.fillStyle = colour.goalArea;
  pen.strokeStyle = colour.goal;
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(X(x), Y(y), robot.near * scale, 0, 2 * Math.PI);
  pen.fill();
  pen.stroke();
  const arm = 0.07 * scale;
  pen.beginPath();
  pen.moveTo(X(x) - arm, Y(y));
  pen.lineTo(X(x) + arm, Y(y));
  pen.moveTo(X(x), Y(y) - arm);
  pen.lineTo(X(x), Y(y) + arm);
  pen.stroke();
}

TurtleBot3.prototype.draw = function (pen, width, height, colour, part) {
  drawArena(this, pen, width, height, colour, part);
};
