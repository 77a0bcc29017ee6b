// SHA-256 (FIPS 180-4) in blocks: crypto.subtle wants the whole file at once, and a secure connection.
const firstPrimes = (num) => {
  const primes = [];
  for (let n = 2; primes.length < num; n += 1) if (primes.every((prime) => n % prime)) primes.push(n);
  return primes;
};
const fraction = (value) => Math.floor((value - Math.floor(value)) * 2 ** 32) | 0;
const PRIMES = firstPrimes(64);
const K = new Int32Array(PRIMES.map((prime) => fraction(Math.cbrt(prime))));
const START = PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
const BLOCK = 64;

export class Sha256 {
  constructor() {
    this.state = new Int32Array(START);
    this.schedule = new Int32Array(64);
    this.rest = new Uint8Array(BLOCK);
    this.numRest = 0;
    this.numBytes = 0;
  }

  update(bytes) {
    this.numBytes += bytes.length;
    let at = 0;
    while (at < bytes.length) {
      if (this.numRest === 0 && bytes.length - at >= BLOCK) {
        this.#block(bytes, at);
        at += BLOCK;
      } else {
        const taken = Math.min(BLOCK - this.numRest, bytes.length - at);
        this.rest.set(bytes.subarray(at, at + taken), this.numRest);
        this.numRest += taken;
        at += taken;
        if (this.numRest === BLOCK) {
          this.#block(this.rest, 0);
          this.numRest = 0;
        }
      }
    }
    return this;
  }

  /** The digest's 32 bytes; nothing can be added afterwards. */
  digest() {
    const numBits = this.numBytes * 8;
    const padding = new Uint8Array(((this.numRest < 56 ? 56 : 120) - this.numRest) + 8);
    padding[0] = 0x80;
    const view = new DataView(padding.buffer);
    view.setUint32(padding.length - 8, Math.floor(numBits / 2 ** 32));
    view.setUint32(padding.length - 4, numBits >>> 0);
    this.update(padding);
    const result = new DataView(new ArrayBuffer(32));
    this.state.forEach((word, at) => result.setInt32(4 * at, word));
    return new Uint8Array(result.buffer);
  }

  #block(bytes, start) {
    const w = this.schedule;
    for (let t = 0; t < 16; t += 1) {
      const at = start + 4 * t;
      w[t] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let t = 16; t < 64; t += 1) {
      const x = w[t - 15];
      const y = w[t - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[t] = (w[t - 16] + s0 + w[t - 7] + s1) | 0;
    }
    const { state } = this;
    let a = state[0]; let b = state[1]; let c = state[2]; let d = state[3]; // as the standard calls them
    let e = state[4]; let f = state[5]; let g = state[6]; let h = state[7];
    for (let t = 0; t < 64; t += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + K[t] + w[t]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    state[0] += a; state[1] += b; state[2] += c; state[3] += d;
    state[4] += e; state[5] += f; state[6] += g; state[7] += h;
  }
}

export const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
export const base64 = (bytes) => btoa(String.fromCharCode(...bytes));
