// Counts problems by kind. The first of each kind is printed, with the command that runs it again.

import { inspect } from 'node:util'
import type { Problem } from './run.ts'

export class Problems {
  readonly counts = new Map<string, number>()
  private readonly seed: number

  constructor (seed: number) {
    this.seed = seed
  }

  get count (): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  /** Counts a problem. @returns whether it is the first of its kind */
  add ({ what }: Problem): boolean {
    const kind = kindOf(what)
    const count = (this.counts.get(kind) ?? 0) + 1
    this.counts.set(kind, count)
    return count === 1
  }

  show ({ what, cases, case: testCase, profile }: Problem): void {
    console.log(`\nPROBLEM ${what}`)
    console.log(inspect({ profile, case: testCase }, { depth: 4, breakLength: 160, compact: 10 }))
    console.log(`run again: npm run hunt -- --only crash --seed ${this.seed} --only-case ${rangesOf(cases)}\n`)
  }

  print (): void {
    for (const [kind, count] of [...this.counts].sort()) console.log(`${String(count).padStart(7)}  PROBLEM ${kind}`)
    console.log(`${this.count} problems`)
  }
}

/** The first line and, of a stack, the first frame in the plugin, both without numbers. */
export function kindOf (what: string): string {
  const [first, ...frames] = what.split('\n')
  const frame = frames.find((frame) => /^ +at .*\/build\/lib\//.test(frame)) ?? frames.find((frame) => /^ +at /.test(frame)) ?? frames.find((line) => /assert/i.test(line)) ?? ''
  // Without the route, because there are many.
  return `${first.replace(/: [A-Z]+ \S+( \([\w.]+\))?/, '')} ${frame.replace(/\(?\/\S*\/((?:lib|test|node_modules)\/)/, '$1').trim()}`.replace(/\d+/g, '…').trim()
}

/** For example `1-3,7`. */
export function rangesOf (numbers: number[]): string {
  const ranges: [number, number][] = []
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === number - 1) last[1] = number
    else ranges.push([number, number])
  }
  return ranges.map(([first, last]) => first === last ? first : `${first}-${last}`).join(',')
}

export function numbersOf (ranges: string): number[] {
  return ranges.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
}
