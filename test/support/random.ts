// Random numbers that are the same for the same seed.

/** Numbers from 0 to 1 (mulberry32). */
export function randomFrom (seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The seed of one part of a run, for example of one case. */
export function seedOf (seed: number, number: number): number {
  return Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)
}

export class Random {
  readonly next: () => number

  constructor (seed: number, number = 0) {
    this.next = randomFrom(seedOf(seed, number))
  }

  below (n: number): number {
    return Math.floor(this.next() * n)
  }

  chance (probability: number): boolean {
    return this.next() < probability
  }

  pick<T> (list: readonly T[]): T {
    return list[this.below(list.length)]
  }
}
