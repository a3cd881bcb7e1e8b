// The crash hunt: apps on every transport, each in a process of its own, with hooks of every style, against handlers and
// clients of every kind. Each process must live, answer the next client, end every request once, and end by itself.

import { blame } from './blame.ts'
import { KNOWN } from './known.ts'
import { BLAME_LIMIT } from './limits.ts'
import { isComparison } from './kinds.ts'
import { Problems, kindOf } from './problems.ts'
import { CASES_PER_CHILD, type Profile, profileOf } from './profile.ts'
import { type Problem, runChild } from './run.ts'

/** Processes at once, beside this one with the clients. */
const CHILDREN = 2
/** A difference between an app with the plugin and one without must come again so often. */
const REPETITIONS = 2

export interface CrashHuntOptions {
  seed: number
  seconds: number
  /** Only these cases, until one of them shows a problem or the time is over. */
  onlyCases?: number[]
  /** Only apps on this transport. */
  transport?: string
}

/** @returns how many problems were found */
export async function huntCrashes ({ seed, seconds, onlyCases, transport }: CrashHuntOptions): Promise<number> {
  const problems = new Problems(seed)
  const transports = new Map<string, number>()
  const acts = new Map<string, number>()
  const excluded = new Map<string, number>()
  const start = Date.now()
  const end = start + seconds * 1000
  let cases = 0
  let children = 0
  let blaming = BLAME_LIMIT

  if (onlyCases !== undefined) {
    const profile = profileOf(seed, Math.floor(onlyCases[0] / CASES_PER_CHILD))
    do await run(profile, onlyCases)
    while (Date.now() < end && problems.count === 0)
  } else {
    let next = 0
    await Promise.all(Array.from({ length: CHILDREN }, async () => {
      while (Date.now() < end) {
        const number = next++
        const profile = profileOf(seed, number)
        if (transport !== undefined && transport !== profile.transport) continue
        await run(profile, Array.from({ length: CASES_PER_CHILD }, (_, i) => number * CASES_PER_CHILD + i))
      }
    }))
  }
  const took = Math.round((Date.now() - start) / 1000)
  console.log(`crash hunt: ${cases} cases in ${children} processes in ${took} s, seed ${seed}, Node ${process.version}`)
  print('by transport', transports)
  print('by act', acts)
  print('known', excluded)
  problems.print()
  return problems.count

  /** Runs cases in a child; what a crash has left over, in another. */
  async function run (profile: Profile, numbers: number[]): Promise<void> {
    while (numbers.length > 0) {
      const { problems: found, done, left } = await runChild(seed, profile, numbers)
      children++
      cases += done.length
      for (const one of done) {
        count(transports, profile.transport)
        count(acts, `${'client' in one ? one.client : 'ordinary'}: ${one.act}`)
      }
      for (const problem of found) await judge(profile, problem)
      numbers = left
    }
  }

  async function judge (profile: Profile, problem: Problem): Promise<void> {
    const known = KNOWN.find(({ is }) => is(problem.what, profile, problem.case))
    if (known !== undefined) {
      count(excluded, known.reason)
      return
    }
    if (isComparison(profile.transport) && problem.case !== null && !await comesAgain(profile, problem)) {
      count(excluded, 'a difference between two servers that did not come again: which of two events is first is a race')
      return
    }
    if (!problems.add(problem)) return
    const began = Date.now()
    if (problem.cases.length > 1 && blaming > 0) problem.cases = await blame(seed, profile, problem, began + blaming)
    blaming -= Date.now() - began
    problems.show(problem)
  }

  async function comesAgain (profile: Profile, { what, cases }: Problem): Promise<boolean> {
    for (let repetition = 0; repetition < REPETITIONS; repetition++) {
      const { problems: found } = await runChild(seed, { ...profile, closesBusy: false }, cases)
      if (!found.some((other) => kindOf(other.what) === kindOf(what))) return false
    }
    return true
  }
}

function count (counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

function print (title: string, counts: Map<string, number>): void {
  console.log(title)
  for (const [key, count] of [...counts].sort()) console.log(`${String(count).padStart(7)}  ${key}`)
}
