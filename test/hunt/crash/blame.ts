// Finds the case that causes a problem by bisection: runs halves of the cases again, and goes on with a half that shows it.

import { kindOf } from './problems.ts'
import type { Profile } from './profile.ts'
import { type Problem, runChild } from './run.ts'

/** How often each half is tried, because some problems do not occur every time. */
const TRIES = 2

/** @returns as few cases as could be found before the deadline */
export async function bisect (seed: number, profile: Profile, problem: Problem, deadline: number): Promise<number[]> {
  const kind = kindOf(problem.what)
  let { cases } = problem
  while (cases.length > 1 && Date.now() < deadline) {
    const middle = Math.ceil(cases.length / 2)
    const half = await findHalf([cases.slice(0, middle), cases.slice(middle)])
    if (half === null) break
    cases = half
  }
  return cases

  async function findHalf (halves: number[][]): Promise<number[] | null> {
    for (let tried = 0; tried < TRIES && Date.now() < deadline; tried++) {
      for (const half of halves) {
        const { problems } = await runChild(seed, { ...profile, closesBusy: false }, half)
        if (problems.some(({ what }) => kindOf(what) === kind)) return half
      }
    }
    return null
  }
}
