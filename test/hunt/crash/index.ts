// The crash hunt. Apps on every transport, with hooks and handlers of every style, run in child processes and meet clients of
// every kind. A process must not crash. It must answer the next client, end every request exactly once, and exit by itself.

import { bisect } from './blame.ts'
import { KNOWN } from './known.ts'
import { BISECT_LIMIT } from './limits.ts'
import { isComparison } from './kinds.ts'
import { Problems, kindOf } from './problems.ts'
import { CASES_PER_CHILD, type Profile, profileOf } from './profile.ts'
import { type Problem, runChild } from './run.ts'

/** How many child processes run at the same time. The clients are in this process. */
const CHILDREN = 2
/** How often a difference between an app with the plugin and one without must occur again. */
const REPETITIONS = 2

export interface CrashHuntOptions {
  seed: number
  seconds: number
  /** Run only these cases, until one of them shows a problem or the time is up. */
  onlyCases?: number[]
  /** Run only apps on this transport. */
  transport?: string
}

/** @returns the number of problems */
export async function huntCrashes ({ seed, seconds, onlyCases, transport }: CrashHuntOptions): Promise<number> {
  const problems = new Problems(seed)
  const transports = new Map<string, number>()
  const acts = new Map<string, number>()
  const excluded = new Map<string, number>()
  const start = Date.now()
  const end = start + seconds * 1000
  let cases = 0
  let children = 0
  let bisectTime = BISECT_LIMIT

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

  /** Runs cases in a child, and those that are left after a crash in another. */
  async function run (profile: Profile, numbers: number[]): Promise<void> {
    while (numbers.length > 0) {
      const { problems: found, done, left } = await runChild(seed, profile, numbers)
      children++
      cases += done.length
      for (const testCase of done) {
        count(transports, profile.transport)
        count(acts, `${'client' in testCase ? testCase.client : 'ordinary'}: ${testCase.act}`)
      }
      for (const problem of found) await judge(profile, problem)
      numbers = left
    }
  }

  async function judge (profile: Profile, problem: Problem): Promise<void> {
    const known = KNOWN.find(({ matches }) => matches(problem.what, profile, problem.case))
    if (known !== undefined) {
      count(excluded, known.reason)
      return
    }
    if (isComparison(profile.transport) && problem.case !== null && !await isRepeatable(profile, problem)) {
      count(excluded, 'a difference between two servers that did not occur again: a race between two events')
      return
    }
    if (!problems.add(problem)) return
    const began = Date.now()
    if (problem.cases.length > 1 && bisectTime > 0) problem.cases = await bisect(seed, profile, problem, began + bisectTime)
    bisectTime -= Date.now() - began
    problems.show(problem)
  }

  async function isRepeatable (profile: Profile, { what, cases }: Problem): Promise<boolean> {
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
