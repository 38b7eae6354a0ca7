// The policy: the operations of policy.json over the tensors of weights.safetensors, in float32.

/** Read safetensors: 8 bytes length, JSON header, data. All tensors are float32. */
function readTensors(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const tensors = {};
  for (const [name, told] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [from, to] = told.data_offsets;
    // Copy, because a Float32Array must start at a multiple of four.
    const data = bytes.slice(8 + length + from, 8 + length + to);
    tensors[name] = { shape: told.shape, data: new Float32Array(data.buffer) };
  }
  return tensors;
}

/** For each operation, a function from vector to vector. Sums are in float64. */
const OPERATIONS = {
  flatten: () => (x) => x,
  relu: () => (x) => x.map((one) => Math.max(one, 0)),
  normalise: (op, tensors) => {
    const mean = tensors[op.mean].data;
    const deviation = tensors[op.deviation].data;
    const cut = (value) => Math.min(Math.max(value, -op.limit), op.limit);
    return (x) => x.map((one, i) => cut(Math.fround(one - mean[i]) / deviation[i]));
  },
  dense: (op, tensors) => {
    const { shape, data: weight } = tensors[op.weight];
    const bias = tensors[op.bias].data;
    const [outputs, inputs] = shape;
    return (x) => {
      const y = new Float32Array(outputs);
      for (let i = 0; i < outputs; i++) {
        let sum = bias[i];
        for (let j = 0, at = i * inputs; j < inputs; j++) sum += weight[at + j] * x[j];
        y[i] = sum;
      }
      return y;
    };
  },
  layer_norm: (op, tensors) => {
    const scale = tensors[op.scale].data;
    const offset = tensors[op.offset].data;
    return (x) => {
      const y = new Float32Array(x.length);
      const size = x.length / op.groups;
      for (let begin = 0; begin < x.length; begin += size) {
        let mean = 0;
        for (let i = begin; i < begin + size; i++) mean += x[i] / size;
        let variance = 0;
        for (let i = begin; i < begin + size; i++) variance += (x[i] - mean) ** 2 / size;
        const spread = 1 / Math.sqrt(variance + op.epsilon);
        for (let i = begin; i < begin + size; i++) y[i] = (x[i] - mean) * spread * scale[i] + offset[i];
      }
      return y;
    };
  },
  unit: (op) => (x) => {
    const whole = "append" in op ? Float32Array.from([...x, op.append]) : x;
    const square = whole.reduce((sum, one) => sum + one * one, 0);
    const scale = op.length / Math.sqrt(square + op.epsilon);
    return whole.map((one) => one * scale);
  },
  support: (op) => (x) => {
    // A page has one factor: Q and logit of each choice, side by side.
    const logits = x.filter((_, i) => i % 2 === 1);
    const least = Math.fround(logits.reduce((a, b) => Math.max(a, b), -Infinity) - Math.fround(op.gap));
    return logits.map((logit, choice) => (logit > least ? x[2 * choice] : op.closed));
  },
  atoms: (op, tensors) => {
    const values = tensors[op.values].data;
    const K = values.length;
    return (x) => {
      const q = new Float32Array(x.length / K);
      for (let i = 0; i < q.length; i++) {
        const logits = x.subarray(i * K, (i + 1) * K);
        const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
        let total = 0;
        let sum = 0;
        logits.forEach((logit, k) => {
          const mass = Math.exp(logit - most);
          total += mass;
          sum += mass * values[k];
        });
        q[i] = sum / total;
      }
      return q;
    };
  },
};

const CELLS = ["gru", "min_gru"];

/** Return a memory as a function from its state and the features of an observation to its next state. */
function memoryOf(op, tensors) {
  const M = op.units;
  const given = OPERATIONS.dense(op, tensors);
  const open = (x) => 1 / (1 + Math.exp(-x));
  if (op.op === "min_gru") {
    return (state, x) => {
      const row = given(x);
      return state.map((one, i) => open(row[i]) * one + (1 - open(row[i])) * row[M + i]);
    };
  }
  const none = { shape: [3 * M], data: new Float32Array(3 * M) };
  const fed = OPERATIONS.dense({ weight: op.recurrent, bias: "none" }, { ...tensors, none });
  const more = tensors[op.recurrent_bias].data;
  return (state, x) => {
    const [row, back] = [given(x), fed(state)];
    return state.map((one, i) => {
      const stays = open(row[i] + back[i]);
      const resets = open(row[M + i] + back[M + i]);
      const fresh = Math.tanh(row[2 * M + i] + resets * (back[2 * M + i] + more[i]));
      return stays * one + (1 - stays) * fresh;
    });
  };
}

/** A greedy policy with one factor of choices. */
class Policy {
  constructor(about, bytes) {
    this.about = about;
    const tensors = readTensors(bytes);
    this.stack = about.network[0].op === "stack" ? about.network[0] : null;
    this.memory = about.network.find((op) => CELLS.includes(op.op)) || null;
    this.steps = about.network.slice(this.stack ? 1 : 0).map((op) => this.compile(op, tensors));
    this.reset();
  }

  /** Operations map rows to rows: one row per fraction for an implicit head, else one row. */
  compile(op, tensors) {
    if (op.op === "fractions") {
      const { shape, data } = tensors[op.table];
      const [K, I] = shape;
      const rows = Array.from({ length: K }, (_, k) => data.subarray(k * I, (k + 1) * I));
      return ([x]) => rows.map((row) => row.map((one, i) => one * x[i]));
    }
    if (op.op === "mean_fractions") {
      return (rows) => [rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length)];
    }
    if (op.op === "shortcut" || op.op === "blend") {
      const inner = op.network.map((step) => this.compile(step, tensors));
      const share = op.op === "blend" ? tensors[op.share].data : null;
      return (rows) => {
        const made = inner.reduce((now, step) => step(now), rows);
        const added = (one, k, i) => (share ? share[i] * (made[k][i] - one) : made[k][i]);
        return rows.map((row, k) => row.map((one, i) => one + added(one, k, i)));
      };
    }
    if (CELLS.includes(op.op)) {
      const cell = memoryOf(op, tensors);
      return ([x]) => [(this.after = cell(this.state, x))];
    }
    const run = OPERATIONS[op.op](op, tensors);
    return (rows) => rows.map(run);
  }

  /** Start an episode: the next observation fills the frame stack, and a memory is empty. */
  reset() {
    this.frames = null;
    if (this.memory) this.state = new Float32Array(this.memory.units);
  }

  /** Return Q of every choice, without changing the frame stack or the memory. */
  qValues(observation) {
    return this.steps.reduce((rows, step) => step(rows), [this.shown(observation)])[0];
  }

  /** Return Q, the first best choice, and its environment action. */
  act(observation) {
    const q = this.qValues(observation);
    if (this.stack) this.frames = this.shown(observation);
    if (this.memory) this.state = this.after;
    const choice = q.indexOf(q.reduce((a, b) => Math.max(a, b), -Infinity));
    return { q, choice, action: this.about.actions.start[0] + choice };
  }

  shown(observation) {
    const x = Float32Array.from(observation);
    if (!this.stack) return x;
    const whole = new Float32Array(x.length * this.stack.count);
    if (this.frames) whole.set(this.frames.subarray(x.length));
    else if (this.stack.fill === "repeat") for (let at = 0; at < whole.length; at += x.length) whole.set(x, at);
    whole.set(x, whole.length - x.length);
    return whole;
  }
}
